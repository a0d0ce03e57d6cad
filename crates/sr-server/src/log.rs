//! The log. What is appended brings its entry along, in the same transaction; once a second a
//! checkpoint says how many entries there are by then, and only what it covers is read.

use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sr_crypto::{Hash, Secret32, SigningKey, derive};
use sr_store::{MetaStore, StoreError};
use sr_tlog::{
    Checkpoint, KeyKind, LogError, LogKeys, Note, NoteKey, Opened, Policy, Tile, Tree, bundle,
    leaf_hash,
};
use sr_trust::{Block, block_hash};
use sr_wire::{
    AccountId, CARDS_MAX, Card, SignedCard,
    api::{self, ErrorCode},
    card_hash, labels,
    log::{Entry, Key, Newest, block_commit},
};
use thiserror::Error;

use crate::{
    Server,
    routes::Refusal,
    witness::{self, Cosigned, Witness},
};

/// Entries that are read from the store at once.
const READ_AT_ONCE: usize = 1024;

/// Who a server is: the key of its card and those of its log, all from one seed.
pub struct Identity {
    pub(crate) signing: SigningKey,
    pub(crate) cards: Vec<SignedCard>,
    log_keys: [NoteKey; 2],
}

impl Identity {
    /// Makes the identity of a seed: its keys, and its cards, of which the second brings the log keys.
    ///
    /// **Panics** never: an origin is a name that a key may have.
    #[must_use]
    #[expect(clippy::expect_used, reason = "an origin is hexadecimal digits and a word")]
    pub fn from_seed(seed: &Secret32) -> Self {
        let signing = SigningKey::from_seed(seed);
        let first = Card::first(signing.public_key());
        let origin = String::from_utf8_lossy(first.origin.as_slice()).into_owned();
        let key = |kind, label| {
            NoteKey::new(&origin, kind, &derive(seed, b"", label, b"")).expect("a name")
        };
        let log_keys = [
            key(KeyKind::Ed25519, labels::LOG_ED25519),
            key(KeyKind::CosignMlDsa44, labels::LOG_ML_DSA_44),
        ];
        let lines: String = log_keys.iter().map(|key| format!("{}\n", key.verifier())).collect();
        let second = first.with_log(&lines);
        let cards = [first, second].map(|card| SignedCard::sign(card, &signing)).to_vec();
        Self { signing, cards, log_keys }
    }

    /// Returns the newest card.
    ///
    /// **Panics** never: there is one.
    #[must_use]
    #[expect(clippy::expect_used, reason = "from_seed makes two")]
    pub fn card(&self) -> &Card {
        &self.cards.last().expect("a card").card
    }

    /// Returns size and root of a checkpoint that the log of this identity has signed; `None` when it has not.
    pub(crate) fn signed(&self, note: &[u8]) -> Option<(u64, Hash)> {
        let checkpoint = self.open(note)?.checkpoint;
        Some((checkpoint.size(), *checkpoint.root()))
    }

    /// Returns a checkpoint that the log of this identity has signed, without what others have.
    pub(crate) fn signed_again(&self, note: &[u8]) -> Option<Signed> {
        let Opened { checkpoint, signed_s: time_s, .. } = self.open(note)?;
        let mut note = Note::parse(note).ok()?;
        let keys = self.log_keys.each_ref().map(NoteKey::verifier);
        note.signatures.retain(|line| keys.iter().any(|key| key.is_of(line)));
        Some(Signed { note: note.to_string().into_bytes(), checkpoint, time_s })
    }

    /// Returns the identity with the cards that follow, each with one of the policies.
    pub(crate) fn with_policies(mut self, policies: &[String]) -> Self {
        for policy in policies {
            let card = self.card().with_policy(policy);
            self.cards.push(SignedCard::sign(card, &self.signing));
        }
        self
    }

    fn open(&self, note: &[u8]) -> Option<Opened> {
        let [ed25519, ml_dsa] = self.log_keys.each_ref().map(NoteKey::verifier);
        LogKeys::new(ed25519, ml_dsa)
            .and_then(|keys| keys.open(note, &Policy::none(), u64::MAX))
            .ok()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.card().short_name())
    }
}

/// Why nothing new is published.
#[derive(Clone, Copy, Debug, Error)]
enum NotPublished {
    #[error("the clocks of the witnesses show another day than this machine's: set the clock")]
    ClocksApart,
    #[error(
        "its log names other witnesses than this server, which was put back from an older backup: add and \
         remove the same ones as before, in the same order, one start after the other"
    )]
    OtherCard,
}

/// What is published.
#[derive(Default)]
pub(crate) struct Log {
    published: RwLock<Published>,
    /// One at a time signs and asks witnesses.
    publishing: Mutex<()>,
}

#[derive(Default)]
struct Published {
    tree: Tree,
    /// The place of each card.
    cards: Vec<u64>,
    /// The newest checkpoint that the log has signed.
    signed: Option<Signed>,
    /// Who has cosigned this size and root, by the number of the witness.
    cosigned: Vec<Option<Cosigned>>,
    /// The checkpoint that anyone is shown; empty before the first.
    note: Vec<u8>,
    /// How many entries it covers.
    size: u64,
    /// When that was shown first, in Unix seconds.
    shown_s: u64,
}

/// A checkpoint that the log has signed.
#[derive(Clone)]
pub(crate) struct Signed {
    /// With the log's own signatures.
    pub(crate) note: Vec<u8>,
    pub(crate) checkpoint: Checkpoint,
    /// When, in Unix seconds: never before the one before.
    pub(crate) time_s: u64,
}

/// Begins the log of a server that has none: its cards, and the chains of the accounts that it has, each in
/// order.
///
/// **Errors** [`StoreError`].
pub(crate) fn begin(
    meta: &dyn MetaStore,
    identity: &Identity,
    now_s: u64,
) -> Result<(), StoreError> {
    if !meta.log_entries(0, 1)?.is_empty() {
        return Ok(());
    }
    let (mut entries, mut before) = (Vec::new(), None);
    for SignedCard { card, .. } in &identity.cards {
        let (key, value) = (Key::card(card.origin.as_slice()), card_hash(card));
        entries.push(Entry::following(before.as_ref(), key, value, now_s));
        before = Some(Newest { seq: card.seq, value });
    }
    for account in meta.accounts()? {
        let mut before = None;
        let (mut from, mut is_whole) = (0, false);
        while !is_whole {
            let (blocks, key_block) = meta.blocks(account, from, usize::MAX)?;
            is_whole = key_block.is_some();
            from += blocks.len() as u64;
            for block in blocks {
                let value = block_commit(account, &hash_of(&block)?);
                let entry = Entry::following(before.as_ref(), Key::account(account), value, now_s);
                before = Some(Newest { seq: entry.seq, value });
                entries.push(entry);
            }
        }
    }
    meta.begin_log(&entries)
}

/// Makes the card that names these witnesses, unless the newest does, and puts it into the log. A server that
/// was put back waits: it may have made it before.
///
/// **Errors** [`StoreError`].
pub(crate) fn renew_card(
    meta: &dyn MetaStore,
    identity: Identity,
    witnesses: &[Witness],
    now_s: u64,
) -> Result<Identity, StoreError> {
    let policy = witness::policy(witnesses);
    if identity.card().policy.as_slice() == policy.as_bytes() || identity.cards.len() == CARDS_MAX {
        return Ok(identity);
    }
    // One that was put back may have made it before: others know it, and its entry comes back.
    if meta.put_back()?.is_some() {
        return Ok(identity.with_policies(&[policy]));
    }
    let card = identity.card().with_policy(&policy);
    let (mut before, mut time_s, mut from) = (None, now_s, 0);
    loop {
        let entries = meta.log_entries(from, READ_AT_ONCE)?;
        let Some(last) = entries.last() else { break };
        (time_s, from) = (time_s.max(last.time_s), from + entries.len() as u64);
        let of_card = entries.iter().rev().find(|e| e.key() == Key::card(card.origin.as_slice()));
        before = of_card.map(|e| Newest { seq: e.seq, value: e.value }).or(before);
    }
    // An older copy of the directory must not add to the log; who it is, is asked again, and said.
    if witness::has_more(witnesses, &identity, from) {
        return Ok(identity);
    }
    let value = card_hash(&card);
    // One that was put back may have it in its log.
    let entry = if before == Some(Newest { seq: card.seq, value }) {
        None
    } else if before.is_some_and(|before| before.seq + 1 == card.seq) {
        let key = Key::card(card.origin.as_slice());
        Some(Entry::following(before.as_ref(), key, value, time_s))
    } else {
        return Err(damaged(NotPublished::OtherCard));
    };
    meta.add_policy(&policy, entry.as_ref())?;
    Ok(identity.with_policies(&[policy]))
}

/// Returns the entry of a block that is about to follow `before`.
pub(crate) fn entry(
    account: AccountId,
    block: &Block,
    before: Option<&[u8]>,
    now_s: u64,
) -> Result<Entry, StoreError> {
    let commit = |hash| block_commit(account, &hash);
    let before = before.map(hash_of).transpose()?.map(commit);
    let before = before.map(|value| Newest { seq: block.body.seq.saturating_sub(1), value });
    let value = commit(block_hash(&block.body));
    Ok(Entry::following(before.as_ref(), Key::account(account), value, now_s))
}

fn hash_of(block: &[u8]) -> Result<Hash, StoreError> {
    let damaged = |e: sr_wire::Malformed| StoreError::Failed {
        doing: "reading a block of an account",
        source: e.into(),
    };
    Ok(block_hash(&Block::parse(block).map_err(damaged)?.body))
}

impl Log {
    /// Signs a checkpoint over the entries that came since the last, if there are any. It is durable
    /// before anybody sees it. Where there are witnesses, it is shown when [`Log::cosign`] has asked them.
    ///
    /// **Errors** [`StoreError`].
    pub(crate) fn publish(&self, server: &Server) -> Result<(), StoreError> {
        let _one = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = &*server.stores.meta;
        // Before the entries are read: what is promised by then, they have.
        let now_s = server.now_s();
        self.read(server)?;
        let mut published = self.write();
        let size = published.tree.size();
        if let Some(note) = meta.checkpoint()? {
            published.take(server, note)?;
            let Some(signed) = &published.signed else { return Ok(()) };
            // Nor may a clock that was wrong once be that of the log for ever.
            let is_wrong = signed.time_s > now_s.saturating_add(witness::CLOCKS_APART_S);
            let is_old = is_wrong || now_s >= signed.time_s.saturating_add(witness::AGAIN_S);
            if signed.checkpoint.size() == size && (server.witnesses.is_empty() || !is_old) {
                return Ok(());
            }
        }
        // What came after the backup comes first.
        if meta.put_back()?.is_some() {
            return Ok(());
        }
        // Others have seen the card that the log has.
        if published.cards.len() > server.identity.cards.len() {
            return Err(damaged(NotPublished::OtherCard));
        }
        let before_s = published.signed.as_ref().map_or(0, |signed| signed.time_s);
        let is_wrong = !server.witnesses.is_empty()
            && before_s > now_s.saturating_add(witness::CLOCKS_APART_S);
        let time_s = if is_wrong { now_s } else { now_s.max(before_s) };
        let signed = server.sign(size, published.tree.root(size), time_s);
        let signed = signed.map_err(damaged)?;
        meta.set_checkpoint(&signed.note)?;
        if server.witnesses.is_empty() {
            published.show(signed.note.clone(), size);
        }
        let is_grown =
            published.signed.as_ref().map(|signed| &signed.checkpoint) != Some(&signed.checkpoint);
        if is_grown {
            published.cosigned = vec![None; server.witnesses.len()];
        }
        published.signed = Some(signed);
        Ok(())
    }

    /// Has the witnesses cosign the newest checkpoint that have not done so, and shows it with what they said.
    ///
    /// **Errors** [`StoreError`].
    pub(crate) fn cosign(&self, server: &Server) -> Result<(), StoreError> {
        let _one = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = &*server.stores.meta;
        let now_s = server.now_s();
        let (signed, missing) = {
            let published = self.get_read();
            let is_due = |cosigned: &Cosigned| now_s >= cosigned.asked_s + witness::AGAIN_S;
            let is_missing = |number: &usize| {
                let cosigned = published.cosigned.get(*number).and_then(Option::as_ref);
                cosigned.is_none_or(is_due)
            };
            let missing = (0..server.witnesses.len()).filter(is_missing).collect::<Vec<_>>();
            (published.signed.clone(), missing)
        };
        let Some(signed) = signed.filter(|_| !missing.is_empty()) else { return Ok(()) };
        // A server that was put back says nothing new, to nobody.
        if meta.put_back()?.is_some() {
            return Ok(());
        }
        let asked = witness::cosign(server, &signed, &missing);
        let mut published = self.write();
        published.cosigned.resize(server.witnesses.len(), None);
        for (number, cosigned) in missing.into_iter().zip(asked) {
            // What it has signed of this size before, stays true.
            let before = published.cosigned[number].take();
            published.cosigned[number] = cosigned.or(before);
        }
        let all = published.cosigned.iter().flatten();
        let (right, wrong): (Vec<&Cosigned>, Vec<_>) = all.partition(|c| c.is_time(now_s));
        if 2 * wrong.len() > server.witnesses.len() {
            return Err(damaged(NotPublished::ClocksApart));
        }
        let mut note = Note::parse(&signed.note).map_err(damaged)?;
        note.signatures.extend(right.iter().flat_map(|cosigned| cosigned.lines.clone()));
        let note = note.to_string().into_bytes();
        // For an hour an older one that enough have cosigned is of more use than a newer one without.
        let is_enough = |note: &[u8]| witness::is_enough(server, note);
        let is_young = now_s < published.shown_s.saturating_add(witness::AGAIN_S);
        if is_young && is_enough(&published.note) && !is_enough(&note) {
            return Ok(());
        }
        if note != published.note {
            meta.set_checkpoint(&note)?;
            published.show(note, signed.checkpoint.size());
            published.shown_s = now_s;
        }
        Ok(())
    }

    /// Reads the entries that came since the last time.
    ///
    /// **Errors** [`StoreError`].
    pub(crate) fn read(&self, server: &Server) -> Result<(), StoreError> {
        let mut published = self.write();
        let of_card = Key::card(server.card().origin.as_slice());
        loop {
            let entries = server.stores.meta.log_entries(published.tree.size(), READ_AT_ONCE)?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                if entry.key() == of_card {
                    let place = published.tree.size();
                    published.cards.push(place);
                }
                published.tree.push(leaf_hash(&entry.to_bytes()));
            }
        }
    }

    /// Returns a proof that the log with `new` entries continues the one with `old`; `None` when it has not so
    /// many.
    pub(crate) fn prove(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        if old == 0 {
            return Some(Vec::new());
        }
        self.get_read().tree.prove_consistency(old, new)
    }

    /// Returns how many of the server's cards the log shows; all of them before it shows anything.
    pub(crate) fn cards(&self) -> usize {
        let published = self.get_read();
        let is_shown = |place: &&u64| **place < published.size;
        match published.cards.iter().filter(is_shown).count() {
            0 => usize::MAX,
            shown => shown,
        }
    }

    /// Returns how many entries the log has, published or not.
    pub(crate) fn size(&self) -> u64 {
        self.get_read().tree.size()
    }

    /// Returns how many entries the newest checkpoint covers that the log has signed.
    pub(crate) fn signed_size(&self) -> u64 {
        self.get_read().signed.as_ref().map_or(0, |signed| signed.checkpoint.size())
    }

    /// Returns all of the log.
    pub(crate) fn tree(&self) -> Tree {
        self.get_read().tree.clone()
    }

    /// Returns when the newest checkpoint was signed, in Unix seconds.
    pub(crate) fn signed_s(&self) -> u64 {
        self.get_read().signed.as_ref().map_or(0, |signed| signed.time_s)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Published> {
        self.published.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn get_read(&self) -> RwLockReadGuard<'_, Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request for a path below [`api::LOG`].
    pub(crate) fn get(&self, server: &Server, path: &str) -> Result<Vec<u8>, Refusal> {
        let published = self.get_read();
        let path = path.strip_prefix(api::LOG).ok_or(ErrorCode::Version)?;
        if path == "checkpoint" {
            let is_there = !published.note.is_empty();
            return is_there.then(|| published.note.clone()).ok_or(ErrorCode::NotFound.into());
        }
        let (tile, is_entries) = Tile::parse_path(path).ok_or(ErrorCode::Malformed)?;
        let (width, start) = (usize::from(tile.width), tile.index.saturating_mul(256));
        let hashes = published.tree.hashes(usize::from(tile.level), start, width);
        let level_size = published.size.checked_shr(8 * u32::from(tile.level)).unwrap_or(0);
        let is_signed = start.saturating_add(width as u64) <= level_size;
        let hashes = hashes.filter(|_| is_signed).ok_or(ErrorCode::NotFound)?;
        if !is_entries {
            return Ok(hashes.concat());
        }
        drop(published);
        let entries = server.stores.meta.log_entries(start, width)?;
        let entries: Vec<Vec<u8>> = entries.iter().map(Entry::to_bytes).collect();
        bundle(&entries).map_err(|error| Refusal::Store(damaged(error)))
    }
}

impl Published {
    /// Takes the checkpoint that is stored: the log must still be what it says.
    fn take(&mut self, server: &Server, note: Vec<u8>) -> Result<(), StoreError> {
        let (size, root) = size_and_root(&note).map_err(damaged)?;
        // What was signed stays true, or this server would prove itself a liar.
        if self.tree.root(size) != Some(root) {
            (self.note, self.size) = (Vec::new(), 0);
            return Err(damaged(LogError::ProofWrong));
        }
        if self.signed.as_ref().is_none_or(|signed| signed.checkpoint.size() != size) {
            self.signed = server.identity.signed_again(&note);
            let signed = self.signed.as_ref();
            let cosigned = signed.map(|signed| witness::cosigned(server, signed, &note));
            self.shown_s = signed.map_or(0, |signed| signed.time_s);
            self.cosigned = cosigned.unwrap_or_default();
            self.show(note, size);
        }
        Ok(())
    }

    fn show(&mut self, note: Vec<u8>, size: u64) {
        (self.note, self.size) = (note, size);
    }
}

impl Server {
    /// Returns which log this server has.
    pub(crate) fn origin(&self) -> String {
        String::from_utf8_lossy(self.card().origin.as_slice()).into_owned()
    }

    fn sign(&self, size: u64, root: Option<Hash>, time_s: u64) -> Result<Signed, LogError> {
        let checkpoint = Checkpoint::new(&self.origin(), size, root.ok_or(LogError::ProofWrong)?)?;
        let sign = |key: &NoteKey| key.sign(&checkpoint, time_s);
        let signatures = self.identity.log_keys.iter().map(sign).collect();
        let note = Note { text: checkpoint.to_string(), signatures }.to_string().into_bytes();
        Ok(Signed { note, checkpoint, time_s })
    }
}

pub(crate) fn size_and_root(note: &[u8]) -> Result<(u64, Hash), LogError> {
    let checkpoint: Checkpoint = Note::parse(note)?.text.parse()?;
    Ok((checkpoint.size(), *checkpoint.root()))
}

fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Failed { doing: "publishing the log", source: error.into() }
}

//! The log. What is appended brings its entry along, in the same transaction; once a second a
//! checkpoint says how many entries there are by then, and only what it covers is read.

use std::sync::{PoisonError, RwLock};

use sr_crypto::{Hash, Secret32, SigningKey, derive};
use sr_store::{MetaStore, StoreError};
use sr_tlog::{
    Checkpoint, KeyKind, LogError, LogKeys, Note, NoteKey, Opened, Policy, Tile, Tree, bundle,
    leaf_hash,
};
use sr_trust::{Block, block_hash};
use sr_wire::{
    AccountId, Card, SignedCard,
    api::{self, ErrorCode},
    card_hash, labels,
    log::{Entry, Key, Newest, block_commit},
};

use crate::{Server, routes::Refusal};

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

/// What is published.
#[derive(Default)]
pub(crate) struct Log(RwLock<Published>);

#[derive(Default)]
struct Published {
    tree: Tree,
    /// The newest checkpoint; empty before the first.
    note: Vec<u8>,
    /// How many entries it covers.
    size: u64,
    /// When it was signed, in Unix seconds: never before the one before.
    signed_s: u64,
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
    /// before anybody sees it.
    ///
    /// **Errors** [`StoreError`].
    pub(crate) fn publish(&self, server: &Server) -> Result<(), StoreError> {
        let meta = &*server.stores.meta;
        let mut published = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Before the entries are read: what is promised by then, they have.
        let now_s = server.now_s();
        loop {
            let entries = meta.log_entries(published.tree.size(), READ_AT_ONCE)?;
            if entries.is_empty() {
                break;
            }
            entries.iter().for_each(|entry| published.tree.push(leaf_hash(&entry.to_bytes())));
        }
        let size = published.tree.size();
        if let Some(note) = meta.checkpoint()? {
            let (signed, root) = size_and_root(&note).map_err(damaged)?;
            // What was signed stays true, or this server would prove itself a liar.
            if published.tree.root(signed) != Some(root) {
                (published.note, published.size) = (Vec::new(), 0);
                return Err(damaged(LogError::ProofWrong));
            }
            published.signed_s = server.identity.open(&note).map_or(0, |opened| opened.signed_s);
            (published.note, published.size) = (note, signed);
            if signed == size {
                return Ok(());
            }
        }
        // What came after the backup comes first.
        if meta.put_back()?.is_some() {
            return Ok(());
        }
        let signed_s = now_s.max(published.signed_s);
        let root = published.tree.root(size);
        let note = server.checkpoint(size, root, signed_s).map_err(damaged)?;
        meta.set_checkpoint(&note)?;
        (published.note, published.size, published.signed_s) = (note, size, signed_s);
        Ok(())
    }

    /// Returns how many entries the log has, published or not.
    pub(crate) fn size(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).tree.size()
    }

    /// Returns how many entries the newest checkpoint covers.
    pub(crate) fn published_size(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).size
    }

    /// Returns all of the log.
    pub(crate) fn tree(&self) -> Tree {
        self.0.read().unwrap_or_else(PoisonError::into_inner).tree.clone()
    }

    /// Returns when the newest checkpoint was signed, in Unix seconds.
    pub(crate) fn signed_s(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).signed_s
    }

    /// Answers a request for a path below [`api::LOG`].
    pub(crate) fn get(&self, server: &Server, path: &str) -> Result<Vec<u8>, Refusal> {
        let published = self.0.read().unwrap_or_else(PoisonError::into_inner);
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

impl Server {
    fn checkpoint(&self, size: u64, root: Option<Hash>, time_s: u64) -> Result<Vec<u8>, LogError> {
        let origin = String::from_utf8_lossy(self.card().origin.as_slice()).into_owned();
        let root = root.ok_or(LogError::ProofWrong)?;
        let checkpoint = Checkpoint::new(&origin, size, root)?;
        let sign = |key: &NoteKey| key.sign(&checkpoint, time_s);
        let signatures = self.identity.log_keys.iter().map(sign).collect();
        Ok(Note { text: checkpoint.to_string(), signatures }.to_string().into_bytes())
    }
}

pub(crate) fn size_and_root(note: &[u8]) -> Result<(u64, Hash), LogError> {
    let checkpoint: Checkpoint = Note::parse(note)?.text.parse()?;
    Ok((checkpoint.size(), *checkpoint.root()))
}

fn damaged(error: LogError) -> StoreError {
    StoreError::Failed { doing: "publishing the log", source: error.into() }
}

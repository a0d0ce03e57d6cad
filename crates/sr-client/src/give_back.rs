//! What this device keeps so that an honest server, put back from a backup, gets back what came after it: the end
//! of the log, the account, the heads of its spaces. All of it proves itself: the server takes what it has
//! signed, and other devices verify all of it again.

use rusqlite::{Transaction, params};
use sr_keys::VaultKeys;
use sr_trust::{Account, Block, Change, Op, Verified};
use sr_vault::head::HeadPlace;
use sr_wire::{
    Misbehaviour, PackId, SealedHead, SpaceId, VLBytes, VOUCHERS_PER_INVITE,
    api::{AccountAppend, EnvelopePut, ErrorCode},
    decode, encode,
    limits::{ENTRIES_KEPT, HEADS_KEPT, MESSAGE_LEN_MAX, PACK_SIZES},
    log::{ENTRY_LEN, Entry, SignedReceipt},
    voucher,
};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    AcceptedRollback, Client, ClientError, Clock, evidence, log, profile::Profile, remote::Remote,
    spaces::rotate,
};

/// A server that showed an older state than this device knew, and was given back what came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PutBack {
    /// When it was last seen, in Unix seconds.
    pub time_s: u64,
    /// How often.
    pub times: u32,
}

/// The envelope of a kit, and the block that brought it into force.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct KeptEnvelope {
    seq: u64,
    envelope: EnvelopePut,
}

/// The pack of the newest record, whole.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct RecordPack {
    id: PackId,
    pack: VLBytes,
}

impl Client {
    /// Does `work`. If the server shows an older state than this device knows, gives it back what this device
    /// holds, and does it once more: an honest server that was put back from a backup has all of it then,
    /// and any other is refused.
    pub(crate) fn giving_back<T>(
        &mut self,
        work: impl Fn(&mut Self) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let done = work(self);
        let older = match &done {
            Err(ClientError::Misbehaviour(misbehaviour)) if is_older(*misbehaviour) => {
                Some(*misbehaviour)
            }
            Err(ClientError::ServerRefused(ErrorCode::PutBack)) => None,
            Err(ClientError::Misbehaviour(Misbehaviour::CardMismatch)) => {
                evidence::about_cards(&self.profile, &self.remote);
                return done;
            }
            _ => return done,
        };
        if self.profile.gave_back || self.profile.sealed()?.is_some() {
            return done;
        }
        if older.is_some() || self.profile.put_back()?.is_none() {
            self.profile.note_put_back((self.clock)())?;
        }
        let given = self.give_back();
        let Some(older) = older else { return done };
        let again = given.and_then(|()| work(self));
        match again {
            Err(error @ ClientError::ServerRefused(ErrorCode::VoucherRefused)) => Err(error),
            // A server that ends the conversation now has shown an older state all the same.
            Err(error) if !is_answer(&error) => {
                evidence::about_answers_in_doubt(&mut self.profile, &self.remote);
                Err(older.into())
            }
            again => again,
        }
    }

    /// Returns whether a server that was put back has lost what the kit in force opens, as far as this device
    /// has made that kit: another device gave the account back, and had it not.
    pub(crate) fn is_kit_lost(&self) -> Result<bool, ClientError> {
        let Some((made, envelope)) = self.profile.envelope()? else { return Ok(false) };
        let brings_kit = |block: &Vec<u8>| {
            Block::parse(block).is_ok_and(|block| {
                let op = &block.body.op;
                matches!(op, Op::Set { change: Change::Recovery(_), .. } | Op::DelayFinish { .. })
            })
        };
        let newest = self.profile.blocks()?.iter().rposition(brings_kit);
        let is_in_force = newest.is_some_and(|newest| newest as u64 == made);
        if !is_in_force || self.profile.put_back()?.is_none() {
            return Ok(false);
        }
        match self.account_remote.envelope(envelope.lookup) {
            Err(ClientError::ServerRefused(ErrorCode::NotFound)) => Ok(true),
            found => found.map(|_| false),
        }
    }

    /// Gives the server back what this device holds and it does not show.
    pub(crate) fn give_back(&mut self) -> Result<(), ClientError> {
        self.profile.gave_back = true;
        unless_refused(give_back_log(&self.profile, &self.log_remote, &self.clock))?;
        // Without the account, nobody could read what comes next.
        if !give_back_account(&self.profile, &self.account_remote)? {
            return Ok(());
        }
        let owner = self.profile.kept().and_then(|kept| kept.owner());
        self.each_space(|profile, keys, remote| {
            unless_refused(give_back_space(profile, keys, remote))?;
            let may_rotate = keys.generation() > 1 && !profile.keys.is_limited();
            if may_rotate && profile.waiting.is_none() {
                unless_refused(rotate(keys, remote, owner.as_ref()))?;
            }
            let is_root = profile.keys.root().is_ok_and(|root| root.space() == keys.space());
            if is_root { unless_refused(give_back_record(profile, keys, remote)) } else { Ok(()) }
        })
    }
}

/// Returns whether an error is what the server has said.
fn is_answer(error: &ClientError) -> bool {
    matches!(error, ClientError::Misbehaviour(_) | ClientError::ServerRefused(ErrorCode::PutBack))
}

/// Returns whether a server that was put back from a backup is refused for this. What else is wrong with a
/// server, nothing that it gets back mends.
fn is_older(misbehaviour: Misbehaviour) -> bool {
    use Misbehaviour::{ChainRolledBack, HeadRolledBack, LogRolledBack};
    matches!(misbehaviour, ChainRolledBack | HeadRolledBack | LogRolledBack)
}

fn unless_refused(done: Result<(), ClientError>) -> Result<(), ClientError> {
    match done {
        // A person can help: the invite that paid was younger than the backup.
        Err(ClientError::ServerRefused(ErrorCode::VoucherRefused)) => done,
        Err(ClientError::ServerRefused(_) | ClientError::Misbehaviour(_) | ClientError::NoLog) => {
            Ok(())
        }
        done => done,
    }
}

/// Whoever can't give the end of the log back says all the same that there is one.
fn give_back_log(profile: &Profile, remote: &Remote, clock: &Clock) -> Result<(), ClientError> {
    let Some(known) = profile.log()? else { return Ok(()) };
    let shown = log::shown(remote, clock)?;
    let (from, to) = (shown.checkpoint.size(), known.checkpoint.size());
    if from >= to {
        return Ok(());
    }
    let mut entries = profile.entries(from)?;
    if from + entries.len() as u64 != to {
        entries.clear();
    }
    remote.give_back_log(profile.log_note()?, from, entries)
}

/// Returns whether the server has all of the account then.
fn give_back_account(profile: &Profile, remote: &Remote) -> Result<bool, ClientError> {
    let (account, own) = (&profile.keys.account, profile.blocks()?);
    let mut served = match remote.blocks(account.id(), 0) {
        Err(ClientError::ServerRefused(ErrorCode::NotFound)) => Vec::new(),
        served => served?.0,
    };
    let Some(lost) = own.strip_prefix(served.as_slice()) else { return Ok(false) };
    // What the log has comes back at once; the rest, once the server stores again what is new.
    let logged = profile.own_logged()?.unwrap_or(0);
    let logged = usize::try_from(logged).unwrap_or(usize::MAX).saturating_sub(served.len());
    let (mut logged, mut rest) = lost.split_at(logged.min(lost.len()));
    // Of a state in between, nobody has the key block: then all come together.
    if key_block_of(account, &own[..own.len() - rest.len()]) != key_block_of(account, &own) {
        (logged, rest) = (&[], lost);
    }
    for blocks in [logged, rest].into_iter().filter(|blocks| !blocks.is_empty()) {
        let request = append(profile, &served, blocks)?;
        let last = Block::parse(&blocks[blocks.len() - 1]).map_err(|_| profile.damaged())?;
        let seq = last.body.seq;
        match remote.append(&request, (seq, &last.hash())) {
            Err(ClientError::ServerRefused(_)) => return Ok(false),
            receipt => profile.renew_receipts(served.len() as u64, &receipt?)?,
        }
        served.extend_from_slice(blocks);
    }
    Ok(true)
}

/// Returns what gives `blocks` back to a server that has `served`. A key block is kept for the newest state only.
fn append(
    profile: &Profile,
    served: &[Vec<u8>],
    blocks: &[Vec<u8>],
) -> Result<AccountAppend, ClientError> {
    let account = &profile.keys.account;
    let all: Vec<Vec<u8>> = served.iter().chain(blocks).cloned().collect();
    let (before, after) = (key_block_of(account, served), key_block_of(account, &all));
    let key_block = profile.get("key-block")?.filter(|_| before != after);
    let from = served.len() as u64;
    let is_in = |seq: u64| (from..from + blocks.len() as u64).contains(&seq);
    let envelope = profile.envelope()?.filter(|(seq, _)| is_in(*seq)).map(|(_, envelope)| envelope);
    let receipts = profile.receipts()?.into_iter().map(|(_, receipt)| receipt);
    Ok(AccountAppend {
        account: account.id(),
        blocks: blocks.iter().map(|block| block.clone().into()).collect(),
        key_block: key_block.map(VLBytes::from),
        envelope,
        voucher: None,
        receipts: receipts.filter(|signed| is_in(signed.receipt.seq)).collect(),
    })
}

fn key_block_of(account: &Account, blocks: &[Vec<u8>]) -> Option<sr_crypto::Hash> {
    let blocks: Option<Vec<Block>> = blocks.iter().map(|block| Block::parse(block).ok()).collect();
    Some(Verified::verify(account.id(), &blocks?).ok()?.key().key_block)
}

fn give_back_space(
    profile: &Profile,
    keys: &VaultKeys,
    remote: &Remote,
) -> Result<(), ClientError> {
    let space = keys.space();
    if profile.space_generation(space)?.is_none() {
        return Ok(());
    }
    let answer = profile.answer(space)?;
    let shown = match remote.read_head(keys, answer.as_ref()) {
        Err(ClientError::ServerRefused(ErrorCode::NotFound)) => {
            let token = profile.invite()?.token;
            let vouchers: Vec<_> = (1..VOUCHERS_PER_INVITE).map(|n| voucher(&token, n)).collect();
            remote.create_space(keys, &vouchers)?;
            0
        }
        shown => HeadPlace::of(shown?.0.head.as_ref()).seq,
    };
    let accepted = profile.accepted(space)?.tip.unwrap_or(HeadPlace::EMPTY);
    let Some(answer) = answer.filter(|answer| answer.answer.seq == accepted.seq) else {
        return Ok(());
    };
    let mut lost = profile.heads(space, shown)?;
    lost.retain(|head| head.seq <= accepted.seq);
    if lost.first().is_none_or(|head| head.seq != shown + 1) {
        return Ok(());
    }
    remote.give_back_heads(keys, answer, lost)
}

/// The pack of the account's record is the one that no backup stores anew.
fn give_back_record(
    profile: &Profile,
    keys: &VaultKeys,
    remote: &Remote,
) -> Result<(), ClientError> {
    let Some(RecordPack { id, pack }) = profile.record_pack()? else { return Ok(()) };
    if remote.missing(keys, &[id])?.is_empty() {
        return Ok(());
    }
    remote.put_pack(keys, id, pack.into(), false).map(drop)
}

impl Profile {
    /// Keeps heads that were accepted; of each space the newest.
    pub(crate) fn keep_heads(&mut self, heads: &[SealedHead]) -> Result<(), ClientError> {
        let Some(newest) = heads.last() else { return Ok(()) };
        let oldest = newest.seq.saturating_sub(HEADS_KEPT as u64);
        self.transaction(|transaction| {
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO heads VALUES (?1, ?2, ?3)")?;
            for head in heads {
                insert.execute(params![head.space.0, head.seq, encode(head)])?;
            }
            let delete = "DELETE FROM heads WHERE space = ?1 AND seq <= ?2";
            transaction.execute(delete, params![newest.space.0, oldest]).map(drop)
        })
    }

    /// Forgets the kept heads of a space.
    pub(crate) fn forget_heads(&self, space: SpaceId) -> Result<(), ClientError> {
        self.query(|db| db.execute("DELETE FROM heads WHERE space = ?1", [space.0])).map(drop)
    }

    /// Returns the kept heads of a space above a place, in order.
    pub(crate) fn heads(&self, space: SpaceId, above: u64) -> Result<Vec<SealedHead>, ClientError> {
        let rows: Vec<Vec<u8>> = self.query(|database| {
            let query = "SELECT head FROM heads WHERE space = ?1 AND seq > ?2 ORDER BY seq";
            let mut query = database.prepare_cached(query)?;
            query.query_map(params![space.0, above], |row| row.get(0))?.collect()
        })?;
        let parse = |row: Vec<u8>| decode("head", &row, row.len()).map_err(|_| self.damaged());
        rows.into_iter().map(parse).collect()
    }

    /// Returns the kept entries of the log from a place on.
    fn entries(&self, from: u64) -> Result<Vec<Entry>, ClientError> {
        let rows: Vec<Vec<u8>> = self.query(|database| {
            let query = "SELECT entry FROM entries WHERE place >= ?1 ORDER BY place";
            let mut query = database.prepare_cached(query)?;
            query.query_map([from], |row| row.get(0))?.collect()
        })?;
        // Those of a later version may have another form: a server of this one has never had them.
        let parse = |row: Vec<u8>| decode("entry", &row, ENTRY_LEN).ok();
        Ok(rows.into_iter().map(parse).collect::<Option<Vec<_>>>().unwrap_or_default())
    }

    /// Keeps the pack of the account's record.
    pub(crate) fn set_record_pack(&self, id: PackId, pack: Vec<u8>) -> Result<(), ClientError> {
        self.set("record-pack", &encode(&RecordPack { id, pack: pack.into() }))
    }

    fn record_pack(&self) -> Result<Option<RecordPack>, ClientError> {
        let row = self.get("record-pack")?;
        let row = row.map(|row| decode("record", &row, 2 * PACK_SIZES[4]));
        row.transpose().map_err(|_| self.damaged())
    }

    /// Keeps the envelope of a kit that this device has brought into force with a block.
    pub(crate) fn set_envelope(&self, seq: u64, envelope: &EnvelopePut) -> Result<(), ClientError> {
        self.set("envelope", &encode(&KeptEnvelope { seq, envelope: envelope.clone() }))
    }

    fn envelope(&self) -> Result<Option<(u64, EnvelopePut)>, ClientError> {
        let row = self.get("envelope")?;
        let row = row.map(|row| decode("envelope", &row, MESSAGE_LEN_MAX));
        let kept: Option<KeptEnvelope> = row.transpose().map_err(|_| self.damaged())?;
        Ok(kept.map(|kept| (kept.seq, kept.envelope)))
    }

    /// Takes a newer promise to log changes from a place on, in place of those that a server which was put back
    /// could not keep. Once for each: one that is put back again and again, before it keeps any, breaks them.
    fn renew_receipts(&self, from: u64, newer: &SignedReceipt) -> Result<(), ClientError> {
        let renewed = format!("renewed/{}", newer.receipt.seq);
        if self.get(&renewed)?.is_some() {
            return Ok(());
        }
        self.set(&renewed, &[])?;
        self.forget_receipts(from)?;
        self.set_receipt(newer)
    }

    /// Returns what [`Profile::note_put_back`] has noted.
    pub(crate) fn put_back(&self) -> Result<Option<PutBack>, ClientError> {
        let row = self.get("put-back")?;
        let row = row.map(|row| decode("event", &row, row.len()));
        row.transpose().map_err(|_| self.damaged())
    }

    /// Returns what [`Profile::note_accepted_rollback`] has noted.
    pub(crate) fn accepted_rollback(&self) -> Result<Option<AcceptedRollback>, ClientError> {
        let row = self.get("accepted-rollback")?;
        let row = row.map(|row| decode("event", &row, row.len()));
        row.transpose().map_err(|_| self.damaged())
    }

    pub(crate) fn note_accepted_rollback(
        &self,
        accepted: &AcceptedRollback,
    ) -> Result<(), ClientError> {
        self.set("accepted-rollback", &encode(accepted))
    }

    fn note_put_back(&self, time_s: u64) -> Result<(), ClientError> {
        let times = self.put_back()?.map_or(0, |before| before.times).saturating_add(1);
        self.set("put-back", &encode(&PutBack { time_s, times }))
    }
}

/// Keeps entries of a log that has `size` of them.
pub(crate) fn keep_entries(
    transaction: &Transaction<'_>,
    entries: &[(u64, Vec<u8>)],
    size: u64,
) -> rusqlite::Result<()> {
    let mut insert =
        transaction.prepare_cached("INSERT OR REPLACE INTO entries VALUES (?1, ?2)")?;
    for (place, entry) in entries {
        insert.execute(params![place, entry])?;
    }
    let oldest = size.saturating_sub(ENTRIES_KEPT as u64);
    transaction.execute("DELETE FROM entries WHERE place < ?1", [oldest]).map(drop)
}

/// Of a log that is read, those entries are kept that are not further from its end.
pub(crate) fn is_kept(place: u64, size: u64) -> bool {
    size.saturating_sub(place) <= ENTRIES_KEPT as u64
}

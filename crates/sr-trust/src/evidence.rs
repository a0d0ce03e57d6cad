//! Evidence: what a server has signed, put side by side, so that anybody can see by themselves that it broke a
//! rule. See `spec/evidence.md`.
//!
//! Nothing here needs an account or the network. Who is accused, the first of the cards says; whether that
//! is the server that a reader means, the reader compares.

use std::fmt;

use sr_crypto::{Hash, hash, verify};
use sr_tlog::{Checkpoint, LogKeys, Note, Opened, Policy, VerifierKey, Witness};
use sr_wire::{
    AccountId, Card, DeviceId, Malformed, Misbehaviour, SignedAnswer, SignedCard, VLBytes, decode,
    encode, labels,
    log::{ACCOUNT, Key, Newest, SignedReceipt, block_commit},
    nonce_of, verify_cards,
};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{Account, Block, Device, Mirror, Verified, account_id, device_id};

/// The first bytes of a file.
pub const EVIDENCE_MAGIC: &[u8] = b"strongroom-evidence/v1\n";
/// No file is longer.
pub const EVIDENCE_LEN_MAX: usize = 64 << 20;

/// A file of evidence.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Evidence {
    /// When it was made, by the clock of who made it, in Unix seconds.
    pub made_s: u64,
    /// The cards of the server that is accused, from the first on; none if it is a device.
    pub cards: Vec<SignedCard>,
    /// What was signed.
    pub proof: Proof,
}

/// What a server has signed. The numbers are those of the kinds.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
pub enum Proof {
    /// Two checkpoints of one size, with two roots.
    #[tls_codec(discriminant = 1)]
    Fork {
        /// A note.
        one: VLBytes,
        /// Another.
        other: VLBytes,
    },
    /// A checkpoint, and entries of a longer log that does not begin with it.
    #[tls_codec(discriminant = 2)]
    ForkByPrefix {
        /// The note of the shorter log.
        old: VLBytes,
        /// The longer one.
        new: SignedLog,
    },
    /// A log with an entry that does not follow.
    #[tls_codec(discriminant = 3)]
    RuleBroken {
        /// The log.
        log: SignedLog,
    },
    /// A log with another change of an account than its devices have signed at that place. What they say of it
    /// themselves, others can only believe.
    #[tls_codec(discriminant = 5)]
    GhostHead {
        /// The account's blocks, from the genesis on.
        chain: Vec<VLBytes>,
        /// The log.
        log: SignedLog,
        /// The public signing key of a live device.
        key: VLBytes,
        /// Its signature over the logged entry's account, seq and value, which it disowns.
        disowned: VLBytes,
    },
    /// A promise, and a log that was signed after its time and does not keep it.
    #[tls_codec(discriminant = 7)]
    ReceiptBroken {
        /// The promise.
        receipt: SignedReceipt,
        /// The log.
        log: SignedLog,
    },
    /// Two changes of one account at one place, signed by one of its devices.
    #[tls_codec(discriminant = 11)]
    SignedTwice {
        /// The device's public signing key.
        key: VLBytes,
        /// A block.
        one: VLBytes,
        /// Another.
        other: VLBytes,
    },
    /// Two answers about one space, of which the later one forgets the earlier.
    #[tls_codec(discriminant = 12)]
    RolledBack {
        /// The earlier answer.
        earlier: SignedAnswer,
        /// The later one, to a question that contained the earlier one.
        later: SignedAnswer,
        /// What opens that question's nonce.
        random: [u8; 32],
    },
    /// Other cards of the same server: two that follow the same one.
    #[tls_codec(discriminant = 13)]
    TwoCards {
        /// The cards, from the first on.
        other: Vec<SignedCard>,
    },
}

/// All of a log, as its checkpoint has signed it.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct SignedLog {
    /// The note.
    pub note: VLBytes,
    /// Every entry, in order.
    pub entries: Vec<VLBytes>,
}

/// Whom a file accuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accused<'a> {
    /// The server with this card.
    Server(&'a Card),
    /// A device of an account, or whoever has its keys.
    Device(AccountId, DeviceId),
}

/// Why a file proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotProven {
    /// The cards are no chain of one server.
    Cards,
    /// Something is not signed by that server.
    Unsigned,
    /// The entries are not those that the log has signed.
    Entries,
    /// All of it is signed, and an honest server may have signed it.
    NoContradiction,
}

impl fmt::Display for NotProven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cards => "the cards in it are not those of one server",
            Self::Unsigned => "something in it is not signed by whom it accuses",
            Self::Entries => "the entries in it are not those that the log has signed",
            Self::NoContradiction => "an honest server may have signed all of it",
        })
    }
}

impl Evidence {
    /// Reads a file.
    ///
    /// **Errors** [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let malformed = Malformed { what: "evidence" };
        let body = bytes.strip_prefix(EVIDENCE_MAGIC).ok_or(malformed)?;
        decode("evidence", body, EVIDENCE_LEN_MAX)
    }

    /// Returns the bytes of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [EVIDENCE_MAGIC, &encode(self)].concat()
    }

    /// Returns its id: `H("evidence", bytes of the proof)`.
    #[must_use]
    pub fn id(&self) -> Hash {
        hash(labels::EVIDENCE, &[&encode(&self.proof)])
    }

    /// Returns the number of its kind.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self.proof {
            Proof::Fork { .. } => 1,
            Proof::ForkByPrefix { .. } => 2,
            Proof::RuleBroken { .. } => 3,
            Proof::GhostHead { .. } => 5,
            Proof::ReceiptBroken { .. } => 7,
            Proof::SignedTwice { .. } => 11,
            Proof::RolledBack { .. } => 12,
            Proof::TwoCards { .. } => 13,
        }
    }

    /// Verifies that whoever is returned has signed what nobody honest signs.
    ///
    /// **Errors** [`NotProven`].
    pub fn verify(&self) -> Result<Accused<'_>, NotProven> {
        match &self.proof {
            Proof::SignedTwice { key, one, other } => {
                // No server is accused.
                let is_bare = self.cards.is_empty();
                let device = signed_twice(key.as_slice(), one, other)?;
                if is_bare { Ok(device) } else { Err(NotProven::Cards) }
            }
            _ => self.verify_server().map(Accused::Server),
        }
    }

    /// Returns what nobody but the accuser can know, if what is proven depends on it.
    #[must_use]
    pub fn missing(&self) -> Option<&'static str> {
        let is_part = matches!(self.proof, Proof::GhostHead { .. });
        is_part.then_some(
            "that no device of the account has signed the logged change, which only they can know",
        )
    }

    fn verify_server(&self) -> Result<&Card, NotProven> {
        let card = verify_cards(&self.cards, None).ok_or(NotProven::Cards)?;
        let contradicts = match &self.proof {
            Proof::Fork { one, other } => {
                let (one, other) = (open(card, one)?.checkpoint, open(card, other)?.checkpoint);
                one.size() == other.size() && one.root() != other.root()
            }
            Proof::ForkByPrefix { old, new } => {
                let (old, whole) = (open(card, old)?.checkpoint, new.checkpoint(card)?);
                let prefix = usize::try_from(old.size()).unwrap_or(usize::MAX);
                let prefix = new.entries.get(..prefix).ok_or(NotProven::NoContradiction)?;
                old.size() < whole.size() && tree(prefix).check(old.size(), old.root()).is_err()
            }
            Proof::RuleBroken { log } => {
                log.checkpoint(card)?;
                log.fold().is_err()
            }
            Proof::GhostHead { chain, log, key, disowned } => {
                log.checkpoint(card)?;
                is_ghost(chain, log, key.as_slice(), disowned.as_slice())?
            }
            Proof::ReceiptBroken { receipt, log } => {
                receipt.verify_signature(card).map_err(|_| NotProven::Unsigned)?;
                log.checkpoint(card)?;
                let signed_s = open(card, &log.note)?.signed_s;
                let promised = receipt.receipt;
                let key = Key { kind: ACCOUNT, index: promised.index };
                let kept = log.fold().map(|mirror| {
                    mirror.fold().newest(&key).is_some_and(|newest| newest.seq >= promised.seq)
                });
                signed_s > promised.deadline_s && kept == Ok(false)
            }
            Proof::RolledBack { earlier, later, random } => {
                for answer in [earlier, later] {
                    answer.verify_signature(card).map_err(|_| NotProven::Unsigned)?;
                }
                let (one, other) = (&earlier.answer, &later.answer);
                let is_later = other.nonce == nonce_of(random, Some(earlier));
                let is_less = is_later && other.seq < one.seq;
                let is_other = other.seq == one.seq && other.head_hash != one.head_hash;
                one.space == other.space && (is_less || is_other)
            }
            Proof::SignedTwice { .. } => false,
            Proof::TwoCards { other } => {
                verify_cards(other, None).ok_or(NotProven::Cards)?;
                let mut pairs = self.cards.iter().zip(other);
                let is_one = pairs.clone().next().is_some_and(|(one, other)| {
                    one.card.identity.as_slice() == other.card.identity.as_slice()
                });
                is_one && pairs.any(|(one, other)| one.card != other.card)
            }
        };
        if contradicts { Ok(card) } else { Err(NotProven::NoContradiction) }
    }
}

impl Evidence {
    /// Returns the keys of witnesses that have cosigned both of two logs that contradict each other, of the witnesses
    /// that the server's cards name: whoever holds such a key is a liar too.
    #[must_use]
    pub fn two_faced(&self) -> Vec<VerifierKey> {
        let (one, other) = match &self.proof {
            Proof::Fork { one, other } => (one, other),
            Proof::ForkByPrefix { old, new } => (old, &new.note),
            _ => return Vec::new(),
        };
        if self.verify().is_err() {
            return Vec::new();
        }
        let policies = self.cards.iter().filter_map(|signed| {
            std::str::from_utf8(signed.card.policy.as_slice()).ok()?.parse::<Policy>().ok()
        });
        let mut keys: Vec<VerifierKey> = Vec::new();
        for policy in policies {
            for (_, Witness { key, .. }) in policy.witnesses() {
                let is_new = !keys.contains(key);
                if is_new && has_cosigned(key, one) && has_cosigned(key, other) {
                    keys.push(key.clone());
                }
            }
        }
        keys
    }
}

/// Returns what a device signs that disowns a logged change of its account.
#[must_use]
pub fn disowned_bytes(account: AccountId, logged: &Newest) -> Vec<u8> {
    [&account.0[..], &logged.seq.to_be_bytes(), &logged.value].concat()
}

/// Returns whether a log has another newest change of an account than its chain has there, which one of its devices
/// disowns.
fn is_ghost(
    chain: &[VLBytes],
    log: &SignedLog,
    key: &[u8],
    disowned: &[u8],
) -> Result<bool, NotProven> {
    let account = chain_of(chain)?;
    let index = Key::account(account.id());
    let logged = log.fold().ok().and_then(|mirror| mirror.fold().newest(&index).copied());
    let logged = logged.ok_or(NotProven::NoContradiction)?;
    let bytes = disowned_bytes(account.id(), &logged);
    let is_signed = verify(labels::DISOWNED, key, &bytes, disowned).is_ok();
    if !is_signed || !account.device(device_id(key)).is_some_and(Device::is_live) {
        return Err(NotProven::Unsigned);
    }
    let own = account.block_hash(logged.seq);
    Ok(own.is_some_and(|hash| block_commit(account.id(), &hash) != logged.value))
}

fn chain_of(blocks: &[VLBytes]) -> Result<Verified<Account>, NotProven> {
    let blocks: Result<Vec<Block>, _> =
        blocks.iter().map(|block| Block::parse(block.as_slice())).collect();
    let blocks = blocks.map_err(|_| NotProven::Unsigned)?;
    let genesis = blocks.first().ok_or(NotProven::Unsigned)?;
    Verified::verify(account_id(&genesis.body), &blocks).map_err(|_| NotProven::Unsigned)
}

fn signed_twice(key: &[u8], one: &VLBytes, other: &VLBytes) -> Result<Accused<'static>, NotProven> {
    let parse = |block: &VLBytes| Block::parse(block.as_slice()).map_err(|_| NotProven::Unsigned);
    let (one, other) = (parse(one)?, parse(other)?);
    if !one.is_signed_by(key) || !other.is_signed_by(key) {
        return Err(NotProven::Unsigned);
    }
    let place = |block: &Block| (block.body.account, block.body.seq);
    // Two accounts may begin with one device: a genesis names no account.
    if place(&one) != place(&other) || one.body.seq == 0 || one.hash() == other.hash() {
        return Err(NotProven::NoContradiction);
    }
    Ok(Accused::Device(one.body.account, device_id(key)))
}

fn has_cosigned(key: &VerifierKey, note: &VLBytes) -> bool {
    let cosigned = || {
        let note = Note::parse(note.as_slice()).ok()?;
        let checkpoint: Checkpoint = note.text.parse().ok()?;
        let line = note.signatures.iter().find(|line| key.is_of(line))?;
        key.verify(&checkpoint, line).ok()
    };
    cosigned().is_some()
}

impl SignedLog {
    /// Verifies that these are the entries that the log has signed.
    fn checkpoint(&self, card: &Card) -> Result<Checkpoint, NotProven> {
        let checkpoint = open(card, &self.note)?.checkpoint;
        let same = tree(&self.entries).check(checkpoint.size(), checkpoint.root());
        same.map_err(|_| NotProven::Entries)?;
        Ok(checkpoint)
    }

    /// Folds all entries.
    fn fold(&self) -> Result<Mirror, Misbehaviour> {
        let mut mirror = Mirror::default();
        for entry in &self.entries {
            mirror.take(entry.as_slice())?;
        }
        Ok(mirror)
    }
}

/// Returns the keys of a server's log, if its card has such.
#[must_use]
pub fn log_keys(card: &Card) -> Option<LogKeys> {
    let text = std::str::from_utf8(card.log_keys.as_slice()).ok()?;
    let mut lines = text.lines();
    let keys = LogKeys::new(lines.next()?.parse().ok()?, lines.next()?.parse().ok()?).ok()?;
    let is_its_own = keys.origin().as_bytes() == card.origin.as_slice();
    (lines.next().is_none() && is_its_own).then_some(keys)
}

fn open(card: &Card, note: &VLBytes) -> Result<Opened, NotProven> {
    let keys = log_keys(card).ok_or(NotProven::Unsigned)?;
    keys.open(note.as_slice(), &Policy::none(), u64::MAX).map_err(|_| NotProven::Unsigned)
}

/// The tree over entries, whatever they say.
fn tree(entries: &[VLBytes]) -> Mirror {
    let mut mirror = Mirror::default();
    entries.iter().for_each(|entry| mirror.pass(entry.as_slice()));
    mirror
}

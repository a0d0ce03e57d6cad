//! What this device keeps as proof that its server broke a rule, in files that anybody can verify.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use sr_crypto::text::to_hex;
use sr_trust::{Block, EVIDENCE_LEN_MAX, Evidence, Mirror, Proof, SignedLog, disowned_bytes};
use sr_wire::{
    Misbehaviour, SignedAnswer, SignedCard, VLBytes, decode, encode, labels, limits,
    log::{ENTRY_LEN, Key},
};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

use crate::{
    ClientError,
    log::{Shown, bundle},
    profile::{Profile, write_durably},
    remote::Remote,
};

const FOLDER: &str = "evidence";
const EXTENSION: &str = "srev";

/// Returns the files of evidence in the profile in `dir`, by name. They are read only.
///
/// **Errors** those of local files.
pub fn evidence_files(dir: &Path) -> Result<Vec<PathBuf>, ClientError> {
    let folder = dir.join(FOLDER);
    let files = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        files => files.map_err(ClientError::local("listing", &folder))?,
    };
    let mut found = Vec::new();
    for file in files {
        let path = file.map_err(ClientError::local("listing", &folder))?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Keeps what proves that the server has refused to show the log that it had signed, if it can be proven.
/// What can't be had, or can't be kept, changes nothing: the client refuses all the same.
pub(crate) fn about_log(profile: &Profile, remote: &Remote, shown: &Shown, refused: Misbehaviour) {
    for proof in log_proofs(profile, remote, shown, refused).unwrap_or_default() {
        keep(profile, remote, proof);
    }
}

/// Keeps other cards than those that this device has followed, if the same server has signed them.
pub(crate) fn about_cards(profile: &Profile, remote: &Remote) {
    if let Ok(cards) = profile.cards()
        && !cards.is_empty()
    {
        let proof = Proof::TwoCards { other: remote.refused_cards() };
        keep_about(profile, Evidence { made_s: remote.now_s(), cards, proof });
    }
}

/// Keeps other cards than those that this device has followed, that a contact's server shows under the same identity.
/// Returns whether they prove something.
pub(crate) fn about_others_cards(profile: &Profile, now_s: u64, other: Vec<SignedCard>) -> bool {
    let Ok(cards) = profile.cards() else { return false };
    let evidence = Evidence { made_s: now_s, cards, proof: Proof::TwoCards { other } };
    let is_proven = evidence.verify().is_ok();
    keep_about(profile, evidence);
    is_proven
}

/// Keeps two blocks at one place of a contact's account, if one of its devices has signed both.
pub(crate) fn about_blocks(profile: &Profile, now_s: u64, one: &[Vec<u8>], other: &[Vec<u8>]) {
    let parse = |blocks: &[Vec<u8>]| -> Vec<Block> {
        blocks.iter().filter_map(|block| Block::parse(block).ok()).collect()
    };
    let (ours, theirs) = (parse(one), parse(other));
    let forked = ours.iter().zip(&theirs).position(|(one, other)| one.hash() != other.hash());
    let Some(place) = forked else { return };
    // Up to there, they have the same devices.
    for device in ours[..place].iter().filter_map(Block::new_device) {
        let proof = Proof::SignedTwice {
            key: device.signing.clone(),
            one: one[place].clone().into(),
            other: other[place].clone().into(),
        };
        keep_about(profile, Evidence { made_s: now_s, cards: Vec::new(), proof });
    }
}

/// Keeps two answers about a space that contradict each other, if they do.
pub(crate) fn about_head(
    profile: &Profile,
    remote: &Remote,
    later: &SignedAnswer,
    random: [u8; 32],
) {
    if let Ok(Some(earlier)) = profile.answer(later.answer.space)
        && !is_kept(profile, &earlier)
    {
        keep(profile, remote, Proof::RolledBack { earlier, later: later.clone(), random });
    }
}

/// Keeps as evidence the answers of this run that were in doubt.
pub(crate) fn about_answers_in_doubt(profile: &mut Profile, remote: &Remote) {
    for InDoubt { answer, random } in std::mem::take(&mut profile.in_doubt) {
        about_head(profile, remote, &answer, random);
    }
}

/// An answer by a server that may have been put back from a backup, and what opens its question's nonce.
#[derive(Debug)]
pub(crate) struct InDoubt {
    pub(crate) answer: SignedAnswer,
    pub(crate) random: [u8; 32],
}

/// Each question has another answer; one proof that an answer was forgotten is enough.
fn is_kept(profile: &Profile, earlier: &SignedAnswer) -> bool {
    let about = |path: &PathBuf| {
        let evidence = Evidence::parse(&fs::read(path).ok()?).ok()?;
        matches!(evidence.proof, Proof::RolledBack { earlier: kept, .. } if kept == *earlier)
            .then_some(())
    };
    evidence_files(profile.dir()).is_ok_and(|files| files.iter().any(|path| about(path).is_some()))
}

fn keep(profile: &Profile, remote: &Remote, proof: Proof) {
    if let Ok(cards) = remote.cards() {
        keep_about(profile, Evidence { made_s: remote.now_s(), cards, proof });
    }
}

fn keep_about(profile: &Profile, evidence: Evidence) {
    // What does not prove anything to others is no evidence.
    if evidence.verify().is_err() {
        return;
    }
    let folder = profile.dir().join(FOLDER);
    let path = folder.join(to_hex(&evidence.id()[..8])).with_extension(EXTENSION);
    if fs::create_dir_all(&folder).is_ok() && !path.exists() {
        let _ = write_durably(&path, &evidence.to_bytes());
    }
    // Whether or not the proof could be kept. What a contact's device has done stops nobody.
    if matches!(evidence.proof, Proof::SignedTwice { .. }) {
        return;
    }
    let _ = profile.seal(evidence.made_s, matches!(evidence.proof, Proof::RolledBack { .. }));
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct CardsRow {
    cards: Vec<SignedCard>,
}

/// Since when nothing is sent to a server that has proven itself a liar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Sealed {
    /// Unix seconds.
    pub since_s: u64,
    /// 1 when all that it is known to have done is to show an older state, which a person may accept.
    is_rollback: u8,
}

impl Profile {
    /// Returns the cards of the server that this device has followed, from the first on.
    pub(crate) fn cards(&self) -> Result<Vec<SignedCard>, ClientError> {
        let Some(row) = self.get("cards")? else { return Ok(Vec::new()) };
        let followed: CardsRow =
            decode("cards", &row, limits::CARDS_LEN_MAX).map_err(|_| self.damaged())?;
        Ok(followed.cards)
    }

    /// Remembers the cards of the server.
    pub(crate) fn set_cards(&self, cards: Vec<SignedCard>) -> Result<(), ClientError> {
        let row = encode(&CardsRow { cards });
        if self.get("cards")?.is_some_and(|before| before == row) {
            return Ok(());
        }
        self.set("cards", &row)
    }

    /// Returns whether, and since when, nothing is sent to the server.
    pub(crate) fn sealed(&self) -> Result<Option<Sealed>, ClientError> {
        let row = self.get("sealed")?;
        let row = row.map(|row| decode("sealed", &row, row.len()));
        row.transpose().map_err(|_| self.damaged())
    }

    /// Refuses when nothing is to be sent to the server.
    ///
    /// **Errors** [`ClientError::Sealed`].
    pub(crate) fn require_unsealed(&self) -> Result<(), ClientError> {
        match self.sealed()? {
            Some(Sealed { since_s, is_rollback }) => {
                Err(ClientError::Sealed { since_s, is_rollback: is_rollback == 1 })
            }
            None => Ok(()),
        }
    }

    fn seal(&self, now_s: u64, is_rollback: bool) -> Result<(), ClientError> {
        let before = self.sealed()?;
        let since_s = before.map_or(now_s, |before| before.since_s);
        let is_rollback = u8::from(is_rollback && before.is_none_or(|b| b.is_rollback == 1));
        self.set("sealed", &encode(&Sealed { since_s, is_rollback }))
    }

    /// Sends to the server again, after a person has accepted what it was about.
    pub(crate) fn unseal_rollback(&self) -> Result<(), ClientError> {
        if self.sealed()?.is_some_and(|sealed| sealed.is_rollback == 1) {
            self.query(|db| db.execute("DELETE FROM state WHERE key = 'sealed'", []))?;
        }
        Ok(())
    }
}

fn log_proofs(
    profile: &Profile,
    remote: &Remote,
    shown: &Shown,
    refused: Misbehaviour,
) -> Result<Vec<Proof>, ClientError> {
    let note = || VLBytes::from(shown.note.clone());
    Ok(match refused {
        Misbehaviour::LogForked => {
            let own = profile.log()?.map(|known| known.checkpoint);
            let own = own.into_iter().zip([profile.log_note()?]);
            let heard = profile.heard(&shown.card)?.into_iter();
            let known = own.chain(heard.map(|heard| (heard.checkpoint, heard.note)));
            let mut proofs = Vec::new();
            for (known, old) in known {
                let old = old.into();
                if known.size() == shown.checkpoint.size() {
                    proofs.push(Proof::Fork { one: old, other: note() });
                } else if known.size() < shown.checkpoint.size() {
                    proofs.push(Proof::ForkByPrefix { old, new: whole(remote, shown)? });
                }
            }
            proofs
        }
        Misbehaviour::LogNotOwn => {
            ghost_head(profile, whole(remote, shown)?)?.into_iter().collect()
        }
        Misbehaviour::LogRuleBroken => {
            vec![Proof::RuleBroken { log: whole(remote, shown)? }]
        }
        Misbehaviour::ReceiptBroken => {
            let log = whole(remote, shown)?;
            let broken = |receipt| Proof::ReceiptBroken { receipt, log: log.clone() };
            profile.receipts()?.into_iter().map(|(_, receipt)| broken(receipt)).collect()
        }
        _ => Vec::new(),
    })
}

/// Disowns the newest logged change of the account, which none of its devices has made.
fn ghost_head(profile: &Profile, log: SignedLog) -> Result<Option<Proof>, ClientError> {
    let account = profile.keys.account.id();
    let mut mirror = Mirror::default();
    log.entries.iter().try_for_each(|entry| mirror.take(entry.as_slice()).map(drop))?;
    let Some(logged) = mirror.fold().newest(&Key::account(account)) else { return Ok(None) };
    let signing = profile.keys.device.signing();
    let chain = profile.blocks()?.into_iter().map(VLBytes::from).collect();
    Ok(Some(Proof::GhostHead {
        chain,
        key: signing.public_key().to_vec().into(),
        disowned: signing.sign(labels::DISOWNED, &disowned_bytes(account, logged)).into(),
        log,
    }))
}

/// Reads all of a log.
fn whole(remote: &Remote, shown: &Shown) -> Result<SignedLog, ClientError> {
    let size = shown.checkpoint.size();
    let mut entries: Vec<VLBytes> = Vec::new();
    // A log that is too long for a file is not read.
    let fits = size < (EVIDENCE_LEN_MAX / (2 * ENTRY_LEN)) as u64;
    while fits && (entries.len() as u64) < size {
        let more = bundle(remote, entries.len() as u64, size)?;
        entries.extend(more.into_iter().map(VLBytes::from));
    }
    Ok(SignedLog { note: shown.note.clone().into(), entries })
}

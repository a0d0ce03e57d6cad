//! What a server takes back after it was put back from a backup: what it has signed, and nothing else.

use std::sync::Arc;

use sr_crypto::{Secret32, SigningKey, derive};
use sr_server::Identity;
use sr_store::{MemoryMeta, MetaStore};
use sr_tlog::{Checkpoint, KeyKind, Note, NoteKey, Tree, leaf_hash};
use sr_wire::{
    Right, SealedHead, SignedAnswer, SpaceId,
    api::{self, ErrorCode, HeadGiveBack, LogGiveBack},
    encode, labels, limits,
    log::{Entry, Key},
};

use crate::rights::{Connect, Connection, SPACE, head, key, start_with, swap};

fn seed(byte: u8) -> Secret32 {
    Secret32::init_with(|seed| seed.fill(byte))
}

/// A server that serves, and a connection with it.
async fn begin() -> (Arc<MemoryMeta>, Connect, Connection) {
    let meta = Arc::new(MemoryMeta::default());
    let connect = start_with(Arc::clone(&meta));
    let one = Connection::new(&connect, 1).await;
    // It has begun its log by then.
    one.call(api::CARD, Vec::new()).await.expect("answers");
    (meta, connect, one)
}

/// Two heads in a row.
fn heads() -> Vec<SealedHead> {
    let first = head(1);
    let sealed = vec![1; limits::SEALED_HEAD_LEN].into();
    let second = SealedHead { previous: first.hash(), sealed, ..head(2) };
    vec![first, second]
}

#[tokio::test]
async fn heads_come_back_only_up_to_one_that_the_server_called_the_newest() {
    let (meta, _connect, one) = begin().await;
    one.create().await.expect("creates");
    let signed = |head: &SealedHead, by: u8| {
        SignedAnswer::sign(SPACE, Some(head), [0; 32], &SigningKey::from_seed(&seed(by)))
    };
    let [first, second] = &heads()[..] else { panic!("two") };
    let give_back = async |answer: SignedAnswer, heads: Vec<SealedHead>| {
        one.call(api::HEAD_GIVE_BACK, encode(&HeadGiveBack { answer, heads })).await.map(drop)
    };
    let honest = || give_back(signed(second, 1), heads());
    assert_eq!(honest().await, Err(ErrorCode::RightRefused));
    one.prove(Right::Read, &key(1)).await.expect("proves");
    one.prove(Right::Append, &key(2)).await.expect("proves");
    let conflict = Err(ErrorCode::Conflict);
    let other = SealedHead { sealed: vec![2; limits::SEALED_HEAD_LEN].into(), ..second.clone() };
    let elsewhere = SealedHead { space: SpaceId([9; 16]), ..first.clone() };
    assert_eq!(give_back(signed(second, 7), heads()).await, Err(ErrorCode::Malformed));
    assert_eq!(give_back(signed(second, 1), vec![first.clone()]).await, conflict);
    assert_eq!(give_back(signed(second, 1), vec![second.clone()]).await, conflict);
    assert_eq!(give_back(signed(second, 1), vec![first.clone(), other]).await, conflict);
    assert_eq!(give_back(signed(second, 1), vec![elsewhere, second.clone()]).await, conflict);
    assert_eq!(meta.head(SPACE).expect("reads"), None);
    assert_eq!(honest().await, Ok(()));
    assert_eq!(honest().await, Ok(()), "a repeat succeeds");
    assert_eq!(meta.heads(SPACE, 1, 9).expect("reads"), heads());
    // An older answer takes nothing away.
    assert_eq!(give_back(signed(first, 1), vec![first.clone()]).await, Ok(()));
    assert_eq!(meta.head(SPACE).expect("reads").as_ref(), Some(second));
}

#[tokio::test]
async fn nothing_new_is_stored_until_the_operator_says_that_all_is_back() {
    let (meta, _connect, one) = begin().await;
    one.create().await.expect("creates");
    one.prove(Right::Append, &key(2)).await.expect("proves");
    meta.set_put_back(b"").expect("sets");
    let swapped = one.call(api::HEAD_SWAP, swap(&one, 1, &key(2))).await.map(drop);
    assert_eq!(swapped, Err(ErrorCode::PutBack));
    meta.end_put_back().expect("ends");
    one.call(api::HEAD_SWAP, swap(&one, 2, &key(2))).await.expect("swaps");
}

/// The log of a server, as a client knows it that has one entry more than the server.
struct Known {
    entries: Vec<Entry>,
    tree: Tree,
    /// The checkpoint over it, as the server has signed it: no two signatures are the same.
    note: Vec<u8>,
}

impl Known {
    fn sign(&self, by: u8) -> Vec<u8> {
        let origin = Identity::from_seed(&seed(1)).card().origin.clone();
        let origin = String::from_utf8(origin.into()).expect("text");
        let (size, root) = (self.tree.size(), self.tree.root(self.tree.size()).expect("has one"));
        let checkpoint = Checkpoint::new(&origin, size, root).expect("an origin");
        let kinds = [
            (KeyKind::Ed25519, labels::LOG_ED25519),
            (KeyKind::CosignMlDsa44, labels::LOG_ML_DSA_44),
        ];
        let sign = |(kind, label)| {
            let key = NoteKey::new(&origin, kind, &derive(&seed(by), b"", label, b""));
            key.expect("a name").sign(&checkpoint, 5)
        };
        let signatures = kinds.map(sign).to_vec();
        Note { text: checkpoint.to_string(), signatures }.to_string().into_bytes()
    }

    fn give_back(&self, note: &[u8], entries: Vec<Entry>) -> Vec<u8> {
        let from = self.tree.size() - entries.len() as u64;
        encode(&LogGiveBack { checkpoint: note.to_vec().into(), from, entries })
    }
}

fn known(meta: &MemoryMeta) -> Known {
    let mut entries = meta.log_entries(0, 100).expect("reads");
    let key = Key { kind: sr_wire::log::ACCOUNT, index: [3; 32] };
    entries.push(Entry::following(None, key, [4; 32], 1));
    let mut tree = Tree::new();
    entries.iter().for_each(|entry| tree.push(leaf_hash(&entry.to_bytes())));
    let mut known = Known { entries, tree, note: Vec::new() };
    known.note = known.sign(1);
    known
}

#[tokio::test]
async fn the_log_comes_back_as_it_was_signed_and_no_other() {
    let (meta, _connect, one) = begin().await;
    let known = known(&meta);
    let last = *known.entries.last().expect("has one");
    let len = || meta.log_entries(0, 100).expect("reads").len();
    let give_back = async |body: Vec<u8>| one.call(api::LOG_GIVE_BACK, body).await.map(drop);
    // What somebody else has signed means nothing.
    assert_eq!(give_back(known.give_back(&known.sign(7), vec![last])).await, Ok(()));
    assert_eq!((len(), meta.put_back().expect("reads")), (2, None));
    // Entries that the signature does not cover: refused, and that the log was longer is known from here on.
    let conflict = Err(ErrorCode::Conflict);
    let other = Entry { value: [9; 32], ..last };
    assert_eq!(give_back(known.give_back(&known.note, vec![other])).await, conflict);
    assert_eq!(give_back(known.give_back(&known.note, Vec::new())).await, conflict);
    assert_eq!((len(), meta.put_back().expect("reads")), (2, Some(known.note.clone())));
    assert_eq!(give_back(known.give_back(&known.note, vec![last])).await, Ok(()));
    assert_eq!(
        give_back(known.give_back(&known.note, known.entries.clone())).await,
        Ok(()),
        "a repeat"
    );
    assert_eq!((len(), meta.owed().expect("counts")), (3, 1));
    assert_eq!(meta.checkpoint().expect("reads"), Some(known.note.clone()));
    let checkpoint = one.get("/log/checkpoint").await.expect("reads");
    assert_eq!(checkpoint, known.note.clone(), "the server stands by what it had signed");
}

/// Who knows that the log was longer, and has not kept its end, stops the server all the same: it would
/// contradict itself.
#[tokio::test]
async fn who_knows_a_longer_log_stops_a_server_from_going_on() {
    let (meta, _connect, one) = begin().await;
    one.create().await.expect("creates");
    one.prove(Right::Append, &key(2)).await.expect("proves");
    let known = known(&meta);
    let give_back = async |body: Vec<u8>| one.call(api::LOG_GIVE_BACK, body).await.map(drop);
    let conflict = Err(ErrorCode::Conflict);
    assert_eq!(give_back(known.give_back(&known.note, Vec::new())).await, conflict);
    assert_eq!(meta.put_back().expect("reads"), Some(known.note.clone()));
    let swapped = one.call(api::HEAD_SWAP, swap(&one, 1, &key(2))).await.map(drop);
    assert_eq!(swapped, Err(ErrorCode::PutBack));
}

/// A copy may have an entry that the checkpoint in it does not cover yet. Another checkpoint would be later than
/// promises that were kept.
#[tokio::test]
async fn a_checkpoint_comes_back_over_entries_that_are_there() {
    let (meta, _connect, one) = begin().await;
    let known = known(&meta);
    meta.set_put_back(b"").expect("sets");
    let before = meta.checkpoint().expect("reads").expect("has one");
    let last = *known.entries.last().expect("has one");
    meta.give_back_log(2, &[last], &before).expect("adds");
    assert_eq!(one.get("/log/checkpoint").await.expect("reads"), before);
    let body = known.give_back(&known.note, vec![last]);
    one.call(api::LOG_GIVE_BACK, body).await.expect("takes");
    assert_eq!(one.get("/log/checkpoint").await.expect("reads"), known.note);
    assert_eq!(meta.log_entries(0, 9).expect("reads"), known.entries);
}

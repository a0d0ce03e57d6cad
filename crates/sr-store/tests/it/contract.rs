//! One suite for every back-end.

use std::sync::Arc;

use sr_store::{
    BlobStore, Caps, Faults, Faulty, Files, MemoryBlobs, MemoryMeta, MetaStore, NewBlocks,
    PackRecord, Sqlite, StoreError, Swapped,
};
use sr_wire::{
    AccountId, PackId, SealedHead, SpaceId, SpaceKeys,
    limits::SLOT_LEN,
    log::{ACCOUNT, Entry, FRESHNESS, Key, Newest},
};

const KEYS: SpaceKeys =
    SpaceKeys { generation: 1, read: [1; 32], append: [2; 32], prune: [3; 32], owner: [0; 32] };

fn space(byte: u8) -> SpaceId {
    SpaceId([byte; 16])
}

fn pack(byte: u8) -> PackId {
    PackId([byte; 32])
}

fn head(space: SpaceId, previous: Option<&SealedHead>, content: u8) -> SealedHead {
    SealedHead {
        space,
        seq: previous.map_or(0, |head| head.seq) + 1,
        generation: 0,
        previous: previous.map_or([0; 32], SealedHead::hash),
        sealed: vec![content; 100].into(),
    }
}

fn each_meta(check: impl Fn(&dyn MetaStore)) {
    check(&MemoryMeta::default());
    let dir = tempfile::tempdir().expect("dir");
    check(&Sqlite::open(dir.path()).expect("opens"));
}

fn each_blobs(check: impl Fn(&dyn BlobStore)) {
    check(&MemoryBlobs::default());
    let dir = tempfile::tempdir().expect("dir");
    check(&Files::open(dir.path()).expect("opens"));
}

fn with_space(meta: &dyn MetaStore, byte: u8) -> SpaceId {
    meta.add_vouchers(&[[byte; 32]]).expect("adds");
    meta.create_space(space(byte), &KEYS, &[byte; 32], &Caps::default()).expect("creates");
    space(byte)
}

#[test]
fn a_voucher_pays_for_one_space() {
    each_meta(|meta| {
        let caps = Caps { spaces: 2, ..Caps::default() };
        meta.add_vouchers(&[[1; 32], [2; 32], [3; 32]]).expect("adds");
        let create = |s, voucher: u8| meta.create_space(space(s), &KEYS, &[voucher; 32], &caps);
        assert!(matches!(create(1, 9), Err(StoreError::VoucherUnknown)));
        create(1, 1).expect("creates");
        assert!(matches!(create(2, 1), Err(StoreError::VoucherUnknown)));
        assert!(matches!(create(1, 2), Err(StoreError::Exists)));
        create(2, 2).expect("a refused creation spends nothing");
        assert!(matches!(create(3, 3), Err(StoreError::QuotaFull)));
        assert_eq!(meta.space_keys(space(1)).expect("keys"), KEYS);
        assert!(matches!(meta.space_keys(space(9)), Err(StoreError::NotFound)));
    });
}

#[test]
fn packs_belong_to_one_space_and_count() {
    each_meta(|meta| {
        let (a, b) = (with_space(meta, 1), with_space(meta, 2));
        let caps = Caps { bytes_per_space: 250, packs_per_space: 3, ..Caps::default() };
        meta.add_pack(a, pack(1), 100, &caps).expect("adds");
        assert!(matches!(meta.add_pack(a, pack(1), 100, &caps), Err(StoreError::Exists)));
        assert!(matches!(meta.add_pack(b, pack(1), 100, &caps), Err(StoreError::Exists)));
        assert!(matches!(meta.add_pack(space(9), pack(2), 1, &caps), Err(StoreError::NotFound)));
        assert!(matches!(meta.add_pack(a, pack(2), 151, &caps), Err(StoreError::QuotaFull)));
        meta.add_pack(a, pack(2), 150, &caps).expect("adds");
        meta.add_pack(b, pack(3), 1, &caps).expect("another space has its own limit");
        let record = PackRecord { len: 150, days_left: None };
        assert_eq!(meta.pack(a, pack(2)).expect("record"), record);
        assert!(matches!(meta.pack(b, pack(2)), Err(StoreError::NotFound)));
        assert!(meta.has_pack(pack(3)).expect("has"));
        assert!(!meta.has_pack(pack(9)).expect("has not"));
    });
}

#[test]
fn heads_are_swapped_by_compare_and_swap() {
    each_meta(|meta| {
        let a = with_space(meta, 1);
        assert_eq!(meta.head(a).expect("head"), None);
        assert!(matches!(meta.head(space(9)), Err(StoreError::NotFound)));
        let first = head(a, None, 1);
        let rival = head(a, None, 2);
        assert_eq!(meta.swap_head(&first).expect("swaps"), Swapped::Done);
        assert_eq!(meta.swap_head(&first).expect("a repeat succeeds"), Swapped::Done);
        let conflict = Swapped::Conflict(Some(first.clone()));
        assert_eq!(meta.swap_head(&rival).expect("answers"), conflict);
        let second = head(a, Some(&first), 3);
        assert_eq!(meta.swap_head(&head(a, Some(&rival), 3)).expect("answers"), conflict);
        assert_eq!(meta.swap_head(&second).expect("swaps"), Swapped::Done);
        assert_eq!(meta.head(a).expect("head"), Some(second.clone()));
        assert_eq!(meta.swap_head(&first).expect("answers"), Swapped::Conflict(Some(second)));
        assert!(matches!(meta.swap_head(&head(space(9), None, 1)), Err(StoreError::NotFound)));
    });
}

#[test]
fn one_of_many_swaps_at_once_wins() {
    each_meta(|meta| {
        let a = with_space(meta, 1);
        let wins = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..8)
                .map(|n| scope.spawn(move || meta.swap_head(&head(a, None, n)).expect("answers")))
                .collect();
            let results: Vec<_> = runs.into_iter().map(|run| run.join().expect("joins")).collect();
            results.into_iter().filter(|swapped| *swapped == Swapped::Done).count()
        });
        assert_eq!(wins, 1);
    });
}

#[test]
fn blobs_are_written_once() {
    each_blobs(|blobs| {
        let write = |id, bytes: &[u8]| {
            let mut writer = blobs.begin(id, 0).expect("begins");
            writer.write(bytes).expect("writes");
            writer.finish()
        };
        write(pack(1), b"hello").expect("stores");
        assert!(matches!(write(pack(1), b"other"), Err(StoreError::Exists)));
        assert_eq!(blobs.read(pack(1), 0, 100).expect("reads"), b"hello");
        assert_eq!(blobs.read(pack(1), 1, 3).expect("reads"), b"ell");
        assert_eq!(blobs.read(pack(1), 9, 3).expect("reads"), b"");
        assert!(matches!(blobs.read(pack(2), 0, 1), Err(StoreError::NotFound)));
        drop(blobs.begin(pack(3), 0).expect("begins"));
        assert_eq!(blobs.list().expect("lists"), [pack(1)]);
        blobs.delete(pack(1)).expect("deletes");
        blobs.delete(pack(1)).expect("a repeat succeeds");
        assert!(blobs.list().expect("lists").is_empty());
    });
}

#[test]
fn an_interrupted_blob_goes_on_where_it_was() {
    each_blobs(|blobs| {
        let part = |blobs: &dyn BlobStore, byte: u8, len: usize| {
            let mut writer = blobs.begin(pack(1), 0).expect("begins");
            writer.write(&vec![byte; len]).expect("writes");
        };
        let left = |id, from, len| blobs.read_part(pack(id), from, len).expect("reads");
        part(blobs, 1, SLOT_LEN + 9);
        assert!(matches!(blobs.read(pack(1), 0, 9), Err(StoreError::NotFound)), "it is no blob");
        assert_eq!(left(1, SLOT_LEN as u64, 99), [1; 9]);
        assert!(left(1, SLOT_LEN as u64 + 9, 9).is_empty() && left(2, 0, 9).is_empty());
        blobs.drop_old_parts().expect("deletes");
        let mut writer = blobs.begin(pack(1), SLOT_LEN as u64).expect("goes on");
        writer.write(b"end").expect("writes");
        writer.finish().expect("stores");
        assert_eq!(blobs.read(pack(1), SLOT_LEN as u64 - 1, 9).expect("reads"), b"\x01end");
        assert!(left(1, 0, 9).is_empty());
        assert!(matches!(blobs.begin(pack(1), 1), Err(StoreError::NotFound)), "nothing is left");
        blobs.delete(pack(1)).expect("deletes");

        // From the start; of less than a slot nothing is left; and given up.
        part(blobs, 1, SLOT_LEN + 9);
        part(blobs, 2, SLOT_LEN);
        assert_eq!(left(1, 0, SLOT_LEN + 9), vec![2; SLOT_LEN]);
        part(blobs, 3, SLOT_LEN - 1);
        assert!(left(1, 0, 9).is_empty());
        part(blobs, 4, SLOT_LEN);
        blobs.begin(pack(1), SLOT_LEN as u64).expect("goes on").discard();
        assert!(left(1, 0, 9).is_empty());
    });
}

#[test]
fn a_sweep_deletes_what_no_record_names() {
    let (meta, blobs) = (MemoryMeta::default(), MemoryBlobs::default());
    let a = with_space(&meta, 1);
    for id in [1, 2] {
        blobs.begin(pack(id), 0).expect("begins").finish().expect("stores");
    }
    meta.add_pack(a, pack(1), 0, &Caps::default()).expect("adds");
    assert_eq!(sr_store::sweep(&meta, &blobs).expect("sweeps"), 1);
    assert_eq!(blobs.list().expect("lists"), [pack(1)]);
    // So many are no leftovers: the records are gone, and nothing may be deleted.
    for id in 10..110 {
        blobs.begin(pack(id), 0).expect("begins").finish().expect("stores");
    }
    let refused = sr_store::sweep(&meta, &blobs);
    assert!(matches!(refused, Err(StoreError::RecordsMissing { packs: 100 })));
    assert_eq!(blobs.list().expect("lists").len(), 101);
}

/// Whichever call fails, what was acknowledged is there, what was not can be done again, and
/// nothing else is.
#[test]
fn any_failing_call_leaves_a_state_from_which_the_same_steps_succeed() {
    for n in 0..12 {
        let (meta, blobs) = (Arc::new(MemoryMeta::default()), Arc::new(MemoryBlobs::default()));
        let a = with_space(&*meta, 1);
        let (faulty_meta, faulty_blobs) = (
            Faulty::new(Arc::clone(&meta), Faults::at(n)),
            Faulty::new(Arc::clone(&blobs), Faults::at(n)),
        );
        let first = head(a, None, 1);
        let store = |meta: &dyn MetaStore, blobs: &dyn BlobStore| -> Result<(), StoreError> {
            if !meta.has_pack(pack(1))? {
                let mut writer = blobs.begin(pack(1), 0)?;
                writer.write(b"bytes")?;
                match writer.finish() {
                    Ok(()) | Err(StoreError::Exists) => {}
                    Err(e) => return Err(e),
                }
                meta.add_pack(a, pack(1), 5, &Caps::default())?;
            }
            meta.swap_head(&first).map(|_| ())
        };
        let _ = store(&faulty_meta, &faulty_blobs);
        sr_store::sweep(&*meta, &*blobs).expect("sweeps");
        store(&*meta, &*blobs).expect("the same steps succeed");
        assert_eq!(meta.head(a).expect("head"), Some(first));
        assert_eq!(blobs.read(pack(1), 0, 9).expect("reads"), b"bytes");
    }
}

#[test]
fn what_was_deleted_can_be_had_back_for_days_that_no_clock_shortens() {
    each_meta(|meta| {
        let (a, b) = (with_space(meta, 1), with_space(meta, 2));
        let caps = Caps { packs_per_space: 2, ..Caps::default() };
        meta.add_pack(a, pack(1), 100, &caps).expect("adds");
        meta.add_pack(a, pack(2), 100, &caps).expect("adds");
        meta.add_pack(b, pack(3), 100, &caps).expect("adds");
        let count = |day| meta.count_day(day).expect("counts");
        assert_eq!(count(100), []);
        meta.delete_packs(a, &[pack(1), pack(3), pack(9)], 2).expect("deletes");
        assert_eq!(meta.packs(a).expect("lists"), [pack(2)]);
        assert_eq!(meta.packs(b).expect("lists"), [pack(3)], "of another space");
        let record = PackRecord { len: 100, days_left: Some(2) };
        assert_eq!(meta.pack(a, pack(1)).expect("can be read"), record);
        let full = meta.add_pack(a, pack(4), 100, &caps);
        assert!(matches!(full, Err(StoreError::QuotaFull)), "it counts until it is gone");
        // Ten years at once are a day; the same day again is none, and back is none.
        assert_eq!(count(3_750), []);
        assert_eq!(count(3_750), []);
        assert_eq!(count(101), []);
        meta.delete_packs(a, &[pack(1)], 9).expect("a repeat changes nothing");
        assert_eq!(meta.undelete_packs(b).expect("undeletes"), 0);
        assert_eq!(meta.undelete_packs(a).expect("undeletes"), 1);
        assert_eq!(count(102), []);
        assert_eq!(meta.packs(a).expect("lists").len(), 2);
        meta.delete_packs(a, &[pack(1)], 2).expect("deletes");
        assert_eq!(count(103), []);
        assert_eq!(count(104), [pack(1)]);
        assert!(!meta.has_pack(pack(1)).expect("has"));
        meta.add_pack(a, pack(4), 100, &caps).expect("there is room again");
    });
}

/// An account's first entries, each with the block that it is of.
fn changes(count: u64) -> Vec<(Vec<u8>, Entry)> {
    let key = Key { kind: ACCOUNT, index: [3; 32] };
    let mut before = None;
    let entry = |seq: u64| {
        let value = [u8::try_from(seq).expect("few"); 32];
        let entry = Entry::following(before.as_ref(), key, value, 100 + seq);
        before = Some(Newest { seq, value });
        (vec![7; 9], entry)
    };
    (0..count).map(entry).collect()
}

fn blocks(from: u64, blocks: &[(Vec<u8>, Entry)]) -> NewBlocks {
    NewBlocks {
        account: AccountId([1; 32]),
        from,
        blocks: blocks.to_vec(),
        key_block: Some(vec![1]),
        envelope: None,
        voucher_hash: None,
        is_promised: false,
    }
}

#[test]
fn what_the_log_has_comes_back_once_and_unchanged() {
    each_meta(|meta| {
        let (changes, caps) = (changes(4), Caps::default());
        let entries: Vec<Entry> = changes.iter().map(|(_, entry)| *entry).collect();
        let append = |from: u64, new: &[_]| meta.append_blocks(&blocks(from, new), &caps);
        meta.set_put_back(b"a").expect("sets");
        meta.set_put_back(b"b").expect("sets");
        assert_eq!(meta.put_back().expect("reads"), Some(b"b".to_vec()));
        assert!(matches!(append(0, &changes[..1]), Err(StoreError::PutBack)));
        assert!(matches!(meta.give_back_log(1, &entries, b"note"), Err(StoreError::Exists)));
        meta.give_back_log(0, &entries[..2], b"note").expect("takes");
        assert_eq!(meta.log_entries(0, 9).expect("reads"), entries[..2]);
        assert_eq!(meta.checkpoint().expect("reads"), Some(b"note".to_vec()));
        assert_eq!(meta.owed().expect("counts"), 1, "accounts, not changes");
        assert!(meta.is_owed(&entries[1]).expect("reads"));
        let other = (changes[0].0.clone(), Entry { value: [9; 32], ..entries[0] });
        assert!(!meta.is_owed(&other.1).expect("reads"));
        assert!(matches!(append(0, &[other]), Err(StoreError::Exists)));
        // All or none: the third is new.
        assert!(matches!(append(0, &changes[..3]), Err(StoreError::PutBack)));
        assert!(matches!(meta.blocks(AccountId([1; 32]), 0, 99), Err(StoreError::NotFound)));
        assert_eq!(meta.owed().expect("counts"), 1);
        append(0, &changes[..2]).expect("needs no voucher");
        assert_eq!(meta.owed().expect("counts"), 0);
        assert_eq!(meta.log_entries(0, 9).expect("reads").len(), 2, "no entry is made twice");
        meta.end_put_back().expect("ends");
        append(2, &changes[2..]).expect("goes on");
        assert_eq!(meta.log_entries(0, 9).expect("reads"), entries);
    });
}

#[test]
fn heads_come_back_where_they_were() {
    each_meta(|meta| {
        let a = with_space(meta, 1);
        let first = head(a, None, 1);
        let second = head(a, Some(&first), 2);
        let third = head(a, Some(&second), 3);
        assert_eq!(meta.swap_head(&first).expect("swaps"), Swapped::Done);
        meta.set_put_back(b"").expect("sets");
        assert!(matches!(meta.swap_head(&second), Err(StoreError::PutBack)));
        let give_back = |heads: &[SealedHead]| meta.give_back_heads(heads);
        assert!(matches!(give_back(std::slice::from_ref(&third)), Err(StoreError::Exists)));
        assert!(matches!(give_back(std::slice::from_ref(&first)), Err(StoreError::Exists)));
        give_back(&[]).expect("is nothing");
        give_back(&[second.clone(), third.clone()]).expect("takes");
        assert_eq!(meta.heads(a, 1, 9).expect("reads"), [first, second, third]);
        let nowhere = head(space(9), None, 1);
        assert!(matches!(give_back(&[nowhere]), Err(StoreError::NotFound)));
    });
}

#[test]
fn entries_of_a_key_follow_each_other() {
    each_meta(|meta| {
        let first = Entry {
            version: 1,
            kind: FRESHNESS,
            time_s: 9,
            index: [1; 32],
            seq: 0,
            value: [2; 32],
            previous: [0; 32],
        };
        let second = Entry { seq: 1, value: [3; 32], previous: first.value, time_s: 7, ..first };
        let exists = |entry| assert!(matches!(meta.append_entry(&entry), Err(StoreError::Exists)));
        exists(second);
        assert!(meta.append_entry(&first).expect("adds"));
        assert!(!meta.append_entry(&first).expect("is there"));
        exists(Entry { value: [4; 32], ..first });
        exists(Entry { previous: [4; 32], ..second });
        assert!(meta.append_entry(&second).expect("adds"));
        exists(first);
        let other = Entry { index: [5; 32], ..first };
        assert!(meta.append_entry(&other).expect("is another key's"));
        let third = Entry { seq: 2, value: [6; 32], previous: second.value, ..first };
        meta.set_put_back(b"").expect("sets");
        assert!(matches!(meta.append_entry(&third), Err(StoreError::PutBack)));
        // What comes back with the log is followed, too.
        meta.give_back_log(3, &[third], b"note").expect("takes");
        meta.end_put_back().expect("ends");
        let fourth = Entry { seq: 3, value: [7; 32], previous: third.value, ..first };
        assert!(meta.append_entry(&fourth).expect("adds"));
        let log = meta.log_entries(0, 9).expect("reads");
        // No time is before the one before.
        let second = Entry { time_s: 9, ..second };
        assert_eq!(log, [first, second, other, third, fourth]);
    });
}

#[test]
fn witnesses_and_policies_are_kept() {
    each_meta(|meta| {
        let set = |url, keys| meta.set_witness(url, keys).expect("sets");
        set("b", Some("1"));
        set("a", Some("2"));
        set("b", Some("3"));
        let pair = |url: &str, keys: &str| (url.to_owned(), keys.to_owned());
        assert_eq!(meta.witnesses().expect("lists"), [pair("a", "2"), pair("b", "3")]);
        set("a", None);
        set("c", None);
        assert_eq!(meta.witnesses().expect("lists"), [pair("b", "3")]);
        meta.add_policy("one", None).expect("adds");
        let entry = changes(1).remove(0).1;
        meta.add_policy("", Some(&entry)).expect("adds");
        assert_eq!(meta.policies().expect("lists"), ["one", ""]);
        assert_eq!(meta.log_entries(0, 9).expect("reads"), [entry]);
    });
}

//! Packs that were sent in part: what the server has of them is not sent again.

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
};

use sr_server::Stores;
use sr_store::{BlobStore, Caps, Fault, Faults, Faulty, MemoryBlobs, MemoryMeta};
use sr_wire::{PackId, limits::SLOT_LEN};

use crate::{
    network::{Simulated, server},
    world::clock,
};

/// What the folder's pack has; in one network frame more is on its way.
const PACK_LEN: usize = 4 << 20;
/// What a run sends besides: heads, questions, small packs, and what is in buffers when a line breaks.
const BESIDE: usize = 512 << 10;

fn sent(simulated: &Simulated, work: impl FnOnce()) -> usize {
    let before = simulated.network.sent.load(Ordering::SeqCst);
    work();
    simulated.network.sent.load(Ordering::SeqCst) - before
}

/// Each connection carries a slot and a half: without what is left, the pack would never be there.
#[test]
fn a_pack_over_a_line_that_breaks_again_and_again_is_sent_once() {
    let blobs = Arc::new(MemoryBlobs::default());
    let meta = Arc::new(MemoryMeta::default());
    let simulated = Simulated::new(meta, blobs, Caps::default()).expect("joins");
    *simulated.network.breaks_after.lock().expect("lock") = vec![SLOT_LEN * 3 / 2; 6];
    let sent = sent(&simulated, || drop(simulated.backup().expect("backs up")));
    let left = simulated.network.breaks_after.lock().expect("lock").len();
    assert!(left < 3, "the line has broken");
    let tears = 6 - left;
    assert!(sent < PACK_LEN + tears * SLOT_LEN + BESIDE, "{sent} bytes, {tears} tears");
    simulated.assert_whole();
}

/// A run that ends when three slots of its pack were received, its store, and the pack.
fn ended_after_three_slots() -> (Simulated, Arc<MemoryMeta>, Arc<MemoryBlobs>, PackId) {
    (3..12).find_map(ended_after).expect("one of these calls is the fourth write")
}

fn ended_after(calls: u64) -> Option<(Simulated, Arc<MemoryMeta>, Arc<MemoryBlobs>, PackId)> {
    let (meta, blobs) = (Arc::new(MemoryMeta::default()), Arc::new(MemoryBlobs::default()));
    let faults = Faults::default();
    let faulty = Arc::new(Faulty::new(Arc::clone(&blobs), faults.clone()));
    let simulated = Simulated::new(meta.clone(), faulty, Caps::default()).expect("joins");
    faults.set(Fault::Ends, calls);
    simulated.backup().err()?;
    faults.clear();
    let kept = fs::read_dir(simulated.dir.path().join("profile/outgoing")).ok()?;
    let names = kept.map(|file| file.expect("reads").file_name());
    let pack = names.filter_map(|name| name.to_str()?.parse::<PackId>().ok()).next()?;
    let received = blobs.read_part(pack, 0, PACK_LEN).expect("reads").len();
    (received / SLOT_LEN == 3).then_some((simulated, meta, blobs, pack))
}

#[test]
fn a_client_and_a_server_that_ended_go_on_in_the_middle_of_a_pack() {
    let (mut simulated, meta, blobs, pack) = ended_after_three_slots();
    let stores = Stores { meta, blobs: blobs.clone() };
    simulated.runtime = simulated.network.serve(server(&stores, Caps::default(), &clock()));
    let sent = sent(&simulated, || drop(simulated.backup().expect("goes on")));
    assert!(sent < PACK_LEN - 3 * SLOT_LEN + BESIDE, "{sent} bytes");
    assert!(blobs.has(pack).expect("has"), "it is the same pack");
    let outgoing = simulated.dir.path().join("profile/outgoing");
    assert_eq!(fs::read_dir(outgoing).expect("dir").count(), 0);
    simulated.assert_whole();
}

/// The server says that it has what was sent, and has something else.
#[test]
fn what_a_server_has_of_a_pack_counts_only_if_it_is_what_was_sent() {
    let (simulated, _, blobs, pack) = ended_after_three_slots();
    let mut part = blobs.begin(pack, SLOT_LEN as u64).expect("goes on");
    part.write(&vec![7; 2 * SLOT_LEN]).expect("writes");
    drop(part);
    let sent = sent(&simulated, || drop(simulated.backup().expect("goes on")));
    assert!((PACK_LEN - SLOT_LEN..PACK_LEN).contains(&sent), "{sent} bytes: the first slot counts");
    simulated.assert_whole();
}

/// The power failed before the kept pack was on the disk; or somebody has changed it.
#[test]
fn a_kept_pack_that_is_not_as_it_was_sealed_is_not_sent() {
    for cut in [0, 100, SLOT_LEN, PACK_LEN] {
        let (simulated, _, blobs, pack) = ended_after_three_slots();
        let path = simulated.dir.path().join("profile/outgoing").join(pack.to_string());
        let mut bytes = fs::read(&path).expect("reads");
        assert_eq!(bytes.len(), PACK_LEN);
        bytes.truncate(cut);
        if let Some(byte) = bytes.get_mut(PACK_LEN - 9) {
            *byte ^= 1;
        }
        fs::write(&path, bytes).expect("writes");
        simulated.backup().expect("backs up");
        assert!(!blobs.has(pack).expect("has"));
        assert!(!path.exists());
        simulated.assert_whole();
    }
}

/// Else it would be in the way of everything that comes after.
#[test]
fn a_kept_pack_that_the_server_refuses_stops_nothing() {
    let (mut simulated, meta, blobs, pack) = ended_after_three_slots();
    let serve = |caps| {
        let stores = Stores { meta: meta.clone(), blobs: blobs.clone() };
        server(&stores, caps, &clock())
    };
    simulated.runtime =
        simulated.network.serve(serve(Caps { bytes_per_space: 1 << 20, ..Caps::default() }));
    let folder = simulated.dir.path().join("folder");
    for file in fs::read_dir(&folder).expect("lists") {
        fs::write(file.expect("reads").path(), "short").expect("writes");
    }
    simulated.backup().expect("what is there now has room");
    assert!(!blobs.has(pack).expect("has"));
    simulated.assert_whole();
}

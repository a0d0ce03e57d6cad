//! An honest server that was put back from a backup: it gets back what came after, from its clients, and no
//! alarm stays.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sr_client::{Client, ClientError, Progress, ReadData, evidence_files};
use sr_store::{MetaStore, Sqlite};
use sr_wire::{Misbehaviour, api::ErrorCode};

use crate::{
    log::{copy, wait_for},
    world::{World, assert_same_tree, clock},
};

impl World {
    /// Copies the server's directory, which is the operator's backup.
    fn copied(&mut self) -> PathBuf {
        let to = self.dir.path().join("copy");
        self.put_back(|data| copy(data, &to));
        to
    }

    /// Puts the copy into the place of the server's directory.
    fn put_copy_back(&mut self, from: &Path) {
        self.put_back(|data| {
            fs::remove_dir_all(data).expect("deletes");
            copy(from, data);
        });
    }

    /// Waits until the log has so many changes of accounts, and has the laptop know that.
    fn logged(&self, changes: u64) {
        wait_for(&self.client().log().expect("reads"), changes);
        self.snapshots();
    }

    fn meta(&self) -> Sqlite {
        Sqlite::open(&self.data()).expect("opens")
    }
}

fn no_alarm(profile: &Path) {
    assert_eq!(evidence_files(profile).expect("lists"), Vec::<PathBuf>::new());
}

fn is_refused_as_put_back<T>(done: Result<T, ClientError>) {
    let refused = done.map(drop);
    assert!(matches!(refused, Err(ClientError::ServerRefused(ErrorCode::PutBack))), "{refused:?}");
}

/// A day with backups, a second device, a device that goes, and a kit.
#[test]
fn everything_that_came_after_comes_back() {
    let mut world = World::new();
    world.write("first", "of yesterday");
    world.backup();
    world.logged(1);
    let copy = world.copied();
    world.write("second", vec![7; 3 << 20]);
    world.backup();
    let phone = world.other("phone");
    drop(world.link("phone"));
    drop(world.link("tablet"));
    world.client().revoke_device("tablet").expect("revokes");
    let kit = world.with_kit();
    world.write("third", "of today");
    world.backup();
    world.logged(5);
    let devices = world.client().devices().expect("lists").len();
    world.put_copy_back(&copy);

    // Reading goes on with what this device knows; writing waits for the operator.
    assert_eq!(world.snapshots().len(), 3);
    let is_noted = |client: &mut Client| client.status().expect("reads").put_back;
    assert_eq!(is_noted(&mut world.client()).expect("noted").times, 1);
    let backup = |client: &mut Client| client.backup(None, &Progress::default());
    is_refused_as_put_back(backup(&mut world.client()));
    assert_eq!(world.meta().owed().expect("counts"), 0);
    // The other device finds all as it knows it.
    let mut other = Client::open(&phone, clock()).expect("opens");
    assert_eq!(other.devices().expect("lists").len(), devices);
    // But for what only the first one's next backup stores anew.
    let refused = other.snapshots().map(drop);
    let missing = ClientError::Misbehaviour(Misbehaviour::PackMissing);
    assert_eq!(refused.map_err(|e| e.to_string()), Err(missing.to_string()));

    world.meta().end_put_back().expect("ends");
    world.backup();
    let mut client = world.client();
    let report = client.verify(ReadData::All, &Progress::default()).expect("verifies");
    // A state in between that is nowhere any more is named.
    assert_eq!((report.bad_snapshots.len(), report.lists_damaged), (1, false), "{report:?}");
    let log = client.log().expect("reads").verify(&Progress::default()).expect("verifies");
    assert_eq!((log.missing, log.unknown_from), (0, None));
    assert_eq!(client.status().expect("reads").put_back.expect("noted").times, 1);
    drop(client);
    assert_eq!(other.snapshots().expect("reads").len(), 5);
    assert_eq!(is_noted(&mut other), None, "the first has given back all");
    no_alarm(&world.profile());
    no_alarm(&phone);
    // Whoever comes for the first time, too.
    let address = world.invite().address;
    let paper = world.dir.path().join("paper");
    let mut paper =
        Client::restore_kit(&paper, &address, &kit, "paper", clock()).expect("restores");
    let to = sr_client::Target::Folder(world.target());
    let (_, report) = paper.restore("latest", None, &to, &Progress::default()).expect("restores");
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    assert_same_tree(&world.folder(), &world.target());
}

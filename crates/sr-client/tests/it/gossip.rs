//! Two histories of one log are noticed where two who were shown them hear of each other.

use std::{fs, path::Path, sync::PoisonError};

use sr_client::{Client, ClientError, Progress, evidence_files};
use sr_wire::Misbehaviour;

use crate::{
    accounts::backup,
    attacks::ONE_AT_A_TIME,
    log::{change_entry, copy},
    world::{World, clock},
};

fn is_forked<T>(done: Result<T, ClientError>) {
    let refused = done.map(drop);
    let is_it = |m: &Misbehaviour| *m == Misbehaviour::LogForked;
    assert!(matches!(&refused, Err(ClientError::Misbehaviour(m)) if is_it(m)), "{refused:?}");
}

fn has_proof(profile: &Path) -> bool {
    let files = evidence_files(profile).expect("lists");
    files.iter().any(|file| {
        let evidence = sr_trust::Evidence::parse(&fs::read(file).expect("reads")).expect("parses");
        evidence.verify().is_ok() && evidence.kind() == 2
    })
}

impl World {
    /// Puts what `aside` has of the server's directory into its place, and what is there, aside.
    fn turn(&mut self, aside: &Path) {
        let now = self.dir.path().join("turning");
        self.tamper(|data| {
            fs::rename(data, &now).expect("moves");
            fs::rename(aside, data).expect("moves");
            fs::rename(&now, aside).expect("moves");
        });
    }

    fn somebody_joins(&mut self, name: &str) {
        let (dir, invite) = (self.other(name), self.invite());
        drop(Client::join(&dir, &invite, None, name, clock()).expect("joins"));
        self.settled_as(&dir);
    }
}

/// The operator shows the phone another log than the laptop, with the same account and the same backups: what the
/// phone tells in the account's own record is what the laptop refuses.
#[test]
fn a_devices_word_of_another_log_is_heard_by_the_others() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    world.write("a", "1");
    world.backup();
    let mut phone = world.link("phone");
    phone.add_folder(&world.folder()).expect("adds");
    drop(phone);
    world.settled();
    let aside = world.dir.path().join("aside");
    world.put_back(|data| copy(data, &aside));
    // What the phone is shown.
    world.turn(&aside);
    world.somebody_joins("ghost");
    world.write("b", "2");
    backup(&mut world.open("phone")).expect("backs up");
    // What the laptop is shown: a longer log, with the phone's backup, and without its ghost.
    world.turn(&aside);
    world.tamper(|data| {
        copy(&aside.join("packs"), &data.join("packs"));
        let database = rusqlite::Connection::open(data.join("strongroom.db")).expect("opens");
        let path = aside.join("strongroom.db");
        database.execute("ATTACH ?1 AS phone", [path.to_string_lossy()]).expect("attaches");
        database
            .execute_batch(
                "INSERT OR IGNORE INTO heads SELECT * FROM phone.heads;
                 INSERT OR IGNORE INTO packs SELECT * FROM phone.packs;",
            )
            .expect("copies");
    });
    world.somebody_joins("one");
    world.somebody_joins("two");
    let mut laptop = world.client();
    laptop.devices().expect("reads what the phone has told");
    is_forked(laptop.snapshots());
    drop(laptop);
    assert!(has_proof(&world.profile()));
    assert!(matches!(backup(&mut world.client()), Err(ClientError::Misbehaviour(_))));
}

/// The same, told by a contact: in a card, and in a share.
#[test]
fn a_contacts_word_of_another_log_is_heard() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new();
    let kit = world.with_kit();
    world.somebody_joins("ben");
    world.somebody_joins("cleo");
    world.settled();
    let cleo = ("cleo".to_owned(), world.open("cleo").contact_card().expect("has one"));
    let aside = world.dir.path().join("aside");
    world.put_back(|data| copy(data, &aside));
    world.turn(&aside);
    world.somebody_joins("ghost");
    let ben = ("ben".to_owned(), world.open("ben").contact_card().expect("has one"));
    let kept = world.dir.path().join("profile of then");
    copy(&world.profile(), &kept);
    // Ben's is older than what the laptop has accepted by now, or newer: both are compared.
    world.turn(&aside);
    for more in [false, true] {
        if more {
            world.somebody_joins("one");
            world.somebody_joins("two");
            world.settled();
        }
        let mut laptop = world.client();
        let set = laptop.set_contacts(&kit, 2, &[ben.clone(), cleo.clone()], |_| Ok(()));
        drop(laptop);
        match set {
            // A log that is shorter than what Ben was shown proves nothing to others yet.
            Err(ClientError::Misbehaviour(Misbehaviour::LogRolledBack)) if !more => {
                fs::remove_dir_all(world.profile()).expect("deletes");
                copy(&kept, &world.profile());
            }
            set => {
                is_forked(set);
                assert!(more);
            }
        }
    }
    assert!(has_proof(&world.profile()));
}

/// Two devices of which each is shown a server of its own differ in their words, and agree when they are not.
#[test]
fn words_tell_two_histories_apart() {
    let mut world = World::new();
    world.write("a", "1");
    world.backup();
    let mut phone = world.link("phone");
    phone.add_folder(&world.folder()).expect("adds");
    let words = |client: &mut Client| client.state().expect("reads").words();
    assert_eq!(words(&mut phone), words(&mut world.client()));
    drop(phone);
    let aside = world.dir.path().join("aside");
    world.put_back(|data| copy(data, &aside));
    world.write("a", "2");
    world.backup();
    let ours = words(&mut world.client());
    world.turn(&aside);
    world.write("b", "3");
    let mut phone = world.open("phone");
    phone.backup(None, &Progress::default()).expect("backs up");
    assert_ne!(words(&mut phone), ours);
}

/// What another device has told is compared when the log is to be had: whoever keeps it back stops no backup.
#[test]
fn a_log_that_is_kept_back_stops_nothing() {
    let mut world = World::new();
    world.write("a", "1");
    world.backup();
    let mut phone = world.link("phone");
    phone.add_folder(&world.folder()).expect("adds");
    backup(&mut phone).expect("backs up, and tells");
    drop(phone);
    world.client().devices().expect("reads what it told");
    // A server whose log is not what it has signed publishes nothing.
    world.tamper(|data| change_entry(data, |entry| entry.time_s += 1));
    world.write("b", "2");
    backup(&mut world.client()).expect("goes on");
    world.client().revoke_device("phone").expect("takes out");
}

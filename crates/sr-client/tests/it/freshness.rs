//! States of backups in the log: what somebody who comes back from paper knows by them.

use std::{collections::BTreeMap, path::Path, sync::PoisonError};

use rusqlite::{Connection, params};
use sr_client::{Client, ClientError, Kit, Progress, evidence_files};
use sr_keys::Freshness;
use sr_store::{MetaStore, Sqlite};
use sr_trust::Evidence;
use sr_wire::{
    Misbehaviour,
    log::{Entry, FRESHNESS},
};

use crate::{
    attacks::{ONE_AT_A_TIME, attack},
    witnesses::{Watch, until, watched},
    world::{World, clock},
};

/// How many heads each space has.
type Heads = BTreeMap<Vec<u8>, u64>;

impl World {
    fn database_of(data: &Path) -> Connection {
        Connection::open(data.join("strongroom.db")).expect("opens")
    }

    fn heads(&self) -> Heads {
        let database = Self::database_of(&self.data());
        let query = "SELECT space, max(seq) FROM heads GROUP BY space";
        let mut query = database.prepare(query).expect("query");
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("reads");
        rows.collect::<Result<_, _>>().expect("reads")
    }

    /// Plays the operator who shows an older state of everything but the log, which witnesses hold.
    fn forget_since(&mut self, before: &Heads, kept: &[u8]) {
        self.tamper(|data| {
            let database = Self::database_of(data);
            let mut query = database.prepare("SELECT DISTINCT space FROM heads").expect("query");
            let spaces: Vec<Vec<u8>> = query
                .query_map([], |row| row.get(0))
                .expect("reads")
                .collect::<Result<_, _>>()
                .expect("reads");
            for space in spaces.iter().filter(|space| **space != kept) {
                let seq = before.get(space).copied().unwrap_or(0);
                let delete = "DELETE FROM heads WHERE space = ?1 AND seq > ?2";
                database.execute(delete, params![space, seq]).expect("deletes");
            }
        });
    }

    fn states(&self) -> Vec<Entry> {
        let log = Sqlite::open(&self.data()).expect("opens").log_entries(0, 1000).expect("reads");
        log.into_iter().filter(|entry| entry.kind == FRESHNESS).collect()
    }
}

/// An account with a kit, a snapshot before and one after it, and the heads in between. The log has a state of
/// the second.
fn two_snapshots() -> (World, Watch, Kit, Heads) {
    let (world, watch) = watched();
    world.write("first", "of yesterday");
    world.backup();
    let kit = world.with_kit();
    // The space has the rights of the new generation by then.
    world.snapshots();
    let before = world.heads();
    world.settled();
    world.write("second", "of today");
    world.backup();
    assert_eq!(world.states().len(), 2, "one for each generation");
    let size = Sqlite::open(&world.data()).expect("opens").log_len().expect("counts");
    until("it is not shown", || (world.settled().size >= size).then_some(()));
    (world, watch, kit, before)
}

#[test]
fn a_device_from_paper_knows_that_it_is_shown_the_newest_in_the_log() {
    let (world, _watch, kit, _) = two_snapshots();
    let mut paper = world.restore_kit(&kit, "paper", clock()).expect("restores");
    assert!(paper.is_fresh().expect("reads"));
    assert_eq!(paper.snapshots().expect("lists").len(), 2);
    drop(paper);
    // Once a day is enough, also with another device.
    world.write("third", "of today");
    world.backup();
    assert_eq!(world.states().len(), 2);
    let later = || clock()() + 86_400 + 3600;
    let mut client = Client::open(&world.profile(), std::sync::Arc::new(later)).expect("opens");
    world.write("fourth", "of tomorrow");
    // By that clock no witness has cosigned for a day; a state is sent all the same.
    client.backup(None, &Progress::default()).expect("backs up");
    drop(client);
    let states = world.states();
    assert_eq!((states.len(), states[2].seq, states[2].previous), (3, 1, states[1].value));
    assert_ne!(states[1].index, states[0].index);
}

/// ST-09: an older state of everything, for somebody who comes with a kit and has seen nothing.
#[test]
fn sr_040_an_older_state_than_that_in_the_log_is_refused() {
    let shown = attack(&[Misbehaviour::OlderThanLogged], || {
        let (mut world, _watch, kit, before) = two_snapshots();
        world.forget_since(&before, &[]);
        let restored = world.restore_kit(&kit, "paper", clock()).map(drop);
        if let Err(error) = restored {
            // It stays so.
            assert!(world.open("paper").snapshots().is_err());
            return Err(error);
        }
        Ok(world.open("paper").snapshots().expect("lists").len())
    });
    assert_eq!(shown, 1, "the newest is hidden");
}

/// A server that has lost it for good is gone on with when a person says so.
#[test]
fn an_older_state_than_that_in_the_log_is_gone_on_with_when_a_person_says_so() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut world, _watch, kit, before) = two_snapshots();
    world.forget_since(&before, &[]);
    assert!(world.restore_kit(&kit, "paper", clock()).is_err());
    let mut paper = world.open("paper");
    let rollback = paper.rollback().expect("compares");
    assert_eq!((rollback.states, rollback.is_by_log), (1, true));
    paper.accept_rollback(rollback).expect("goes on");
    assert_eq!(paper.snapshots().expect("lists").len(), 1);
    assert!(!paper.is_fresh().expect("reads"));
}

/// The same of the backups alone: what the server has signed about them is in the state, and convicts it.
#[test]
fn an_older_state_of_the_backups_alone_leaves_evidence() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut world, _watch, kit, before) = two_snapshots();
    let root = {
        let vault = world.insider().vault.space().0;
        let mut others = world.heads().into_keys().filter(|space| *space != vault);
        others.next().expect("the root space")
    };
    world.forget_since(&before, &root);
    let refused = world.restore_kit(&kit, "paper", clock()).map(drop);
    let rolled_back = Misbehaviour::HeadRolledBack;
    assert!(
        matches!(refused, Err(ClientError::Misbehaviour(m)) if m == rolled_back),
        "{refused:?}"
    );
    let files = evidence_files(&world.other("paper")).expect("lists");
    let evidence = Evidence::parse(&std::fs::read(&files[0]).expect("reads")).expect("parses");
    assert_eq!(evidence.kind(), 12);
    evidence.verify().expect("convicts");
}

/// A state that was saved and did not reach the log is sent by whoever comes next, and by nobody else's number.
#[test]
fn a_state_that_was_saved_is_the_one_that_is_sent() {
    let (world, _watch, kit, _) = two_snapshots();
    drop(world.link("phone"));
    // The phone has sent nothing yet and does so with its first backup.
    let mut phone = world.open("phone");
    phone.add_folder(&world.folder()).expect("adds");
    world.write("third", "of today");
    phone.backup(None, &Progress::default()).expect("backs up");
    drop(phone);
    let states = world.states();
    assert_eq!(states.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [0, 0, 1]);
    let record = {
        let database = Connection::open(world.other("phone").join("state.db")).expect("opens");
        let query = "SELECT value FROM state WHERE key = 'record'";
        let record: Vec<u8> = database.query_row(query, [], |row| row.get(0)).expect("has it");
        sr_keys::RootRecord::parse(&record).expect("parses")
    };
    let Freshness { seq, answers, .. } = record.freshness().expect("is saved");
    assert_eq!((*seq, answers.len()), (1, 1));
    world.settled();
    assert!(world.restore_kit(&kit, "paper", clock()).is_ok());
}

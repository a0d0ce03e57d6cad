//! The rows of the catalogue, played: against the client as it is, and without the checks that hold them.

use std::sync::{Mutex, PoisonError};

use sr_adversary::{CATALOGUE, Happened, Outcome, Scene, play, play_honest};
use sr_wire::check::danger_skip;

/// Checks are taken out of the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn an_honest_operator_is_refused_by_nobody() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().expect("dir");
    let scene = Scene::make(dir.path()).expect("makes the scene");
    for tried in play_honest(&scene).expect("plays") {
        assert_eq!(tried.happened, Happened::Nothing, "{}", tried.victim);
    }
}

/// Each row holds; and without its checks the same attack succeeds, or it would show nothing.
#[test]
fn every_row_holds_and_falls_without_its_checks() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().expect("dir");
    let scene = Scene::make(dir.path()).expect("makes the scene");
    let mut wrong = Vec::new();
    for row in CATALOGUE {
        let Ok(attack) = &row.attack else { continue };
        let played = play(&scene, row).expect("plays");
        if played.outcome != Outcome::Held {
            wrong.push(format!("{} does not hold: {:#?}", row.id, played.tries));
        }
        danger_skip(attack.checks);
        let weakened = play(&scene, row);
        danger_skip(&[]);
        let weakened = weakened.expect("plays");
        if !attack.checks.is_empty() && !played.falls_in(&weakened) {
            wrong.push(format!("{} holds without its checks: {:#?}", row.id, weakened.tries));
        }
        println!("{}: {:?} {:?}", row.id, played.codes(), played.took);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A copy that somebody gives lies alone, and where they are.
#[test]
fn a_copy_of_a_server_can_be_shown_as_it_is() {
    let row = CATALOGUE.iter().find(|row| row.id == "ST-09").expect("is in it");
    let attack = row.attack.as_ref().expect("is played");
    assert_eq!((attack.ways)("copy".as_ref()).expect("has a way").len(), 1);
}

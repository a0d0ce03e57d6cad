//! One attack, played: every way of it, each against everybody who comes then.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sr_client::{
    Client, ClientError, LogReader, Progress, ReadData, RestoreReport, Target, compare,
};
use sr_wire::Misbehaviour;

use crate::{
    AdversaryError, Attack, Row, Victim, Way,
    operator::copy_all,
    scene::{Day, Scene, Server, Watch, clock},
};

const DAY_S: u64 = 86_400;

/// What came of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The client refused what was done, and said which check found it.
    Refused(Misbehaviour),
    /// The client refused for another reason that it names.
    Stopped(String),
    /// It had no effect: everything was there, as it was.
    Nothing,
    /// The operator had its way.
    Succeeded(String),
}

/// One way of an attack, against one victim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Which way it is, from 1.
    pub way: usize,
    /// What the operator did.
    pub what: String,
    /// Who came then.
    pub victim: Victim,
    /// What came of it.
    pub happened: Happened,
}

/// Whether a row held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every way of it was noticed by somebody who came, and none succeeded.
    Held,
    /// One succeeded, or nobody noticed it.
    Broken,
    /// It was not played.
    NotTested,
}

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// Whether it held.
    pub outcome: Outcome,
    /// All tries.
    pub tries: Vec<Try>,
    /// How long it took.
    pub took: Duration,
}

impl Played {
    /// Returns the numbers of the checks that refused, each once.
    #[must_use]
    pub fn codes(&self) -> BTreeSet<u8> {
        let refused = self.tries.iter().filter_map(|tried| match tried.happened {
            Happened::Refused(check) => Some(check.number()),
            _ => None,
        });
        refused.collect()
    }

    /// Returns whether something that is refused here is not noticed there.
    #[must_use]
    pub fn falls_in(&self, weakened: &Self) -> bool {
        let is_refused = |tried: &Try| matches!(tried.happened, Happened::Refused(_));
        let is_unnoticed =
            |tried: &Try| matches!(tried.happened, Happened::Nothing | Happened::Succeeded(_));
        let mut pairs = self.tries.iter().zip(&weakened.tries);
        pairs.any(|(strong, weak)| is_refused(strong) && is_unnoticed(weak))
    }
}

/// Plays a row.
///
/// **Errors** [`AdversaryError`] when it could not be played; a client that is attacked ends in no error.
pub fn play(scene: &Scene, row: &Row) -> Result<Played, AdversaryError> {
    let (began, mut tries) = (Instant::now(), Vec::new());
    let Ok(attack) = &row.attack else {
        let (outcome, took) = (Outcome::NotTested, Duration::ZERO);
        return Ok(Played { outcome, tries, took });
    };
    let mut held = true;
    let ways = (attack.ways)(&scene.kept(attack.shows).join("server"))?;
    for (number, way) in (1..).zip(&ways) {
        let came = try_way(scene, attack, (number, way))?;
        // What nobody refused went unnoticed, but where there is nothing to notice.
        let is_noticed =
            |tried: &Try| matches!(tried.happened, Happened::Refused(_) | Happened::Stopped(_));
        held &= way.is_harmless || came.iter().any(is_noticed);
        held &= !came.iter().any(|tried| matches!(tried.happened, Happened::Succeeded(_)));
        tries.extend(came);
    }
    let is_refused = |tried: &Try| matches!(tried.happened, Happened::Refused(_));
    held &= tries.iter().any(is_refused);
    let outcome = if held { Outcome::Held } else { Outcome::Broken };
    Ok(Played { outcome, tries, took: began.elapsed() })
}

/// Plays an operator who does nothing wrong, against everybody: what they do then is no refusal's doing.
///
/// **Errors** as [`play`].
pub fn play_honest(scene: &Scene) -> Result<Vec<Try>, AdversaryError> {
    let attack = Attack {
        shows: Day::Today,
        ways: |_| Ok(Vec::new()),
        victims: &[
            Victim::Laptop,
            Victim::Phone,
            Victim::OldPhone,
            Victim::Paper,
            Victim::Neighbour,
            Victim::Stranger,
        ],
        checks: &[],
    };
    try_way(scene, &attack, (1, &Way::new("nothing", |_| Ok(()))))
}

fn try_way(
    scene: &Scene,
    attack: &Attack,
    (number, way): (usize, &Way),
) -> Result<Vec<Try>, AdversaryError> {
    let mut tries = Vec::new();
    for victim in attack.victims {
        let place = scene.place();
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        let data = place.join("server");
        copy_all(&scene.kept(attack.shows).join("server"), &data)?;
        (way.bend)(&data)?;
        // What it has seen, it has seen.
        let (seen, witness) = (scene.kept(Day::Today).join("witness"), place.join("witness"));
        copy_all(&seen, &witness)?;
        let watch = Watch::start(&witness, scene.witness)?;
        let server = Server::start(&data, scene.address, way.ahead_s)?;
        let happened = come(scene, &place, *victim)?;
        drop((server, watch));
        tries.push(Try { way: number, what: way.what.clone(), victim: *victim, happened });
    }
    Ok(tries)
}

/// Does what a person would: opens the program, looks, checks, restores.
fn come(scene: &Scene, place: &Path, victim: Victim) -> Result<Happened, AdversaryError> {
    let profile = place.join("profile");
    let kept = match victim {
        Victim::Laptop | Victim::Asked => scene.kept(Day::Today).join("laptop"),
        Victim::Phone => scene.kept(Day::Today).join("phone"),
        Victim::OldPhone | Victim::Frozen => scene.kept(Day::Yesterday).join("phone"),
        Victim::PhoneApart => scene.apart(),
        Victim::Neighbour => scene.kept(Day::Today).join("neighbour"),
        Victim::Paper => return Ok(judge(from_paper(scene, place))),
        Victim::Stranger => return Ok(judge(read_log(scene))),
    };
    copy_all(&kept, &profile)?;
    if victim == Victim::Asked {
        return Ok(judge(Client::open(&profile, clock()).and_then(|client| ask(scene, client))));
    }
    if victim == Victim::Frozen {
        let later = Client::open(&profile, Arc::new(|| clock()() + 2 * DAY_S));
        return Ok(judge(later.and_then(build_on)));
    }
    if victim == Victim::Neighbour {
        return Ok(judge(Client::open(&profile, clock()).and_then(|client| trust(scene, client))));
    }
    // What a device has on its disk, no operator changes.
    let cache = profile.join("cache");
    if cache.exists() {
        fs::remove_dir_all(cache)?;
    }
    let read = Client::open(&profile, clock()).and_then(|client| read_all(scene, place, client));
    Ok(judge(read))
}

/// The person looks at what would be forgotten, and does not say yes.
fn ask(scene: &Scene, mut client: Client) -> Result<Happened, ClientError> {
    match client.snapshots() {
        Err(ClientError::Misbehaviour(_)) => {}
        seen => {
            let seen = seen?.len();
            let what = format!("{seen} snapshots are shown, of {}", scene.snapshots);
            return Ok(Happened::Succeeded(what));
        }
    }
    if client.rollback()?.snapshots.is_empty() {
        return Ok(Happened::Succeeded("what would be forgotten is not named".into()));
    }
    // Nothing is forgotten by looking.
    let seen = client.snapshots()?.len();
    Ok(Happened::Succeeded(format!("{seen} snapshots are shown, though nobody said yes")))
}

/// The person makes a new kit, which only knows the account as far as it is shown.
fn build_on(mut client: Client) -> Result<Happened, ClientError> {
    client.new_kit()?;
    Ok(Happened::Succeeded("a kit is made of an account that is two days old".into()))
}

/// The person makes the account a recovery contact: a share is sealed to it.
fn trust(scene: &Scene, mut client: Client) -> Result<Happened, ClientError> {
    let neighbour = &scene.neighbour;
    client.set_contacts(&neighbour.kit, 2, &neighbour.contacts, |_| Ok(()))?;
    let (_, contacts) = client.contacts()?;
    let is_known = contacts.first().is_some_and(|contact| contact.seq == neighbour.seq);
    let what = "a share is sealed to what no device of the contact has signed";
    Ok(if is_known { Happened::Nothing } else { Happened::Succeeded(what.into()) })
}

fn from_paper(scene: &Scene, place: &Path) -> Result<Happened, ClientError> {
    let (profile, address) = (place.join("profile"), scene.address.to_string());
    let client = Client::restore_kit(&profile, &address, &scene.kit, "from-paper", clock())?;
    read_all(scene, place, client)
}

fn read_log(scene: &Scene) -> Result<Happened, ClientError> {
    let reader = LogReader::new(&scene.address.to_string(), clock())?;
    reader.verify(&Progress::default()).map(|_| Happened::Nothing)
}

fn read_all(scene: &Scene, place: &Path, mut client: Client) -> Result<Happened, ClientError> {
    let snapshots = client.snapshots()?.len();
    if snapshots != scene.snapshots {
        let what = format!("{snapshots} snapshots are shown, of {}", scene.snapshots);
        return Ok(Happened::Succeeded(what));
    }
    let devices = client.devices()?.iter().filter(|device| device.removed.is_none()).count();
    if devices != scene.devices {
        let what = format!("{devices} devices are shown, not {}", scene.devices);
        return Ok(Happened::Succeeded(what));
    }
    let verified = client.verify(ReadData::All, &Progress::default())?;
    let target = place.join("restored");
    let to = Target::Folder(target.clone());
    let (_, report) = client.restore("latest", Some(&scene.folder()), &to, &Progress::default())?;
    let wrong = match wrong_files(scene, &target, &report) {
        Ok(wrong) => wrong,
        Err(error) => return Ok(Happened::Stopped(error.to_string())),
    };
    if let Some(wrong) = wrong {
        return Ok(Happened::Succeeded(wrong));
    }
    if let Some((_, why)) = verified.bad_packs.first() {
        return Ok(Happened::Refused(*why));
    }
    let refused = report.refused.first();
    Ok(refused.map_or(Happened::Nothing, |file| Happened::Stopped(file.why.clone())))
}

/// Returns what was restored and is not what it was. What was refused is not there, which is right.
fn wrong_files(
    scene: &Scene,
    restored: &Path,
    report: &RestoreReport,
) -> Result<Option<String>, AdversaryError> {
    let comparison = compare(&scene.folder(), restored, &HashSet::new())?;
    // With a folder, all that is in it is refused.
    let is_refused = |path: &Path| report.refused.iter().any(|file| path.starts_with(&file.path));
    let is_wrong = |path: &Path| scene.folder().join(path).is_file() && !is_refused(path);
    let wrong = comparison.different.iter().find(|(path, _)| is_wrong(path));
    Ok(wrong.map(|(path, what)| format!("{} differs: {what}", path.display())))
}

fn judge(read: Result<Happened, ClientError>) -> Happened {
    match read {
        Ok(happened) => happened,
        Err(ClientError::Misbehaviour(check) | ClientError::Contact { refused: check, .. }) => {
            Happened::Refused(check)
        }
        Err(error) => Happened::Stopped(error.to_string()),
    }
}

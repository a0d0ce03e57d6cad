//! `adversary …`: the compelled operator, played against this very program.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};
use sr_adversary::{
    AdversaryError, CATALOGUE, Happened, Outcome, Played, Row, Scene, Server, Try, play,
    play_honest, row,
};
use tokio::runtime::Builder;

use crate::{
    args::AdversaryCommand,
    failure::{Failure, exit},
    interrupt::{asked_to_end, delete_on_ctrl_c, end_on_ctrl_c},
    output::{Done, Output, plural},
};

pub(crate) fn command(output: &Output, command: &AdversaryCommand) -> Result<Done, Failure> {
    match command {
        AdversaryCommand::List => Ok(list()),
        AdversaryCommand::Run { row } => run(output, row),
        AdversaryCommand::Serve { row, way, data, listen } => {
            serve(output, row, *way, data, *listen)
        }
    }
}

fn list() -> Done {
    let mut text = String::new();
    for row in CATALOGUE {
        let why = row.attack.as_ref().err().map(|why| format!(" (not tested: {why})"));
        let (verdict, why) = (row.verdict.to_string(), why.unwrap_or_default());
        text.push_str(&format!("{}  {verdict:6}  {}{why}\n", row.id, row.name));
    }
    let rows: Vec<Value> = CATALOGUE
        .iter()
        .map(|row| {
            json!({
                "id": row.id,
                "name": row.name,
                "verdict": row.verdict.to_string(),
                "not_tested": row.attack.as_ref().err(),
            })
        })
        .collect();
    text.push_str(
        "\nREFUSE: the client refuses, and writes nothing wrong. ALARM: it refuses, and what was signed proves it.\n\
         BLIND: the operator learns nothing, measured. LABEL: it can't be prevented, and is said.",
    );
    Done::new(text, json!({ "rows": rows }))
}

fn run(output: &Output, only: &[String]) -> Result<Done, Failure> {
    let rows = chosen(only)?;
    output.note(
        "This runs servers and clients on this machine, with throw-away keys, and plays an operator who is \
         compelled.\nNothing is left behind.\n",
    );
    let dir = tempfile::Builder::new().prefix("strongroom-adversary-").tempdir().map_err(local)?;
    end_on_ctrl_c("interrupted; nothing is left behind");
    delete_on_ctrl_c(dir.path().to_owned());
    let played = play_all(output, dir.path(), &rows);
    dir.close().map_err(local)?;
    Ok(report(&played.map_err(failed)?, !only.is_empty()))
}

/// What came of all.
struct Plays {
    /// Who refused an honest operator.
    alarms: Vec<Try>,
    rows: Vec<(&'static Row, Played)>,
}

fn play_all(output: &Output, dir: &Path, rows: &[&'static Row]) -> Result<Plays, AdversaryError> {
    output.note("..  an account with two devices, a recovery kit, and two days of backups");
    let scene = Scene::make(dir)?;
    output.note("..  an honest operator: nobody may refuse it");
    let mut alarms = play_honest(&scene)?;
    alarms.retain(|tried| tried.happened != Happened::Nothing);
    let mut plays = Plays { alarms, rows: Vec::new() };
    for row in rows {
        if row.attack.is_ok() {
            output.note(&format!("..  {}: {}", row.id, row.name));
        }
        plays.rows.push((*row, play(&scene, row)?));
    }
    Ok(plays)
}

fn report(Plays { alarms, rows }: &Plays, in_full: bool) -> Done {
    let mut text = String::new();
    for (row, played) in rows {
        text.push_str(&line(row, played));
        // All of them where one row is asked for; else those that say what is wrong.
        let tries = played.tries.iter().filter(|tried| in_full || succeeded(tried));
        tries.for_each(|tried| text.push_str(&format!("    {}\n", sentence(tried))));
    }
    let count = |outcome| rows.iter().filter(|(_, row)| row.outcome == outcome).count() as u64;
    let (held, broken) = (count(Outcome::Held), count(Outcome::Broken));
    text.push_str(&format!(
        "\n{} held, {broken} broken, {} not tested. ",
        plural(held, "row"),
        count(Outcome::NotTested)
    ));
    if alarms.is_empty() {
        text.push_str("An honest operator was refused by nobody.");
    } else {
        text.push_str("FALSE ALARM against an honest operator:\n");
        alarms.iter().for_each(|tried| text.push_str(&format!("    {}\n", sentence(tried))));
    }
    let is_well = broken == 0 && alarms.is_empty();
    if !is_well {
        text.push_str("\nThis is a defect of the program; please report it with this output.");
    }
    let data = json!({
        "rows": rows.iter().map(|(row, played)| json_of(row, played)).collect::<Vec<_>>(),
        "false_alarms": alarms.iter().map(sentence).collect::<Vec<_>>(),
    });
    Done::new(text, data).with_warnings(Vec::new(), if is_well { 0 } else { exit::FAILED })
}

fn line(row: &Row, played: &Played) -> String {
    let tries = match played.tries.len() {
        1 => "1 try".to_owned(),
        tries => format!("{tries} tries"),
    };
    let (result, what) = match (&row.attack, played.outcome) {
        (Err(why), _) => ("not tested", (*why).to_owned()),
        (Ok(_), Outcome::Held) => {
            ("held", format!("{tries}, {}refused by {}", without_effect(played), codes(played)))
        }
        (Ok(_), _) => ("BROKEN", tries),
    };
    format!("{}  {result:10}  {}: {what}\n", row.id, row.name)
}

/// What changed nothing for who came then is no refusal.
fn without_effect(played: &Played) -> String {
    let is_nothing = |tried: &&Try| tried.happened == Happened::Nothing;
    match played.tries.iter().filter(is_nothing).count() {
        0 => String::new(),
        count => format!("{count} without effect, the others "),
    }
}

fn codes(played: &Played) -> String {
    let codes: Vec<String> = played.codes().iter().map(|code| format!("SR-{code:03}")).collect();
    codes.join(", ")
}

fn succeeded(tried: &Try) -> bool {
    matches!(tried.happened, Happened::Succeeded(_))
}

fn sentence(tried: &Try) -> String {
    let happened = match &tried.happened {
        Happened::Refused(check) => format!("REFUSED, {check}"),
        Happened::Stopped(why) => format!("stopped: {why}"),
        Happened::Nothing => "no effect".into(),
        Happened::Succeeded(what) => format!("SUCCEEDED: {what}"),
    };
    format!("way {}: {}; the {} comes: {happened}", tried.way, tried.what, tried.victim)
}

fn json_of(row: &Row, played: &Played) -> Value {
    let result = match played.outcome {
        Outcome::Held => "held",
        Outcome::Broken => "broken",
        Outcome::NotTested => "not tested",
    };
    json!({
        "id": row.id,
        "name": row.name,
        "verdict": row.verdict.to_string(),
        "code": played.codes().first().map(|code| format!("SR-{code:03}")),
        "result": result,
        "why": row.attack.as_ref().err(),
        // Known once there is a build without the checks; the tests of this version do it in a debug build.
        "weakened_fell": Value::Null,
        "tries": played.tries.iter().map(sentence).collect::<Vec<_>>(),
        "ms": millis(played.took),
    })
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// Plays the server of a copy of a data directory, bent as a row says, until Ctrl-C.
fn serve(
    output: &Output,
    id: &str,
    way: usize,
    data: &Path,
    listen: SocketAddr,
) -> Result<Done, Failure> {
    let row = find(id)?;
    let attack = row.attack.as_ref().map_err(|why| {
        Failure::usage(
            format!("{} is not played: {why}", row.id),
            "`strongroom adversary list` shows those that are.",
        )
    })?;
    if !data.join(sr_store::IDENTITY_FILE).is_file() {
        return Err(Failure::usage(
            format!("{} is no server's data directory", data.display()),
            "Copy one while its server is switched off, and name the copy.",
        ));
    }
    let ways = (attack.ways)(data).map_err(failed)?;
    let way = ways.get(way.wrapping_sub(1)).ok_or_else(|| {
        Failure::usage(
            format!(
                "there is no such way of {}: it has {}",
                row.id,
                plural(ways.len() as u64, "way")
            ),
            "Choose one of them with `--way N`.",
        )
    })?;
    // Nobody else serves it, and it can be served, before anything is changed.
    drop(Server::start(data, listen, 0).map_err(|error| cannot_serve(error, listen))?);
    (way.bend)(data).map_err(failed)?;
    let server = Server::start(data, listen, way.ahead_s).map_err(failed)?;
    output.note(&format!(
        "..  {}: the operator {}, of the copy as it was given. A device that meets it, or stores to it, may \
         refuse\n    your real server afterwards: use copies of the profiles too (XDG_STATE_HOME=…).",
        row.id, way.what
    ));
    output.note(&format!("..  listening on {}; Ctrl-C stops it", server.address));
    let runtime = Builder::new_current_thread().enable_all().build().map_err(local)?;
    runtime.block_on(asked_to_end()).map_err(local)?;
    drop(server);
    Ok(Done::new("stopped".into(), json!({ "row": row.id, "way": way.what })))
}

/// A port that is taken is the likeliest cause.
fn cannot_serve(error: AdversaryError, listen: SocketAddr) -> Failure {
    match error {
        AdversaryError::Io(error) => Failure::failed(
            format!("can't listen on {listen}: {error}"),
            "Choose another with `--listen ADDR:PORT`.",
        ),
        error => failed(error),
    }
}

fn chosen(only: &[String]) -> Result<Vec<&'static Row>, Failure> {
    if only.is_empty() {
        return Ok(CATALOGUE.iter().collect());
    }
    only.iter().map(|id| find(id)).collect()
}

fn find(id: &str) -> Result<&'static Row, Failure> {
    row(id).ok_or_else(|| {
        Failure::usage(format!("there is no row {id}"), "`strongroom adversary list` shows them.")
    })
}

fn failed(error: AdversaryError) -> Failure {
    match error {
        AdversaryError::Client(error) => error.into(),
        AdversaryError::Data(error) => error.into(),
        error => local(io::Error::other(error)),
    }
}

fn local(error: io::Error) -> Failure {
    Failure::failed(
        error.to_string(),
        "Mend what the message names; TMPDIR says where the play is.",
    )
}

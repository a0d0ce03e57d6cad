//! `demo`: the main job on this machine, and then the operator's attempts, one by one.

mod accounts;
mod sample;
mod sweep;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::json;
use sr_adversary::{AdversaryError, operator};
use sr_client::{Client, Comparison, Progress, RestoreReport, Target, compare};
use sr_server::add_invite;
use sr_store::DICTIONARY;

use crate::{
    failure::{Failure, exit},
    interrupt::{delete_on_ctrl_c, end_on_ctrl_c},
    output::{Done, Output, bytes, count, plural},
    server::{Running, Start},
    status::clock,
    terminal::with_progress,
};
use sweep::{Needles, control_forms, sweep};

const PLANTED: &str = "planted-by-the-demo-0451.txt";

/// One line of the table.
struct Attempt {
    tried: &'static str,
    happened: String,
    tell: &'static str,
    held: bool,
}

struct Stage {
    dir: tempfile::TempDir,
    folder: PathBuf,
    /// What the backup listed as not in it.
    skipped: HashSet<PathBuf>,
    server: Option<Running>,
}

pub(crate) fn run(output: &Output, folder: Option<&Path>) -> Result<Done, Failure> {
    let started = Instant::now();
    output.note(
        "This runs a server and a client on this machine, with throw-away keys: it backs up a \
         folder over TLS,\nrestores it, and then plays the operator, who owns the server and all \
         its files. Nothing is left behind.\n",
    );
    let dir = tempfile::Builder::new().prefix("strongroom-demo-").tempdir().map_err(local)?;
    end_on_ctrl_c("interrupted; nothing is left behind");
    delete_on_ctrl_c(dir.path().to_owned());
    let folder = match folder {
        Some(folder) => folder.canonicalize().map_err(|error| {
            Failure::usage(format!("{}: {error}", folder.display()), "Name a folder to back up.")
        })?,
        None => {
            output.note("..  making the sample");
            sample::make(&dir.path().join("sample")).map_err(local)?;
            dir.path().join("sample")
        }
    };
    let mut stage = Stage { dir, folder, skipped: HashSet::new(), server: None };
    let result = stage.play(output);
    if let Some(server) = stage.server.take() {
        server.stop();
    }
    stage.dir.close().map_err(local)?;
    let (comparison, attempts, numbers) = result?;
    let seconds = started.elapsed().as_secs();
    Ok(report(&comparison, &attempts, &numbers, seconds))
}

/// What only the JSON shows.
struct Numbers {
    hits: u64,
    controls: usize,
    controls_found: usize,
    searched: u64,
    needles: usize,
    sent: u64,
    skipped: usize,
}

impl Stage {
    fn play(&mut self, output: &Output) -> Result<(Comparison, Vec<Attempt>, Numbers), Failure> {
        output.note("..  starting a server");
        self.start_server("127.0.0.1:0".parse().map_err(|_| no_address())?)?;
        output.note("..  joining it with its invite");
        let address = self.address()?;
        let invites = add_invite(&self.data(), &[address.to_string()], &mut os_rng())?;
        let invite = invites.first().ok_or_else(no_address)?;
        Client::join(&self.profile(), invite, None, "demo-laptop", clock())?;
        self.client()?.add_folder(&self.folder)?;
        output.note(&format!("..  backing up {} over TLS", self.folder.display()));
        let (sent, skipped) = with_progress(output, "the server", |progress| {
            let reports = self.client()?.backup(None, progress)?;
            let skipped = reports.into_iter().flat_map(|report| report.skipped);
            Ok::<_, Failure>((progress.sent(), skipped.map(|skipped| skipped.path).collect()))
        })?;
        self.skipped = skipped;
        output.note("..  restoring it elsewhere");
        let restored = self.dir.path().join("restored");
        with_progress(output, "the server", |progress| {
            self.client()?.restore("latest", None, &Target::Folder(restored.clone()), progress)
        })?;
        output.note("..  comparing every file, mode and time");
        let comparison = compare(&self.folder, &restored, &self.skipped).map_err(local)?;
        std::fs::remove_dir_all(&restored).map_err(local)?;

        output.note("..  as the operator: searching everything the server holds for plaintext");
        let (attempts, mut numbers) = self.search()?;
        let mut attempts = attempts;
        (numbers.sent, numbers.skipped) = (sent, self.skipped.len());
        output.note("..  as the operator: remembering today's state, to show it again later");
        let old =
            operator::remember(&self.data(), &self.dir.path().join("old")).map_err(adversary)?;
        with_progress(output, "the server", |progress| self.client()?.backup(None, progress))?;
        output.note("..  as the operator: changing one byte");
        attempts.push(self.change_a_byte()?);
        output.note("..  as the operator: swapping two stored objects");
        attempts.push(self.swap_two()?);
        output.note("..  as the operator: giving the old state");
        attempts.push(self.roll_back(&old)?);
        output.note("..  as the operator: hiding the newest snapshot");
        attempts.push(self.hide_newest()?);
        attempts.extend(self.play_accounts(output)?);
        output.note("..  as an honest operator again: everything must work\n");
        if !self.all_is_well()? {
            attempts.push(Attempt {
                tried: "nothing: an honest server",
                happened: "the client refused it".into(),
                tell: "a false alarm is a defect",
                held: false,
            });
        }
        Ok((comparison, attempts, numbers))
    }

    /// The first two rows: content and names, searched for in one pass each.
    fn search(&self) -> Result<(Vec<Attempt>, Numbers), Failure> {
        let known: HashSet<String> = DICTIONARY
            .iter()
            .flat_map(|entry| [entry.table, entry.name])
            .map(str::to_owned)
            .collect();
        let needles = Needles::of_folder(&self.folder, &known).map_err(local)?;
        let (hits, searched) = sweep(&self.data(), &needles).map_err(local)?;
        let control = Needles::one(PLANTED.as_bytes());
        let forms = control_forms(PLANTED).map_err(local)?;
        let controls_found =
            forms.iter().filter(|(_, bytes)| control.find_in_any_form(bytes) == 1).count();
        let held = hits == 0 && controls_found == forms.len();
        let happened = format!(
            "{} hits for {} names and pieces in {}",
            count(hits),
            count(needles.count() as u64),
            bytes(searched)
        );
        let control = format!("{controls_found} of {} planted controls were found", forms.len());
        let attempts = vec![
            Attempt {
                tried: "read your files",
                happened,
                tell: "searched raw, hex, base64, UTF-16, in zstd and deflate",
                held,
            },
            Attempt {
                tried: "find a file name",
                happened: if hits == 0 { format!("none; {control}") } else { control },
                tell: "a name planted in each of these forms is found by the same search",
                held,
            },
        ];
        let numbers = Numbers {
            hits,
            controls: forms.len(),
            controls_found,
            searched,
            needles: needles.count(),
            sent: 0,
            skipped: 0,
        };
        Ok((attempts, numbers))
    }

    fn change_a_byte(&self) -> Result<Attempt, Failure> {
        let path = operator::largest_pack(&self.data()).map_err(adversary)?;
        operator::flip_a_bit(&path).map_err(adversary)?;
        let attempt = self.damaged("change one byte", "SR-001")?;
        operator::flip_a_bit(&path).map_err(adversary)?;
        Ok(attempt)
    }

    fn swap_two(&self) -> Result<Attempt, Failure> {
        let (a, b) = operator::two_packs(&self.data()).map_err(adversary)?;
        operator::swap(&a, &b).map_err(adversary)?;
        let attempt = self.damaged("swap two stored objects", "SR-00")?;
        operator::swap(&a, &b).map_err(adversary)?;
        Ok(attempt)
    }

    /// Checks and restores while something stored is wrong: the check must name it, and no restored
    /// file may differ from its original.
    fn damaged(&self, tried: &'static str, code: &str) -> Result<Attempt, Failure> {
        let verified = self.client()?.verify(sr_client::ReadData::All, &Progress::default())?;
        let restored = self.dir.path().join("restored");
        let target = Target::Folder(restored.clone());
        let report = self.client()?.restore("latest", None, &target, &Progress::default());
        let (wrong, refused) = match report {
            Ok((_, report)) => (self.wrong_files(&restored, &report)?, report.refused.len()),
            // Refused as a whole: the lists themselves were hit.
            Err(sr_client::ClientError::Misbehaviour(_)) => (0, 1),
            Err(error) => return Err(error.into()),
        };
        if restored.exists() {
            std::fs::remove_dir_all(&restored).map_err(local)?;
        }
        let named = verified.bad_packs.first().map(|(_, why)| why.to_string());
        let refused_by_code = named.as_ref().is_some_and(|why| why.starts_with(code));
        let files = plural(refused.max(verified.files.len()) as u64, "file");
        Ok(Attempt {
            tried,
            happened: match &named {
                Some(why) => {
                    format!("REFUSED, {}: {files} named, none written wrong", &why[..6])
                }
                None => "not noticed".into(),
            },
            tell: "`backup verify --read-data` names it; a restore gives the rest",
            held: refused_by_code && wrong == 0,
        })
    }

    /// Counts restored files that are not what they were. Refused ones are missing, which is right.
    fn wrong_files(&self, restored: &Path, report: &RestoreReport) -> Result<usize, Failure> {
        let comparison = compare(&self.folder, restored, &self.skipped).map_err(local)?;
        let refused: HashSet<&Path> =
            report.refused.iter().map(|file| file.path.as_path()).collect();
        Ok(comparison
            .different
            .iter()
            .filter(|(path, _)| restored.join(path).is_file() && !refused.contains(path.as_path()))
            .count())
    }

    fn roll_back(&mut self, old: &operator::OldState) -> Result<Attempt, Failure> {
        let address = self.stop_server()?;
        let newest = operator::put_back(&self.data(), old, &self.dir.path().join("new"))
            .map_err(adversary)?;
        self.start_server(address)?;
        let happened = self.try_snapshots();
        self.stop_server()?;
        operator::undo(&self.data(), newest).map_err(adversary)?;
        self.start_server(address)?;
        self.go_on()?;
        Ok(self.refused("give you last week's state", happened))
    }

    fn hide_newest(&mut self) -> Result<Attempt, Failure> {
        let hidden = operator::hide_newest(&self.data()).map_err(adversary)?;
        let happened = self.try_snapshots();
        operator::show_again(&self.data(), &hidden).map_err(adversary)?;
        self.go_on()?;
        Ok(self.refused("hide the newest snapshot", happened))
    }

    fn refused(
        &self,
        tried: &'static str,
        happened: Result<usize, sr_client::ClientError>,
    ) -> Attempt {
        let (happened, held) = match happened {
            Err(sr_client::ClientError::Misbehaviour(
                why @ sr_wire::Misbehaviour::HeadRolledBack,
            )) => {
                (format!("REFUSED, {}: nothing sent, nothing shown", &why.to_string()[..6]), true)
            }
            Err(error) => (format!("another error: {error}"), false),
            Ok(snapshots) => (format!("not noticed: {snapshots} snapshots shown"), false),
        };
        Attempt {
            tried,
            happened,
            tell: "any command ends with exit code 30; the device remembers the newest state",
            held,
        }
    }

    /// The device has caught this server lying, and sends it nothing until a person says so.
    fn go_on(&self) -> Result<(), Failure> {
        let mut client = self.client()?;
        let rollback = client.rollback()?;
        Ok(client.accept_rollback(rollback)?)
    }

    fn all_is_well(&self) -> Result<bool, Failure> {
        Ok(self.try_snapshots().is_ok_and(|snapshots| snapshots == 3))
    }

    fn try_snapshots(&self) -> Result<usize, sr_client::ClientError> {
        Ok(self.client()?.snapshots()?.len())
    }

    fn client(&self) -> Result<Client, sr_client::ClientError> {
        Client::open(&self.profile(), clock())
    }

    fn start_server(&mut self, listen: std::net::SocketAddr) -> Result<(), Failure> {
        self.server = Some(Running::start(&self.data(), listen, Start::Deaf)?);
        Ok(())
    }

    fn stop_server(&mut self) -> Result<std::net::SocketAddr, Failure> {
        let server = self.server.take().ok_or_else(no_address)?;
        let address = server.address;
        server.stop();
        Ok(address)
    }

    fn address(&self) -> Result<std::net::SocketAddr, Failure> {
        self.server.as_ref().map(|server| server.address).ok_or_else(no_address)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("server")
    }

    fn profile(&self) -> PathBuf {
        self.dir.path().join("profile")
    }
}

fn report(comparison: &Comparison, attempts: &[Attempt], numbers: &Numbers, seconds: u64) -> Done {
    let identical = comparison.different.is_empty() && comparison.files == comparison.identical;
    let held = identical && attempts.iter().all(|attempt| attempt.held);
    let mut text = format!(
        "Restored {} of {} files{}",
        count(comparison.identical),
        count(comparison.files),
        if identical { ", identical.\n\n" } else { "; the others DIFFER.\n\n" },
    );
    let header = ("What the operator tried", "What happened", "How you can tell");
    let width = |heading: &str, cell: fn(&Attempt) -> usize| {
        attempts.iter().map(cell).max().unwrap_or(0).max(heading.len())
    };
    let first = width(header.0, |a| a.tried.len());
    let second = width(header.1, |a| a.happened.len());
    let mut row = |a: &str, b: &str, c: &str| {
        text.push_str(&format!("  {a:first$} | {b:second$} | {c}\n"));
    };
    row(header.0, header.1, header.2);
    row(&"-".repeat(first), &"-".repeat(second), &"-".repeat(header.2.len()));
    for attempt in attempts {
        row(attempt.tried, &attempt.happened, attempt.tell);
    }
    text.push_str(
        "\nWhat this did not show: the operator sees how many objects of which of five sizes are \
         stored, and when.\nThe operator may switch the server off or delete everything: keep a \
         second copy elsewhere.\nA device that is kept in the past does not know of a removal, and one that is \
         restored from paper takes the\nnewest state on this server's word, until the log of a later \
         version.\n",
    );
    text.push_str(&format!("{seconds} seconds; nothing is left behind."));
    if !held {
        text.push_str(
            "\nNOT EVERY LINE HELD: this is a defect; please report it with this output.",
        );
    }
    let held_of = |tried: &str| attempts.iter().any(|a| a.tried == tried && a.held);
    let data = json!({
        "files": comparison.files,
        "bytes": comparison.bytes,
        "restored_identical": identical,
        "operator_plaintext_hits": numbers.hits,
        "control_hits": numbers.controls_found,
        "controls": numbers.controls,
        "needles": numbers.needles,
        "bytes_searched": numbers.searched,
        "bytes_sent": numbers.sent,
        "skipped": numbers.skipped,
        "tamper_refused": held_of("change one byte"),
        "swap_refused": held_of("swap two stored objects"),
        "rollback_refused": held_of("give you last week's state"),
        "hidden_snapshot_refused": held_of("hide the newest snapshot"),
        "linked_restored_identical": held_of("(nothing: you link a second device)"),
        "kit_restored_identical": held_of("(nothing: you restore from paper alone)"),
        "revoked_refused": held_of("let your stolen laptop write"),
        "ghost_device_refused": held_of("add a device of theirs"),
        "key_swap_refused": held_of("swap your account's key"),
        "honest_accepted": attempts.iter().all(|a| a.held || !a.tried.contains("nothing")),
    });
    let differing: Vec<String> = comparison
        .different
        .iter()
        .take(20)
        .map(|(path, what)| format!("{} differs from its restore: {what}", path.display()))
        .collect();
    Done::new(text, data).with_warnings(differing, if held { 0 } else { exit::FAILED })
}

fn local(error: io::Error) -> Failure {
    Failure::failed(
        error.to_string(),
        "Mend what the message names; TMPDIR says where the demo works.",
    )
}

fn adversary(error: AdversaryError) -> Failure {
    local(io::Error::other(error))
}

fn no_address() -> Failure {
    local(io::Error::other("the demo's server did not start"))
}

fn os_rng() -> impl sr_crypto::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

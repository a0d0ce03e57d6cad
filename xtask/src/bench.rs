//! `cargo xtask bench vault`: strongroom and restic with its rest-server, on the same folder, in one
//! run, alternating. Prints medians; the ratios are what counts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::run::{cargo, output, root, run, say};

const RUNS: usize = 3;
const OUR_PORT: u16 = 7481;
const RESTIC_PORT: u16 = 7482;

/// What one command took.
#[derive(Clone, Copy, Default)]
struct Cost {
    wall_s: f64,
    cpu_s: f64,
    peak_mib: f64,
}

struct Row {
    name: &'static str,
    ours: Vec<Cost>,
    theirs: Vec<Cost>,
}

/// What accounts cost. There is no peer that does the same: the figures stand alone.
pub(crate) fn trust() -> Result<(), String> {
    run(&mut cargo(&["run", "--release", "--package", "sr-client", "--example", "trust"]))
}

pub(crate) fn vault(folder: Option<&str>) -> Result<(), String> {
    let home = std::env::var("HOME").map_err(|_| "HOME is not set")?;
    let cache = std::env::var("R").unwrap_or_else(|_| format!("{home}/.cache/strongroom-bench"));
    let folder = folder.map_or_else(|| format!("{cache}/corpus/v1/src"), str::to_owned);
    if !Path::new(&folder).is_dir() {
        return Err(format!("{folder} is no folder: name one, or make the corpus first"));
    }
    let restic = find("restic", &cache)?;
    let rest_server = find("rest-server", &cache)?;
    run(&mut cargo(&["build", "--release", "--package", "strongroom"]))?;
    let dir = std::env::temp_dir().join(format!("strongroom-bench-{}", std::process::id()));
    // Restores go to memory: what the disk's writeback does is not what is measured.
    let target = PathBuf::from(format!("/dev/shm/strongroom-bench-{}", std::process::id()));
    let bench = Bench {
        ours: root().join("target/release/strongroom"),
        restic,
        rest_server,
        folder,
        dir: dir.clone(),
        target: target.clone(),
    };
    let result = bench.play();
    let _ = fs::remove_dir_all(&dir);
    let _ = fs::remove_dir_all(&target);
    result
}

struct Bench {
    ours: PathBuf,
    restic: PathBuf,
    rest_server: PathBuf,
    folder: String,
    dir: PathBuf,
    target: PathBuf,
}

impl Bench {
    fn play(&self) -> Result<(), String> {
        let names = ["first backup", "unchanged backup", "restore all", "check, all data"];
        let mut rows: Vec<Row> = names
            .into_iter()
            .map(|name| Row { name, ours: Vec::new(), theirs: Vec::new() })
            .collect();
        let mut stored = (0, 0);
        for number in 0..RUNS {
            say(&format!("run {} of {RUNS}", number + 1));
            let (ours, our_size) = self.run_ours()?;
            let (theirs, their_size) = self.run_restic()?;
            for (row, (ours, theirs)) in rows.iter_mut().zip(ours.into_iter().zip(theirs)) {
                row.ours.push(ours);
                row.theirs.push(theirs);
            }
            stored = (our_size, their_size);
        }
        self.print(&rows, stored)
    }

    fn run_ours(&self) -> Result<(Vec<Cost>, u64), String> {
        self.clean()?;
        let data = self.dir.join("data");
        let listen = format!("127.0.0.1:{OUR_PORT}");
        let server = Command::new(&self.ours)
            .args(["server", "up", "--quiet", "--listen", &listen, "--data"])
            .arg(&data)
            .stdout(Stdio::null())
            .spawn();
        let server = Server(server.map_err(|e| e.to_string())?);
        wait_for(OUR_PORT)?;
        let client = |args: &[&str]| {
            let mut command = Command::new(&self.ours);
            command.args(args).env("HOME", &self.dir).env_remove("XDG_STATE_HOME");
            command
        };
        let mut invite = Command::new(&self.ours);
        invite.args(["server", "invite", "--address", &listen, "--data"]).arg(&data);
        let invite = output(&mut invite)?;
        output(&mut client(&["join", invite.trim()]))?;
        output(&mut client(&["backup", "add", &self.folder]))?;
        let target = self.target.to_string_lossy().into_owned();
        let mut costs = Vec::new();
        for args in [
            &["backup", "now", "--quiet"][..],
            &["backup", "now", "--quiet"],
            &["backup", "restore", "latest", "--to", &target],
            &["backup", "verify", "--read-data", "--quiet"],
        ] {
            costs.push(self.measure(&mut client(args))?);
        }
        drop(server);
        Ok((costs, size_of(&data)?))
    }

    fn run_restic(&self) -> Result<(Vec<Cost>, u64), String> {
        self.clean()?;
        let data = self.dir.join("data");
        let server = Command::new(&self.rest_server)
            .args(["--no-auth", "--listen", &format!("127.0.0.1:{RESTIC_PORT}"), "--path"])
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = Server(server.map_err(|e| e.to_string())?);
        wait_for(RESTIC_PORT)?;
        let client = |args: &[&str]| {
            let mut command = Command::new(&self.restic);
            command
                .args(args)
                .env("HOME", &self.dir)
                .env("RESTIC_PASSWORD", "bench")
                .env("RESTIC_REPOSITORY", format!("rest:http://127.0.0.1:{RESTIC_PORT}/"));
            command
        };
        output(&mut client(&["init", "--quiet"]))?;
        let target = self.target.to_string_lossy().into_owned();
        let mut costs = Vec::new();
        for args in [
            &["backup", "--quiet", &self.folder][..],
            &["backup", "--quiet", &self.folder],
            &["restore", "--quiet", "latest", "--target", &target],
            &["check", "--quiet", "--read-data"],
        ] {
            costs.push(self.measure(&mut client(args))?);
        }
        drop(server);
        Ok((costs, size_of(&data)?))
    }

    /// Runs a client command under GNU time and returns what it took.
    fn measure(&self, command: &mut Command) -> Result<Cost, String> {
        output(&mut Command::new("sync"))?;
        let log = self.dir.join("time");
        let mut timed = Command::new("/usr/bin/time");
        timed.args(["--format", "%e %U %S %M", "--output"]).arg(&log).arg(command.get_program());
        timed.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => timed.env(key, value),
                None => timed.env_remove(key),
            };
        }
        output(&mut timed)?;
        let text = fs::read_to_string(&log).map_err(|e| e.to_string())?;
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        match numbers.as_slice() {
            [wall_s, user_s, system_s, peak_kib] => {
                Ok(Cost { wall_s: *wall_s, cpu_s: user_s + system_s, peak_mib: peak_kib / 1024.0 })
            }
            _ => Err(format!("GNU time printed {text:?}")),
        }
    }

    fn clean(&self) -> Result<(), String> {
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_dir_all(&self.target);
        fs::create_dir_all(self.dir.join("data")).map_err(|e| e.to_string())
    }

    fn print(&self, rows: &[Row], stored: (u64, u64)) -> Result<(), String> {
        let mut version = Command::new(&self.restic);
        let version = output(version.arg("version"))?;
        let version: Vec<&str> = version.split_whitespace().take(2).collect();
        let mut table = format!(
            "Median of {RUNS}, client only, warm page cache. restic: {}, rest-server over plain \
             HTTP; strongroom over TLS.\n\n\
             | | strongroom wall s | {} wall s | ratio | CPU s | CPU s | peak MiB | peak MiB |\n\
             |---|---|---|---|---|---|---|---|\n",
            version.join(" "),
            version[0],
        );
        for row in rows {
            let of = |costs: &[Cost], pick: fn(&Cost) -> f64| {
                let mut numbers: Vec<f64> = costs.iter().map(pick).collect();
                numbers.sort_by(f64::total_cmp);
                numbers[numbers.len() / 2]
            };
            let (ours, theirs) = (of(&row.ours, |c| c.wall_s), of(&row.theirs, |c| c.wall_s));
            table.push_str(&format!(
                "| {} | {ours:.2} | {theirs:.2} | {:.2} | {:.1} | {:.1} | {:.0} | {:.0} |\n",
                row.name,
                theirs / ours,
                of(&row.ours, |c| c.cpu_s),
                of(&row.theirs, |c| c.cpu_s),
                of(&row.ours, |c| c.peak_mib),
                of(&row.theirs, |c| c.peak_mib),
            ));
        }
        #[expect(clippy::cast_precision_loss, reason = "megabytes for people")]
        let mb = |bytes: u64| bytes as f64 / 1e6;
        table.push_str(&format!(
            "| stored, MB | {:.1} | {:.1} | {:.2} | | | | |",
            mb(stored.0),
            mb(stored.1),
            mb(stored.1) / mb(stored.0)
        ));
        say(&table);
        Ok(())
    }
}

/// A server that ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(port: u16) -> Result<(), String> {
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("nothing listens on port {port}"))
}

fn size_of(dir: &Path) -> Result<u64, String> {
    let mut size = 0;
    for entry in fs::read_dir(dir).map_err(|e| e.to_string())? {
        let entry = entry.map_err(|e| e.to_string())?;
        let meta = entry.metadata().map_err(|e| e.to_string())?;
        size += if meta.is_dir() { size_of(&entry.path())? } else { meta.len() };
    }
    Ok(size)
}

/// Finds a peer on the path or where the corpus lies.
fn find(name: &str, cache: &str) -> Result<PathBuf, String> {
    let beside = ["", "restic-"].map(|prefix| format!("{cache}/peers/usr/bin/{prefix}{name}"));
    let on_path = std::env::var("PATH").unwrap_or_default();
    let on_path = on_path.split(':').map(|dir| format!("{dir}/{name}"));
    beside
        .into_iter()
        .chain(on_path)
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{name} is not installed; install restic and its rest-server"))
}

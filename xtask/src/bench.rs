//! `cargo xtask bench vault`: strongroom and its peers on the same folders, in one run, by turns, each
//! with its own server. Prints medians; the ratios are what counts.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    peers::{Ours, Peer, Place, Step, found},
    run::{cargo, output, root, run, say},
};

/// Each program's runs, unless `RUNS` says otherwise.
const RUNS: usize = 3;

/// What one command took.
#[derive(Clone, Copy, Default)]
struct Cost {
    wall_s: f64,
    cpu_s: f64,
    peak_mb: f64,
}

/// A line of the table.
struct Line {
    name: &'static str,
    /// The largest ratio to the best peer that will do, and the one that is aimed at.
    must: Option<f64>,
    aim: Option<f64>,
    /// For each program, what each run gave; none where it has no such thing.
    values: Vec<Vec<f64>>,
}

impl Line {
    fn medians(&self) -> Vec<Option<f64>> {
        self.values.iter().map(|values| median(values)).collect()
    }

    /// Returns our median divided by the best of the others.
    fn ratio(&self) -> Option<f64> {
        let medians = self.medians();
        let best = medians[1..].iter().flatten().copied().filter(|m| *m > 0.0).reduce(f64::min)?;
        Some((*medians.first()?)? / best)
    }
}

/// What accounts cost. There is no peer that does the same: the figures stand alone.
pub(crate) fn trust() -> Result<(), String> {
    run(&mut cargo(&["run", "--release", "--package", "sr-client", "--example", "trust"]))
}

/// With `only`, these peers, with commas between them, instead of all that are installed.
pub(crate) fn vault(only: Option<&str>) -> Result<(), String> {
    let home = std::env::var("HOME").map_err(|_| "HOME is not set")?;
    let cache = PathBuf::from(
        std::env::var("R").unwrap_or_else(|_| format!("{home}/.cache/strongroom-bench")),
    );
    if !cache.join("corpus/v2src").is_dir() {
        return Err("there is no corpus: run xtask/bench/corpus.sh, and peers.sh, first".into());
    }
    run(&mut cargo(&["build", "--release", "--package", "strongroom"]))?;
    let ours = Ours(root().join("target/release/strongroom"));
    let mut programs: Vec<Box<dyn Peer>> = vec![Box::new(ours)];
    programs.extend(
        found(&cache)
            .into_iter()
            .filter(|peer| only.is_none_or(|only| only.split(',').any(|name| name == peer.name()))),
    );
    let disk = std::env::temp_dir().join(format!("strongroom-bench-{}", std::process::id()));
    // The folders and their restores lie in memory: what a disk's writeback does is not what is measured.
    let memory = PathBuf::from(format!("/dev/shm/strongroom-bench-{}", std::process::id()));
    let bench = Bench { programs, cache, disk, memory };
    let result = bench.play();
    let _ = fs::remove_dir_all(&bench.disk);
    let _ = fs::remove_dir_all(&bench.memory);
    let lines = result?;
    let text = bench.text(&lines);
    say(&text);
    write_page(&text)?;
    fs::write(root().join("docs/benchmarks.svg"), chart(&lines)).map_err(|e| e.to_string())?;
    say("also in docs/benchmarks.md, with a chart");
    Ok(())
}

/// Puts the table into its page.
fn write_page(table: &str) -> Result<(), String> {
    const BEGIN: &str = "<!-- begin: cargo xtask bench vault -->\n";
    const END: &str = "\n<!-- end -->";
    let path = root().join("docs/benchmarks.md");
    let page = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let (before, rest) = page.split_once(BEGIN).ok_or("the page has no place for the table")?;
    let (_, after) = rest.split_once(END).ok_or("the page has no place for the table")?;
    let page = format!("{before}{BEGIN}{table}{END}{after}");
    fs::write(&path, page).map_err(|error| error.to_string())
}

/// Draws the ratios to the best peer: bars that end left of 1 are better than it.
fn chart(lines: &[Line]) -> String {
    const WIDTH: f64 = 300.0;
    const LEFT: f64 = 290.0;
    const ROW: f64 = 22.0;
    let rows: Vec<(&Line, f64)> =
        lines.iter().filter_map(|line| Some((line, line.ratio()?))).collect();
    #[expect(clippy::cast_precision_loss, reason = "some twenty rows")]
    let height = (rows.len() + 2) as f64 * ROW;
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='720' height='{height:.0}' \
         font-family='sans-serif' font-size='13'>\n<rect width='100%' height='100%' fill='white'/>\n\
         <text x='{LEFT}' y='15'>strongroom, as a part of the best peer (the line is at 1)</text>\n"
    );
    let mut y = ROW;
    for (line, ratio) in rows {
        let len = WIDTH * ratio.min(1.4);
        let middle = y + 15.0;
        let name = line.name.replace('&', "&amp;");
        svg.push_str(&format!(
            "<text x='{}' y='{middle}' text-anchor='end'>{name}</text>\
             <rect x='{LEFT}' y='{}' width='{len:.0}' height='14' fill='#3a6ea5'/>\
             <text x='{:.0}' y='{middle}'>{ratio:.2}</text>\n",
            LEFT - 8.0,
            y + 4.0,
            LEFT + len + 6.0,
        ));
        if let Some(must) = line.must {
            let x = LEFT + WIDTH * must;
            svg.push_str(&format!(
                "<rect x='{x:.0}' y='{}' width='2' height='18' fill='#c0392b'/>\n",
                y + 2.0
            ));
        }
        y += ROW;
    }
    svg.push_str(&format!(
        "<line x1='{0}' x2='{0}' y1='{ROW}' y2='{y}' stroke='black' stroke-dasharray='3'/>\n\
         <text x='{LEFT}' y='{1}'>red: what the project asks of itself at least</text>\n</svg>\n",
        LEFT + WIDTH,
        y + 16.0
    ));
    svg
}

struct Bench {
    programs: Vec<Box<dyn Peer>>,
    cache: PathBuf,
    /// Where servers and clients keep what they keep.
    disk: PathBuf,
    memory: PathBuf,
}

impl Bench {
    fn play(&self) -> Result<Vec<Line>, String> {
        let mut lines = lines(self.programs.len());
        let runs = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
        for number in 0..runs {
            for (place, program) in self.programs.iter().enumerate() {
                say(&format!("run {} of {runs}: {}", number + 1, program.name()));
                for (line, value) in lines.iter_mut().zip(self.run(program.as_ref())?) {
                    line.values[place].extend(value);
                }
            }
        }
        Ok(lines)
    }

    /// Plays one program through; returns the values of all lines.
    fn run(&self, program: &dyn Peer) -> Result<Vec<Option<f64>>, String> {
        let _ = fs::remove_dir_all(&self.disk);
        let _ = fs::remove_dir_all(&self.memory);
        let tree = self.memory.join("corpus/tree");
        fs::create_dir_all(&tree).map_err(|error| error.to_string())?;
        fs::create_dir_all(self.disk.join("data")).map_err(|error| error.to_string())?;
        let corpus = self.cache.join("corpus");
        for name in ["src", "bin"] {
            let from = corpus.join("v1").join(name);
            output(Command::new("cp").arg("-a").arg(from).arg(tree.join(name)))?;
            let _ = fs::remove_file(tree.join(name).join(".done"));
        }
        std::os::unix::fs::symlink(corpus.join("v2src"), self.memory.join("corpus/v2src"))
            .map_err(|error| error.to_string())?;
        // A file that was changed this second may change again, unseen; nobody trusts such times.
        std::thread::sleep(Duration::from_secs(3));
        let (src, bin, target) = (tree.join("src"), tree.join("bin"), self.memory.join("restored"));
        let place = Place { dir: self.disk.clone() };
        let server = program.serve(&place)?.map(Server);
        let step = |step: Step<'_>| self.measure(program.command(&place, &step));
        let restore = |folder: &Path| {
            let cost = step(Step::Restore { folder, to: &target });
            let _ = fs::remove_dir_all(&target);
            cost
        };
        let first_src = step(Step::Backup(&src))?;
        let stored_src = size_of(&self.disk.join("data"))?;
        let same_src = step(Step::Backup(&src))?;
        let restore_src = restore(&src)?;
        let file = src.join("fs/ext4/inode.c");
        let one = step(Step::Cat { folder: &src, file: &file })?;
        let list = step(Step::List { folder: &src, at: &src.join("fs/ext4") })?;
        let first_bin = step(Step::Backup(&bin))?;
        let served = server.as_ref().map(|server| server.used());
        let stored_both = size_of(&self.disk.join("data"))?;
        let same_bin = step(Step::Backup(&bin))?;
        let restore_bin = restore(&bin)?;
        let check = step(Step::Check)?;
        let before = size_of(&self.disk.join("data"))?;
        output(
            Command::new("python3").arg(root().join("xtask/bench/edit.py")).env("R", &self.memory),
        )?;
        std::thread::sleep(Duration::from_secs(3));
        let edit_src = step(Step::Backup(&src))?;
        let between = size_of(&self.disk.join("data"))?;
        let edit_bin = step(Step::Backup(&bin))?;
        let after = size_of(&self.disk.join("data"))?;
        drop(server);
        let (fast_src, fast_bin) = self.fast(program, &src, &bin)?;
        let wall = |cost: Option<Cost>| cost.map(|cost| cost.wall_s);
        let peak = |a: Option<Cost>, b: Option<Cost>| Some(a?.peak_mb.max(b?.peak_mb));
        Ok(vec![
            wall(first_src),
            wall(first_bin),
            wall(same_src),
            wall(same_bin),
            wall(edit_src),
            Some(between - before),
            wall(edit_bin),
            Some(after - between),
            Some(stored_src),
            Some(stored_both),
            wall(restore_src),
            wall(restore_bin),
            wall(one),
            wall(list),
            wall(check),
            peak(first_src, first_bin),
            peak(restore_src, restore_bin),
            first_src.map(|cost| cost.cpu_s),
            served.map(|(cpu_s, _)| cpu_s),
            served.map(|(_, peak_mb)| peak_mb),
            wall(fast_src),
            wall(fast_bin),
        ])
    }

    /// First backups with the fastest compression, to another server.
    fn fast(
        &self,
        program: &dyn Peer,
        src: &Path,
        bin: &Path,
    ) -> Result<(Option<Cost>, Option<Cost>), String> {
        let place = Place { dir: self.disk.join("fast") };
        fs::create_dir_all(place.dir.join("data")).map_err(|error| error.to_string())?;
        let server = program.serve(&place)?.map(Server);
        let src = self.measure(program.command(&place, &Step::Fast(src)))?;
        let bin = self.measure(program.command(&place, &Step::Fast(bin)))?;
        drop(server);
        Ok((src, bin))
    }

    /// Runs a client command under GNU time and returns what it took.
    fn measure(&self, command: Option<Command>) -> Result<Option<Cost>, String> {
        let Some(command) = command else { return Ok(None) };
        output(&mut Command::new("sync"))?;
        let log = self.disk.join("time");
        let mut timed = Command::new("/usr/bin/time");
        timed.args(["--format", "%e %U %S %M", "--output"]).arg(&log).arg(command.get_program());
        timed.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => timed.env(key, value),
                None => timed.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            timed.current_dir(dir);
        }
        timed.stdout(Stdio::null()).stderr(Stdio::piped());
        let done = timed.output().map_err(|error| format!("GNU time: {error}"))?;
        if !done.status.success() {
            let _ = std::io::stderr().write_all(&done.stderr);
            return Err(format!("{command:?} failed"));
        }
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        match numbers.as_slice() {
            [wall_s, user_s, system_s, peak_kib] => Ok(Some(Cost {
                wall_s: *wall_s,
                cpu_s: user_s + system_s,
                peak_mb: peak_kib * 1024.0 / 1e6,
            })),
            _ => Err(format!("GNU time printed {text:?}")),
        }
    }

    fn text(&self, lines: &[Line]) -> String {
        let mut text = String::from("| |");
        for program in &self.programs {
            text.push_str(&format!(" {} |", program.name()));
        }
        text.push_str(" ratio | must | aim |\n|---|");
        text.push_str(&"---|".repeat(self.programs.len() + 3));
        for line in lines {
            let (medians, ratio) = (line.medians(), line.ratio());
            text.push_str(&format!("\n| {} |", line.name));
            for median in &medians {
                text.push_str(&median.map_or_else(|| " – |".into(), |m| format!(" {m:.2} |")));
            }
            text.push_str(&ratio.map_or_else(|| " – |".into(), |ratio| format!(" {ratio:.2} |")));
            for limit in [line.must, line.aim] {
                text.push_str(&limit.map_or_else(|| " |".into(), |limit| format!(" {limit:.2} |")));
            }
        }
        text
    }
}

fn lines(programs: usize) -> Vec<Line> {
    let line = |name, must: f64, aim: f64| Line {
        name,
        must: (must > 0.0).then_some(must),
        aim: (aim > 0.0).then_some(aim),
        values: vec![Vec::new(); programs],
    };
    vec![
        line("first backup, src, s", 0.7, 0.5),
        line("first backup, bin, s", 0.75, 0.55),
        line("unchanged, src, s", 0.9, 0.5),
        line("unchanged, bin, s", 1.0, 0.5),
        line("after the edit, src, s", 0.5, 0.3),
        line("after the edit, src, MB more", 1.0, 0.75),
        line("after the edit, bin, s", 0.7, 0.5),
        line("after the edit, bin, MB more", 1.2, 0.8),
        line("stored, src, MB", 1.05, 0.97),
        line("stored, both, MB", 1.02, 0.99),
        line("restore, src, s", 0.8, 0.55),
        line("restore, bin, s", 1.0, 0.75),
        line("one old file to standard output, s", 0.6, 0.25),
        line("list a folder of a snapshot, s", 0.0, 0.0),
        line("read-check of everything, s", 0.9, 0.6),
        line("peak memory, first, MB", 0.0, 0.0),
        line("peak memory, restore, MB", 0.0, 0.0),
        line("CPU, first backup of src, s", 0.0, 0.0),
        line("server's CPU, both first backups, s", 0.0, 0.0),
        line("server's peak memory, MB", 0.0, 0.0),
        line("fastest compression: first backup, src, s", 0.0, 0.0),
        line("fastest compression: first backup, bin, s", 0.0, 0.0),
    ]
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// A server that ends with this.
struct Server(Child);

impl Server {
    /// Returns the seconds of CPU that it has used, and the MB of its peak.
    fn used(&self) -> (f64, f64) {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/{}/{name}", self.0.id())).unwrap_or_default()
        };
        let stat = read("stat");
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks: f64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum();
        let status = read("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak_kib = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<f64>().ok());
        (ticks / 100.0, peak_kib.unwrap_or_default() * 1024.0 / 1e6)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the MB of all files below a folder.
fn size_of(dir: &Path) -> Result<f64, String> {
    let mut size = 0.0;
    for entry in fs::read_dir(dir).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        let meta = entry.metadata().map_err(|error| error.to_string())?;
        #[expect(clippy::cast_precision_loss, reason = "megabytes for people")]
        let len = meta.len() as f64 / 1e6;
        size += if meta.is_dir() { size_of(&entry.path())? } else { len };
    }
    Ok(size)
}

//! `cargo xtask kill`: `kill -9` of client and server at random moments. After each round everything
//! that was acknowledged is there, and nothing else stays.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::run::{cargo, output, root, run, say};

const PORT_TRIES: u32 = 100;

pub(crate) fn run_command(numbers: &[&str]) -> Result<(), String> {
    run(&mut cargo(&["build", "--release", "--package", "strongroom"]))?;
    let rounds_wanted = numbers.first().copied().unwrap_or("100");
    let seed = numbers.get(1).copied().unwrap_or("1");
    rounds(&root().join("target/release/strongroom"), rounds_wanted, seed)
}

/// Plays `rounds` rounds from `seed` with a built program.
pub(crate) fn rounds(binary: &Path, rounds: &str, seed: &str) -> Result<(), String> {
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
    in_a_world(binary, number(rounds)?, number(seed)?, When::AtAnyTime)
}

/// As [`rounds`], but each process is killed at a system call, by strace.
pub(crate) fn syscalls(binary: &Path, rounds: u64, seed: u64) -> Result<(), String> {
    output(Command::new("strace").arg("--version"))?;
    in_a_world(binary, rounds, seed, When::AtACall)
}

fn in_a_world(binary: &Path, rounds: u64, seed: u64, when: When) -> Result<(), String> {
    let dir = std::env::temp_dir().join(format!("strongroom-kill-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let mut world = World::new(binary, &dir, seed, when);
    let result = world.play(rounds);
    world.stop_server();
    let removed = fs::remove_dir_all(&world.dir).map_err(|e| e.to_string());
    result?;
    removed?;
    let interrupted = world.interrupted;
    say(&format!(
        "{rounds} rounds from seed {seed}, {interrupted} of them killed in the middle: no loss, no \
         leftovers"
    ));
    Ok(())
}

/// Fills the disk that `dir` is on, which has server, profile and files, and makes room again.
pub(crate) fn full_disk(binary: &Path, dir: &Path, seed: u64) -> Result<(), String> {
    const ROUNDS: u64 = 8;
    let mut world = World::new(binary, dir, seed, When::AtAnyTime);
    let mut failed = 0;
    let result = world.play(0).and_then(|()| {
        for _ in 0..ROUNDS {
            failed += u64::from(world.full_round()?);
        }
        Ok(())
    });
    world.stop_server();
    result?;
    say(&format!("{ROUNDS} rounds on a full disk, {failed} of them refused: no loss"));
    if failed > 0 { Ok(()) } else { Err("the disk was never full".into()) }
}

/// When a process is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    AtAnyTime,
    AtACall,
}

/// Calls at which what was done so far matters, and how many of them one thread makes, about.
const CALLS: [(&str, u64); 5] = [
    ("write,pwrite64,writev,sendto", 60),
    ("fsync,fdatasync,sync_file_range,syncfs", 10),
    ("rename,renameat,renameat2,unlink,unlinkat", 10),
    ("openat,openat2", 60),
    ("read,pread64,recvfrom", 60),
];

struct World {
    binary: PathBuf,
    dir: PathBuf,
    random: u64,
    /// Rounds in which something was killed while it ran.
    interrupted: u64,
    server: Option<Child>,
    when: When,
}

impl World {
    fn new(binary: &Path, dir: &Path, seed: u64, when: When) -> Self {
        let (binary, dir) = (binary.to_owned(), dir.to_owned());
        Self { binary, dir, random: seed | 1, interrupted: 0, server: None, when }
    }

    /// Backs up on a disk with little room left, and again when there is room. Returns whether the first
    /// was refused.
    fn full_round(&mut self) -> Result<bool, String> {
        self.change_files(3)?;
        let before = self.snapshots()?;
        let filler = self.dir.join("filler");
        let left = self.below(2_000_000);
        fill(&filler, left).map_err(|e| format!("filling the disk: {e}"))?;
        let ended = self
            .command(&["backup", "now", "--quiet"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|e| e.to_string())?;
        fs::remove_file(&filler).map_err(|e| e.to_string())?;
        // A panic would be 101, a signal no code.
        if !matches!(ended.code(), Some(0 | 1 | 3 | 20 | 21 | 40)) {
            return Err(format!("on a full disk: {ended}"));
        }
        self.client(&["backup", "now", "--quiet"])?;
        let after = self.snapshots()?;
        if !before.iter().all(|id| after.contains(id)) || after.len() <= before.len() {
            return Err(format!("{} snapshots became {}", before.len(), after.len()));
        }
        self.client(&["backup", "verify", "--read-data", "--quiet"])?;
        Ok(!ended.success())
    }

    fn play(&mut self, rounds: u64) -> Result<(), String> {
        self.start_server()?;
        let invite =
            fs::read_to_string(self.dir.join("invite")).map_err(|e| format!("invite: {e}"))?;
        self.client(&["join", invite.lines().next().unwrap_or_default()])?;
        fs::create_dir(self.folder()).map_err(|e| e.to_string())?;
        self.change_files(40)?;
        let folder = self.folder();
        self.client(&["backup", "add", &folder.to_string_lossy()])?;
        self.client(&["backup", "now", "--quiet"])?;
        for round in 0..rounds {
            self.round(round).map_err(|e| format!("round {round}: {e}"))?;
        }
        Ok(())
    }

    fn round(&mut self, round: u64) -> Result<(), String> {
        let count = 1 + self.below(8);
        self.change_files(count)?;
        let before = self.snapshots()?;
        let restored = self.dir.join("restored");
        match self.below(3) {
            // The client dies in a backup, and the same command goes on.
            0 => {
                self.start_and_kill(&["backup", "now", "--quiet"])?;
                self.client(&["backup", "now", "--quiet"])?;
            }
            // The client dies in a restore, and the same command goes on.
            1 => {
                self.client(&["backup", "now", "--quiet"])?;
                let to = restored.to_string_lossy().into_owned();
                self.start_and_kill(&["backup", "restore", "latest", "--to", &to])?;
                no_half_files(&self.folder(), &restored)?;
            }
            // The server dies while it writes.
            _ if self.when == When::AtACall => {
                self.kill_server()?;
                let strace = self.strace();
                self.start_server_by(&strace)?;
                let mut client = self.spawn(&["backup", "now", "--quiet"])?;
                while client.try_wait().map_err(|e| e.to_string())?.is_none() {
                    if self.has_server_ended()? {
                        self.interrupted += 1;
                        self.start_server()?;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                self.kill_server()?;
                self.start_server()?;
                if !client.wait().map_err(|e| e.to_string())?.success() {
                    self.client(&["backup", "now", "--quiet"])?;
                }
            }
            _ => {
                let mut client = self.spawn(&["backup", "now", "--quiet"])?;
                self.wait_a_random_while();
                if client.try_wait().map_err(|e| e.to_string())?.is_none() {
                    self.interrupted += 1;
                }
                self.kill_server()?;
                self.start_server()?;
                let ended = client.wait().map_err(|e| e.to_string())?;
                if !ended.success() {
                    self.client(&["backup", "now", "--quiet"])?;
                }
            }
        }
        let after = self.snapshots()?;
        if !before.iter().all(|id| after.contains(id)) || after.len() <= before.len() {
            return Err(format!("{} snapshots became {}", before.len(), after.len()));
        }
        self.client(&["backup", "verify", "--read-data", "--quiet"])?;
        let to = restored.to_string_lossy().into_owned();
        self.client(&["backup", "restore", "latest", "--to", &to])?;
        let (a, b) = (self.folder(), restored.clone());
        output(Command::new("diff").arg("-r").arg("--no-dereference").arg(a).arg(b))?;
        fs::remove_dir_all(&restored).map_err(|e| e.to_string())?;
        self.no_leftovers()?;
        if round % 10 == 9 {
            say(&format!("  {} rounds", round + 1));
        }
        Ok(())
    }

    /// Every pack on the server is one that the client names, and no half-received one stays.
    fn no_leftovers(&self) -> Result<(), String> {
        let incoming = self.dir.join("server/incoming");
        if fs::read_dir(&incoming).map_err(|e| e.to_string())?.next().is_some() {
            return Err("a half-received pack stays".into());
        }
        let mut stored = 0;
        for folder in fs::read_dir(self.dir.join("server/packs")).map_err(|e| e.to_string())? {
            let folder = folder.map_err(|e| e.to_string())?.path();
            stored += fs::read_dir(folder).map_err(|e| e.to_string())?.count();
        }
        let report: serde_json::Value =
            serde_json::from_str(&self.client(&["what-they-see", "--json"])?)
                .map_err(|e| e.to_string())?;
        let spaces = report["data"]["spaces"].as_array().map(Vec::as_slice).unwrap_or_default();
        let packs = spaces.iter().filter_map(|space| space["packs"].as_array());
        let named: usize = packs.map(Vec::len).sum();
        if named != stored {
            return Err(format!("{stored} packs are stored, {named} are named by the client"));
        }
        Ok(())
    }

    fn snapshots(&self) -> Result<Vec<String>, String> {
        let json = self.client(&["backup", "snapshots", "--json"])?;
        let json: serde_json::Value = serde_json::from_str(&json).map_err(|e| e.to_string())?;
        let list = json["data"]["snapshots"].as_array().cloned().unwrap_or_default();
        Ok(list.iter().filter_map(|s| s["id"].as_str().map(str::to_owned)).collect())
    }

    /// Writes some files of all sizes and deletes one now and then.
    fn change_files(&mut self, count: u64) -> Result<(), String> {
        for _ in 0..count {
            let name = format!("{}/{}", self.below(5), self.below(60));
            let path = self.folder().join(name);
            if self.below(10) == 0 {
                let _ = fs::remove_file(&path);
                continue;
            }
            let len = match self.below(6) {
                0 => self.below(6_000_000),
                1 => self.below(400_000),
                _ => self.below(5_000),
            };
            let content: Vec<u8> = (0..len).map(|_| self.next().to_be_bytes()[0]).collect();
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|e| e.to_string())?;
            }
            fs::write(path, content).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Returns the beginning of a command line that ends what follows at some system call.
    fn strace(&mut self) -> Vec<String> {
        let (calls, often) = CALLS[usize::try_from(self.below(CALLS.len() as u64)).unwrap_or(0)];
        let number = 1 + self.below(often);
        let inject = format!("inject={calls}:signal=KILL:when={number}");
        let trace = format!("trace={calls}");
        // The tracer is the grandchild: what is started here, and killed, is the program itself.
        let arguments =
            ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        arguments.map(str::to_owned).to_vec()
    }

    fn start_and_kill(&mut self, args: &[&str]) -> Result<(), String> {
        if self.when == When::AtACall {
            let strace = self.strace();
            let mut command = self.command_by(&strace, args);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let ended = command.status().map_err(|e| e.to_string())?;
            self.interrupted += u64::from(!ended.success());
            return Ok(());
        }
        let mut client = self.spawn(args)?;
        self.wait_a_random_while();
        // One that has ended already was not interrupted.
        if client.try_wait().map_err(|e| e.to_string())?.is_none() {
            self.interrupted += 1;
        }
        let _ = client.kill();
        client.wait().map_err(|e| e.to_string())?;
        Ok(())
    }

    fn start_server(&mut self) -> Result<(), String> {
        self.start_server_by(&[])
    }

    fn start_server_by(&mut self, by: &[String]) -> Result<(), String> {
        let port_file = self.dir.join("port");
        let port = fs::read_to_string(&port_file).unwrap_or_else(|_| "0".into());
        let out = fs::File::create(self.dir.join("server.json")).map_err(|e| e.to_string())?;
        let data = self.dir.join("server");
        let listen = format!("127.0.0.1:{port}");
        let child = self
            .command_by(by, &["server", "up", "--json", "--listen", &listen, "--data"])
            .arg(data)
            .stdout(out)
            .spawn()
            .map_err(|e| e.to_string())?;
        self.server = Some(child);
        for _ in 0..PORT_TRIES {
            std::thread::sleep(Duration::from_millis(20));
            let text = fs::read_to_string(self.dir.join("server.json")).unwrap_or_default();
            let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) else { continue };
            let address = json["data"]["address"].as_str().unwrap_or_default().to_owned();
            let port = address.rsplit(':').next().unwrap_or_default();
            fs::write(&port_file, port).map_err(|e| e.to_string())?;
            if let Some(invite) = json["data"]["invites"][0].as_str() {
                fs::write(self.dir.join("invite"), invite).map_err(|e| e.to_string())?;
            }
            return Ok(());
        }
        // One that was killed while it started has started nothing.
        if by.is_empty() { Err("the server does not start".into()) } else { Ok(()) }
    }

    fn has_server_ended(&mut self) -> Result<bool, String> {
        let Some(server) = &mut self.server else { return Ok(false) };
        Ok(server.try_wait().map_err(|e| e.to_string())?.is_some())
    }

    fn kill_server(&mut self) -> Result<(), String> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        server.kill().map_err(|e| e.to_string())?;
        server.wait().map(|_| ()).map_err(|e| e.to_string())
    }

    fn stop_server(&mut self) {
        let _ = self.kill_server();
    }

    fn client(&self, args: &[&str]) -> Result<String, String> {
        output(&mut self.command(args))
    }

    fn spawn(&self, args: &[&str]) -> Result<Child, String> {
        self.command(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_by(&[], args)
    }

    /// The program, run by another one.
    fn command_by(&self, by: &[String], args: &[&str]) -> Command {
        let mut words = by.iter().map(std::ffi::OsString::from).collect::<Vec<_>>();
        words.push(self.binary.clone().into());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(args)
            .env("HOME", self.dir.join("home"))
            .env_remove("XDG_STATE_HOME");
        command
    }

    fn folder(&self) -> PathBuf {
        self.dir.join("folder")
    }

    fn wait_a_random_while(&mut self) {
        // Runs take some 30 to 300 ms: the moment falls into every part of them.
        std::thread::sleep(Duration::from_micros(self.below(250_000)));
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// xorshift64 (Marsaglia 2003): a seed gives the same rounds each time.
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Writes a file until the disk has `left` bytes left.
fn fill(path: &Path, left: u64) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = fs::File::create(path)?;
    let block = vec![0; 64 << 10];
    let mut len = 0;
    while file.write_all(&block).is_ok() {
        len += block.len() as u64;
    }
    file.set_len(len.saturating_sub(left))
}

/// Whatever a killed restore put under a final name is whole.
fn no_half_files(original: &Path, restored: &Path) -> Result<(), String> {
    let mut stack = vec![restored.to_owned()];
    while let Some(dir) = stack.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_name() == ".strongroom-restore" {
                continue;
            }
            if path.is_dir() {
                stack.push(path);
                continue;
            }
            let relative = path.strip_prefix(restored).map_err(|e| e.to_string())?;
            let same = fs::read(&path).ok() == fs::read(original.join(relative)).ok();
            if !same {
                return Err(format!("{} is half a file", relative.display()));
            }
        }
    }
    Ok(())
}

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
    let (rounds, seed) = (number(rounds)?, number(seed)?);
    let dir = std::env::temp_dir().join(format!("strongroom-kill-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let mut world =
        World { binary: binary.to_owned(), dir, random: seed | 1, interrupted: 0, server: None };
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

struct World {
    binary: PathBuf,
    dir: PathBuf,
    random: u64,
    /// Rounds in which something was killed while it ran.
    interrupted: u64,
    server: Option<Child>,
}

impl World {
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

    fn start_and_kill(&mut self, args: &[&str]) -> Result<(), String> {
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
        let port_file = self.dir.join("port");
        let port = fs::read_to_string(&port_file).unwrap_or_else(|_| "0".into());
        let out = fs::File::create(self.dir.join("server.json")).map_err(|e| e.to_string())?;
        let data = self.dir.join("server");
        let listen = format!("127.0.0.1:{port}");
        let child = self
            .command(&["server", "up", "--json", "--listen", &listen, "--data"])
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
        Err("the server does not start".into())
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
        let mut command = Command::new(&self.binary);
        command.args(args).env("HOME", self.dir.join("home")).env_remove("XDG_STATE_HOME");
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

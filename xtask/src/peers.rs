//! The programs that the bench plays: strongroom, and who does the same.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::run::output;

const OUR_PORT: u16 = 7481;
const REST_PORT: u16 = 7482;
const SSH_PORT: u16 = 7483;

/// Where a program keeps everything: its server in `data`.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
}

/// What is measured.
pub(crate) enum Step<'a> {
    /// Back this folder up.
    Backup(&'a Path),
    /// Back this folder up with the fastest compression.
    Fast(&'a Path),
    /// Restore the newest state of a folder.
    Restore { folder: &'a Path, to: &'a Path },
    /// Write one file of it to standard output.
    Cat { folder: &'a Path, file: &'a Path },
    /// List one folder of it.
    List { folder: &'a Path, at: &'a Path },
    /// Read everything and check it.
    Check,
}

/// A backup program.
pub(crate) trait Peer {
    fn name(&self) -> &'static str;

    /// Makes an empty place and starts the server, if there is one that stays.
    fn serve(&self, place: &Place) -> Result<Option<Child>, String>;

    /// Returns the client's command; none for what the program can't do.
    fn command(&self, place: &Place, step: &Step<'_>) -> Option<Command>;
}

/// Returns the peers that are installed.
pub(crate) fn found(cache: &Path) -> Vec<Box<dyn Peer>> {
    let peers = cache.join("peers");
    let (restic, rest_server) =
        (peers.join("usr/bin/restic"), peers.join("usr/bin/restic-rest-server"));
    let mut found: Vec<Box<dyn Peer>> = Vec::new();
    if restic.is_file() && rest_server.is_file() {
        found.push(Box::new(Restic { restic, rest_server: rest_server.clone() }));
    }
    let rustic = peers.join("cargo/bin/rustic");
    if rustic.is_file() && rest_server.is_file() {
        found.push(Box::new(Rustic { rustic, rest_server }));
    }
    for (name, path) in [("borg", "borg/bin/borg"), ("bupstash", "cargo/bin/bupstash")] {
        let program = peers.join(path);
        match name {
            _ if !program.is_file() => {}
            "borg" => found.push(Box::new(Borg(program))),
            _ => found.push(Box::new(Bupstash(program))),
        }
    }
    found
}

/// This program.
pub(crate) struct Ours(pub(crate) PathBuf);

impl Peer for Ours {
    fn name(&self) -> &'static str {
        "strongroom"
    }

    fn serve(&self, place: &Place) -> Result<Option<Child>, String> {
        let (listen, data) = (format!("127.0.0.1:{OUR_PORT}"), place.dir.join("data"));
        let mut server = Command::new(&self.0);
        server.args(["server", "up", "--quiet", "--listen", &listen, "--data"]).arg(&data);
        let server = spawn(&mut server, OUR_PORT)?;
        // It listens before its directory is made.
        for _ in (0..200).take_while(|_| !data.join("identity.key").exists()) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut invite = Command::new(&self.0);
        invite.args(["server", "invite", "--address", &listen, "--data"]).arg(&data);
        let invite = output(&mut invite)?;
        output(self.client(place).args(["join", invite.trim()]))?;
        Ok(Some(server))
    }

    fn command(&self, place: &Place, step: &Step<'_>) -> Option<Command> {
        let latest = |path: &Path| format!("latest:{}", path.display());
        let mut command = self.client(place);
        command.arg("backup");
        match step {
            Step::Backup(folder) | Step::Fast(folder) => {
                // Adding what is there already does nothing.
                let _ = output(self.client(place).args(["backup", "add"]).arg(folder));
                command.args(["now", "--quiet"]).arg(folder);
                if matches!(step, Step::Fast(_)) {
                    command.args(["--compression", "fast"]);
                }
                &mut command
            }
            Step::Restore { folder, to } => {
                command.args(["restore", "--quiet", &latest(folder), "--to"]).arg(to)
            }
            Step::Cat { file, .. } => command.args(["restore", &latest(file), "--to", "-"]),
            Step::List { at, .. } => command.args(["browse", &latest(at)]),
            Step::Check => command.args(["verify", "--read-data", "--quiet"]),
        };
        Some(command)
    }
}

impl Ours {
    fn client(&self, place: &Place) -> Command {
        let mut command = Command::new(&self.0);
        command.env("HOME", &place.dir).env_remove("XDG_STATE_HOME");
        command
    }
}

struct Restic {
    restic: PathBuf,
    rest_server: PathBuf,
}

impl Peer for Restic {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn serve(&self, place: &Place) -> Result<Option<Child>, String> {
        let server = rest_server(&self.rest_server, place)?;
        output(self.client(place).args(["init", "--quiet"]))?;
        Ok(Some(server))
    }

    fn command(&self, place: &Place, step: &Step<'_>) -> Option<Command> {
        let mut command = self.client(place);
        match step {
            Step::Backup(folder) => command.args(["backup", "--quiet"]).arg(folder),
            Step::Fast(folder) => {
                command.args(["backup", "--quiet", "--compression", "fastest"]).arg(folder)
            }
            Step::Restore { folder, to } => command
                .args(["restore", "--quiet", "latest", "--path"])
                .arg(folder)
                .arg("--target")
                .arg(to),
            Step::Cat { folder, file } => {
                command.args(["dump", "latest", "--path"]).arg(folder).arg(file)
            }
            Step::List { folder, at } => {
                command.args(["ls", "latest", "--path"]).arg(folder).arg(at)
            }
            Step::Check => command.args(["check", "--quiet", "--read-data"]),
        };
        Some(command)
    }
}

impl Restic {
    fn client(&self, place: &Place) -> Command {
        let mut command = Command::new(&self.restic);
        command
            .env("HOME", &place.dir)
            .env("RESTIC_PASSWORD", "bench")
            .env("RESTIC_REPOSITORY", format!("rest:http://127.0.0.1:{REST_PORT}/"));
        command
    }
}

struct Rustic {
    rustic: PathBuf,
    rest_server: PathBuf,
}

impl Peer for Rustic {
    fn name(&self) -> &'static str {
        "rustic"
    }

    fn serve(&self, place: &Place) -> Result<Option<Child>, String> {
        let server = rest_server(&self.rest_server, place)?;
        output(self.client(place).arg("init"))?;
        Ok(Some(server))
    }

    /// `latest` is right, because each folder is asked for before the next is backed up.
    fn command(&self, place: &Place, step: &Step<'_>) -> Option<Command> {
        let latest = |path: &Path| format!("latest:{}", path.display());
        let mut command = self.client(place);
        match step {
            Step::Backup(folder) => command.arg("backup").arg(folder),
            Step::Fast(folder) => {
                output(self.client(place).args(["config", "--set-compression=-7"])).ok()?;
                command.arg("backup").arg(folder)
            }
            Step::Restore { to, .. } => command.args(["restore", "latest"]).arg(to),
            Step::Cat { file, .. } => command.args(["dump", &latest(file)]),
            Step::List { at, .. } => command.args(["ls", &latest(at)]),
            Step::Check => command.args(["check", "--read-data"]),
        };
        Some(command)
    }
}

impl Rustic {
    fn client(&self, place: &Place) -> Command {
        let mut command = Command::new(&self.rustic);
        command
            .args(["--log-level", "error", "--no-progress"])
            .env("HOME", &place.dir)
            .env("RUSTIC_PASSWORD", "bench")
            .env("RUSTIC_REPOSITORY", format!("rest:http://127.0.0.1:{REST_PORT}/"));
        command
    }
}

/// Its server is a process of each command, over ssh.
struct Borg(PathBuf);

impl Peer for Borg {
    fn name(&self) -> &'static str {
        "borg"
    }

    fn serve(&self, place: &Place) -> Result<Option<Child>, String> {
        let server = ssh_server(place)?;
        output(self.client(place).args(["init", "--encryption", "repokey"]))?;
        Ok(Some(server))
    }

    fn command(&self, place: &Place, step: &Step<'_>) -> Option<Command> {
        let mut command = self.client(place);
        let name = |folder: &Path| folder.file_name().map(|n| n.to_string_lossy().into_owned());
        let below = |path: &Path| path.strip_prefix("/").map_or(path.to_owned(), Path::to_owned);
        match step {
            // Its default is the fastest.
            Step::Backup(folder) | Step::Fast(folder) => {
                // The newest of a name takes the place of the one before.
                let name = format!("::{}-{{now:%s%f}}", name(folder)?);
                command.args(["create", &name]).arg(folder)
            }
            Step::Check => command.args(["check", "--verify-data"]),
            Step::Restore { .. } | Step::Cat { .. } | Step::List { .. } => {
                let (Step::Restore { folder, .. }
                | Step::Cat { folder, .. }
                | Step::List { folder, .. }) = step
                else {
                    return None;
                };
                let glob = format!("{}-*", name(folder)?);
                let mut list = self.client(place);
                list.args(["list", "--short", "--last", "1", "--glob-archives", &glob]);
                let archive = format!("::{}", output(&mut list).ok()?.trim());
                match step {
                    Step::Restore { to, .. } => {
                        std::fs::create_dir_all(to).ok()?;
                        command.current_dir(to).args(["extract", &archive])
                    }
                    Step::Cat { file, .. } => {
                        command.args(["extract", "--stdout", &archive]).arg(below(file))
                    }
                    Step::List { at, .. } => command.args(["list", &archive]).arg(below(at)),
                    _ => return None,
                }
            }
        };
        Some(command)
    }
}

impl Borg {
    fn client(&self, place: &Place) -> Command {
        let mut command = Command::new(&self.0);
        command
            .env("HOME", &place.dir)
            .env("BORG_PASSPHRASE", "bench")
            .env("BORG_RSH", ssh(place))
            .env("BORG_REMOTE_PATH", &self.0)
            .env("BORG_REPO", format!("ssh://here{}", place.dir.join("data/repo").display()));
        command
    }
}

/// Its server is a process of each command, over ssh. It has no check: reading both folders back stands
/// for it.
struct Bupstash(PathBuf);

impl Peer for Bupstash {
    fn name(&self) -> &'static str {
        "bupstash"
    }

    fn serve(&self, place: &Place) -> Result<Option<Child>, String> {
        let server = ssh_server(place)?;
        output(self.client(place).args(["new-key", "--output"]).arg(place.dir.join("key")))?;
        output(self.client(place).arg("init"))?;
        Ok(Some(server))
    }

    fn command(&self, place: &Place, step: &Step<'_>) -> Option<Command> {
        let mut command = self.client(place);
        let query = |folder: &Path| {
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
            Some(format!("name={}.tar", name?))
        };
        let newest = |folder: &Path| {
            let mut list = self.client(place);
            list.args(["list", "--format", "jsonl1", "--query-cache"]).arg(place.dir.join("query"));
            let listed = output(list.arg(query(folder)?)).ok()?;
            let id = listed.lines().last()?.split("\"id\":\"").nth(1)?.split('"').next()?;
            Some(format!("id={id}"))
        };
        match step {
            Step::Backup(folder) | Step::Fast(folder) => command
                .args(["put", "--quiet", "--compression"])
                .arg(if matches!(step, Step::Fast(_)) { "lz4" } else { "zstd:3" })
                .arg("--send-log")
                .arg(place.dir.join(format!("log-{}", query(folder)?)))
                .arg(query(folder)?)
                .arg(folder),
            Step::Restore { folder, to } => {
                std::fs::create_dir_all(to).ok()?;
                command.args(["restore", "--quiet", "--into"]).arg(to).arg(newest(folder)?)
            }
            Step::Cat { folder, file } => command
                .args(["get", "--quiet", "--pick"])
                .arg(file.strip_prefix(folder).ok()?)
                .arg(newest(folder)?),
            Step::List { folder, at } => command
                .args(["list-contents", "--quiet", "--pick"])
                .arg(at.strip_prefix(folder).ok()?)
                .arg(newest(folder)?),
            Step::Check => {
                let get = |folder: &str| {
                    let id = newest(Path::new(folder))?;
                    Some(format!("{} get --quiet {id} >/dev/null", self.0.display()))
                };
                let both = format!("{} && {}", get("src")?, get("bin")?);
                let mut shell = Command::new("sh");
                shell.args(["-c", &both]);
                for (key, value) in command.get_envs() {
                    shell.env(key, value?);
                }
                return Some(shell);
            }
        };
        Some(command)
    }
}

impl Bupstash {
    fn client(&self, place: &Place) -> Command {
        let repository = place.dir.join("data/repo");
        let serve =
            format!("{} here {} serve {}", ssh(place), self.0.display(), repository.display());
        let mut command = Command::new(&self.0);
        command
            .env("HOME", &place.dir)
            .env("BUPSTASH_KEY", place.dir.join("key"))
            .env("BUPSTASH_REPOSITORY_COMMAND", serve);
        command
    }
}

/// Starts an ssh server for this user alone. Its own use is not the peer's server's.
fn ssh_server(place: &Place) -> Result<Child, String> {
    let dir = place.dir.join("ssh");
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let shown = dir.display();
    for key in ["host", "user"] {
        let mut make = Command::new("ssh-keygen");
        output(make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key)))?;
    }
    let server = format!(
        "Port {SSH_PORT}\nListenAddress 127.0.0.1\nHostKey {shown}/host\nPidFile {shown}/pid\n\
         AuthorizedKeysFile {shown}/user.pub\nStrictModes no\nUsePAM no\n"
    );
    let client = format!(
        "Host here\nHostName 127.0.0.1\nPort {SSH_PORT}\nIdentityFile {shown}/user\n\
         StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
    );
    for (name, text) in [("server", server), ("client", client)] {
        std::fs::write(dir.join(name), text).map_err(|error| error.to_string())?;
    }
    let mut server = Command::new("/usr/sbin/sshd");
    server.args(["-D", "-f"]).arg(dir.join("server"));
    spawn(&mut server, SSH_PORT)
}

fn ssh(place: &Place) -> String {
    format!("ssh -F {}", place.dir.join("ssh/client").display())
}

fn rest_server(program: &Path, place: &Place) -> Result<Child, String> {
    let listen = format!("127.0.0.1:{REST_PORT}");
    let mut server = Command::new(program);
    server.args(["--no-auth", "--listen", &listen, "--path"]).arg(place.dir.join("data"));
    spawn(&mut server, REST_PORT)
}

fn spawn(server: &mut Command, port: u16) -> Result<Child, String> {
    let is_taken = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    // The one before may not have ended yet.
    for _ in (0..200).take_while(|_| is_taken()) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let server = server.map_err(|error| error.to_string())?;
    for _ in 0..200 {
        if is_taken() {
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("nothing listens on port {port}"))
}

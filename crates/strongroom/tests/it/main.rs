//! The program as people run it: output, exit codes, JSON.

#![expect(clippy::expect_used, reason = "a test that fails panics")]
#![cfg(feature = "server")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

mod markers;

const BINARY: &str = env!("CARGO_BIN_EXE_strongroom");

struct World {
    dir: tempfile::TempDir,
    server: Option<Child>,
    invite: String,
    address: String,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            dir: tempfile::tempdir().expect("dir"),
            server: None,
            invite: String::new(),
            address: "127.0.0.1:0".into(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let mut server = self
            .command(&["server", "up", "--json", "--listen", &self.address, "--data"])
            .arg(self.path("server"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let stdout = server.stdout.take().expect("stdout");
        BufReader::new(stdout).read_line(&mut line).expect("reads");
        let json: Value = serde_json::from_str(&line).expect("one object");
        self.address = json["data"]["address"].as_str().expect("address").to_owned();
        if let Some(invite) = json["data"]["invites"][0].as_str() {
            self.invite = invite.to_owned();
        }
        self.server = Some(server);
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("kills");
            server.wait().expect("ends");
        }
    }

    fn joined() -> Self {
        let world = Self::new();
        fs::create_dir(world.path("folder")).expect("makes");
        fs::write(world.path("folder/notes.txt"), "first").expect("writes");
        let invite = world.invite.clone();
        world.done(&["join", &invite, "--name", "ana", "--device-name", "laptop"]);
        let folder = world.path("folder");
        world.done(&["backup", "add", folder.to_str().expect("text")]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).env("HOME", self.path("home")).env_remove("XDG_STATE_HOME");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("runs")
    }

    /// Runs a command that must end with 0, and returns what it printed.
    fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command with `--json`; returns its exit code and object.
    fn json(&self, args: &[&str]) -> (i32, Value) {
        let output = self.run(&[args, &["--json"]].concat());
        let object: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}"));
        assert_eq!(object["v"], 1);
        (output.status.code().expect("code"), object)
    }

    /// Runs a command that must fail, and checks its exit code and its error's code and hints.
    fn fails(&self, args: &[&str], exit: i32, code: &str) {
        let (actual, object) = self.json(args);
        assert_eq!((actual, object["error"]["code"].as_str()), (exit, Some(code)), "{object}");
        assert_eq!(object["ok"], false);
        for field in ["title", "what_it_means", "what_we_did"] {
            assert!(object["error"][field].as_str().is_some_and(|text| !text.is_empty()));
        }
        assert!(object["error"]["what_you_can_do"][0].is_string());
        let docs = object["error"]["docs"].as_str().expect("docs");
        let page = fs::read_to_string("../../docs/errors.md").expect("docs/errors.md");
        let heading = docs.rsplit('#').next().expect("anchor");
        assert!(page.lines().any(|line| line.trim_start_matches('#').trim() == heading), "{docs}");
        // For people: the same on stderr, and nothing on stdout.
        let output = self.run(args);
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("hint: ") || stderr.contains("Usage: "), "{stderr}");
    }
}

impl World {
    /// This device has kept something that proves it, to people without an account too.
    fn evidence_is_for_anybody(&self) {
        let (code, list) = self.json(&["evidence", "ls"]);
        let all = list["data"]["evidence"].as_array().expect("a list");
        // Both runs of the command asked anew.
        assert!(code == 0 && !all.is_empty(), "{list}");
        let id = all[0]["id"].as_str().expect("id");
        let shown = self.done(&["evidence", "show", id]);
        assert!(shown.starts_with("PROVEN\n"), "{shown}");
        let page = self.done(&["evidence", "show", &id[..6], "--html"]);
        assert!(page.starts_with("<!doctype html>") && page.contains("PROVEN"), "{page}");
        let file = self.path("proof.srev");
        let file_name = file.to_str().expect("text");
        self.done(&["evidence", "export", id, file_name]);
        self.fails(&["evidence", "export", id, file_name], 2, "USAGE");
        let elsewhere = |args: &[&str]| {
            let mut command = self.command(args);
            command.env("HOME", self.path("elsewhere")).output().expect("runs")
        };
        let verified = elsewhere(&["evidence", "verify", file_name]);
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
        let meant = format!(
            "--card={}",
            list["data"]["evidence"][0]["evidence"]["card"].as_str().expect("card")
        );
        let meant = elsewhere(&["evidence", "verify", file_name, &meant]);
        assert_eq!(meant.status.code(), Some(0), "{meant:?}");
        let other = format!("--card={}", "7".repeat(64));
        let about_another = elsewhere(&["evidence", "verify", file_name, &other]);
        assert_eq!(about_another.status.code(), Some(31), "{about_another:?}");
        let log = elsewhere(&["log", "status", "--from", &self.address, &other]);
        assert_eq!(log.status.code(), Some(30), "{log:?}");
        // A byte of the last signature.
        let mut bytes = fs::read(&file).expect("reads");
        let at = bytes.len() - 100;
        bytes[at] ^= 1;
        fs::write(&file, &bytes).expect("writes");
        let altered = elsewhere(&["evidence", "verify", file_name]);
        assert_eq!(altered.status.code(), Some(31), "{altered:?}");
        fs::write(&file, "nonsense").expect("writes");
        assert_eq!(elsewhere(&["evidence", "verify", file_name]).status.code(), Some(1));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn the_first_five_minutes() {
    let world = World::joined();
    let (code, status) = world.json(&["status"]);
    assert_eq!((code, &status["data"]["is_old"]), (3, &Value::Bool(true)));
    assert_eq!(world.done(&["backup", "now", "--all", "--quiet"]), "");
    let (code, status) = world.json(&["status"]);
    assert_eq!((code, &status["data"]["name"]), (0, &Value::from("ana")));
    fs::write(world.path("folder/notes.txt"), "second").expect("writes");
    world.done(&["backup", "now"]);
    let (_, snapshots) = world.json(&["backup", "snapshots"]);
    let snapshots = snapshots["data"]["snapshots"].as_array().expect("list").clone();
    assert_eq!(snapshots.len(), 2);
    assert_eq!(snapshots[0]["device"], "laptop");

    // An old version of one file.
    let first = snapshots[0]["id"].as_str().expect("id");
    let to = world.path("old");
    let to = to.to_str().expect("text");
    world.done(&["backup", "restore", &format!("{}:notes.txt", &first[..10]), "--to", to]);
    assert_eq!(fs::read_to_string(world.path("old/notes.txt")).expect("reads"), "first");
    fs::remove_file(world.path("folder/notes.txt")).expect("removes");
    world.done(&["backup", "restore", "latest", "--in-place"]);
    assert_eq!(fs::read_to_string(world.path("folder/notes.txt")).expect("reads"), "second");

    let verified = world.done(&["backup", "verify", "--read-data"]);
    assert!(verified.contains("can be had back: all content was read again"), "{verified}");
    let verified = world.done(&["backup", "verify", "--read-data", "1%"]);
    assert!(verified.contains("can be had back"), "{verified}");
    assert!(world.done(&["backup", "ls"]).contains("folder"));
    assert!(world.done(&["completions", "bash"]).contains("strongroom"));
    let folder = world.path("folder");
    world.done(&["backup", "rm", folder.to_str().expect("text")]);
    assert_eq!(world.json(&["backup", "ls"]).1["data"]["folders"], Value::Array(vec![]));
}

#[test]
fn exit_codes_are_a_contract() {
    let mut world = World::new();
    world.fails(&["status"], 10, "NOT_JOINED");
    world.fails(&["join", "strongroom1:nonsense"], 2, "USAGE");
    world.fails(&["backup", "restore"], 2, "USAGE");
    let invite = world.invite.clone();
    world.done(&["join", &invite]);
    world.fails(&["backup", "now"], 5, "NOT_FOUND");
    world.fails(&["backup", "now", "/nowhere"], 5, "FOLDER_UNKNOWN");
    world.fails(&["backup", "add", "/nowhere"], 1, "FAILED");
    world.fails(&["backup", "restore", "nzzzzzzzz", "--to", "/tmp/x"], 5, "NOT_FOUND");
    let other = World::new();
    world.fails(&["join", &other.invite], 6, "ALREADY_JOINED");
    let data = world.path("server");
    let data = data.to_str().expect("text");
    world.fails(&["server", "up", "--listen", "127.0.0.1:0", "--data", data], 11, "LOCKED");
    world.fails(&["server", "invite", "--data", "/nowhere"], 5, "NOT_FOUND");
    fs::write(world.path("server/access.log"), "kept in secret").expect("writes");
    world.fails(&["operator", "disclose", "--all", "--data", data], 40, "NOT_IN_DICTIONARY");
    fs::remove_file(world.path("server/access.log")).expect("removes");
    fs::create_dir(world.path("folder")).expect("makes");
    world.done(&["backup", "add", world.path("folder").to_str().expect("text")]);
    world.stop();
    world.fails(&["backup", "now"], 20, "UNREACHABLE");
    let (code, status) = world.json(&["status"]);
    assert_eq!((code, &status["data"]["reached"]), (3, &Value::Bool(false)));
    let keys = world.path("home/.local/state/strongroom/default/keys");
    fs::write(keys, "nonsense").expect("writes");
    world.fails(&["status"], 40, "STATE_DAMAGED");
}

#[test]
fn a_server_that_misbehaves_ends_in_30_and_names_the_files() {
    let world = World::joined();
    let noise: Vec<u8> =
        (0..500_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    fs::write(world.path("folder/big"), noise).expect("writes");
    world.done(&["backup", "now"]);
    fs::write(world.path("folder/small"), "s").expect("writes");
    world.done(&["backup", "now"]);
    let mut packs: Vec<PathBuf> = fs::read_dir(world.path("server/packs"))
        .expect("dir")
        .flat_map(|folder| fs::read_dir(folder.expect("entry").path()).expect("dir"))
        .map(|file| file.expect("entry").path())
        .collect();
    packs.sort_by_key(|path| fs::metadata(path).expect("file").len());
    let pack = packs.last().expect("pack");
    let mut bytes = fs::read(pack).expect("reads");
    bytes[1000] ^= 1;
    fs::write(pack, bytes).expect("writes");
    let to = world.path("restored");
    let restore = ["backup", "restore", "latest", "--to", to.to_str().expect("text")];
    let (code, report) = world.json(&restore);
    assert_eq!(code, 30);
    let refused = report["data"]["refused"].as_array().expect("list");
    assert!(refused.iter().any(|file| file["path"] == "big"), "{report}");
    assert_eq!(fs::read_to_string(world.path("restored/small")).expect("reads"), "s");
    assert!(!world.path("restored/big").exists());
    let (code, report) = world.json(&["backup", "verify", "--read-data"]);
    assert_eq!((code, &report["ok"]), (30, &Value::Bool(false)));
    assert!(!report["data"]["files"].as_array().expect("list").is_empty());
    assert!(!report["data"]["bad_snapshots"].as_array().expect("list").is_empty());
    // What was damaged is still on this device, so it was stored anew, and all is well again.
    assert_eq!(report["data"]["files_after_repair"], Value::Array(vec![]));
    let verified = world.done(&["backup", "verify", "--read-data"]);
    assert!(verified.contains("can be had back: all content was read again"), "{verified}");
}

#[test]
fn the_operator_is_played_and_each_row_says_what_came_of_it() {
    let world = World::new();
    let (code, report) = world.json(&["adversary", "run", "--row", "ST-10", "--row", "id-07"]);
    assert_eq!(code, 0, "{report}");
    let rows = report["data"]["rows"].as_array().expect("rows");
    let of = |field: &str| rows.iter().map(|row| row[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("id"), ["ST-10", "ID-07"]);
    assert_eq!(of("result"), ["held", "not tested"]);
    assert_eq!(of("code"), [Value::from("SR-007"), Value::Null]);
    assert_eq!(report["data"]["false_alarms"], serde_json::json!([]));
    let (_, list) = world.json(&["adversary", "list"]);
    assert_eq!(list["data"]["rows"].as_array().expect("rows").len(), 35);
    world.fails(&["adversary", "run", "--row", "XX-01"], 2, "USAGE");
    world.fails(&["adversary", "serve", "--row", "ID-07", "--data", "nowhere"], 2, "USAGE");
}

/// As a person would: yesterday's copy of the server, served by an operator who means it.
#[test]
fn a_copy_that_is_served_by_the_operator_is_refused() {
    let mut world = World::joined();
    world.done(&["backup", "now"]);
    world.stop();
    let (server, copy) = (world.path("server"), world.path("copy"));
    let copied = Command::new("cp").arg("-a").args([&server, &copy]).status().expect("copies");
    assert!(copied.success());
    world.start();
    fs::write(world.path("folder/notes.txt"), "second").expect("writes");
    world.done(&["backup", "now"]);
    world.stop();
    let serve = ["adversary", "serve", "--row", "ST-09", "--listen", &world.address, "--data"];
    let mut operator =
        world.command(&serve).arg(&copy).stderr(Stdio::piped()).spawn().expect("starts");
    let notes = BufReader::new(operator.stderr.take().expect("stderr"));
    let listens = notes.lines().map_while(Result::ok).any(|line| line.contains("listening"));
    assert!(listens);
    let nothing = world.done(&["evidence", "ls"]);
    assert!(nothing.contains("no evidence"), "{nothing}");
    world.fails(&["backup", "snapshots"], 30, "HEAD_ROLLED_BACK");
    world.evidence_is_for_anybody();
    operator.kill().expect("kills");
    operator.wait().expect("ends");
    world.start();
    world.done(&["backup", "snapshots"]);
}

#[test]
fn the_demo_holds_on_a_folder_with_all_kinds_of_entries() {
    let world = World::new();
    let folder = world.path("mine");
    fs::create_dir(&folder).expect("makes");
    fs::write(folder.join("a file with a long name.txt"), "what is in it is private")
        .expect("writes");
    std::os::unix::fs::symlink("nowhere", folder.join("link")).expect("links");
    let socket = folder.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(socket).expect("binds");
    let (code, report) = world.json(&["demo", folder.to_str().expect("text")]);
    assert_eq!(code, 0, "{report}");
    let data = &report["data"];
    for field in [
        "restored_identical",
        "tamper_refused",
        "swap_refused",
        "rollback_refused",
        "hidden_snapshot_refused",
        "linked_restored_identical",
        "kit_restored_identical",
        "revoked_refused",
        "ghost_device_refused",
        "key_swap_refused",
        "honest_accepted",
    ] {
        assert_eq!(data[field], true, "{field}");
    }
    assert_eq!(
        (&data["operator_plaintext_hits"], &data["files"]),
        (&Value::from(0), &Value::from(1))
    );
    assert_eq!(data["control_hits"], data["controls"]);
}

#[test]
fn a_disclosure_lists_what_the_server_holds_and_names_nobody() {
    let world = World::joined();
    world.done(&["backup", "now"]);
    let data = world.path("server");
    let data = data.to_str().expect("text");
    let text = world.done(&["operator", "disclose", "--all", "--data", data]);
    for word in ["vouchers (13 rows)", "spaces (2 rows)", "heads (2 rows)", "accounts (1 rows)"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    for secret in ["ana", "laptop", "notes", "folder/"] {
        assert!(!text.contains(secret), "{secret}");
    }
    // Of one account: its chain, and no space; of one space: its heads and packs, and no account.
    let (_, status) = world.json(&["status"]);
    let account = status["data"]["account"].as_str().expect("text").to_owned();
    let (_, all) = world.json(&["operator", "disclose", "--all", "--data", data]);
    let tables = |report: &Value| -> Vec<String> {
        let tables = report["data"]["tables"].as_array().expect("list");
        tables.iter().map(|table| table["name"].as_str().expect("text").to_owned()).collect()
    };
    let spaces = &all["data"]["tables"].as_array().expect("list")[1];
    let space = spaces["rows"][0][0].as_str().expect("text").to_owned();
    let (_, of_account) = world.json(&["operator", "disclose", &account, "--data", data]);
    assert_eq!(tables(&of_account), ["accounts", "blocks", "envelopes", "log"]);
    assert!(!of_account.to_string().contains(&space));
    let (_, of_space) = world.json(&["operator", "disclose", "--space", &space, "--data", data]);
    assert_eq!(tables(&of_space), ["spaces", "heads", "packs"]);
    assert!(!of_space.to_string().contains(&account));
    // The client, from what it has stored itself, comes to the same; and finds what was changed.
    let (_, seen) = world.json(&["what-they-see"]);
    assert_eq!(seen["data"]["account"], account.as_str());
    assert_eq!(seen["data"]["spaces"].as_array().expect("list").len(), 2);
    let compare = |report: &Value| -> (i32, u64) {
        let file = world.path("disclosure.json");
        fs::write(&file, report.to_string()).expect("writes");
        let (code, found) = world.json(&["verify-disclosure", file.to_str().expect("text")]);
        (code, found["data"]["findings"].as_array().map_or(0, |list| list.len() as u64))
    };
    for report in [&all, &of_account, &of_space] {
        assert_eq!(compare(report), (0, 0));
    }
    let mut told = of_account.clone();
    let block = &mut told["data"]["tables"][1]["rows"][0][2];
    *block = block.as_str().expect("hex").replacen("0100", "0101", 1).into();
    assert_eq!(compare(&told), (31, 1));
    let mut more = of_space.clone();
    more["data"]["tables"][0]["columns"][0]["name"] = "address".into();
    assert_eq!(compare(&more).0, 31);
    let mut other = of_account.clone();
    other["data"]["tables"] = serde_json::json!([]);
    assert_eq!(compare(&other), (32, 0));
    fs::write(world.path("disclosure.json"), "hello").expect("writes");
    let file = world.path("disclosure.json");
    world.fails(&["verify-disclosure", file.to_str().expect("text")], 1, "DISCLOSURE_MALFORMED");
    let pack = fs::read_dir(world.path("server/packs"))
        .expect("dir")
        .flat_map(|folder| fs::read_dir(folder.expect("entry").path()).expect("dir"))
        .map(|file| file.expect("entry").file_name().into_string().expect("text"))
        .next()
        .expect("a pack");
    assert!(text.contains(&pack), "a pack is named as its file is");
}

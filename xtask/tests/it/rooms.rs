//! The arrow test, the key wall and the I/O wall.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// The rooms and the rooms each may use. An arrow that is not here is a change of the design.
const ARROWS: &[(&str, &[&str])] = &[
    ("sr-crypto", &[]),
    ("sr-wire", &["sr-crypto"]),
    ("sr-tlog", &["sr-crypto"]),
    ("sr-store", &["sr-crypto", "sr-wire"]),
    ("sr-trust", &["sr-crypto", "sr-wire", "sr-tlog"]),
    ("sr-keys", &["sr-crypto", "sr-wire", "sr-trust"]),
    ("sr-witness", &["sr-crypto", "sr-wire", "sr-tlog"]),
    ("sr-server", &["sr-crypto", "sr-wire", "sr-tlog", "sr-store", "sr-trust", "sr-witness"]),
    ("sr-vault", &["sr-crypto", "sr-wire", "sr-trust", "sr-keys"]),
    (
        "sr-client",
        &["sr-crypto", "sr-wire", "sr-tlog", "sr-trust", "sr-witness", "sr-keys", "sr-vault"],
    ),
    (
        "sr-adversary",
        &[
            "sr-crypto",
            "sr-wire",
            "sr-tlog",
            "sr-trust",
            "sr-store",
            "sr-server",
            "sr-witness",
            "sr-client",
        ],
    ),
    // It shows the blocks that a server sees; hence sr-trust.
    (
        "strongroom",
        &[
            "sr-crypto",
            "sr-wire",
            "sr-tlog",
            "sr-client",
            "sr-server",
            "sr-store",
            "sr-trust",
            "sr-witness",
            "sr-adversary",
        ],
    ),
    ("xtask", &[]),
];

/// Rooms without I/O, clock and threads, and what they must not say.
const PURE: &[&str] = &["sr-crypto", "sr-wire", "sr-tlog", "sr-trust", "sr-keys", "sr-vault"];
const IO_WORDS: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::time",
    "std::os",
    "std::io",
    "tokio",
    "SystemTime",
    "Instant::",
    "getrandom",
    "SysRng",
    "rusqlite",
    "rustix",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("parent").to_owned()
}

/// The arrows that cargo sees, without those of tests.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let rooms: BTreeSet<String> =
        metadata.packages.iter().map(|package| package.name.to_string()).collect();
    metadata
        .packages
        .iter()
        .map(|package| {
            let uses = package
                .dependencies
                .iter()
                .filter(|d| d.kind != DependencyKind::Development && rooms.contains(&d.name))
                .map(|d| d.name.clone())
                .collect();
            (package.name.to_string(), uses)
        })
        .collect()
}

#[test]
fn arrows_go_down_only() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for (room, uses) in arrows() {
        let allowed = allowed.get(room.as_str()).unwrap_or_else(|| panic!("{room} is no room"));
        for used in uses {
            assert!(allowed.contains(&used.as_str()), "{room} must not use {used}");
        }
    }
}

/// The server has no type that could hold a user's key.
#[test]
fn key_wall() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "sr-server", "--edges", "normal", "--prefix", "none"])
        .arg("--offline")
        .current_dir(root())
        .output()
        .expect("cargo tree");
    let tree = String::from_utf8(tree.stdout).expect("text");
    assert!(tree.contains("sr-store"), "cargo tree says nothing: {tree}");
    for room in ["sr-keys", "sr-vault", "sr-client", "sr-chat"] {
        assert!(!tree.lines().any(|line| line.starts_with(room)), "sr-server has {room}");
    }
}

#[test]
fn io_wall() {
    for room in PURE {
        for path in sources(&root().join("crates").join(room).join("src")) {
            let text = fs::read_to_string(&path).expect("reads");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate() {
                let line = line.split("//").next().unwrap_or_default();
                for word in IO_WORDS {
                    assert!(
                        !line.contains(word),
                        "{}:{}: a pure room says {word}",
                        path.display(),
                        number + 1
                    );
                }
            }
        }
    }
}

pub(crate) fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("dir") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

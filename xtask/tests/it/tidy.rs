//! What the eye would miss: checks without a row or a test, long files, callers of secrets.

use std::{fs, path::Path};

use super::rooms::sources;

/// Places that look at a secret's bytes. A new one is a decision: change the number with it.
const EXPOSE_CALLERS: usize = 30;
const LINES_MAX: usize = 800;
const CHECKS: u8 = 40;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("parent")
}

fn all_sources() -> Vec<(String, String)> {
    let read = |path: std::path::PathBuf| {
        (path.display().to_string(), fs::read_to_string(&path).expect("reads"))
    };
    sources(&root().join("crates")).into_iter().map(read).collect()
}

/// Every check of the catalogue has a row in THREATS.md, a comment where it is made, and a test.
#[test]
fn every_check_has_a_row_a_place_and_a_test() {
    let threats = fs::read_to_string(root().join("THREATS.md")).expect("THREATS.md");
    let all = all_sources();
    let catalogue = |path: &str| path.ends_with("sr-wire/src/check.rs");
    for number in 1..=CHECKS {
        let name = format!("SR-{number:03}");
        assert!(threats.contains(&format!("| {name} ")), "{name} has no row in THREATS.md");
        let in_code = all
            .iter()
            .any(|(path, text)| !catalogue(path) && text.contains("// ") && text.contains(&name));
        assert!(in_code, "no comment says where {name} is checked");
    }
    let next = format!("SR-{:03}", CHECKS + 1);
    let (_, text) = all.iter().find(|(path, _)| catalogue(path)).expect("catalogue");
    assert!(!text.contains(&next), "{next} is new: raise CHECKS");
    // Every test that a row names exists.
    for word in
        threats.split('`').filter(|word| word.contains("::") && !word.starts_with("sr_wire"))
    {
        let function = word.rsplit("::").next().unwrap_or_default();
        let exists = all.iter().any(|(_, text)| text.contains(&format!("fn {function}(")));
        assert!(exists, "THREATS.md names {word}, which does not exist");
    }
}

#[test]
fn files_are_short() {
    for (path, text) in all_sources() {
        assert!(text.lines().count() <= LINES_MAX, "{path}: is that one room or two?");
    }
}

#[test]
fn secrets_are_looked_at_in_few_places() {
    let mut callers = 0;
    for (path, text) in all_sources() {
        if path.contains("/tests/") {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        callers += code.matches(".expose()").count();
    }
    assert_eq!(callers, EXPOSE_CALLERS);
}

//! The documents say what is there: every source file is on the map, and every test that they name exists.

#![cfg(test)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

const MAP: &str = include_str!("../docs/ARCHITECTURE.md");

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_source_file_is_on_the_map_and_nothing_else() {
    let root = Path::new("src");
    let is_test = |path: &Path| {
        let stands_for_tests =
            |part: Component<'_>| Path::new(&part).file_stem() == Some("tests".as_ref());
        path.components().any(stands_for_tests)
    };
    let there: BTreeSet<String> = sources(root)
        .iter()
        .filter(|path| !is_test(path))
        .map(|path| path.strip_prefix(root).unwrap().display().to_string())
        .collect();
    let rows = MAP.lines().filter_map(|line| line.strip_prefix("| `"));
    let named: BTreeSet<String> = rows
        .filter_map(|row| row.split('`').next())
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(there, named);
}

#[test]
fn every_test_that_the_promises_name_exists() {
    let code: String = [Path::new("src"), Path::new("tests")]
        .iter()
        .flat_map(|folder| sources(folder))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let promises: Vec<&str> = MAP.lines().filter(|line| line.starts_with("| I")).collect();
    assert_eq!(promises.len(), 8);
    for promise in promises {
        let tests: Vec<&str> = quoted(promise).filter(|name| name.contains('_')).collect();
        assert!(!tests.is_empty(), "{promise}");
        for name in tests {
            assert!(code.contains(&format!("fn {name}(")), "{name} is no test");
        }
    }
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    for document in ["README.md", "docs/ARCHITECTURE.md", "docs/STATES.md"] {
        let text = fs::read_to_string(document).unwrap();
        let folder = Path::new(document).parent().unwrap();
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let is_ours = !target.starts_with("http");
            assert!(
                !is_ours || folder.join(target).exists(),
                "{document}: {target}"
            );
        }
    }
}

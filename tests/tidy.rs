//! The house rules that no compiler keeps: who may import whom, where SQL and HTTP live, how long a file gets, and that
//! every column says what it is. Each check is tried on a text that breaks it, so that it is known to see.

#![cfg(test)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The modules of the library, lowest first. A module may import those of lower layers and nothing of its own: `store` and
/// `channel` do not know each other, `dispatch` and `http` meet in the database, and there can be no cycle.
const LAYERS: [&[&str]; 7] = [
    &["rules", "clock"],
    &["store", "channel"],
    &["config", "instance", "metrics", "telemetry"],
    &["service", "dispatch", "http", "sandbox"],
    &["app"],
    &["cli"],
    &["main", "lib"],
];

/// What `rules` must not touch: it reads no clock, draws no chance, awaits nothing and opens nothing.
const NOT_IN_RULES: [&str; 14] = [
    "tokio",
    "reqwest",
    "sqlx::query",
    "sqlx::Pg",
    "rand::",
    "async ",
    ".await",
    "Utc::now",
    "SystemTime",
    "Instant::now",
    "std::env",
    "std::fs",
    "std::net",
    "std::thread",
];

/// An idea that takes more lines than this is two ideas. A list of cases may be longer.
const LINES_MAX: usize = 700;
const TEST_LINES_MAX: usize = 1_200;

#[test]
fn modules_import_only_what_is_below_them() {
    assert_none(each_source(wrong_imports));
}

#[test]
fn an_import_from_above_or_beside_is_seen() {
    for (module, code) in [
        ("rules", "use crate::clock;"),
        (
            "store",
            "use crate::{\n    channel::{self, whatsapp},\n    rules::job,\n};",
        ),
        ("dispatch", "fn f() { crate::http::serve() }"),
        ("store", "fn f() { crate::cli::main() }"),
    ] {
        assert_eq!(wrong_imports(module, code).len(), 1, "{module}: {code}");
    }
    assert_eq!(
        wrong_imports(
            "app",
            "use crate::{http, store::{self, look}, rules::job::Job};"
        ),
        [""; 0]
    );
}

#[test]
fn rules_are_pure() {
    assert_none(each_source(|module, code| match module {
        "rules" => mentions(code, &NOT_IN_RULES),
        _ => Vec::new(),
    }));
}

#[test]
fn sql_is_in_store_only() {
    assert_none(each_source(|module, code| match module {
        "store" => Vec::new(),
        _ => mentions(code, &["sqlx::query", "sqlx::raw_sql"]),
    }));
    let elsewhere = files(Path::new("src"), "sql")
        .into_iter()
        .filter(|path| !path.starts_with("src/store"));
    assert_eq!(elsewhere.count(), 0, "SQL files outside src/store");
}

#[test]
fn http_requests_are_in_channel_only() {
    assert_none(each_source(|module, code| match module {
        "channel" => Vec::new(),
        _ => mentions(code, &["reqwest"]),
    }));
}

#[test]
fn words_are_found_in_code_but_not_in_comments_texts_and_tests() {
    assert_eq!(
        mentions(&code("let now = Utc::now();"), &["Utc::now"]),
        ["mentions `Utc::now`"]
    );
    for innocent in [
        "// not Utc::now",
        "/// never `Utc::now`",
        "let text = \"Utc::now \\\" Utc::now\";",
        "let quote = '\"'; // Utc::now",
        "let text = r#\"Utc::now \" Utc::now\"#;",
        "#[cfg(test)]\nmod tests { fn f() { Utc::now(); } }",
    ] {
        assert_eq!(
            mentions(&code(innocent), &["Utc::now"]),
            [""; 0],
            "{innocent}"
        );
    }
}

#[test]
fn a_file_is_one_idea() {
    let folders = ["src", "tests", "benches"].map(Path::new);
    let too_long = folders
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .filter_map(|path| {
            let source = read(&path);
            let lines = without_tests(&source).lines().count();
            let max = if is_test(&path) {
                TEST_LINES_MAX
            } else {
                LINES_MAX
            };
            (lines > max).then(|| format!("{}: {lines} lines, more than {max}", path.display()))
        });
    assert_none(too_long.collect());
}

#[test]
fn every_column_has_a_comment() {
    let bare = files(Path::new("migrations"), "sql")
        .into_iter()
        .flat_map(|path| {
            let bare = bare_columns(&read(&path));
            bare.into_iter()
                .map(move |line| format!("{}: no comment above `{line}`", path.display()))
        });
    assert_none(bare.collect());
}

#[test]
fn a_column_without_a_comment_is_seen() {
    let sql = "create table t (\n  -- The key.\n  id bigint,\n  name text not null,\n  -- A choice.\n  kind text check (\n    kind in ('a', 'b')\n  ),\n  primary key (id)\n);\nalter table t add column extra int;";
    assert_eq!(
        bare_columns(sql),
        ["name text not null,", "alter table t add column extra int;"]
    );
}

// ---------------------------------------------------------------------------------------------------------------------

fn assert_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// Applies a check to the code of every source file, and says where it found something.
fn each_source(check: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let sources = files(Path::new("src"), "rs")
        .into_iter()
        .filter(|path| !is_test(path));
    let findings = sources.flat_map(|path| {
        let found = check(&module(&path), &code(&read(&path)));
        found
            .into_iter()
            .map(move |what| format!("{}: {what}", path.display()))
    });
    findings.collect()
}

/// The top-level module that a file belongs to.
fn module(path: &Path) -> String {
    let below = path.strip_prefix("src").unwrap();
    let first = below
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn wrong_imports(module: &str, code: &str) -> Vec<String> {
    let layer = |name: &str| LAYERS.iter().position(|modules| modules.contains(&name));
    let Some(own) = layer(module) else {
        return vec![format!(
            "the module `{module}` has no layer in tests/tidy.rs"
        )];
    };
    imports(code)
        .into_iter()
        .filter(|name| name != module && layer(name).is_none_or(|layer| layer >= own))
        .map(|name| format!("`{module}` imports `{name}`"))
        .collect()
}

/// The top-level modules behind `crate::`, alone or in braces.
fn imports(code: &str) -> BTreeSet<String> {
    code.match_indices("crate::")
        .flat_map(|(at, word)| {
            let rest = &code[at + word.len()..];
            match rest.strip_prefix('{') {
                Some(group) => outermost_names(group),
                None => vec![first_name(rest)],
            }
        })
        .filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase()))
        .collect()
}

/// The names at the beginning of each part of a group that has just been opened.
fn outermost_names(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = vec![first_name(group)];
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(first_name(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

fn first_name(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

fn mentions(code: &str, words: &[&str]) -> Vec<String> {
    words
        .iter()
        .filter(|word| code.contains(**word))
        .map(|word| format!("mentions `{word}`"))
        .collect()
}

/// A source without the tests at its end.
fn without_tests(source: &str) -> &str {
    const TESTS: &str = "#[cfg(test)]\nmod ";
    if source.starts_with(TESTS) {
        return "";
    }
    source
        .split(&format!("\n{TESTS}"))
        .next()
        .unwrap_or_default()
}

/// A source without its tests, comments and texts.
fn code(source: &str) -> String {
    let source = without_tests(source);
    let mut code = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest)
            .or_else(|| raw_text(rest))
            .or_else(|| text(rest))
            .or_else(|| character(rest));
        let length = skipped.unwrap_or_else(|| {
            code.push(first);
            first.len_utf8()
        });
        rest = &rest[length..];
    }
    code
}

/// The length of what `rest` begins with, if that is a comment.
fn comment(rest: &str) -> Option<usize> {
    rest.starts_with("//")
        .then(|| rest.find('\n').unwrap_or(rest.len()))
}

/// The same for `r"…"` and `r#"…"#`.
fn raw_text(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('r')?;
    let hashes = inner.len() - inner.trim_start_matches('#').len();
    inner[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let opening = 1 + hashes + 1;
    Some(opening + rest[opening..].find(&end)? + end.len())
}

/// The same for `"…"`.
fn text(rest: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in rest.strip_prefix('"')?.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(1 + at + 1),
            _ => {}
        }
    }
    None
}

/// The same for a character that would look like the beginning of a text.
fn character(rest: &str) -> Option<usize> {
    ["'\"'", "'\\\"'"]
        .into_iter()
        .find(|quote| rest.starts_with(quote))
        .map(str::len)
}

/// Lines that begin a column and have no comment on the line before.
fn bare_columns(sql: &str) -> Vec<String> {
    let mut bare = Vec::new();
    let mut depth = 0;
    let mut begins = false;
    let mut previous = "";
    for line in sql.lines().map(str::trim) {
        let is_comment = line.starts_with("--");
        let is_column =
            (depth == 1 && begins && !is_constraint(line)) || line.contains(" add column ");
        if is_column && !is_comment && !previous.starts_with("--") {
            bare.push(line.to_owned());
        }
        previous = line;
        if is_comment {
            continue;
        }
        if line.starts_with("create table") && line.ends_with('(') {
            (depth, begins) = (1, true);
        } else if depth > 0 {
            depth += line.matches('(').count();
            depth -= line.matches(')').count().min(depth);
            begins = line.ends_with(',');
        }
    }
    bare
}

fn is_constraint(line: &str) -> bool {
    [
        "primary key",
        "unique",
        "check",
        "foreign key",
        "constraint",
        "exclude",
        "like",
        ")",
    ]
    .iter()
    .any(|word| line.starts_with(word))
}

fn is_test(path: &Path) -> bool {
    path.starts_with("tests")
        || path.ends_with("tests.rs")
        || path.components().any(|part| part.as_os_str() == "tests")
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

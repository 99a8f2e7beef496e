use std::path::Path;

use super::*;

const PATH: &str = "/etc/postrider/postrider.toml";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new(PATH))
}

fn mistake(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn example() -> &'static str {
    include_str!("../../config/postrider.toml")
}

#[test]
fn an_empty_file_is_the_defaults_and_the_defaults_are_valid() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(Config::default().problems(), []);
}

#[test]
fn an_unknown_key_is_refused_with_line_and_column_and_the_known_ones() {
    let error = mistake("[pacing]\nmessages_per_second = 10\nmesages = 1\n");
    assert!(
        error.starts_with(
            "/etc/postrider/postrider.toml, line 3, column 1: unknown field `mesages`"
        ),
        "{error}"
    );
    assert!(error.contains("`jitter_allowance_ms`"), "{error}");
}

#[test]
fn an_unknown_key_is_refused_in_every_section() {
    for section in SECTIONS {
        let error = mistake(&format!("{section}\nno_such_key = 1\n"));
        assert!(
            error.contains("unknown field `no_such_key`"),
            "{section}: {error}"
        );
        assert!(error.contains("line 2, column 1"), "{section}: {error}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_told_where_it_stands() {
    let error = mistake("[dispatch]\nmax_attempts = \"five\"\n");
    assert!(
        error.contains("line 2, column 16: invalid type: string \"five\", expected u32"),
        "{error}"
    );
    let error = mistake("[pacing]\nmessages_per_second = \"fast\"\n");
    assert!(
        error.contains("line 2, column 23") && error.contains("\"auto\""),
        "{error}"
    );
    let error = mistake("[webhook]\nlisten = \"everywhere\"\n");
    assert!(error.contains("line 2, column 10"), "{error}");
}

#[test]
fn what_is_no_toml_is_told_where_it_breaks() {
    let error = mistake("[database\nurl = 1\n");
    assert!(error.contains("postrider.toml, line 1, column"), "{error}");
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_line_and_how_to_mend_it() {
    let error = mistake(
        "[pacing]\nmessages_per_second = 0\n[limits]\nheadroom = 1.5\n[whatsapp]\napi_version = \"25\"\n\
         [[accounts]]\nwaba_id = \"1\"\napp = \"shop\"\ntoken = { env = \"T\" }\n",
    );
    for expected in [
        "4 things are wrong",
        "line 2, column 23: `pacing.messages_per_second` is 0: give more than 0",
        "line 4, column 12: `limits.headroom` is 1.5: give a share",
        "line 6, column 15: `whatsapp.api_version` is \"25\": write it as v25.0, or",
        "line 9, column 7: `accounts.0.app` is \"shop\": name one of the [[apps]]",
    ] {
        assert!(error.contains(expected), "{expected} not in {error}");
    }
}

#[test]
fn a_lease_that_leaves_no_time_to_renew_is_refused_and_a_long_one_delays_decisions() {
    assert!(parse("[dispatch]\nlease_ttl_ms = 2_000\n").is_ok());
    let error = mistake("[dispatch]\nlease_ttl_ms = 1_999\n");
    assert!(error.contains("`dispatch.lease_ttl_ms` is 1999"), "{error}");
    let error = mistake("[dispatch]\nlease_ttl_ms = 10_000\n");
    assert!(
        error.contains("`kinds.otp.resolve_after_s` is 20 s"),
        "{error}"
    );
}

#[test]
fn timeouts_that_outlast_the_wait_for_a_receipt_are_refused() {
    // otp: 20 s to resolve, less 5 s of lease, leaves less than 15 s.
    assert!(parse("[whatsapp]\nrequest_timeout_ms = 14_999\n").is_ok());
    let error = mistake("[whatsapp]\nrequest_timeout_ms = 15_000\n");
    assert!(
        error.contains("`kinds.otp.resolve_after_s` is 20 s"),
        "{error}"
    );
    assert!(
        error.contains("give at least 21 s, or lower whatsapp.request_timeout_ms"),
        "{error}"
    );
    assert!(
        parse("[whatsapp]\nrequest_timeout_ms = 15_000\n[kinds.otp]\nresolve_after_s = 30\n")
            .is_ok()
    );
}

#[test]
fn each_rule_refuses_what_breaks_it() {
    let app =
        "[[apps]]\nname = \"a\"\napp_secrets = [{ env = \"S\" }]\nverify_token = { env = \"V\" }\n";
    let account = "[[accounts]]\nwaba_id = \"1\"\ntoken = { env = \"T\" }\n";
    for (text, key) in [
        (
            "[whatsapp]\nbase_url = \"graph.facebook.com\"".to_owned(),
            "whatsapp.base_url",
        ),
        (
            "[whatsapp]\nconnections = 0".to_owned(),
            "whatsapp.connections",
        ),
        (
            "[database]\nmax_connections = 2".to_owned(),
            "database.max_connections",
        ),
        (format!("{app}{app}"), "apps.1.name"),
        (
            "[[apps]]\nname = \"a\"\napp_secrets = []\nverify_token = { env = \"V\" }".to_owned(),
            "apps.0.app_secrets",
        ),
        (format!("{account}{account}"), "accounts.1.waba_id"),
        (
            format!("{app}{}{account}", app.replace("\"a\"", "\"b\"")),
            "accounts.0.app",
        ),
        (
            "[senders.default]\nnumbers = []".to_owned(),
            "senders.default.numbers",
        ),
        (
            "[senders.default]\nnumbers = [\"+15551234\"]".to_owned(),
            "senders.default.numbers.0",
        ),
        (
            "[senders.shop]\nnumbers = [\"1\"]".to_owned(),
            "enqueue.default_sender",
        ),
        (
            "[senders.default]\nnumbers = [\"1\", \"1\"]".to_owned(),
            "senders.default.numbers.1",
        ),
        (
            "[enqueue]\ndefault_kind = \"party\"".to_owned(),
            "enqueue.default_kind",
        ),
        (
            "[kinds.\"Big Party\"]\nvalid_for_s = 1".to_owned(),
            "kinds.Big Party",
        ),
        (
            "[kinds.order]\nvalid_for_s = 0".to_owned(),
            "kinds.order.valid_for_s",
        ),
        (
            "[kinds.order]\ncategories = [\"utility\"]".to_owned(),
            "kinds.order.categories.0",
        ),
        ("[pacing]\nbulk_floor = 0.5".to_owned(), "pacing.bulk_floor"),
        (
            "[limits]\nheadroom = 0.5\nurgent_reserve = 0.5".to_owned(),
            "limits.urgent_reserve",
        ),
        (
            "[dispatch]\nbackoff_max_s = 1".to_owned(),
            "dispatch.backoff_max_s",
        ),
        (
            "[dispatch]\ndrain_limit_s = 5".to_owned(),
            "dispatch.drain_limit_s",
        ),
        (
            "[retention]\nreceipts_days = 7".to_owned(),
            "retention.receipts_days",
        ),
        (
            "[ops]\nlisten = \"127.0.0.1:8080\"".to_owned(),
            "ops.listen",
        ),
    ] {
        match parse(&text) {
            Err(ConfigError::Invalid { problems, .. }) => {
                let keys: Vec<&str> = problems
                    .iter()
                    .map(|problem| problem.key.as_str())
                    .collect();
                assert_eq!(keys, [key], "{text}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn the_environment_wins_over_the_file_for_the_database() {
    let config = parse("[database]\nurl = \"postgres://file/one\"\n").unwrap();
    let by = |environment: Environment| {
        let (url, source) = config.database_url(&environment).unwrap();
        let DatabaseUrl::Server(url) = url else {
            panic!("not embedded")
        };
        (url.expose_secret().to_owned(), source)
    };
    assert_eq!(
        by(Environment::default()),
        ("postgres://file/one".to_owned(), DatabaseSource::File)
    );
    let environment = [("POSTRIDER_DATABASE_URL", "postgres://env/two")]
        .into_iter()
        .collect();
    assert_eq!(
        by(environment),
        ("postgres://env/two".to_owned(), DatabaseSource::Environment)
    );
}

#[test]
fn no_database_is_an_error_that_says_how_to_name_one() {
    let error = Config::default()
        .database_url(&Environment::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("[database]") && error.contains("$POSTRIDER_DATABASE_URL"),
        "{error}"
    );
}

#[test]
fn the_file_is_the_flag_then_the_variable_then_the_usual_place() {
    let named: Environment = [("POSTRIDER_CONFIG", "/from/env")].into_iter().collect();
    assert_eq!(
        named.config_path(Some(Path::new("/from/flag"))),
        Path::new("/from/flag")
    );
    assert_eq!(named.config_path(None), Path::new("/from/env"));
    assert_eq!(
        Environment::default().config_path(None),
        Path::new(DEFAULT_PATH)
    );
}

#[test]
fn a_language_in_the_file_has_its_words_alone_and_the_others_stay() {
    let config = parse("[consent.keywords.en]\nstop = [\"enough\"]\n").unwrap();
    assert_eq!(config.consent.keywords["en"].stop, ["enough"]);
    assert!(config.consent.keywords["en"].start.is_empty());
    assert_eq!(
        config.consent.keywords["tr"],
        Consent::default().keywords["tr"]
    );
}

#[test]
fn an_inline_secret_works_and_is_warned_of() {
    let config = parse("[[accounts]]\nwaba_id = \"1\"\ntoken = \"plain\"\n").unwrap();
    let keys: Vec<String> = config
        .warnings()
        .into_iter()
        .map(|warning| warning.key)
        .collect();
    assert!(keys.contains(&"accounts.0.token".to_owned()), "{keys:?}");
}

#[test]
fn a_key_that_does_nothing_yet_is_warned_of_when_somebody_relies_on_it() {
    for text in [
        "[retention]\nmessages_days = 30\n",
        "[producers.shop]\nmax_queued = 5\n",
    ] {
        let warnings = parse(text).unwrap().warnings();
        let told = warnings
            .iter()
            .filter(|warning| warning.what.contains("does nothing in this release"));
        assert_eq!(told.count(), 1, "{text}");
    }
}

/// Every section, as a header under which one more key can be written.
const SECTIONS: &[&str] = &[
    "",
    "[database]",
    "[whatsapp]",
    "[[apps]]",
    "[[accounts]]",
    "[senders.default]",
    "[templates]",
    "[enqueue]",
    "[pacing]",
    "[limits]",
    "[kinds.otp]",
    "[dispatch]",
    "[consent]",
    "[consent.keywords.en]",
    "[webhook]",
    "[ops]",
    "[retention]",
    "[producers.shop]",
];

#[test]
fn the_shipped_file_is_the_defaults_but_for_what_only_you_can_know() {
    let shipped = parse(example()).unwrap();
    let yours = Config {
        database: Database {
            url: shipped.database.url.clone(),
            ..Database::default()
        },
        apps: shipped.apps.clone(),
        accounts: shipped.accounts.clone(),
        senders: shipped.senders.clone(),
        ..Config::default()
    };
    assert_eq!(shipped, yours);
    assert!(
        !shipped.apps.is_empty() && !shipped.accounts.is_empty() && !shipped.senders.is_empty()
    );
    assert_eq!(shipped.warnings(), []);
}

/// The shipped file with its examples in use.
fn uncommented() -> String {
    let lines: Vec<&str> = example()
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line))
        .collect();
    lines.join("\n")
}

#[test]
fn the_examples_in_the_shipped_file_are_valid_when_uncommented() {
    assert_ne!(uncommented(), example().trim_end());
    let config = parse(&uncommented()).unwrap();
    assert!(
        ["staff", "booking", "account"]
            .iter()
            .all(|kind| config.kinds.contains_key(*kind))
    );
}

#[test]
fn the_shipped_file_names_every_key_there_is() {
    let text = format!("\n{}", uncommented());
    for section in SECTIONS {
        // The refusal of an unknown key lists the known ones: the list is the structs' own.
        let error = mistake(&format!("{section}\nno_such_key = 1\n"));
        let known = error.split("unknown field `no_such_key`").nth(1).unwrap();
        for key in known.split('`').skip(1).step_by(2) {
            let forms = [
                format!("\n{key} = "),
                format!("\n[{key}"),
                format!("\n[[{key}"),
                format!(".{key}."),
            ];
            let is_named = forms.iter().any(|form| text.contains(form));
            assert!(is_named, "{section} {key} is not in config/postrider.toml");
        }
    }
}

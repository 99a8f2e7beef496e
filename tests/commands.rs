//! The commands over the SQL contract, by the real binary.

#![cfg(test)]

mod common;

use std::{fmt::Write as _, io::Write as _, process::Stdio};

use common::{
    command::{objects, stderr, stdout, world},
    eventually, sql,
};
use postrider::store::usage::{self, PoolUsage};
use serde_json::{Value, json};

fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[tokio::test]
async fn of_a_hundred_thousand_lines_the_good_ones_are_enqueued_and_each_bad_one_is_named() {
    let (database, postrider) = world().await;
    let mut text = String::new();
    let mut bad = Vec::new();
    for line in 1..=100_000 {
        // A prime, so that the bad ones fall everywhere within the batches.
        if line % 997 == 0 && bad.len() < 100 {
            bad.push(line);
            let broken = [
                "{\"recipient\": \"0532\", \"template\": \"boarding\"}",
                "{\"recipient\": ",
                "[]",
                "{}",
            ];
            writeln!(text, "{}", broken[bad.len() % broken.len()]).unwrap();
        } else {
            writeln!(
                text,
                "{{\"recipient\": \"+90532{line:07}\", \"template\": \"boarding\"}}"
            )
            .unwrap();
        }
    }
    let (_directory, path) = file("jobs.jsonl", &text);
    let output = postrider.run(&["enqueue", "--file", &path]);
    assert_eq!(output.status.code(), Some(65), "{}", stderr(&output));
    assert_eq!(
        stdout(&output).trim(),
        "99900 enqueued, 0 were there already, 100 bad"
    );
    let stderr = stderr(&output);
    let named: Vec<u32> = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("line ")?.split_once(": ")?.0.parse().ok())
        .collect();
    assert_eq!(named, bad);
    assert_eq!(sql::count(&database, "postrider.queue").await, 99_900);
}

#[tokio::test]
async fn a_pipe_is_enqueued_as_it_comes_and_for_as_long_as_it_lasts() {
    let (database, postrider) = world().await;
    let mut process = postrider
        .command(&["enqueue", "--file", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = process.stdin.take().unwrap();
    for jobs in 1..=2 {
        writeln!(
            pipe,
            "{}",
            json!({"recipient": "+905321234567", "template": "boarding"})
        )
        .unwrap();
        eventually("the job to be there although the pipe is open", || async {
            (sql::count(&database, "postrider.queue").await == jobs).then_some(())
        })
        .await;
    }
    drop(pipe);
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<_> = objects(&output)
        .iter()
        .map(|told| (told["line"].clone(), told["job_id"].is_i64()))
        .collect();
    assert_eq!(lines, [(json!(1), true), (json!(2), true)]);
}

#[tokio::test]
async fn every_line_is_enqueued_although_nobody_reads_what_became_of_it() {
    for (json, broken, code) in [
        (&["--json"][..], "", 0),
        (&["--json"][..], "[]\n", 65),
        (&[][..], "[]\n", 65),
    ] {
        let (database, postrider) = world().await;
        // Several batches, and the first of them breaks the pipe.
        let mut text = broken.to_owned();
        for line in 0..3_000 {
            writeln!(
                text,
                "{{\"recipient\": \"+90532{line:07}\", \"template\": \"boarding\"}}"
            )
            .unwrap();
        }
        text += broken;
        let (_directory, path) = file("jobs.jsonl", &text);
        let output = postrider.run_unread(&[&["enqueue", "--file", &path][..], json].concat());
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert_eq!(sql::count(&database, "postrider.queue").await, 3_000);
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_by_the_exit_code_although_nobody_reads_it() {
    let (_database, postrider) = world().await;
    for args in [
        &["jobs", "show", "999"][..],
        &["jobs", "cancel", "999"],
        &["why", "999"],
        &["resume", "number", "999"],
        &["dead", "drop", "999", "--yes"],
    ] {
        let (read, unread) = (postrider.run(args), postrider.run_unread(args));
        assert_eq!(read.status.code(), Some(1), "{args:?}: {}", stderr(&read));
        assert_eq!(
            unread.status.code(),
            Some(1),
            "{args:?}: {}",
            stderr(&unread)
        );
    }
}

#[tokio::test]
async fn csv_columns_become_parameters() {
    let (database, postrider) = world().await;
    let (_directory, path) = file(
        "jobs.csv",
        "recipient,template,body.1,body.2,label.shop,idempotency_key\n\
         +905321234567,order_confirmation,Ada,#1042,7,a\n\
         +905321234567,order_confirmation,Ada,#1042,7,a\n\
         +905321234567,order_confirmation,,#1043,7,b\n",
    );
    let output = postrider.run(&["enqueue", "--file", &path]);
    assert_eq!(
        stdout(&output).trim(),
        "1 enqueued, 1 were there already, 1 bad"
    );
    assert!(
        stderr(&output).starts_with("line 4: body.1 is empty"),
        "{}",
        stderr(&output)
    );
    let row: (Value, Value) = sqlx::query_as("select content, labels from postrider.queue")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(
        row,
        (json!({"body": ["Ada", "#1042"]}), json!({"shop": "7"}))
    );
}

#[tokio::test]
async fn one_job_is_enqueued_found_explained_and_cancelled() {
    let (_database, postrider) = world().await;
    let output = postrider.run(&[
        "enqueue",
        "+905321234567",
        "boarding",
        "--reference",
        "#1",
        "--json",
    ]);
    let id = objects(&output)[0]["job_id"].to_string();

    for what in [id.as_str(), "#1", "+905321234567"] {
        let output = postrider.run(&["why", what]);
        assert!(
            stdout(&output).contains("no daemon sends for its number"),
            "{what}: {}",
            stdout(&output)
        );
    }
    assert_eq!(postrider.run(&["why", "#2"]).status.code(), Some(1));

    let listed = |filter: &[&str]| {
        objects(&postrider.run(&[&["jobs", "list", "--json"], filter].concat())).len()
    };
    assert_eq!(listed(&["--recipient", "+905321234567"]), 1);
    assert_eq!(listed(&["--state", "waiting", "--kind", "order"]), 1);
    assert_eq!(listed(&["--state", "delivered"]), 0);
    assert_eq!(listed(&["--since", "2100-01-01T00:00:00Z"]), 0);

    assert_eq!(
        postrider.run(&["jobs", "cancel", &id]).status.code(),
        Some(0)
    );
    assert_eq!(listed(&["--state", "cancelled"]), 1);
    assert_eq!(
        postrider
            .run(&["jobs", "cancel", "--reference", "#1"])
            .status
            .code(),
        Some(1)
    );
}

#[tokio::test]
async fn what_tells_whose_it_is_is_hidden_unless_it_is_asked_for() {
    let (database, postrider) = world().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let job = sql::enqueue(&mut connection, "'+905321234567', 'boarding'").await;
    sql::accept(&mut connection, job, "delivered", None).await;
    sql::run(
        &mut connection,
        "update postrider.message set provider_id = 'wamid.905321234567'",
    )
    .await;
    sql::run(
        &mut connection,
        "select postrider.opt_in('+905321234567', 'test')",
    )
    .await;
    let id = job.to_string();
    for arguments in [
        &["jobs", "list"][..],
        &["jobs", "show", &id],
        &["why", &id],
        &["consent", "show", "+905321234567"],
    ] {
        for json in [&[][..], &["--json"]] {
            let arguments = [arguments, json].concat();
            let hidden = postrider.run(&arguments);
            assert!(
                !stdout(&hidden).contains("5321234567"),
                "{arguments:?}: {}",
                stdout(&hidden)
            );
            let shown = postrider.run(&[&arguments[..], &["--reveal"]].concat());
            assert!(
                stdout(&shown).contains("+905321234567"),
                "{arguments:?}: {}",
                stdout(&shown)
            );
        }
    }
}

#[tokio::test]
async fn following_a_job_ends_with_what_became_of_it() {
    let (database, postrider) = world().await;
    let process = postrider
        .command(&["enqueue", "+905321234567", "boarding", "--wait"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let job = eventually("the job", || async {
        sqlx::query_scalar("select id from postrider.queue")
            .fetch_optional(database.pool())
            .await
            .unwrap()
    })
    .await;
    sql::accept(
        &mut database.pool().acquire().await.unwrap(),
        job,
        "delivered",
        None,
    )
    .await;
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output).lines().last(), Some("delivered"));
}

#[tokio::test]
async fn consents_are_imported_and_bad_lines_named() {
    let (database, postrider) = world().await;
    let (_directory, path) = file(
        "consents.csv",
        "recipient,source,language,at,opt_out\n\
         +905320000001,checkout,tr,2026-01-01T00:00:00Z,\n\
         0532,checkout,,,\n\
         +905320000002,,,,\n\
         +905320000003,checkout,turkish,,\n\
         +905320000004,support,,,true\n",
    );
    let output = postrider.run(&["consent", "import", &path]);
    assert_eq!(output.status.code(), Some(65));
    assert_eq!(stdout(&output).trim(), "2 noted, 3 bad");
    let stderr = stderr(&output);
    let starts: Vec<&str> = stderr
        .lines()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(starts, ["line 3", "line 4", "line 5"], "{stderr}");
    let rows: Vec<(String, bool)> = sqlx::query_as(
        "select person, opted_out_at is not null from postrider.consent order by person",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert_eq!(
        rows,
        [
            ("+905320000001".to_owned(), false),
            ("+905320000004".to_owned(), true)
        ]
    );
    // With a source for those that name none.
    let output = postrider.run(&["consent", "import", &path, "--source", "crm"]);
    assert_eq!(stdout(&output).trim(), "3 noted, 2 bad");
    let output = postrider.run_unread(&["consent", "import", &path]);
    assert_eq!(output.status.code(), Some(65), "although nobody reads");
}

#[tokio::test]
async fn status_tells_what_is_wrong_first_and_check_says_so_by_its_exit_code() {
    let (database, postrider) = world().await;
    let mut connection = database.pool().acquire().await.unwrap();
    sql::run(
        &mut connection,
        "update postrider.account set synced_at = now()",
    )
    .await;
    sql::run(
        &mut connection,
        "update postrider.number set status = 'CONNECTED'",
    )
    .await;
    let check = || {
        let output = postrider.run(&["status", "--check"]);
        (output.status.code(), stdout(&output).trim().to_owned())
    };
    assert_eq!(check(), (Some(0), "ok: 0 jobs due".to_owned()));

    sql::enqueue(&mut connection, "'+905321234567', 'boarding'").await;
    let (code, line) = check();
    assert_eq!(code, Some(1));
    assert!(line.starts_with("nobody sends"), "{line}");

    sql::run(
        &mut connection,
        "update postrider.lease set expires_at = now() + interval '1 h'",
    )
    .await;
    let (code, line) = check();
    assert_eq!(code, Some(1));
    assert!(
        line.starts_with("no webhook process takes receipts"),
        "{line}"
    );

    sql::run(
        &mut connection,
        "update postrider.receiving set seen_at = now()",
    )
    .await;
    assert_eq!(check().0, Some(0));
    sql::pause(&mut connection, "kind", "order").await;
    let (code, line) = check();
    assert_eq!(
        (code, line.as_str()),
        (Some(1), "kind order is paused by the operator: test")
    );
    let status = stdout(&postrider.run(&["status"]));
    assert!(status.starts_with("! kind order is paused"), "{status}");
}

#[tokio::test]
async fn numbers_templates_and_previews_are_printed() {
    let (_database, postrider) = world().await;
    assert_eq!(objects(&postrider.run(&["numbers", "--json"])).len(), 4);
    assert_eq!(objects(&postrider.run(&["templates", "--json"])).len(), 4);
    assert_eq!(
        objects(&postrider.run(&["templates", "boarding", "--json"])).len(),
        1
    );
    let output = postrider.run(&[
        "preview",
        "+905321234567",
        "login_code",
        "--parameters",
        r#"{"code": "042817"}"#,
    ]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(
        text.starts_with("042817 is your code.") && text.contains("no_opt_in"),
        "{text}"
    );
}

#[tokio::test]
async fn pauses_are_made_listed_and_ended_and_what_still_stops_it_is_told() {
    let (_database, postrider) = world().await;
    let run = |arguments: &[&str]| {
        let output = postrider.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    };
    let template = "w1/boarding/pt_BR";
    for (scope, target) in [
        ("kind", "order"),
        ("priority", "bulk"),
        ("number", "n1"),
        ("account", "w1"),
        ("template", template),
    ] {
        run(&["pause", scope, target, "--reason", "stocktaking"]);
    }
    let said = run(&["pause", "all", "--reason", "fire drill", "--for", "2h"]);
    assert!(said.starts_with("everything is paused until 20"), "{said}");
    assert!(
        said.contains("(in 1 h 59 min)") || said.contains("(in 2 h)"),
        "{said}"
    );

    let listed = objects(&postrider.run(&["pause", "--list", "--json"]));
    let scopes: Vec<&str> = listed
        .iter()
        .map(|it| it["scope"].as_str().unwrap())
        .collect();
    assert_eq!(
        scopes,
        ["kind", "priority", "number", "account", "template", "all"]
    );
    assert_eq!(listed[5]["reason"], "fire drill");
    assert!(listed[0]["until"].is_null() && listed[5]["until"].is_string());
    let table = run(&["pause", "--list"]);
    assert!(
        table.contains("everything") && table.contains("template w1/boarding/pt_BR"),
        "{table}"
    );

    let said = run(&["resume", "number", "n1"]);
    assert!(
        said.starts_with("number n1 goes on\n  it was paused by "),
        "{said}"
    );
    assert!(
        said.contains("still paused: account w1") && said.contains("still paused: everything"),
        "{said}"
    );
    assert!(
        !said.contains("kind order") && !said.contains("template"),
        "{said}"
    );
    let said = run(&["resume", "account", "w1"]);
    assert!(
        said.contains("still paused: template w1/boarding/pt_BR"),
        "{said}"
    );
    let said = run(&["resume", "all"]);
    assert!(said.contains("still paused: kind order"), "{said}");
    let output = postrider.run(&["resume", "number", "n1"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output).trim(), "number n1 was not paused");
}

#[tokio::test]
async fn what_does_not_exist_cannot_be_paused() {
    let (database, postrider) = world().await;
    let refused = |arguments: &[&str]| {
        let output = postrider.run(&[&["pause"], arguments, &["--reason", "test"]].concat());
        assert_eq!(
            output.status.code(),
            Some(64),
            "{arguments:?}: {}",
            stdout(&output)
        );
        stderr(&output)
    };
    for (scope, target, hint) in [
        ("kind", "oder", "there is no kind oder"),
        ("priority", "high", "urgent, normal and bulk"),
        ("batch", "autumn", "--anyway"),
        ("number", "n9", "`postrider numbers`"),
        ("account", "w9", "there is no account w9"),
        ("template", "w1/boarding/en_US", "`postrider templates`"),
        ("template", "boarding", "WABA_ID/name/language"),
    ] {
        let said = refused(&[scope, target]);
        assert!(said.contains(hint), "{said}");
    }
    refused(&["kind"]);
    refused(&["all", "order"]);
    refused(&["kind", "order", "--for", "2w"]);
    refused(&["kind", "order", "--until", "2020-01-01T00:00:00Z"]);
    assert_eq!(sql::count(&database, "postrider.pause").await, 0);

    let enqueue = "'+905321234567', 'boarding', batch => 'autumn'";
    sql::enqueue(&mut database.pool().acquire().await.unwrap(), enqueue).await;
    for batch in [&["batch", "autumn"][..], &["batch", "winter", "--anyway"]] {
        let output = postrider.run(&[&["pause"], batch, &["--reason", "test"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn what_is_left_of_a_messaging_limit_is_shown_while_somebody_counts_it() {
    let (database, postrider) = world().await;
    let pool = database.pool();
    let usage = PoolUsage {
        pool: "p1".to_owned(),
        messaging_limit: Some(250),
        used: 237,
        room_normal: Some(0),
        room_urgent: Some(13),
        next_return_at: Some(::postrider::clock::now() + std::time::Duration::from_secs(7_230)),
        returns: 4,
    };
    for used in [100, 237] {
        usage::show(
            pool,
            &[PoolUsage {
                used,
                ..usage.clone()
            }],
        )
        .await
        .unwrap();
    }
    let mut connection = pool.acquire().await.unwrap();
    let urgent = "'+905321234567', 'boarding', priority => 'urgent'";
    let urgent = sql::enqueue(&mut connection, urgent).await;
    let job = sql::enqueue(&mut connection, "'+905321234567', 'boarding'").await;
    sql::run(
        &mut connection,
        "update postrider.lease set expires_at = now() + interval '1 h'",
    )
    .await;

    let number = &objects(&postrider.run(&["numbers", "--json"]))[0];
    assert_eq!(number["recipients_24h"], 237);
    assert_eq!(
        (&number["room_normal"], &number["room_urgent"]),
        (&json!(0), &json!(13))
    );
    assert!(stdout(&postrider.run(&["numbers"])).contains("4 in 2 h"));
    let status = stdout(&postrider.run(&["status"]));
    assert!(
        status.contains("! the messaging limit of p1 is reached: 237 of 250 are used, 4 come back"),
        "{status}"
    );
    assert!(status.contains("LIMIT OF"), "{status}");
    let why = stdout(&postrider.run(&["why", &job.to_string()]));
    assert!(why.contains("237 of 250 unique recipients"), "{why}");
    let why = stdout(&postrider.run(&["why", &urgent.to_string()]));
    assert!(why.contains("on its way"), "{why}");

    sql::run(
        &mut connection,
        "update postrider.pool_usage set at = now() - interval '61 s'",
    )
    .await;
    let number = &objects(&postrider.run(&["numbers", "--json"]))[0];
    assert_eq!(
        (&number["recipients_24h"], &number["room_normal"]),
        (&json!(0), &Value::Null)
    );
    assert!(!stdout(&postrider.run(&["status"])).contains("LIMIT OF"));
}

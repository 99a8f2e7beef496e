//! Faults on demand, over both versions of HTTP.

use std::collections::HashMap;

use postrider::sandbox::{Fault, FaultRule, Setup};
use serde_json::{Value, json};

use crate::desk::{
    ADA, Answer, Desk, NUMBER, OTHER_NUMBER, WABA, client, hooked, order, order_to, otp, person,
    statuses, words,
};

#[tokio::test]
async fn a_refusal_on_demand_has_its_code_and_status_and_is_not_accepted() {
    let desk = Desk::quick().await;
    for (code, http_status, expected) in [
        (131_000, None, 500),
        (2, None, 503),
        (131_048, None, 400),
        (130_429, Some(429), 429),
    ] {
        desk.sandbox
            .control()
            .fault(FaultRule::next(1, Fault::Refuse { code, http_status }));
        let answer = desk.send(&order()).await;
        assert_eq!((answer.status, answer.code()), (expected, i64::from(code)));
    }
    desk.sandbox.control().fault(FaultRule::next(
        1,
        Fault::Refuse {
            code: 80_007,
            http_status: None,
        },
    ));
    let usage = desk.send(&order()).await.headers["x-business-use-case-usage"]
        .to_str()
        .unwrap()
        .to_owned();
    let usage: Value = serde_json::from_str(&usage).unwrap();
    assert_eq!(usage[WABA][0]["estimated_time_to_regain_access"], 1);
    assert_eq!(desk.sandbox.ledger().accepted(), 0);
    assert_eq!(desk.send(&order()).await.status, 200, "each struck once");
}

#[tokio::test]
async fn faults_strike_only_the_recipient_number_or_template_that_they_name() {
    let desk = Desk::quick().await;
    let refuse = || {
        FaultRule::always(Fault::Refuse {
            code: 131_000,
            http_status: None,
        })
    };
    desk.sandbox.control().fault(refuse().recipient(&person(1)));
    desk.sandbox.control().fault(refuse().number(OTHER_NUMBER));
    desk.sandbox
        .control()
        .fault(refuse().template("login_code"));
    assert_eq!(desk.send(&order()).await.status, 200);
    assert_eq!(desk.send(&order_to(&person(1))).await.status, 500);
    assert_eq!(desk.send_from(OTHER_NUMBER, &order()).await.status, 500);
    assert_eq!(desk.send(&otp("1", "1")).await.status, 500);
    desk.sandbox.control().clear_faults();
    assert_eq!(desk.send(&otp("1", "1")).await.status, 200);
}

#[tokio::test]
async fn bodies_without_json_come_with_any_status_accepted_or_not() {
    let desk = Desk::quick().await;
    for (http_status, accepted) in [(500, false), (503, true), (200, true)] {
        desk.sandbox.control().fault(FaultRule::next(
            1,
            Fault::NotJson {
                http_status,
                accepted,
            },
        ));
        let before = desk.sandbox.ledger().accepted();
        let answer = desk.send(&order()).await;
        assert_eq!((answer.status, answer.body), (http_status, Value::Null));
        assert_eq!(
            desk.sandbox.ledger().accepted() - before,
            u64::from(accepted)
        );
    }
}

#[tokio::test]
async fn resets_break_the_connection_and_only_one_of_them_accepts() {
    for http2 in [false, true] {
        let desk = Desk {
            client: client(http2),
            ..Desk::quick().await
        };
        let cases = [
            (FaultRule::next(1, Fault::ResetBeforeBody), false),
            (
                FaultRule::next(1, Fault::ResetBeforeBody).recipient(ADA),
                false,
            ),
            (FaultRule::next(1, Fault::ResetAfterAccepting), true),
        ];
        for (rule, accepted) in cases {
            desk.sandbox.control().fault(rule.clone());
            let before = desk.sandbox.ledger().accepted();
            let error = desk
                .try_send(&order())
                .await
                .err()
                .expect("there is no answer");
            assert!(!error.is_connect(), "the request was on its way: {error:?}");
            assert_eq!(
                desk.sandbox.ledger().accepted() - before,
                u64::from(accepted),
                "{rule:?}"
            );
        }
        let entries = desk.sandbox.ledger().entries();
        let read: Vec<bool> = entries
            .iter()
            .map(|entry| entry.recipient.is_some())
            .collect();
        assert_eq!(
            read,
            [false, true, true],
            "the first one's body was never looked at"
        );
        assert!(entries.iter().all(|entry| entry.http_status.is_none()));
        assert_eq!(
            desk.send(&order()).await.status,
            200,
            "a new connection works"
        );
    }
}

#[tokio::test]
async fn a_reset_is_a_reset_and_not_a_close() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let desk = Desk::quick().await;
    desk.sandbox
        .control()
        .fault(FaultRule::next(1, Fault::ResetAfterAccepting));
    let mut stream = tokio::net::TcpStream::connect(desk.sandbox.address())
        .await
        .unwrap();
    let body = order().to_string();
    let request = format!(
        "POST /v23.0/{NUMBER}/messages HTTP/1.1\r\nhost: sandbox\r\nauthorization: Bearer sandbox-token\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let error = stream.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(desk.sandbox.ledger().accepted(), 1);
}

#[tokio::test]
async fn silence_accepts_and_never_answers() {
    let (desk, mut callback) = hooked(|_| {}).await;
    desk.sandbox
        .control()
        .fault(FaultRule::next(1, Fault::SilenceAfterAccepting));
    let request = order();
    let (mut sending, ledger) = (
        std::pin::pin!(desk.try_send(&request)),
        desk.sandbox.ledger(),
    );
    tokio::select! {
        answer = &mut sending => panic!("there was an answer: {:?}", answer.map(|answer| answer.status)),
        () = ledger.until_accepted(1) => {}
    }
    tokio::select! {
        answer = &mut sending => panic!("there was an answer: {:?}", answer.map(|answer| answer.status)),
        post = callback.next() => assert_eq!(words(&[post])[0], "sent", "receipts come nevertheless"),
    }
}

#[tokio::test]
async fn a_slow_body_arrives_in_parts_and_whole() {
    let desk = Desk::quick().await;
    desk.sandbox
        .control()
        .fault(FaultRule::next(1, Fault::SlowBody { over_ms: 80 }));
    let url = desk.url(&format!("/v23.0/{NUMBER}/messages"));
    let request = desk
        .client
        .post(url)
        .bearer_auth("sandbox-token")
        .body(order().to_string());
    let mut response = request.send().await.unwrap();
    let (mut parts, mut body) = (0, Vec::new());
    while let Some(part) = response.chunk().await.unwrap() {
        parts += 1;
        body.extend_from_slice(&part);
    }
    assert!(parts > 1, "{parts}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(
        body["messages"][0]["id"]
            .as_str()
            .unwrap()
            .starts_with("wamid.")
    );
}

#[tokio::test]
async fn an_answer_can_lack_its_id_and_messages_can_be_held_dropped_or_forgotten() {
    let (desk, mut callback) = hooked(|setup| setup.webhooks.delivered_share = 0.0).await;
    let faults = [
        Fault::NoId,
        Fault::Hold {
            for_ms: 1,
            dropped: false,
        },
        Fault::Hold {
            for_ms: 1,
            dropped: true,
        },
        Fault::FailLater { code: 131_049 },
        Fault::NoReceipts,
    ];
    let mut answers = Vec::new();
    for fault in faults {
        desk.sandbox.control().fault(FaultRule::next(1, fault));
        answers.push(desk.send(&order()).await);
    }
    assert_eq!(
        (answers[0].status, &answers[0].body["messages"]),
        (200, &json!([]))
    );
    assert_eq!(
        answers[1].body["messages"][0]["message_status"],
        "held_for_quality_assessment"
    );
    let posts = callback.all(&desk.sandbox).await;
    let told: HashMap<String, Value> = posts
        .iter()
        .flat_map(statuses)
        .map(|status| (status["id"].as_str().unwrap().to_owned(), status))
        .collect();
    let word = |answer: &Answer| {
        told.get(answer.message_id())
            .map(|status| status["status"].as_str().unwrap().to_owned())
    };
    let code = |answer: &Answer| told[answer.message_id()]["errors"][0]["code"].as_i64();
    assert_eq!(word(&answers[1]).as_deref(), Some("sent"));
    assert_eq!(
        (word(&answers[2]).as_deref(), code(&answers[2])),
        (Some("failed"), Some(132_015))
    );
    assert_eq!(
        (word(&answers[3]).as_deref(), code(&answers[3])),
        (Some("failed"), Some(131_049))
    );
    assert_eq!(word(&answers[4]), None);
    assert_eq!(
        told.len(),
        4,
        "and the one without an id in its answer has a receipt too"
    );
}

#[tokio::test]
async fn the_same_seed_strikes_the_same_requests() {
    let struck = |seed: u64| async move {
        let desk = Desk::open(Setup {
            seed,
            ..Setup::quick()
        })
        .await;
        desk.sandbox.control().fault(FaultRule::share(
            0.5,
            Fault::Refuse {
                code: 131_000,
                http_status: None,
            },
        ));
        let mut struck = Vec::new();
        for n in 0..40 {
            struck.push(desk.send(&order_to(&person(n))).await.status == 500);
        }
        struck
    };
    let first = struck(7).await;
    assert_eq!(first, struck(7).await);
    assert_ne!(first, struck(8).await);
    assert!(first.contains(&true) && first.contains(&false));
}

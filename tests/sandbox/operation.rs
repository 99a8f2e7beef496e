//! Reads of the graph, the control over HTTP, starting and stopping.

use postrider::sandbox::{Sandbox, Setup, default_world};
use serde_json::{Value, json};

use crate::desk::{ADA, Desk, NUMBER, WABA, client, hooked, order, read};

#[tokio::test]
async fn numbers_and_accounts_are_read_with_fields() {
    let desk = Desk::quick().await;
    let numbers = desk.get(&format!("/v23.0/{WABA}/phone_numbers")).await;
    assert_eq!(numbers.body["data"].as_array().unwrap().len(), 4);
    assert_eq!(numbers.body["data"][0]["quality_rating"], "GREEN");
    let fields = "status,throughput,whatsapp_business_manager_messaging_limit,is_on_biz_app";
    let number = desk.get(&format!("/v23.0/{NUMBER}?fields={fields}")).await;
    assert_eq!(
        number.body,
        json!({"id": NUMBER, "status": "CONNECTED", "throughput": {"level": "STANDARD"},
            "whatsapp_business_manager_messaging_limit": "TIER_UNLIMITED", "is_on_biz_app": false})
    );
    assert_eq!(
        desk.get(&format!("/v23.0/{NUMBER}?fields=status,colour"))
            .await
            .code(),
        100
    );
    assert_eq!(
        desk.get(&format!("/v23.0/{WABA}")).await.body["name"],
        "Postrider Sandbox"
    );
    let missing = desk.get("/v23.0/12345").await;
    assert_eq!(
        (missing.code(), &missing.body["error"]["error_subcode"]),
        (100, &json!(33))
    );
    assert_eq!(desk.get("/nowhere").await.status, 400);
}

#[tokio::test]
async fn templates_are_read_page_by_page_and_filtered() {
    let desk = Desk::quick().await;
    let list = format!("/v24.0/{WABA}/message_templates");
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = desk
            .get(&format!(
                "{list}?limit=4&fields=name,language,status&after={after}"
            ))
            .await;
        let data = page.body["data"].as_array().unwrap();
        names.extend(
            data.iter()
                .map(|t| format!("{}/{}", t["name"], t["language"])),
        );
        match page.body["paging"]["next"].as_str() {
            None => break,
            Some(next) => assert!(
                next.starts_with(&desk.url(&list)) && next.contains("fields=name"),
                "{next}"
            ),
        }
        after = page.body["paging"]["cursors"]["after"]
            .as_str()
            .unwrap()
            .to_owned();
    }
    let expected = default_world()
        .templates
        .iter()
        .map(|t| format!("\"{}\"/\"{}\"", t.name, t.language))
        .collect::<Vec<_>>();
    assert_eq!(names, expected);

    let paused = desk.get(&format!("{list}?status=PAUSED")).await;
    assert_eq!(paused.body["data"][0]["name"], "delivery_survey");
    assert_eq!(paused.body["data"].as_array().unwrap().len(), 1);
    let turkish = desk
        .get(&format!("{list}?name=login_code&language=tr"))
        .await
        .body["data"][0]
        .clone();
    assert_eq!(
        (&turkish["category"], &turkish["parameter_format"]),
        (&json!("AUTHENTICATION"), &json!("POSITIONAL"))
    );
    let id = turkish["id"].as_str().unwrap();
    assert_eq!(
        desk.get(&format!("/v24.0/{id}?fields=quality_score"))
            .await
            .body["quality_score"]["score"],
        "GREEN"
    );
    assert_eq!(
        desk.get(&format!("{list}?after=nonsense")).await.code(),
        131_059
    );
    let old = format!("/v23.0/{WABA}/message_templates?after=nonsense");
    assert_eq!(desk.get(&old).await.code(), 100);
}

#[tokio::test]
async fn the_control_works_over_http_too() {
    let (desk, mut callback) = hooked(|setup| setup.webhooks.delivered_share = 0.0).await;
    let control = |path: &'static str, body: Value| {
        let request = desk.client.post(desk.url(path)).body(body.to_string());
        async move { read(request.send().await.unwrap()).await.unwrap().status }
    };
    assert_eq!(
        control(
            "/sandbox/faults",
            json!({"fault": {"refuse": {"code": 131_000}}, "when": {"next": 1}})
        )
        .await,
        200
    );
    assert_eq!(desk.send(&order()).await.status, 500);
    assert_eq!(
        control(
            "/sandbox/faults",
            json!({"fault": "fire", "when": "always"})
        )
        .await,
        400
    );
    assert_eq!(
        control(
            "/sandbox/templates/order_confirmation/en_US/status",
            json!({"status": "DISABLED"})
        )
        .await,
        200
    );
    assert_eq!(desk.send(&order()).await.code(), 132_016);
    assert_eq!(
        control(
            "/sandbox/templates/nothing/en_US/status",
            json!({"status": "DISABLED"})
        )
        .await,
        404
    );
    assert_eq!(
        control(
            "/sandbox/numbers/106540352242921",
            json!({"status": "BANNED"})
        )
        .await,
        200
    );
    assert_eq!(desk.send(&order()).await.code(), 133_010);
    callback.next().await;
    let inbound = json!({"from": ADA, "number": NUMBER, "message": {"text": {"body": "DUR"}}});
    assert_eq!(control("/sandbox/inbound", inbound).await, 200);
    assert_eq!(
        callback.next().await.body["entry"][0]["changes"][0]["value"]["messages"][0]["text"]["body"],
        "DUR"
    );

    let summary = desk.get("/sandbox/summary").await.body;
    assert_eq!(
        (&summary["arrived"], &summary["accepted"]),
        (&json!(3), &json!(0))
    );
    let lines = desk
        .client
        .get(desk.url("/sandbox/ledger?from=1&max=1"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let line: Value = serde_json::from_str(lines.trim()).unwrap();
    assert_eq!(
        (&line["serial"], &line["code"]),
        (&json!(1), &json!(132_016))
    );
}

#[tokio::test]
async fn it_runs_on_threads_of_its_own_and_stops() {
    let sandbox = Sandbox::start_apart(Setup::quick(), 2).unwrap();
    let desk = Desk {
        sandbox,
        client: client(false),
        token: "sandbox-token",
    };
    assert_eq!(desk.send(&order()).await.status, 200);
    let (client, url) = (
        desk.client.clone(),
        desk.url(&format!("/v23.0/{NUMBER}/messages")),
    );
    desk.sandbox.stop().await;
    assert!(client.post(url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn a_setup_that_contradicts_itself_does_not_start() {
    let mut setup = Setup::quick();
    setup.numbers[0].waba_id = "nowhere".into();
    assert!(
        Sandbox::start(setup)
            .await
            .err()
            .unwrap()
            .to_string()
            .contains("no account nowhere")
    );
}

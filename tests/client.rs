//! The client against a peer that misbehaves in every way we know: what certainly never left, what was perhaps taken, and
//! what the provider said.

#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use postrider::{
    channel::{
        directory::{Directory, DirectoryError},
        whatsapp::{Client, Endpoint, Reply, Sender},
    },
    rules::{
        messaging_limit::Tier,
        outcome::{Answer, ProviderError},
    },
    sandbox::{Sandbox, Setup},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const BODY: &str = r#"{"messaging_product":"whatsapp","to":"+905321234567"}"#;
const TAKEN: &str = r#"{"messages":[{"id":"wamid.x","message_status":"accepted"}]}"#;

fn endpoint(base_url: String) -> Endpoint {
    Endpoint {
        base_url,
        request_timeout: Duration::from_secs(30),
        ..Endpoint::default()
    }
}

fn token() -> SecretString {
    SecretString::from("EAAB")
}

fn sender(client: &Client) -> Sender {
    Sender {
        phone_number_id: "106".into(),
        credentials: client.credentials(&token()).unwrap(),
    }
}

async fn post_to(endpoint: &Endpoint) -> Reply {
    let client = Client::new(endpoint).unwrap();
    let sender = sender(&client);
    client
        .post(&sender, Bytes::from_static(BODY.as_bytes()), || true)
        .await
}

/// A peer that takes requests and answers each as told. `None` closes the connection instead.
struct Peer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    async fn answering(answer: impl Fn(usize) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (heard, answer) = (Arc::clone(&requests), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&heard), Arc::clone(&answer)));
            }
        });
        Self { address, requests }
    }

    fn endpoint(&self) -> Endpoint {
        endpoint(format!("http://{}", self.address))
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn converse(
    mut stream: TcpStream,
    heard: Arc<Mutex<Vec<String>>>,
    answer: Arc<impl Fn(usize) -> Option<String> + Send + Sync>,
) {
    while let Some(request) = read_request(&mut stream).await {
        let nth = {
            let mut heard = heard.lock().unwrap();
            heard.push(request);
            heard.len()
        };
        let Some(answer) = answer(nth) else { return };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Head and body of one request.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if text.contains("\r\n\r\n") && text.ends_with(BODY) {
            return Some(text.into_owned());
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn answer_to(answer: String) -> Answer {
    let peer = Peer::answering(move |_| Some(answer.clone())).await;
    post_to(&peer.endpoint()).await.answer
}

fn is_silence(answer: &Answer, status: Option<u16>) -> bool {
    matches!(answer, Answer::NoAnswer { http_status, .. } if *http_status == status)
}

fn is_taken(answer: &Answer) -> bool {
    matches!(answer, Answer::Accepted { provider_id, .. } if provider_id == "wamid.x")
}

#[tokio::test]
async fn a_message_is_posted_once_with_token_and_body() {
    let peer = Peer::answering(|_| Some(http("200 OK", "", TAKEN))).await;
    let answer = post_to(&peer.endpoint()).await.answer;
    assert!(is_taken(&answer), "{answer:?}");
    let [request] = peer.requests().try_into().unwrap();
    assert!(
        request.starts_with("POST /v25.0/106/messages HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("authorization: Bearer EAAB\r\n"),
        "{request}"
    );
    assert!(
        request.contains("content-type: application/json\r\n"),
        "{request}"
    );
    assert!(request.ends_with(BODY), "{request}");
}

#[tokio::test]
async fn a_refused_connection_is_the_only_thing_that_never_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let answer = post_to(&endpoint(format!("http://{address}"))).await.answer;
    assert!(matches!(answer, Answer::NotSent { .. }), "{answer:?}");
}

#[tokio::test]
async fn a_failed_tls_handshake_never_left_either() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let answer = post_to(&endpoint(format!("https://{address}")))
        .await
        .answer;
    assert!(matches!(answer, Answer::NotSent { .. }), "{answer:?}");
}

#[tokio::test]
async fn a_reset_before_the_body_was_read_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        // Unread bytes make the kernel send a reset rather than an end.
        drop(stream);
        listener
    });
    let answer = post_to(&endpoint(format!("http://{address}"))).await.answer;
    assert!(is_silence(&answer, None), "{answer:?}");
}

#[tokio::test]
async fn a_connection_closed_after_the_request_is_no_answer_and_not_repeated() {
    let peer = Peer::answering(|_| None).await;
    let answer = post_to(&peer.endpoint()).await.answer;
    assert!(is_silence(&answer, None), "{answer:?}");
    assert_eq!(peer.requests().len(), 1);
}

#[tokio::test]
async fn a_reused_connection_that_closes_on_a_request_is_no_answer_and_not_repeated() {
    let peer = Peer::answering(|nth| (nth == 1).then(|| http("200 OK", "", TAKEN))).await;
    let client = Client::new(&peer.endpoint()).unwrap();
    let sender = sender(&client);
    let body = Bytes::from_static(BODY.as_bytes());
    assert!(is_taken(
        &client.post(&sender, body.clone(), || true).await.answer
    ));
    let second = client.post(&sender, body, || true).await.answer;
    assert!(is_silence(&second, None), "{second:?}");
    assert_eq!(peer.requests().len(), 2);
}

#[tokio::test]
async fn a_request_that_is_too_late_when_a_connection_is_free_is_kept_back() {
    let peer = Peer::answering(|_| Some(http("200 OK", "", TAKEN))).await;
    let client = Client::new(&peer.endpoint()).unwrap();
    let sender = sender(&client);
    let body = Bytes::from_static(BODY.as_bytes());
    let answer = client.post(&sender, body.clone(), || false).await.answer;
    assert!(matches!(answer, Answer::NotSent { .. }), "{answer:?}");
    assert!(is_taken(&client.post(&sender, body, || true).await.answer));
    assert_eq!(peer.requests().len(), 1);
}

#[tokio::test]
async fn leave_is_asked_only_when_there_is_a_connection() {
    let unreachable = endpoint("http://127.0.0.1:1".to_owned());
    let client = Client::new(&unreachable).unwrap();
    let sender = sender(&client);
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let leave = move || {
        seen.store(true, Ordering::SeqCst);
        true
    };
    let body = Bytes::from_static(BODY.as_bytes());
    let answer = client.post(&sender, body, leave).await.answer;
    assert!(matches!(answer, Answer::NotSent { .. }), "{answer:?}");
    assert!(!asked.load(Ordering::SeqCst));
}

#[tokio::test]
async fn silence_is_no_answer() {
    let peer = Peer::answering(|_| Some(String::new())).await;
    let patience = Duration::from_secs(3);
    let answer = post_to(&Endpoint {
        request_timeout: patience,
        ..peer.endpoint()
    })
    .await
    .answer;
    assert!(is_silence(&answer, None), "{answer:?}");
    assert_eq!(peer.requests().len(), 1);
}

#[tokio::test]
async fn a_200_without_an_id_is_no_answer() {
    let answer = answer_to(http("200 OK", "", r#"{"messages":[]}"#)).await;
    assert!(is_silence(&answer, Some(200)), "{answer:?}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let broken = format!("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{TAKEN}");
    let peer = Peer::answering(move |_| Some(broken.clone())).await;
    let patience = Duration::from_secs(3);
    let answer = post_to(&Endpoint {
        request_timeout: patience,
        ..peer.endpoint()
    })
    .await
    .answer;
    assert!(is_silence(&answer, Some(200)), "{answer:?}");
}

#[tokio::test]
async fn a_page_of_html_from_the_edge_is_no_answer() {
    let answer = answer_to(http("502 Bad Gateway", "", "<html>Bad Gateway</html>")).await;
    assert!(is_silence(&answer, Some(502)), "{answer:?}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let answer = answer_to(http("200 OK", "", &"x".repeat(100_000))).await;
    assert!(is_silence(&answer, Some(200)), "{answer:?}");
}

#[tokio::test]
async fn a_long_answer_in_many_pieces_is_read_whole() {
    let long = format!(r#"{{"padding":"{}",{}"#, "x".repeat(50_000), &TAKEN[1..]);
    let answer = answer_to(http("200 OK", "", &long)).await;
    assert!(is_taken(&answer), "{answer:?}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let answer = answer_to(http("302 Found", "Location: /elsewhere\r\n", "")).await;
    assert!(is_silence(&answer, Some(302)), "{answer:?}");
}

#[tokio::test]
async fn a_coded_500_is_the_providers_word() {
    let body = r#"{"error":{"message":"(#131000) Something went wrong","code":131000}}"#;
    let answer = answer_to(http("500 Internal Server Error", "", body)).await;
    let Answer::Error(error) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (error.code, error.http_status, error.retry_after),
        (131_000, 500, None)
    );
}

#[tokio::test]
async fn headers_say_how_long_to_stay_away() {
    let retry_after = |headers: &'static str| async move {
        let peer = Peer::answering(move |_| {
            Some(http(
                "400 Bad Request",
                headers,
                r#"{"error":{"code":80007}}"#,
            ))
        })
        .await;
        let reply = post_to(&peer.endpoint()).await;
        match reply.answer {
            Answer::Error(ProviderError { retry_after, .. }) => {
                (retry_after.map(|it| it.as_secs()), reply.usage)
            }
            other => panic!("{other:?}"),
        }
    };
    let usage = "x-business-use-case-usage: {\"1\":[{\"call_count\":100,\"estimated_time_to_regain_access\":17}]}\r\n";
    assert_eq!(retry_after("retry-after: 30\r\n").await.0, Some(30));
    assert_eq!(
        retry_after("retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n")
            .await
            .0,
        None
    );
    let (wait, usage) = retry_after(usage).await;
    assert_eq!(wait, Some(17 * 60));
    assert_eq!(usage.unwrap().call_count_percent, 100);
}

#[tokio::test]
async fn a_version_that_is_not_the_one_we_asked_for_is_told() {
    let peer = Peer::answering(|nth| {
        let version = if nth == 1 { "v25.0" } else { "v26.0" };
        Some(http(
            "200 OK",
            &format!("facebook-api-version: {version}\r\n"),
            TAKEN,
        ))
    })
    .await;
    assert_eq!(post_to(&peer.endpoint()).await.other_version, None);
    assert_eq!(
        post_to(&peer.endpoint()).await.other_version.as_deref(),
        Some("v26.0")
    );
}

async fn serve(router: Router) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    endpoint(format!("http://{address}"))
}

#[tokio::test]
async fn messages_go_over_http2_from_several_clients() {
    let router = Router::new().route(
        "/v25.0/106/messages",
        post(|request: axum::extract::Request| async move {
            assert_eq!(request.version(), axum::http::Version::HTTP_2);
            TAKEN
        }),
    );
    let endpoint = Endpoint {
        http2_prior_knowledge: true,
        clients: 3,
        ..serve(router).await
    };
    let client = Client::new(&endpoint).unwrap();
    let sender = sender(&client);
    for _ in 0..7 {
        let answer = client
            .post(&sender, Bytes::from_static(BODY.as_bytes()), || true)
            .await
            .answer;
        assert!(is_taken(&answer), "{answer:?}");
    }
}

#[derive(serde::Deserialize)]
struct Page {
    fields: String,
    after: Option<String>,
}

fn refusal(code: i32) -> Response {
    (
        StatusCode::BAD_REQUEST,
        json!({"error": {"message": "no", "code": code}}).to_string(),
    )
        .into_response()
}

fn template(name: &str) -> Value {
    json!({"id": "1", "name": name, "language": "en_US", "status": "APPROVED", "category": "UTILITY",
           "quality_score": {"score": "GREEN"}, "components": [{"type": "BODY", "text": "Hi"}]})
}

fn page(data: &Value, next: Option<&str>) -> Response {
    let mut paging = json!({"cursors": {"before": "0", "after": next.unwrap_or("end")}});
    if next.is_some() {
        paging["next"] = json!("https://graph.facebook.com/next");
    }
    json!({"data": data, "paging": paging})
        .to_string()
        .into_response()
}

#[tokio::test]
async fn templates_are_read_through_all_pages() {
    let router = Router::new().route(
        "/v25.0/102/message_templates",
        get(|Query(query): Query<Page>| async move {
            match query.after.as_deref() {
                None => page(&json!([template("a"), template("b")]), Some("2")),
                Some("2") => page(&json!([template("c")]), None),
                Some(other) => panic!("cursor {other}"),
            }
        }),
    );
    let directory = Directory::new(&serve(router).await).unwrap();
    let templates = directory.templates("102", &token()).await.unwrap();
    assert_eq!(
        templates
            .iter()
            .map(|it| it.name.as_str())
            .collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
    assert_eq!(templates[0].quality.as_deref(), Some("GREEN"));
}

#[tokio::test]
async fn a_cursor_that_went_bad_starts_the_list_over() {
    let router = Router::new().route(
        "/v25.0/102/message_templates",
        get(
            |State(tries): State<Arc<AtomicUsize>>, Query(query): Query<Page>| async move {
                match query.after {
                    None => page(&json!([template("a")]), Some("2")),
                    Some(_) if tries.fetch_add(1, Ordering::Relaxed) == 0 => refusal(131_059),
                    Some(_) => page(&json!([template("b")]), None),
                }
            },
        ),
    );
    let endpoint = serve(router.with_state(Arc::new(AtomicUsize::new(0)))).await;
    let templates = Directory::new(&endpoint)
        .unwrap()
        .templates("102", &token())
        .await
        .unwrap();
    assert_eq!(templates.len(), 2);
}

#[tokio::test]
async fn a_cursor_that_is_always_bad_ends_in_an_error() {
    let router = Router::new().route(
        "/v25.0/102/message_templates",
        get(|| async { refusal(131_059) }),
    );
    let directory = Directory::new(&serve(router).await).unwrap();
    let error = directory.templates("102", &token()).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn one_odd_template_spoils_only_itself() {
    let router = Router::new().route(
        "/v25.0/102/message_templates",
        get(|| async { page(&json!([{"name": 7}, template("a"), null]), None) }),
    );
    let directory = Directory::new(&serve(router).await).unwrap();
    assert_eq!(directory.templates("102", &token()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn numbers_are_read_also_where_the_version_does_not_know_every_field() {
    for knows in [true, false] {
        let router = Router::new().route(
            "/v25.0/102/phone_numbers",
            get(move |Query(query): Query<Page>| async move {
                match query.fields.contains("is_on_biz_app") {
                    true if knows => page(&json!([{"id": "106", "is_on_biz_app": true}]), None),
                    true => refusal(100),
                    false => page(
                        &json!([{"id": "106", "status": "CONNECTED", "throughput": {"level": "HIGH"}}]),
                        None,
                    ),
                }
            }),
        );
        let directory = Directory::new(&serve(router).await).unwrap();
        let [number] = directory
            .numbers("102", &token())
            .await
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(number.status.as_deref(), Some("CONNECTED"));
        assert_eq!(number.throughput_level.as_deref(), Some("HIGH"));
        assert_eq!(number.is_on_biz_app, knows.then_some(true));
    }
}

#[tokio::test]
async fn the_messaging_limit_is_read_by_its_new_name_or_its_old() {
    for (known, tier) in [
        (
            "whatsapp_business_manager_messaging_limit",
            Some(Tier::Recipients(2_000)),
        ),
        ("messaging_limit_tier", Some(Tier::Recipients(2_000))),
        ("neither", None),
    ] {
        let router = Router::new().route(
            "/v25.0/106",
            get(move |Query(query): Query<Page>| async move {
                if query.fields == known {
                    json!({known: "TIER_2K"}).to_string().into_response()
                } else {
                    refusal(100)
                }
            }),
        );
        let directory = Directory::new(&serve(router).await).unwrap();
        let limit = directory.messaging_limit("106", &token()).await.unwrap();
        assert_eq!(limit.map(|it| it.tier), tier, "{known}");
    }
}

#[tokio::test]
async fn a_bad_token_is_told_apart_from_a_provider_that_is_away() {
    let router = Router::new().route(
        "/v25.0/102/message_templates",
        get(|| async { refusal(190) }),
    );
    let directory = Directory::new(&serve(router).await).unwrap();
    let refused = directory.templates("102", &token()).await.unwrap_err();
    assert!(
        refused.is_credentials() && !refused.is_transient(),
        "{refused:?}"
    );

    let away = Directory::new(&endpoint("http://127.0.0.1:1".to_owned())).unwrap();
    let away = away.templates("102", &token()).await.unwrap_err();
    assert!(away.is_transient() && !away.is_credentials(), "{away:?}");
}

#[tokio::test]
async fn the_directory_reads_all_of_the_stand_ins_lists() {
    let setup = Setup::quick().numbers(250, 80);
    let account = setup.accounts[0].clone();
    let templates = setup
        .templates
        .iter()
        .filter(|it| it.waba_id == account.waba_id)
        .count();
    let sandbox = Sandbox::start(setup).await.unwrap();
    let directory = Directory::new(&endpoint(sandbox.url())).unwrap();
    let token = SecretString::from(account.token);

    let numbers = directory.numbers(&account.waba_id, &token).await.unwrap();
    assert_eq!(numbers.len(), 250);
    assert_eq!(numbers[0].status.as_deref(), Some("CONNECTED"));
    assert_eq!(numbers[0].is_on_biz_app, Some(false));
    assert!(numbers[0].throughput_level.is_some());

    assert_eq!(
        directory
            .templates(&account.waba_id, &token)
            .await
            .unwrap()
            .len(),
        templates
    );
    let limit = directory
        .messaging_limit(&numbers[0].phone_number_id, &token)
        .await
        .unwrap();
    assert_eq!(limit.map(|it| it.tier), Some(Tier::Unlimited));

    let wrong = directory
        .numbers(&account.waba_id, &SecretString::from("wrong"))
        .await
        .unwrap_err();
    assert!(wrong.is_credentials(), "{wrong:?}");
    sandbox.stop().await;
}

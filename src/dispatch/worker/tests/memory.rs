//! How much memory a worker needs for many numbers and many recipients.

use super::*;
use crate::{
    dispatch::{ids::IdMap, limits::Limits, world::PoolFacts},
    rules::tier::{Ledger, Limit},
};

const LANES: i32 = 10_000;
const RECIPIENTS: i64 = 100_000;

/// Bytes of this process in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.expect("a number of KiB") * 1_024
}

fn took<T>(what: &str, each: usize, make: impl FnOnce() -> T) -> (T, usize) {
    let before = resident();
    let made = make();
    let per_one = resident().saturating_sub(before) / each;
    println!("{what}: {per_one} bytes each");
    (made, per_one)
}

/// As many numbers as the daemon would know, each with a request of its own to make.
fn numbers() -> IdMap<Lane, Arc<LaneFacts>> {
    let facts = lane_facts(10.0);
    let account: Arc<str> = "102290129340398".into();
    let endpoint = Endpoint {
        base_url: "https://graph.facebook.com".into(),
        api_version: "v25.0".into(),
        auth_header: "Authorization".into(),
        request_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        tcp_user_timeout: Duration::from_secs(10),
        http2_prior_knowledge: false,
        clients: 1,
    };
    let client = Client::new(&endpoint).expect("a client");
    let token = SecretString::from("EAAG".repeat(50));
    let credentials = client.credentials(&token).expect("credentials");
    let limit = Limit {
        recipients: Some(100_000),
        elsewhere: 0,
        headroom: 0.05,
        urgent_reserve: 0.1,
    };
    let portfolio: Arc<str> = "506914307656634".into();
    let number = |n| {
        let facts = LaneFacts {
            sender: Sender {
                phone_number_id: format!("1065403522{n:05}").into(),
                credentials: credentials.clone(),
            },
            account: Arc::clone(&account),
            pool: Some(PoolFacts {
                name: Arc::clone(&portfolio),
                limit,
            }),
            ..facts.clone()
        };
        (Lane(n), Arc::new(facts))
    };
    (1..=LANES).map(number).collect()
}

/// `cargo nextest run --lib --run-ignored only --no-capture memory`
#[test]
#[ignore = "measures the memory of its process, which nothing else may use meanwhile"]
fn a_number_needs_a_few_hundred_bytes_and_a_recipient_less_than_two_hundred() {
    let mut bench = Bench::new(10.0);
    let each = LANES as usize;
    let (lanes, of_facts) = took("what is known of numbers", each, numbers);
    let now = bench.now();
    let world = Arc::new(World {
        lanes,
        ..World::default()
    });
    let ((), of_idle) = took("numbers without jobs", each, || {
        bench.worker.note(Event::World(world), now, &mut Vec::new());
    });
    let ((), of_busy) = took("numbers with jobs, beside these", each, || {
        for lane in 1..=LANES {
            assert!(bench.worker.lane(Lane(lane), now).is_some());
        }
    });

    let limit = Limit {
        recipients: Some(100_000),
        elsewhere: 0,
        headroom: 0.0,
        urgent_reserve: 0.0,
    };
    let (ledger, of_recipients) = took("recipients of a pool", RECIPIENTS as usize, || {
        let mut ledger = Ledger::new(limit);
        for person in 0..RECIPIENTS {
            ledger.take(
                person.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed()),
                now.mono.into(),
            );
        }
        ledger
    });
    let (limits, of_pairs) = took("pairs", RECIPIENTS as usize, || {
        let mut limits = Limits::default();
        let posts = (0..RECIPIENTS).map(|person| ((LANE, person), 2)).collect();
        limits.pairs_counted(&Standing::new(), Some(posts), now);
        limits
    });
    drop((ledger, limits));
    assert!(of_facts + of_idle < 500, "{of_facts} and {of_idle}");
    assert!(of_busy < 1_024, "{of_busy}");
    assert!(of_recipients < 200, "{of_recipients}");
    assert!(of_pairs < 200, "{of_pairs}");
}

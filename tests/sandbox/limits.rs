//! Messages per second, per pair, and unique recipients per day.

use std::time::Duration;

use postrider::sandbox::{AtLimit, Setup};

use crate::desk::{
    Desk, NUMBER, OTHER_NUMBER, PORTFOLIO, hooked, order, order_to, person, statuses, words,
};

#[tokio::test]
async fn more_than_a_numbers_rate_and_slack_in_a_second_is_130429() {
    let desk = Desk::open(Setup {
        throughput_slack: 1,
        ..Setup::quick().numbers(2, 2)
    })
    .await;
    let [first, second] = ["200000000000001", "200000000000002"];
    // All at once: even if the machine stalls, thirty at three a second cannot all be let through in less than nine.
    let burst = (0..30).map(|n| {
        let desk = &desk;
        async move { desk.send_from(first, &order_to(&person(n))).await }
    });
    let answers = futures_util::future::join_all(burst).await;
    let throttled = answers
        .iter()
        .filter(|answer| answer.code() == 130_429)
        .count();
    let accepted = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(throttled + accepted, 30);
    assert!(
        accepted >= 3 && throttled > 0,
        "{accepted} accepted, {throttled} throttled"
    );
    assert_eq!(
        desk.send_from(second, &order()).await.status,
        200,
        "another number has its own rate"
    );

    let ledger = desk.sandbox.ledger();
    let times: Vec<_> = ledger
        .entries()
        .into_iter()
        .filter(|e| e.number == first && e.accepted)
        .map(|e| e.at())
        .collect();
    assert!(
        times
            .windows(4)
            .all(|four| four[3] - four[0] >= Duration::from_secs(1))
    );
    assert!(
        ledger.max_in_any_second(first) > 3,
        "the ledger counts refused requests too"
    );
}

#[tokio::test]
async fn the_forty_sixth_message_of_a_burst_to_one_person_is_131056() {
    let desk = Desk::quick().await;
    for n in 0..45 {
        assert_eq!(desk.send(&order()).await.status, 200, "{n}");
    }
    let answer = desk.send(&order()).await;
    // One comes back every six seconds; a machine too slow for 45 requests in that time proves nothing.
    let entries = desk.sandbox.ledger().entries();
    if entries[45].at() - entries[0].at() < Duration::from_secs(6) {
        assert_eq!((answer.status, answer.code()), (400, 131_056));
    }
    assert_eq!(
        desk.send(&order_to(&person(1))).await.status,
        200,
        "another person"
    );
    assert_eq!(
        desk.send_from(OTHER_NUMBER, &order()).await.status,
        200,
        "another number"
    );
}

#[tokio::test]
async fn a_portfolio_reaches_so_many_people_a_day_outside_windows() {
    let (desk, mut callback) = hooked(|setup| setup.portfolios[0].messaging_limit = Some(2)).await;
    for recipient in [person(1), person(2), person(1)] {
        desk.send(&order_to(&recipient)).await;
    }
    assert!(!words(&callback.all(&desk.sandbox).await).contains(&"failed".to_owned()));

    desk.send_from(OTHER_NUMBER, &order_to(&person(3))).await;
    let failed = statuses(&callback.next().await).remove(0);
    assert_eq!(
        failed["errors"][0]["code"], 131_048,
        "the numbers of a portfolio share its limit"
    );
    desk.sandbox
        .control()
        .inbound_text(&person(4), NUMBER, "Hi")
        .unwrap();
    desk.sandbox.control().quiet().await;
    callback.next().await;
    desk.send(&order_to(&person(4))).await;
    let open = words(&callback.all(&desk.sandbox).await);
    assert!(
        open.contains(&"sent".to_owned()),
        "an open window does not count: {open:?}"
    );
    let numbers = [NUMBER, OTHER_NUMBER];
    assert_eq!(
        desk.sandbox
            .ledger()
            .max_people_in_any(Duration::from_secs(86_400), &numbers),
        4
    );

    desk.sandbox.control().set_messaging_limit(PORTFOLIO, None);
    desk.send(&order_to(&person(5))).await;
    assert!(!words(&callback.all(&desk.sandbox).await).contains(&"failed".to_owned()));
}

#[tokio::test]
async fn the_messaging_limit_can_refuse_at_once_and_forgets_after_a_day() {
    let mut setup = Setup {
        at_messaging_limit: AtLimit::Refuse(131_048),
        ..Setup::quick()
    };
    setup.portfolios[0].messaging_limit = Some(1);
    let desk = Desk::open(setup.clone()).await;
    assert_eq!(desk.send(&order_to(&person(1))).await.status, 200);
    assert_eq!(desk.send(&order_to(&person(2))).await.code(), 131_048);
    let compressed = Desk::open(Setup {
        time_compression: 86_400e9,
        ..setup
    })
    .await;
    assert_eq!(compressed.send(&order_to(&person(1))).await.status, 200);
    assert_eq!(
        compressed.send(&order_to(&person(2))).await.status,
        200,
        "a day lasts a nanosecond there"
    );
}

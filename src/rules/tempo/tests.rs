use proptest::prelude::*;

use super::*;

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn per_second(rate: f64) -> Rate {
    Rate::new(rate).expect("a rate")
}

/// One message a second from `from` on, all taken and none held; returns the time of the last.
fn quiet(tempo: &mut Tempo, from: f64, seconds: u32) -> f64 {
    for second in 0..seconds {
        let now = secs(from + f64::from(second));
        tempo.accepted(now, false, now);
    }
    from + f64::from(seconds)
}

#[test]
fn a_throttle_halves_the_rate() {
    let mut tempo = Tempo::new(per_second(80.0));
    assert_eq!(tempo.rate(), per_second(80.0));
    assert!(tempo.throttled(secs(9.9), secs(10.0)).is_some());
    assert_eq!(tempo.rate(), per_second(40.0));
}

#[test]
fn requests_that_were_on_the_wire_together_are_throttled_once() {
    let mut tempo = Tempo::new(per_second(80.0));
    tempo.throttled(secs(9.9), secs(10.0));
    for late in 0..50 {
        let now = secs(10.0 + f64::from(late));
        assert_eq!(tempo.throttled(secs(9.95), now), None);
    }
    assert_eq!(tempo.rate(), per_second(40.0));
    assert!(
        tempo.throttled(secs(11.1), secs(11.2)).is_some(),
        "written after the decrease"
    );
    assert_eq!(tempo.rate(), per_second(20.0));
}

#[test]
fn throttles_hold_the_number_for_twice_as_long_each_until_a_message_is_taken() {
    let mut tempo = Tempo::new(per_second(80.0));
    let mut now = 10.0;
    let mut throttle = |tempo: &mut Tempo| {
        now += 100.0;
        tempo
            .throttled(secs(now), secs(now))
            .expect("news")
            .as_secs()
    };
    let holds: Vec<_> = (0..8).map(|_| throttle(&mut tempo)).collect();
    assert_eq!(holds, [1, 2, 4, 8, 16, 32, 60, 60]);
    tempo.accepted(secs(810.1), false, secs(810.2));
    assert_eq!(throttle(&mut tempo), 1);
}

#[test]
fn a_message_that_was_written_before_the_throttle_does_not_end_it() {
    let mut tempo = Tempo::new(per_second(80.0));
    tempo.throttled(secs(10.0), secs(10.0));
    tempo.accepted(secs(9.9), false, secs(30.0));
    assert_eq!(tempo.rate(), per_second(40.0));
    let hold = tempo.throttled(secs(31.0), secs(31.0));
    assert_eq!(hold, Some(secs(2.0)), "the second in a row");
}

#[test]
fn a_second_without_a_throttle_gives_a_twentieth_back() {
    let mut tempo = Tempo::new(per_second(80.0));
    let hold = tempo.throttled(secs(10.0), secs(10.0)).expect("news");
    let resumes = 10.0 + hold.as_secs_f64();
    let rates: Vec<_> = (0..=12)
        .map(|second| {
            let now = secs(resumes + f64::from(second) + 0.001);
            tempo.accepted(now, false, now);
            tempo.rate().per_second()
        })
        .collect();
    let expected = [
        40.0, 44.0, 48.0, 52.0, 56.0, 60.0, 64.0, 68.0, 72.0, 76.0, 80.0, 80.0, 80.0,
    ];
    assert_eq!(rates, expected);
}

#[test]
fn the_rate_changes_once_a_second_at_most_while_it_recovers() {
    let mut tempo = Tempo::new(per_second(1_000.0));
    tempo.throttled(secs(10.0), secs(10.0));
    let (mut before, mut changes) = (tempo.rate(), 0);
    for answer in 0..20_000 {
        let now = secs(11.0 + f64::from(answer) / 1_000.0);
        tempo.accepted(now, false, now);
        changes += u32::from(tempo.rate() != before);
        before = tempo.rate();
    }
    assert_eq!(changes, 10, "from a half to the whole in twentieths");
}

#[test]
fn whole_rates_stay_whole_on_the_way_back() {
    for configured in [20.0, 80.0, 100.0, 200.0, 1_000.0] {
        let mut tempo = Tempo::new(per_second(configured));
        tempo.throttled(secs(10.0), secs(10.0));
        for second in 0..10 {
            let now = secs(11.001 + f64::from(second));
            tempo.accepted(now, false, now);
            assert_eq!(tempo.rate().window(), secs(1.0), "{:?}", tempo.rate());
        }
    }
}

#[test]
fn a_changed_configuration_is_slowed_by_the_same_share() {
    let mut tempo = Tempo::new(per_second(80.0));
    tempo.throttled(secs(10.0), secs(10.0));
    tempo.set_configured(per_second(1_000.0));
    assert_eq!(tempo.rate(), per_second(500.0));
    tempo.set_configured(per_second(10.0));
    assert_eq!(tempo.rate(), per_second(5.0));
}

#[test]
fn more_than_twenty_held_of_the_last_hundred_slow_the_number_to_a_quarter() {
    let mut tempo = Tempo::new(per_second(80.0));
    let mut now = 0.0;
    let mut taken = |tempo: &mut Tempo, held: bool, times: u32| {
        for _ in 0..times {
            now += 0.01;
            tempo.accepted(secs(now), held, secs(now));
        }
    };
    taken(&mut tempo, true, 20);
    taken(&mut tempo, false, 80);
    assert_eq!(tempo.rate(), per_second(80.0), "20 of 100");
    taken(&mut tempo, false, 100);
    taken(&mut tempo, true, 20);
    assert!(!tempo.is_slowed_by_held());
    taken(&mut tempo, true, 1);
    assert!(tempo.is_slowed_by_held());
    assert_eq!(tempo.rate(), per_second(20.0), "21 of 100");
}

#[test]
fn as_messages_are_taken_unheld_the_number_recovers() {
    let mut tempo = Tempo::new(per_second(80.0));
    for _ in 0..30 {
        tempo.accepted(secs(1.0), true, secs(1.0));
    }
    // 30 held ones, of which 10 are left among the last 100 after 90.
    let now = quiet(&mut tempo, 2.0, 89);
    assert_eq!(tempo.rate(), per_second(20.0));
    assert!(tempo.is_slowed_by_held());
    let now = quiet(&mut tempo, now, 2);
    assert!(!tempo.is_slowed_by_held());
    assert!(
        tempo.rate().per_second() < 30.0,
        "no leap: {:?}",
        tempo.rate()
    );
    quiet(&mut tempo, now, 16);
    assert_eq!(tempo.rate(), per_second(80.0));
}

#[test]
fn a_share_of_held_ones_between_the_marks_does_not_make_the_rate_flutter() {
    let mut tempo = Tempo::new(per_second(80.0));
    for _ in 0..21 {
        tempo.accepted(secs(1.0), true, secs(1.0));
    }
    // Every sixth: about 17 of 100, below the mark that slows and above the one that ends it.
    for message in 0..1_000_u32 {
        let now = secs(2.0 + f64::from(message));
        tempo.accepted(now, message.is_multiple_of(6), now);
        assert_eq!(tempo.rate(), per_second(20.0));
    }
}

/// x × 10 / 20 may be a hair more than x × 20 / 20 / 2.
const ROUNDING: f64 = 1.0 + 1e-12;

#[derive(Debug, Clone)]
enum Told {
    Throttled,
    Taken { held: bool },
    Configured(f64),
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        2 => Just(Told::Throttled),
        6 => prop::bool::weighted(0.2).prop_map(|held| Told::Taken { held }),
        1 => rate().prop_map(Told::Configured),
    ]
}

fn rate() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::sample::select(vec![0.001, 0.5, 2.5, 10.0, 80.0, 1_000.0]),
        0.001..1_000.0
    ]
}

proptest! {
    #[test]
    fn the_rate_is_never_above_the_configured_one_nor_below_the_floor_and_a_throttle_never_raises_it(
        configured in rate(),
        history in prop::collection::vec((told(), 0u64..20_000, 0u64..3_000), 1..200),
    ) {
        let (mut configured, mut now) = (configured, Duration::ZERO);
        let mut tempo = Tempo::new(per_second(configured));
        for (told, after, took) in history {
            now += Duration::from_millis(after);
            let sent = now.saturating_sub(Duration::from_millis(took));
            let before = tempo.rate().per_second();
            match told {
                Told::Throttled => {
                    let is_news = tempo.throttled(sent, now).is_some();
                    let after = tempo.rate().per_second();
                    prop_assert!(after <= before);
                    let floor = (configured / 16.0).max(1.0 / 60.0).min(configured);
                    prop_assert!(
                        !is_news || after <= (before / 2.0).max(floor) * ROUNDING,
                        "halved: {before} to {after}"
                    );
                }
                Told::Taken { held } => tempo.accepted(sent, held, now),
                Told::Configured(rate) => {
                    configured = rate;
                    tempo.set_configured(per_second(rate));
                }
            }
            let rate = tempo.rate().per_second();
            prop_assert!(rate <= configured);
            prop_assert!(rate >= (configured / 16.0).max(1.0 / 60.0).min(configured));
        }
    }

    #[test]
    fn after_any_history_a_number_recovers_fully_within_two_minutes_of_messages_taken(
        configured in rate(),
        history in prop::collection::vec((any::<bool>(), any::<bool>(), 0u64..20_000), 1..200),
    ) {
        let mut tempo = Tempo::new(per_second(configured));
        let mut now = Duration::ZERO;
        for (throttled, held, after) in history {
            now += Duration::from_millis(after);
            if throttled {
                tempo.throttled(now, now);
            } else {
                tempo.accepted(now, held, now);
            }
        }
        // A minute of hold, 91 messages until few are held, 19 seconds of twentieths.
        let from = now.as_secs_f64() + 60.5;
        quiet(&mut tempo, from, 91 + 19);
        prop_assert_eq!(tempo.rate(), per_second(configured));
        prop_assert!(!tempo.is_slowed_by_held());
    }
}

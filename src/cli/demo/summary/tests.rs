use super::*;

fn summary(off: usize) -> Summary {
    let off = (1..=off).map(|n| Off {
        job: format!("job {n}"),
        what: "the provider accepted it 2 times".to_owned(),
    });
    Summary {
        jobs: 3_200,
        kinds: vec![KindRow {
            kind: "order".to_owned(),
            jobs: 3_200,
            states: BTreeMap::from([("read", 3_200)]),
        }],
        refusals: vec![],
        mishaps: vec![],
        speeds: vec![Speed {
            priority: "urgent".to_owned(),
            messages: 3_200,
            p50_ms: 90,
            p99_ms: 1_500,
        }],
        messages_per_second: 319.6,
        most_messages_per_second: 320,
        fullest_second_of_a_number: 80,
        took_ms: 10_000,
        off: off.collect(),
    }
}

#[test]
fn the_first_twenty_jobs_that_are_off_are_named() {
    let text = summary(23).text(Style::default());
    assert!(
        text.contains("✗ 23 jobs are not as they should be:"),
        "{text}"
    );
    assert_eq!(text.matches("the provider accepted it 2 times").count(), 20);
    assert!(text.ends_with("… and 3 more"), "{text}");
    assert!(
        summary(1)
            .text(Style::default())
            .contains("✗ 1 job is not as it should be:")
    );
}

#[test]
fn only_states_that_occurred_have_a_column_and_numbers_are_grouped() {
    let text = summary(0).text(Style::default());
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for line in [
        "KIND    JOBS   READ",
        "order  3,200  3,200",
        "all    3,200  3,200",
    ] {
        assert!(lines.contains(&line), "{line} in\n{text}");
    }
    assert!(text.contains("✓ All 3,200 jobs are as"), "{text}");
}

#[test]
fn half_and_ninety_nine_of_a_hundred_are_told_by_quantiles() {
    let sorted: Vec<u64> = (0..200).collect();
    assert_eq!(
        (quantile(&sorted, 0.5), quantile(&sorted, 0.99)),
        (100, 198)
    );
    assert_eq!((quantile(&[7], 0.99), quantile(&[], 0.5)), (7, 0));
}

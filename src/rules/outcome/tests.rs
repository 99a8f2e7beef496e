use super::*;
use crate::rules::job::FinalReason as Reason;

fn error(code: i32, http_status: u16) -> ProviderError {
    ProviderError {
        code,
        subcode: None,
        http_status,
        title: String::new(),
        detail: String::new(),
        is_transient: false,
        retry_after: None,
    }
}

fn verdict(code: i32) -> Consequence {
    judge(&Answer::Error(error(code, 400)))
}

fn free_retry(effect: Effect, wait: Option<Duration>) -> Consequence {
    Consequence {
        effect: Some(effect),
        wait_at_least: wait,
        ..retry(false)
    }
}

/// What is stopped holds the job; its own wait is no longer than this.
const HELD_WAIT: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The codes of one cell: "133005 / 133006", "2388039, 2388040", "200-299".
fn ranges(cell: &str) -> Vec<(i32, i32)> {
    cell.split(['/', ','])
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            (first.trim().parse().unwrap(), last.trim().parse().unwrap())
        })
        .collect()
}

#[test]
fn the_table_is_the_fact_sheets_row_by_row() {
    let sheet = include_str!("../../../tests/data/error_codes.tsv");
    let expected: Vec<_> = sheet
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| {
            let (codes, class) = line.split_once('\t').unwrap();
            let codes = ranges(codes);
            let classes: Vec<_> = class.split(" / ").collect();
            let each = codes.len() > 1 && classes.len() == codes.len();
            (0..codes.len())
                .map(move |i| (codes[i], if each { classes[i] } else { class }))
                .collect::<Vec<_>>()
        })
        .collect();
    let ours: Vec<_> = TABLE
        .iter()
        .map(|row| ((row.first, row.last), row.class))
        .collect();
    assert_eq!(ours, expected);
}

#[test]
fn no_code_stands_in_two_rows() {
    for (i, a) in TABLE.iter().enumerate() {
        assert!(
            TABLE[i + 1..]
                .iter()
                .all(|b| a.last < b.first || b.last < a.first),
            "{a:?}"
        );
    }
}

/// Whether the consequence is one that the class allows; the class is the law, the consequence is ours.
fn fits(class: &str, row: &Row) -> bool {
    let Some(it) = row.consequence() else {
        return [
            "n/a",
            "admin",
            "analytics",
            "log",
            "inbound only",
            "restart listing",
        ]
        .contains(&class);
    };
    let free = it.outcome == Outcome::Retry { spends: false };
    let spends = it.outcome == Outcome::Retry { spends: true };
    let refused = matches!(it.outcome, Outcome::Refused(_));
    match class.split([' ', ',', ';', ':']).next().unwrap() {
        "AU" | "PA" => {
            let paused = matches!(
                it.effect,
                Some(Effect::PauseAccount { .. } | Effect::PauseNumber { .. })
            );
            free && (paused || class.contains("category"))
        }
        "TA" => free && matches!(it.effect, Some(Effect::SlowAccount { .. })),
        "TP" => free && it.effect == Some(Effect::StopPair),
        "TN" => free && it.effect.is_some(),
        "PN" => free && matches!(it.effect, Some(Effect::PauseNumber { .. })),
        "PT" => matches!(
            it.effect,
            Some(Effect::PauseTemplate { .. } | Effect::StopTemplate)
        ),
        "R" if class.contains("long") || class.contains('~') => free && it.wait_at_least.is_some(),
        "R" if class.contains("few") => spends && it.few.is_some(),
        "R" => spends && it.few.is_none() && it.effect.is_none(),
        "XQ" | "XR" | "XM" => refused,
        "treat" => it.outcome == Outcome::Unknown,
        other => panic!("class {other}"),
    }
}

#[test]
fn every_row_does_what_its_class_says() {
    for row in TABLE {
        assert!(fits(row.class, row), "{row:?}");
    }
}

#[test]
fn a_refused_job_ends_with_the_reason_of_its_row() {
    for row in TABLE {
        if let Some(Consequence {
            outcome: Outcome::Refused(reason),
            ..
        }) = row.consequence()
        {
            assert_eq!(reason, row.reason, "{row:?}");
        }
    }
}

#[test]
fn an_accepted_message_is_accepted_and_a_held_one_held() {
    let accepted = |held| Answer::Accepted {
        provider_id: "wamid.x".into(),
        held,
        wa_id: None,
        user_id: None,
    };
    assert_eq!(judge(&accepted(false)), Consequence::of(Outcome::Accepted));
    assert_eq!(judge(&accepted(true)), Consequence::of(Outcome::Held));
}

#[test]
fn silence_resets_bare_5xx_and_answers_without_an_id_are_unknown() {
    for http_status in [
        None,
        Some(200),
        Some(204),
        Some(302),
        Some(408),
        Some(500),
        Some(502),
        Some(503),
    ] {
        let answer = Answer::NoAnswer {
            http_status,
            detail: String::new(),
        };
        assert_eq!(
            judge(&answer),
            Consequence::of(Outcome::Unknown),
            "{http_status:?}"
        );
    }
}

#[test]
fn a_duplicate_request_is_unknown() {
    assert_eq!(verdict(1_752_041), Consequence::of(Outcome::Unknown));
}

#[test]
fn what_never_left_is_not_sent() {
    assert_eq!(
        judge(&Answer::NotSent {
            detail: "refused".into()
        }),
        Consequence::of(Outcome::NotSent)
    );
}

#[test]
fn a_coded_error_is_the_providers_word_also_with_a_5xx() {
    let answer = judge(&Answer::Error(error(131_026, 500)));
    assert_eq!(
        answer.outcome,
        Outcome::Refused(Reason::NotReachableOnWhatsapp)
    );
}

#[test]
fn throttles_never_spend_an_attempt() {
    for code in [
        4, 80_007, 613, 130_429, 131_048, 131_056, 131_057, 131_064, 132_069, 133_015, 133_016,
    ] {
        for status in [400, 403, 429, 500] {
            let outcome = judge(&Answer::Error(error(code, status))).outcome;
            assert_eq!(
                outcome,
                Outcome::Retry { spends: false },
                "{code} with {status}"
            );
        }
    }
}

#[test]
fn bad_credentials_pause_the_account_and_cost_the_job_nothing() {
    for code in [0, 3, 10, 190, 200, 250, 299] {
        assert_eq!(
            verdict(code),
            free_retry(Effect::PauseAccount { for_: None }, None),
            "{code}"
        );
    }
}

#[test]
fn a_locked_blocked_or_unpaid_account_is_paused_until_someone_resumes_it() {
    for code in [368, 131_031, 131_042, 131_044] {
        assert_eq!(
            verdict(code),
            free_retry(Effect::PauseAccount { for_: None }, None),
            "{code}"
        );
    }
    assert_eq!(failure_reason(131_042), Reason::PaymentProblem);
}

#[test]
fn a_throttled_account_waits_as_long_as_the_usage_header_says() {
    assert_eq!(
        verdict(80_007),
        free_retry(Effect::SlowAccount { for_: MINUTE }, Some(MINUTE))
    );
    for told in [Duration::from_secs(2), 17 * MINUTE] {
        let answer = Answer::Error(ProviderError {
            retry_after: Some(told),
            ..error(4, 400)
        });
        assert_eq!(
            judge(&answer),
            free_retry(Effect::SlowAccount { for_: told }, Some(told))
        );
    }
}

#[test]
fn an_absurd_retry_after_is_cut_to_a_day() {
    let answer = Answer::Error(ProviderError {
        retry_after: Some(Duration::MAX),
        ..error(131_000, 500)
    });
    assert_eq!(judge(&answer).wait_at_least, Some(LONGEST_WAIT));
}

#[test]
fn a_throttled_number_is_slowed() {
    assert_eq!(verdict(130_429), free_retry(Effect::SlowNumber, None));
}

#[test]
fn a_number_flagged_as_spam_is_stopped() {
    assert_eq!(
        verdict(131_048),
        free_retry(Effect::PauseNumber { for_: None }, None)
    );
}

#[test]
fn a_throttled_pair_is_stopped() {
    assert_eq!(verdict(131_056), free_retry(Effect::StopPair, None));
}

#[test]
fn a_number_that_cannot_send_is_paused_for_as_long_as_is_known() {
    for code in [33, 131_005, 131_037, 131_045, 133_000, 133_010, 141_000] {
        assert_eq!(
            verdict(code),
            free_retry(Effect::PauseNumber { for_: None }, None),
            "{code}"
        );
    }
    for (code, minutes) in [(131_057, 1), (133_015, 5), (133_016, 60)] {
        let wait = minutes * MINUTE;
        assert_eq!(
            verdict(code),
            free_retry(Effect::PauseNumber { for_: Some(wait) }, Some(HELD_WAIT)),
            "{code}"
        );
    }
}

#[test]
fn a_missing_object_pauses_the_number_and_any_other_invalid_parameter_refuses_the_job() {
    let missing = ProviderError {
        subcode: Some(33),
        ..error(100, 400)
    };
    assert_eq!(
        judge(&Answer::Error(missing)),
        free_retry(Effect::PauseNumber { for_: None }, None)
    );
    assert_eq!(
        verdict(100),
        Consequence::of(Outcome::Refused(Reason::ProviderRefused))
    );
}

#[test]
fn an_invalid_value_is_about_the_recipient_when_its_details_name_a_phone() {
    let about = |detail: &str| {
        judge(&Answer::Error(ProviderError {
            detail: detail.into(),
            ..error(131_009, 400)
        }))
        .outcome
    };
    assert_eq!(
        about("Invalid phone number format"),
        Outcome::Refused(Reason::RecipientInvalid)
    );
    assert_eq!(
        about("Button index is not valid"),
        Outcome::Refused(Reason::ParameterMismatch)
    );
}

#[test]
fn a_passing_failure_spends_an_attempt_and_touches_nothing_else() {
    for code in [2, 131_000, 131_016, 133_004] {
        assert_eq!(verdict(code), retry(true), "{code}");
    }
    assert_eq!(
        verdict(134_101),
        Consequence {
            wait_at_least: Some(10 * MINUTE),
            ..retry(true)
        }
    );
}

#[test]
fn what_seldom_passes_is_retried_a_few_times() {
    let few = |then| Consequence {
        few: Some(Few { attempts: 3, then }),
        ..retry(true)
    };
    assert_eq!(verdict(1), few(Reason::ProviderRefused));
    assert_eq!(verdict(131_053), few(Reason::MediaFailed));
}

#[test]
fn a_bad_recipient_refuses_the_job_alone() {
    for (code, reason) in [
        (130_497, Reason::CountryBlocked),
        (130_403, Reason::ProviderRefused),
        (131_021, Reason::RecipientInvalid),
        (131_062, Reason::RecipientInvalid),
        (137_000, Reason::IdentityChanged),
    ] {
        assert_eq!(
            verdict(code),
            Consequence::of(Outcome::Refused(reason)),
            "{code}"
        );
    }
    let unreachable = verdict(131_026);
    assert_eq!(
        unreachable.outcome,
        Outcome::Refused(Reason::NotReachableOnWhatsapp)
    );
    assert_eq!(unreachable.effect, Some(Effect::SuppressRecipient));
}

#[test]
fn an_opt_out_from_marketing_is_recorded() {
    let it = verdict(131_050);
    assert_eq!(
        (it.outcome, it.effect),
        (
            Outcome::Refused(Reason::OptedOut),
            Some(Effect::OptOutMarketing)
        )
    );
}

#[test]
fn a_closed_window_closes_ours() {
    let it = verdict(131_047);
    assert_eq!(
        (it.outcome, it.effect),
        (
            Outcome::Refused(Reason::ServiceWindowClosed),
            Some(Effect::CloseWindow)
        )
    );
}

#[test]
fn a_message_withheld_by_the_provider_is_final() {
    for code in [130_472, 131_049] {
        assert_eq!(
            verdict(code),
            Consequence::of(Outcome::Refused(Reason::WithheldByProvider)),
            "{code}"
        );
    }
    assert_eq!(
        verdict(131_014),
        Consequence::of(Outcome::Refused(Reason::MediaFailed))
    );
}

#[test]
fn wrong_parameters_refuse_the_job_and_cast_doubt_on_the_template() {
    for code in [132_000, 132_012, 132_018] {
        let it = verdict(code);
        assert_eq!(
            it.outcome,
            Outcome::Refused(Reason::ParameterMismatch),
            "{code}"
        );
        assert_eq!(it.effect, Some(Effect::SuspectTemplate), "{code}");
    }
}

#[test]
fn a_paused_template_waits_and_a_stopped_one_does_not() {
    let three_hours = 180 * MINUTE;
    let paused = Effect::PauseTemplate {
        for_: Some(three_hours),
    };
    assert_eq!(verdict(132_015), free_retry(paused, Some(HELD_WAIT)));
    for (code, reason) in [
        (132_016, Reason::TemplateDisabled),
        (132_001, Reason::TemplateUnknown),
    ] {
        let it = verdict(code);
        assert_eq!(
            (it.outcome, it.effect),
            (Outcome::Refused(reason), Some(Effect::StopTemplate)),
            "{code}"
        );
    }
    assert_eq!(
        verdict(132_007).effect,
        Some(Effect::PauseTemplate { for_: None })
    );
}

#[test]
fn an_unlisted_code_is_judged_by_its_status() {
    // 424242 nobody has heard of; 131041 and 133005 we know, but not as answers to a send.
    for code in [424_242, 131_041, 133_005] {
        let by = |status| judge(&Answer::Error(error(code, status)));
        assert_eq!(by(500), retry(true));
        assert_eq!(by(429), free_retry(Effect::SlowNumber, None));
        let probe = Effect::PauseAccount {
            for_: Some(CREDENTIALS_PROBE),
        };
        assert_eq!(by(401), free_retry(probe, Some(CREDENTIALS_PROBE)));
        assert_eq!(by(403), by(401));
        let once = Some(Few {
            attempts: 2,
            then: Reason::ProviderRefused,
        });
        assert_eq!(
            by(400),
            Consequence {
                few: once,
                ..retry(true)
            }
        );
        let transient = ProviderError {
            is_transient: true,
            ..error(code, 400)
        };
        assert_eq!(judge(&Answer::Error(transient)), retry(true));
    }
}

#[test]
fn a_bare_429_from_the_edge_is_a_throttle_and_not_an_unknown() {
    let bare = |status| {
        judge(&Answer::NoAnswer {
            http_status: Some(status),
            detail: String::new(),
        })
    };
    assert_eq!(bare(429), free_retry(Effect::SlowNumber, None));
    assert_eq!(bare(413), judge(&Answer::Error(error(424_242, 413))));
}

#[test]
fn failures_by_webhook_end_as_the_same_codes_do() {
    for (code, reason) in [
        (131_026, Reason::NotReachableOnWhatsapp),
        (131_049, Reason::WithheldByProvider),
        (131_053, Reason::MediaFailed),
        (132_015, Reason::TemplateNotApproved),
        (131_047, Reason::ServiceWindowClosed),
        (424_242, Reason::ProviderRefused),
    ] {
        assert_eq!(failure_reason(code), reason, "{code}");
    }
}

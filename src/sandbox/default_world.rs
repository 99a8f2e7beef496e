//! A world for newcomers: one app, one portfolio, one account, four numbers, and templates of every form in several
//! languages.

use serde_json::{Value, json};

use super::{
    Delay,
    setup::{
        Account, App, AtLimit, Number, PairLimit, Portfolio, Setup, Template, Webhooks, free_port,
    },
};

const WABA_ID: &str = "102290129340398";

/// One app (`sandbox`, secret `sandbox-secret`), one unlimited portfolio, one account (token `sandbox-token`), four
/// numbers of 80 messages a second, and about twenty templates.
#[must_use]
pub fn default_world() -> Setup {
    Setup {
        listen: free_port(),
        seed: 1,
        apps: vec![App {
            name: "sandbox".into(),
            secret: "sandbox-secret".into(),
            callback_url: None,
        }],
        portfolios: vec![Portfolio {
            id: "506914307656634".into(),
            messaging_limit: None,
        }],
        accounts: vec![Account {
            waba_id: WABA_ID.into(),
            name: "Postrider Sandbox".into(),
            app: "sandbox".into(),
            portfolio: "506914307656634".into(),
            token: "sandbox-token".into(),
        }],
        numbers: (1..=4).map(number).collect(),
        templates: templates(),
        people: Vec::new(),
        latency: Delay::around(80),
        throughput_slack: 1,
        pair: PairLimit::default(),
        at_messaging_limit: AtLimit::Fail(131_048),
        time_compression: 1.0,
        webhooks: Webhooks::default(),
        faults: Vec::new(),
        ledger_max: 4_000_000,
    }
}

fn number(n: u32) -> Number {
    Number {
        id: format!("10654035224292{n}"),
        waba_id: WABA_ID.into(),
        display_phone_number: format!("+1 555 078 388{n}"),
        ..Number::default()
    }
}

/// A template of the default account.
struct Draft(Template);

fn draft(category: &str, name: &str, language: &str, body: &str) -> Draft {
    Draft(Template {
        waba_id: WABA_ID.into(),
        name: name.into(),
        language: language.into(),
        status: "APPROVED".into(),
        category: category.into(),
        parameter_format: "POSITIONAL".into(),
        components: json!([{"type": "BODY", "text": body}]),
    })
}

fn utility(name: &str, language: &str, body: &str) -> Draft {
    draft("UTILITY", name, language, body)
}

/// An authentication template; its text is the provider's.
fn code(name: &str, language: &str, body: &str, button: &str) -> Draft {
    let mut draft = draft("AUTHENTICATION", name, language, body).buttons(&json!([
        {"type": "OTP", "otp_type": "COPY_CODE", "text": button}
    ]));
    draft.0.components[0]["add_security_recommendation"] = json!(true);
    draft
}

impl Draft {
    fn with(mut self, component: Value) -> Draft {
        if let Value::Array(components) = &mut self.0.components {
            components.push(component);
        }
        self
    }

    fn header(self, format: &str) -> Draft {
        self.with(json!({"type": "HEADER", "format": format}))
    }

    fn title(self, text: &str) -> Draft {
        self.with(json!({"type": "HEADER", "format": "TEXT", "text": text}))
    }

    fn footer(self, text: &str) -> Draft {
        self.with(json!({"type": "FOOTER", "text": text}))
    }

    fn buttons(self, buttons: &Value) -> Draft {
        self.with(json!({"type": "BUTTONS", "buttons": buttons}))
    }

    fn named(mut self) -> Draft {
        self.0.parameter_format = "NAMED".into();
        self
    }

    fn status(mut self, status: &str) -> Draft {
        self.0.status = status.into();
        self
    }
}

fn templates() -> Vec<Template> {
    let drafts = orders()
        .into_iter()
        .chain(deliveries())
        .chain(codes())
        .chain(travel())
        .chain(not_for_sending());
    drafts.map(|draft| draft.0).collect()
}

fn orders() -> Vec<Draft> {
    let link = |text: &str| {
        json!([{"type": "URL", "text": text, "url": "https://shop.example/orders/{{1}}",
            "example": ["https://shop.example/orders/1042"]}])
    };
    vec![
        utility(
            "order_confirmation",
            "en_US",
            "Hello {{1}}, we have your order {{2}}. It comes to {{3}}. Thank you!",
        )
        .footer("Reply STOP to get no more messages")
        .buttons(&link("Your order")),
        utility(
            "order_confirmation",
            "tr",
            "Merhaba {{1}}, {{2}} numaralı siparişinizi aldık. Tutar: {{3}}. Teşekkürler!",
        )
        .footer("Mesaj almamak için DUR yazın")
        .buttons(&link("Siparişiniz")),
        utility(
            "order_confirmation",
            "ru",
            "Здравствуйте, {{1}}! Ваш заказ {{2}} принят. Сумма: {{3}}. Спасибо!",
        )
        .footer("Ответьте СТОП, чтобы отписаться")
        .buttons(&link("Ваш заказ")),
        utility(
            "order_shipped",
            "en_US",
            "Hello {{name}}, order {{order}} left our warehouse with {{carrier}} today.",
        )
        .named(),
        utility(
            "order_shipped",
            "es",
            "Hola {{name}}, el pedido {{order}} salió hoy del almacén con {{carrier}}.",
        )
        .named(),
        utility(
            "order_refund",
            "en_US",
            "Hello {{1}}, we refunded {{2}}. Here is a voucher for next time.",
        )
        .buttons(&json!([{"type": "COPY_CODE", "example": ["SORRY10"]}])),
    ]
}

fn deliveries() -> Vec<Draft> {
    let replies = |home: &str, later: &str| json!([{"type": "QUICK_REPLY", "text": home}, {"type": "QUICK_REPLY", "text": later}]);
    vec![
        utility(
            "delivery_window",
            "en_US",
            "Hello {{1}}, we deliver on {{2}}. Will you be at home?",
        )
        .title("Parcel {{1}}")
        .buttons(&replies("I am at home", "Another day")),
        utility(
            "delivery_window",
            "de",
            "Hallo {{1}}, wir liefern am {{2}}. Sind Sie zu Hause?",
        )
        .title("Paket {{1}}")
        .buttons(&replies("Ich bin da", "Anderer Tag")),
        utility(
            "delivery_arriving",
            "hy",
            "Բարև {{1}}, առաքիչը ձեզ մոտ կլինի {{2}} րոպեից։ Խնդրում ենք սպասել։",
        )
        .header("LOCATION"),
        utility(
            "delivery_arriving",
            "en_US",
            "Hello {{1}}, the courier is with you in {{2}} minutes. Please be ready.",
        )
        .header("LOCATION"),
    ]
}

fn codes() -> Vec<Draft> {
    vec![
        code(
            "login_code",
            "en_US",
            "*{{1}}* is your verification code.",
            "Copy code",
        ),
        code(
            "login_code",
            "tr",
            "Doğrulama kodunuz: *{{1}}*.",
            "Kodu kopyala",
        ),
        code(
            "login_code",
            "pt_BR",
            "Seu código de verificação é *{{1}}*.",
            "Copiar código",
        ),
        code(
            "login_code",
            "ru",
            "Ваш код подтверждения: *{{1}}*.",
            "Скопировать код",
        ),
    ]
}

fn travel() -> Vec<Draft> {
    vec![
        utility("boarding_pass", "en_US", "Hello {{1}}, flight {{2}} boards at gate {{3}}. Your boarding pass is above.")
            .header("DOCUMENT"),
        utility("boarding_pass", "ar", "مرحبا {{1}}، تصعد الرحلة {{2}} من البوابة {{3}}. بطاقة صعودك في الأعلى.")
            .header("DOCUMENT"),
        utility("flight_delayed", "fr", "Bonjour {{1}}, le vol {{2}} partira à {{3}}. Merci de votre patience.")
            .header("IMAGE"),
        utility("travel_checkin", "en_US", "Hello {{1}}, check-in for {{2}} is open. It takes one minute.").buttons(&json!([
            {"type": "FLOW", "text": "Check in", "flow_id": "1", "flow_action": "navigate", "navigate_screen": "START"},
            {"type": "PHONE_NUMBER", "text": "Call us", "phone_number": "+15550783881"}
        ])),
    ]
}

/// Templates that a dispatcher must not send, or not for everything.
fn not_for_sending() -> Vec<Draft> {
    let offer = "Hello {{1}}, summer is here: everything is cheaper until Sunday.";
    vec![
        draft("MARKETING", "summer_sale", "en_US", offer).header("IMAGE"),
        utility(
            "order_review",
            "en_US",
            "Hello {{1}}, please tell us how you like order {{2}}.",
        )
        .status("PENDING"),
        utility(
            "delivery_survey",
            "en_US",
            "Hello {{1}}, how was delivery {{2}}? Please tell us.",
        )
        .status("PAUSED"),
        utility(
            "order_reminder",
            "en_US",
            "Hello {{1}}, order {{2}} waits for your payment.",
        )
        .status("DISABLED"),
        utility(
            "travel_insurance",
            "en_US",
            "Hello {{1}}, insure trip {{2}} before you go.",
        )
        .status("REJECTED"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_world_has_templates_in_several_languages_and_no_two_of_one_name() {
        let setup = default_world();
        let languages: std::collections::BTreeSet<_> =
            setup.templates.iter().map(|t| &t.language).collect();
        let names: std::collections::BTreeSet<_> = setup
            .templates
            .iter()
            .map(|t| (&t.name, &t.language))
            .collect();
        assert!(languages.len() >= 8);
        assert_eq!(names.len(), setup.templates.len());
        assert_eq!(setup.numbers.len(), 4);
    }

    #[test]
    fn a_setup_names_only_what_differs_from_the_default() {
        let setup: Setup =
            toml::from_str("seed = 9\n[latency]\nmedian_ms = 5\n[webhooks]\nread_share = 0.1")
                .unwrap();
        assert_eq!((setup.seed, setup.numbers.len()), (9, 4));
        assert_eq!(setup.webhooks.batch_max, Webhooks::default().batch_max);
        assert!(toml::from_str::<Setup>("sede = 9").is_err());
    }
}

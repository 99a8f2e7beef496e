//! Whether a request is one that the provider would take: everything that does not depend on who sent what before.

use serde_json::value::RawValue;

use super::{
    errors::ApiError,
    identity,
    request::{Body, Interactive, Location, Media, Request, Template},
    template::{coordinate, source},
    world::{Listed, Number, World},
};

/// The longest callback data.
const CALLBACK_MAX: usize = 512;
/// The longest text message.
const TEXT_MAX: usize = 4_096;

/// A request that may go.
pub(super) struct Checked {
    /// Digits, or the business-scoped id when nobody knows the phone behind it.
    pub(super) person: String,
    /// Whether it was addressed by business-scoped id.
    pub(super) by_user_id: bool,
    /// The template's category, or `service` for a free-form message.
    pub(super) category: &'static str,
    /// Whether it may only go in an open service window.
    pub(super) is_free_form: bool,
}

/// Holds a request against the world.
pub(super) fn check(
    world: &World,
    number: &Number,
    request: &Request<'_>,
    version: u32,
) -> Result<Checked, ApiError> {
    envelope(request)?;
    let (person, by_user_id) = recipient(number, request)?;
    let kind = request.kind.as_deref().unwrap_or("text");
    let (category, is_free_form) = if kind == "template" {
        let template = request
            .template
            .as_ref()
            .ok_or_else(|| required("template"))?;
        (fits(world, number, template, by_user_id, version)?, false)
    } else {
        free_form(request, kind)?;
        ("service", true)
    };
    Ok(Checked {
        person,
        by_user_id,
        category,
        is_free_form,
    })
}

/// Holds a read mark against the rules: `status` is `read`, and a message is named.
pub(super) fn check_read_mark(request: &Request<'_>) -> Result<(), ApiError> {
    envelope(request)?;
    if request.status.as_deref() != Some("read") {
        return Err(ApiError::parameter("Param status must be one of {READ}."));
    }
    request
        .message_id
        .as_ref()
        .map(|_| ())
        .ok_or_else(|| required("message_id"))
}

fn required(key: &str) -> ApiError {
    ApiError::new(131_008, format!("The parameter {key} is required."))
}

fn envelope(request: &Request<'_>) -> Result<(), ApiError> {
    match request.messaging_product.as_deref() {
        Some("whatsapp") => {}
        None => {
            return Err(ApiError::parameter(
                "The parameter messaging_product is required.",
            ));
        }
        Some(other) => {
            let details =
                format!("Param messaging_product must be one of {{WHATSAPP}} - got \"{other}\".");
            return Err(ApiError::parameter(details));
        }
    }
    if request
        .recipient_type
        .as_deref()
        .is_some_and(|kind| kind != "individual")
    {
        return Err(ApiError::parameter(
            "Param recipient_type must be one of {INDIVIDUAL}.",
        ));
    }
    let callback = request
        .biz_opaque_callback_data
        .as_deref()
        .unwrap_or_default();
    if callback.chars().count() > CALLBACK_MAX {
        let details = format!(
            "Param biz_opaque_callback_data must be at most {CALLBACK_MAX} characters long."
        );
        return Err(ApiError::parameter(details));
    }
    Ok(())
}

/// Who is meant, and whether by business-scoped id. `to` wins over `recipient`.
fn recipient(number: &Number, request: &Request<'_>) -> Result<(String, bool), ApiError> {
    if let Some(to) = request.to.as_deref() {
        let person = identity::wa_id(&phone(to)?);
        if person == number.digits {
            return Err(ApiError::new(131_021, "The recipient is the sender"));
        }
        return Ok((person, false));
    }
    let user = request.recipient.as_deref().ok_or_else(|| required("to"))?;
    if !is_user_id(user) {
        return Err(ApiError::new(
            131_009,
            "recipient is not a business-scoped user id",
        ));
    }
    Ok((
        identity::wa_id_of_user(user).unwrap_or_else(|| user.to_owned()),
        true,
    ))
}

/// The digits of a phone. Without `+` the provider would prepend the sender's country code and may reach a stranger;
/// here that is an error.
fn phone(to: &str) -> Result<String, ApiError> {
    let invalid = |why: &str| ApiError::new(131_009, format!("to: {why}"));
    let rest = to
        .strip_prefix('+')
        .ok_or_else(|| invalid("a phone number without + and country code may reach a stranger"))?;
    let digits: String = rest
        .chars()
        .filter(|char| !matches!(char, ' ' | '-' | '(' | ')'))
        .collect();
    if !digits.bytes().all(|byte| byte.is_ascii_digit())
        || !(8..=15).contains(&digits.len())
        || digits.starts_with('0')
    {
        return Err(invalid("not a phone number in E.164"));
    }
    Ok(digits)
}

/// `US.1349…` or, from a parent portfolio, `US.ENT.1349…`.
fn is_user_id(candidate: &str) -> bool {
    let Some((country, rest)) = candidate.split_once('.') else {
        return false;
    };
    let id = rest.strip_prefix("ENT.").unwrap_or(rest);
    country.len() == 2
        && country.bytes().all(|byte| byte.is_ascii_uppercase())
        && (1..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether the template is there, may be sent and is filled; its category as receipts spell it.
fn fits(
    world: &World,
    number: &Number,
    template: &Template<'_>,
    by_user_id: bool,
    version: u32,
) -> Result<&'static str, ApiError> {
    let (name, language) = (&*template.name, &*template.language.code);
    let unknown = || {
        ApiError::new(
            132_001,
            format!("template name ({name}) does not exist in {language}"),
        )
    };
    let listed: &Listed = world
        .template(&number.waba_id, name, language)
        .ok_or_else(unknown)?;
    match listed.status.as_str() {
        "APPROVED" => {}
        "PAUSED" => {
            return Err(ApiError::new(
                132_015,
                format!("template ({name}) is paused for its quality"),
            ));
        }
        "DISABLED" => {
            return Err(ApiError::new(
                132_016,
                format!("template ({name}) is disabled"),
            ));
        }
        _ => return Err(unknown()),
    }
    if by_user_id && listed.shape.is_authentication() {
        return Err(ApiError::new(
            131_062,
            "Authentication templates need a phone number",
        ));
    }
    listed.shape.check(&template.components, version)?;
    Ok(match listed.category.as_str() {
        "AUTHENTICATION" => "authentication",
        "MARKETING" => "marketing",
        _ => "utility",
    })
}

fn free_form(request: &Request<'_>, kind: &str) -> Result<(), ApiError> {
    let object = request.free_form(kind).ok_or_else(|| {
        ApiError::parameter(format!(
            "Param type must be one of {{AUDIO, CONTACTS, DOCUMENT, IMAGE, …}} - got \"{kind}\"."
        ))
    })?;
    let object = object.ok_or_else(|| required(kind))?;
    match kind {
        "text" => text(object),
        "image" | "video" | "audio" | "document" | "sticker" => media(object, kind),
        "location" => {
            let place: Location<'_> = read(object)?;
            coordinate(kind, place.latitude.get(), 90.0)?;
            coordinate(kind, place.longitude.get(), 180.0)
        }
        "interactive" => interactive(object),
        _ => Ok(()),
    }
}

fn read<'a, T: serde::Deserialize<'a>>(object: &'a RawValue) -> Result<T, ApiError> {
    serde_json::from_str(object.get()).map_err(|error| ApiError::new(100, error.to_string()))
}

fn text(object: &RawValue) -> Result<(), ApiError> {
    let text: Body<'_> = read(object)?;
    match text.body.chars().count() {
        0 => Err(required("text['body']")),
        1..=TEXT_MAX => Ok(()),
        _ => Err(ApiError::parameter(format!(
            "Param text['body'] must be at most {TEXT_MAX} characters long."
        ))),
    }
}

fn media(object: &RawValue, kind: &str) -> Result<(), ApiError> {
    let media: Media<'_> = read(object)?;
    source(kind, &media)?;
    if media.caption.is_some() && matches!(kind, "audio" | "sticker") {
        return Err(ApiError::new(100, format!("{kind} takes no caption")));
    }
    if media.filename.is_some() && kind != "document" {
        return Err(ApiError::new(100, format!("{kind} takes no filename")));
    }
    Ok(())
}

fn interactive(object: &RawValue) -> Result<(), ApiError> {
    const KINDS: [&str; 9] = [
        "button",
        "list",
        "cta_url",
        "flow",
        "location_request_message",
        "product",
        "product_list",
        "catalog_message",
        "request_contact_info",
    ];
    let object: Interactive<'_> = read(object)?;
    if !KINDS.contains(&&*object.kind) {
        return Err(ApiError::new(
            131_009,
            format!("interactive type \"{}\" is not known", &*object.kind),
        ));
    }
    if object.body.is_none() && &*object.kind != "product" {
        return Err(required("interactive['body']"));
    }
    let action = object
        .action
        .ok_or_else(|| required("interactive['action']"))?;
    let action: serde_json::Value = read(action)?;
    if &*object.kind == "button"
        && !(1..=3).contains(&action["buttons"].as_array().map_or(0, Vec::len))
    {
        return Err(ApiError::new(
            131_009,
            "Invalid buttons count. Min allowed buttons: 1, Max allowed buttons: 3",
        ));
    }
    Ok(())
}

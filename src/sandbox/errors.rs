//! The provider's errors: which code goes with which HTTP status and title, and the body that carries them.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// A refusal in the provider's own form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: i32,
    pub(super) status: u16,
    /// What exactly is wrong; goes to `error_data.details`.
    pub(super) details: String,
    form: Form,
}

/// Three shapes of body are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// With `error_data`, as WhatsApp's own errors.
    WhatsApp,
    /// The graph's own, about tokens and parameters: the details are the message.
    Graph,
    /// The graph's own, about an object that is missing: subcode 33.
    Missing,
}

impl ApiError {
    /// A code with the status that is usual for it.
    pub(super) fn new(code: i32, details: impl Into<String>) -> ApiError {
        ApiError {
            code,
            status: usual(code).0,
            details: details.into(),
            form: Form::WhatsApp,
        }
    }

    /// The token is missing, unknown or not valid here.
    pub(super) fn token() -> ApiError {
        let details = "Invalid OAuth access token - Cannot parse access token";
        ApiError {
            form: Form::Graph,
            ..ApiError::new(190, details)
        }
    }

    /// A parameter that the graph itself does not take.
    pub(super) fn parameter(details: impl Into<String>) -> ApiError {
        ApiError {
            form: Form::Graph,
            ..ApiError::new(100, details)
        }
    }

    /// The object does not exist, or the token may not see it.
    pub(super) fn missing(method: &str, id: &str) -> ApiError {
        let details = format!(
            "Unsupported {} request. Object with ID '{id}' does not exist, cannot be loaded due to missing permissions, \
             or does not support this operation",
            method.to_lowercase()
        );
        ApiError {
            form: Form::Missing,
            ..ApiError::new(100, details)
        }
    }

    /// The same with another HTTP status.
    pub(super) fn with_status(self, status: Option<u16>) -> ApiError {
        ApiError {
            status: status.unwrap_or(self.status),
            ..self
        }
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST)
    }

    /// The JSON body.
    pub(super) fn body(&self, trace_id: &str) -> Value {
        let (_, title) = usual(self.code);
        let message = match self.form {
            Form::WhatsApp => format!("(#{}) {title}", self.code),
            Form::Graph if self.code == 190 => self.details.clone(),
            Form::Graph => format!("(#{}) {}", self.code, self.details),
            Form::Missing => self.details.clone(),
        };
        let mut error = json!({"message": message, "type": "OAuthException", "code": self.code, "fbtrace_id": trace_id});
        match self.form {
            Form::WhatsApp => {
                error["error_data"] =
                    json!({"messaging_product": "whatsapp", "details": self.details});
                error["is_transient"] = json!(is_transient(self.code));
            }
            Form::Graph => {}
            Form::Missing => {
                error["type"] = json!("GraphMethodException");
                error["error_subcode"] = json!(33);
            }
        }
        json!({ "error": error })
    }
}

/// One element of a webhook's `errors` array.
pub(super) fn webhook_error(code: i32) -> Value {
    let (_, title) = usual(code);
    json!({
        "code": code, "title": title, "message": title, "error_data": {"details": title},
        "href": "/documentation/business-messaging/whatsapp/support/error-codes"
    })
}

fn is_transient(code: i32) -> bool {
    matches!(code, 1 | 2 | 131_000 | 131_016 | 131_057 | 133_004)
}

/// The HTTP status and title of a code.
fn usual(code: i32) -> (u16, &'static str) {
    match CODES.binary_search_by_key(&code, |row| row.0) {
        Ok(place) => (CODES[place].1, CODES[place].2),
        Err(_) => (400, "An error that this sandbox has no title for"),
    }
}

/// Code, HTTP status, title; sorted by code. Kept apart from `rules::outcome` on purpose: the sandbox is what that is
/// tested against.
const CODES: &[(i32, u16, &str)] = &[
    (0, 401, "AuthException"),
    (1, 400, "API Unknown"),
    (2, 503, "API Service"),
    (3, 500, "API Method"),
    (4, 400, "API Too Many Calls"),
    (10, 403, "API Permission Denied"),
    (33, 400, "Parameter value is not valid"),
    (100, 400, "Invalid parameter"),
    (190, 401, "Access token has expired"),
    (200, 403, "API Permission"),
    (368, 403, "Temporarily blocked for policies violations"),
    (613, 400, "Calls to this api have exceeded the rate limit"),
    (80_007, 400, "Rate limit issues"),
    (130_403, 403, "User is blocked by the business"),
    (130_429, 400, "Rate limit hit"),
    (130_472, 400, "User's number is part of an experiment"),
    (
        130_497,
        403,
        "Business account is restricted from messaging users in this country",
    ),
    (131_000, 500, "Something went wrong"),
    (131_005, 403, "Access denied"),
    (131_008, 400, "Required parameter is missing"),
    (131_009, 400, "Parameter value is not valid"),
    (131_016, 500, "Service unavailable"),
    (131_021, 400, "Recipient cannot be sender"),
    (131_026, 400, "Message undeliverable"),
    (131_030, 400, "Recipient phone number not in allowed list"),
    (131_031, 403, "Business Account locked"),
    (131_037, 400, "Display name approval required"),
    (131_042, 400, "Business eligibility payment issue"),
    (131_045, 500, "Incorrect certificate"),
    (131_047, 400, "Re-engagement message"),
    (131_048, 400, "Spam rate limit hit"),
    (131_049, 400, "Meta chose not to deliver"),
    (
        131_050,
        400,
        "User stopped marketing messages from this business",
    ),
    (131_051, 400, "Unsupported message type"),
    (131_053, 400, "Media upload error"),
    (
        131_056,
        400,
        "(Business Account, Consumer Account) pair rate limit hit",
    ),
    (131_057, 500, "Account in maintenance mode"),
    (131_059, 400, "Invalid paging cursor"),
    (
        131_062,
        400,
        "Business-scoped user id is not supported for this message",
    ),
    (
        131_063,
        400,
        "Marketing messages are disabled on Cloud API for this account",
    ),
    (
        131_064,
        400,
        "Messaging limited because of miscategorised templates",
    ),
    (
        132_000,
        400,
        "Number of parameters does not match the expected number of params",
    ),
    (
        132_001,
        404,
        "Template name does not exist in the translation",
    ),
    (132_005, 400, "Translated text too long"),
    (132_007, 400, "Template content policy violation"),
    (132_008, 400, "Parameter value is not valid"),
    (
        132_012,
        400,
        "Parameter format does not match format in the created template",
    ),
    (132_015, 400, "Template is paused"),
    (132_016, 400, "Template is disabled"),
    (132_018, 400, "Template parameter error"),
    (132_068, 400, "Flow is in blocked state"),
    (132_069, 400, "Flow is in throttled state"),
    (133_000, 500, "Incomplete deregistration"),
    (133_004, 503, "Server temporarily unavailable"),
    (133_010, 400, "Phone number not registered"),
    (
        133_015,
        400,
        "Please wait a few minutes before attempting to register this phone number",
    ),
    (135_000, 400, "Generic user error"),
    (137_000, 400, "Recipient identity key hash mismatch"),
    (1_752_041, 400, "Duplicate request"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_so_that_each_can_be_found() {
        assert!(CODES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn each_form_of_error_has_the_providers_body() {
        assert_eq!(
            ApiError::new(131_056, "slow down").body("T")["error"],
            json!({"message": "(#131056) (Business Account, Consumer Account) pair rate limit hit",
                "type": "OAuthException", "code": 131_056, "is_transient": false, "fbtrace_id": "T",
                "error_data": {"messaging_product": "whatsapp", "details": "slow down"}})
        );
        let missing = ApiError::missing("POST", "1").body("T");
        assert_eq!(missing["error"]["error_subcode"], 33);
        assert_eq!(missing["error"]["type"], "GraphMethodException");
        assert!(missing["error"].get("error_data").is_none());
        assert_eq!(ApiError::token().status, 401);
    }
}

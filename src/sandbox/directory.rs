//! What can be read of the graph: accounts, their numbers and templates, with fields, filters and cursors.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, Method, Response, StatusCode, Uri, header},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{
    errors::ApiError,
    identity,
    messages::{self, Version},
    traffic::Shared,
    world::{Account, Listed, Number, World},
};

/// Elements of a page, unless asked otherwise.
const PAGE: usize = 25;
/// More than this is not given at once.
const PAGE_MAX: usize = 1_000;

type Parameters = HashMap<String, String>;

/// Reads of nodes and edges, with a version in front.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/{version}/{id}", get(node))
        .route("/{version}/{id}/{edge}", get(edge).post(edge))
        .fallback(nothing)
        .with_state(shared)
}

/// One read, with what all of them need.
struct Read<'a> {
    world: &'a World,
    id: &'a str,
    query: &'a Parameters,
    authorization: &'a str,
    version: Version,
    method: &'a Method,
    /// The request's own URL up to the place in the list, for the `next` link of a page.
    here: String,
}

async fn node(
    State(shared): State<Arc<Shared>>,
    Path((version, id)): Path<(String, String)>,
    Query(query): Query<Parameters>,
    headers: HeaderMap,
) -> Response<Body> {
    let world = shared.world();
    respond(&shared, &version, |version| {
        let authorization = authorization(&headers);
        let method = &Method::GET;
        Read {
            world: &world,
            id: &id,
            query: &query,
            authorization,
            version,
            method,
            here: String::new(),
        }
        .node()
    })
}

async fn edge(
    State(shared): State<Arc<Shared>>,
    Path((version, id, edge)): Path<(String, String, String)>,
    Query(query): Query<Parameters>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let world = shared.world();
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or(uri.host())
        .unwrap_or("localhost");
    let kept = uri.query().unwrap_or_default().split('&');
    let kept: String = kept
        .filter(|pair| !pair.is_empty() && !is_place(pair))
        .map(|pair| format!("{pair}&"))
        .collect();
    let here = format!("http://{host}{}?{kept}", uri.path());
    respond(&shared, &version, |version| {
        let authorization = authorization(&headers);
        let read = Read {
            world: &world,
            id: &id,
            query: &query,
            authorization,
            version,
            method: &method,
            here,
        };
        read.edge(&edge)
    })
}

/// Whether a pair of the query says where in the list to be.
fn is_place(pair: &str) -> bool {
    pair.starts_with("limit=") || pair.starts_with("after=")
}

async fn nothing(State(shared): State<Arc<Shared>>, method: Method, uri: Uri) -> Response<Body> {
    respond(&shared, "v26.0", |_| {
        Err(ApiError::missing(
            method.as_str(),
            uri.path().trim_matches('/'),
        ))
    })
}

fn authorization(headers: &HeaderMap) -> &str {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn respond(
    shared: &Shared,
    version: &str,
    read: impl FnOnce(Version) -> Result<Value, ApiError>,
) -> Response<Body> {
    let version_or = Version::parse(version).ok_or_else(|| ApiError::missing("GET", version));
    let read = version_or.and_then(|version| read(version).map(|value| (version, value)));
    match read {
        Ok((version, value)) => {
            let mut response = messages::json(StatusCode::OK, value.to_string().into_bytes());
            version.tell(response.headers_mut());
            response
        }
        Err(error) => {
            let body = error.body(&identity::trace_id(shared.now()));
            messages::json(error.status(), body.to_string().into_bytes())
        }
    }
}

impl Read<'_> {
    fn node(&self) -> Result<Value, ApiError> {
        if let Some(number) = self.world.number(self.id) {
            self.may_see(&self.world.accounts[number.account])?;
            let default = [
                "id",
                "display_phone_number",
                "verified_name",
                "quality_rating",
            ];
            return self.select(
                &number_fields(self.world, number),
                &default,
                "WhatsAppBusinessPhoneNumber",
            );
        }
        if let Some(listed) = self
            .world
            .templates
            .iter()
            .find(|listed| listed.id.to_string() == self.id)
        {
            self.may_see(self.account_of(&listed.setup.waba_id)?)?;
            return self.select(
                &template_fields(listed),
                &TEMPLATE_DEFAULT,
                "WhatsAppMessageTemplate",
            );
        }
        let account = self.account_of(self.id)?;
        self.may_see(account)?;
        let default = ["id", "name", "timezone_id", "message_template_namespace"];
        self.select(
            &account_fields(account),
            &default,
            "WhatsAppBusinessAccount",
        )
    }

    fn edge(&self, edge: &str) -> Result<Value, ApiError> {
        let account = self.account_of(self.id)?;
        self.may_see(account)?;
        match (self.method, edge) {
            (&Method::GET, "phone_numbers") => {
                let default = [
                    "id",
                    "display_phone_number",
                    "verified_name",
                    "quality_rating",
                ];
                let numbers = self.world.numbers_of(self.id);
                self.page(&numbers, |number| {
                    self.select(
                        &number_fields(self.world, number),
                        &default,
                        "WhatsAppBusinessPhoneNumber",
                    )
                })
            }
            (&Method::GET, "message_templates") => {
                let templates: Vec<&Listed> = self
                    .world
                    .templates
                    .iter()
                    .filter(|listed| self.wants(listed))
                    .collect();
                self.page(&templates, |listed| {
                    self.select(
                        &template_fields(listed),
                        &TEMPLATE_DEFAULT,
                        "WhatsAppMessageTemplate",
                    )
                })
            }
            (&Method::GET, "subscribed_apps") => {
                let app = &self.world.apps[account.app].name;
                Ok(json!({"data": [{"whatsapp_business_api_data": {"name": app, "id": "1"}}]}))
            }
            (&Method::POST, "subscribed_apps") => Ok(json!({"success": true})),
            _ => Err(ApiError::missing(self.method.as_str(), self.id)),
        }
    }

    fn account_of(&self, waba_id: &str) -> Result<&Account, ApiError> {
        match self.world.account(waba_id) {
            Some(account) => Ok(account),
            None if self.world.knows(self.authorization) => {
                Err(ApiError::missing(self.method.as_str(), self.id))
            }
            None => Err(ApiError::token()),
        }
    }

    fn may_see(&self, account: &Account) -> Result<(), ApiError> {
        match () {
            () if account.authorization == self.authorization => Ok(()),
            () if self.world.knows(self.authorization) => {
                Err(ApiError::missing(self.method.as_str(), self.id))
            }
            () => Err(ApiError::token()),
        }
    }

    /// Whether a template is this account's and passes the filters.
    fn wants(&self, listed: &Listed) -> bool {
        let fits =
            |key: &str, value: &str| self.query.get(key).is_none_or(|wanted| wanted == value);
        listed.setup.waba_id == self.id
            && fits("name", &listed.setup.name)
            && fits("language", &listed.setup.language)
            && fits("status", &listed.status)
            && fits("category", &listed.category)
            && fits("quality_score", "GREEN")
    }

    /// The fields that were asked for; one that does not exist is an error.
    fn select(&self, all: &Value, default: &[&str], node: &str) -> Result<Value, ApiError> {
        let asked = self.query.get("fields").map(|fields| field_names(fields));
        let names =
            asked.unwrap_or_else(|| default.iter().map(|name| (*name).to_owned()).collect());
        // The id always comes along.
        let mut selected = Map::from_iter([("id".to_owned(), all["id"].clone())]);
        for name in names {
            let value = all.get(&name).ok_or_else(|| {
                ApiError::parameter(format!(
                    "Tried accessing nonexisting field ({name}) on node type ({node})"
                ))
            })?;
            selected.insert(name, value.clone());
        }
        Ok(Value::Object(selected))
    }

    /// One page of a list, with cursors.
    fn page<T>(
        &self,
        all: &[T],
        show: impl Fn(&T) -> Result<Value, ApiError>,
    ) -> Result<Value, ApiError> {
        let first = match self.query.get("after").filter(|cursor| !cursor.is_empty()) {
            None => 0,
            Some(cursor) => self.place(cursor, all.len())?,
        };
        let limit = self
            .query
            .get("limit")
            .and_then(|limit| limit.parse().ok())
            .unwrap_or(PAGE)
            .clamp(1, PAGE_MAX);
        let end = all.len().min(first + limit);
        let data = all[first..end]
            .iter()
            .map(show)
            .collect::<Result<Vec<_>, _>>()?;
        if data.is_empty() {
            return Ok(json!({"data": []}));
        }
        let mut page = json!({"data": data, "paging": {"cursors": {"before": cursor(first), "after": cursor(end)}}});
        if end < all.len() {
            page["paging"]["next"] =
                json!(format!("{}limit={limit}&after={}", self.here, cursor(end)));
        }
        Ok(page)
    }

    /// The place that a cursor stands for. A bad one has had its own code since v24.
    fn place(&self, cursor: &str, len: usize) -> Result<usize, ApiError> {
        let read = || {
            let text = String::from_utf8(STANDARD.decode(cursor).ok()?).ok()?;
            text.strip_prefix("at:")?
                .parse::<usize>()
                .ok()
                .filter(|place| *place <= len)
        };
        let code = if self.version.served >= 24 {
            131_059
        } else {
            100
        };
        read().ok_or_else(|| ApiError::new(code, "Invalid paging cursor"))
    }
}

fn cursor(place: usize) -> String {
    // Padded to a length whose base64 needs no percent-encoding in a URL.
    STANDARD.encode(format!("at:{place:09}"))
}

/// Splits `a,b{c,d},e` at the outer commas and drops what is in braces.
fn field_names(fields: &str) -> Vec<String> {
    let (mut names, mut depth) = (vec![String::new()], 0_i32);
    for char in fields.chars() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            _ if depth == 0 && !char.is_whitespace() => {
                names.last_mut().expect("there is always one").push(char);
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn number_fields(world: &World, number: &Number) -> Value {
    let setup = &number.setup;
    let tier = tier(world.portfolios[number.portfolio].messaging_limit);
    let can_send = if setup.status == "CONNECTED" {
        "AVAILABLE"
    } else {
        "BLOCKED"
    };
    json!({
        "id": setup.id,
        "display_phone_number": setup.display_phone_number,
        "verified_name": setup.verified_name,
        "quality_rating": setup.quality_rating,
        "quality_score": {"score": setup.quality_rating},
        "status": setup.status,
        "throughput": {"level": if setup.messages_per_second >= 1_000 { "HIGH" } else { "STANDARD" }},
        "whatsapp_business_manager_messaging_limit": tier,
        "messaging_limit_tier": tier,
        "code_verification_status": "VERIFIED",
        "name_status": "APPROVED",
        "new_name_status": "NONE",
        "platform_type": "CLOUD_API",
        "account_mode": "LIVE",
        "is_on_biz_app": setup.is_on_biz_app,
        "is_pin_enabled": true,
        "last_onboarded_time": "2026-01-05T09:00:00+0000",
        "health_status": {"can_send_message": can_send, "entities": [
            {"entity_type": "PHONE_NUMBER", "id": setup.id, "can_send_message": can_send}
        ]},
        "webhook_configuration": {"application": world.apps[number.app].callback_url},
    })
}

fn tier(limit: Option<u32>) -> String {
    match limit {
        None => "TIER_UNLIMITED".into(),
        Some(limit) if limit >= 1_000 && limit % 1_000 == 0 => format!("TIER_{}K", limit / 1_000),
        Some(limit) => format!("TIER_{limit}"),
    }
}

const TEMPLATE_DEFAULT: [&str; 7] = [
    "id",
    "name",
    "parameter_format",
    "components",
    "language",
    "status",
    "category",
];

fn template_fields(listed: &Listed) -> Value {
    let setup = &listed.setup;
    json!({
        "id": listed.id.to_string(),
        "name": setup.name,
        "status": listed.status,
        "category": listed.category,
        "correct_category": listed.category,
        "previous_category": null,
        "sub_category": null,
        "language": setup.language,
        "components": setup.components,
        "parameter_format": setup.parameter_format,
        "quality_score": {"score": "GREEN", "date": 1_767_600_000},
        "message_send_ttl_seconds": if listed.category == "AUTHENTICATION" { json!(600) } else { Value::Null },
        "rejected_reason": if listed.status == "REJECTED" { "INVALID_FORMAT" } else { "NONE" },
        "source": "USER",
        "health_status": {"can_send_message": if listed.status == "APPROVED" { "AVAILABLE" } else { "BLOCKED" }},
    })
}

fn account_fields(account: &Account) -> Value {
    let setup = &account.setup;
    json!({
        "id": setup.waba_id,
        "name": setup.name,
        "timezone_id": "1",
        "currency": "USD",
        "country": "US",
        "message_template_namespace": "00000000_0000_0000_0000_000000000001",
        "account_review_status": "APPROVED",
        "business_verification_status": "verified",
        "owner_business_info": {"id": setup.portfolio, "name": setup.portfolio},
        "health_status": {"can_send_message": "AVAILABLE"},
        "status": "ACTIVE",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_at_outer_commas_only() {
        assert_eq!(
            field_names("id, name{a,b},status"),
            ["id", "name", "status"]
        );
        assert_eq!(field_names(""), Vec::<String>::new());
    }

    #[test]
    fn limits_have_the_providers_names() {
        for (limit, expected) in [
            (Some(250), "TIER_250"),
            (Some(2_000), "TIER_2K"),
            (None, "TIER_UNLIMITED"),
        ] {
            assert_eq!(tier(limit), expected);
        }
    }
}

//! Postgres: the only place that has SQL.

pub mod fold;
pub mod inbound;
pub mod people;
pub mod receipts;

/// Whether the database refused a value (class 22) or a row (class 23), rather than being away: then it is one row's
/// fault, and the others can go on without it.
#[must_use]
pub fn is_bad_value(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}

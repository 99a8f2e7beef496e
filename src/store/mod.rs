//! Postgres: the only place that has SQL.

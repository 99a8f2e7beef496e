-- Stops something, or changes a pause that is there. A trigger writes the history.
-- $1 scope, $2 target, $3 source, $4 reason, $5 error code, $6 who, $7 until, $8 since when; null is now
with stopped as (
  insert into postrider.pause (scope, target, source, reason, error_code, by, until, since)
  values ($1, $2, $3, $4, $5, $6, $7, coalesce($8, now()))
  on conflict (scope, target, source) do update set
    reason = excluded.reason,
    error_code = excluded.error_code,
    by = excluded.by,
    until = excluded.until,
    probed_at = null,
    -- One that had run out and was not cleared away yet begins anew.
    since = case when pause.until <= now() then excluded.since else pause.since end
  -- Answers come in any order: a short pause that arrives late does not undo a long one.
  where excluded.source = 'operator' or excluded.until is null or excluded.until >= pause.until
  returning *
)
select exists (select from stopped) as "changed!"

-- Brings what receipts of one day said into their messages: the join of rules::receipt, in SQL. Each job comes once per
-- attempt. What another attempt of the job achieved counts too, but its failure is not the failure of this one.
with applied as (
  update postrider.message m set
    -- The farther state wins; of two failures, the earlier. (Decided once a row: a subquery that Postgres may not take apart.)
    (state, reason, failed_at, error_code, error_title) = (
      select
        case when theirs then f.state else m.state end,
        case when theirs then f.reason else m.reason end,
        case when theirs then f.failed_at else m.failed_at end,
        case when theirs then f.error_code else m.error_code end,
        case when theirs then f.error_title else m.error_title end
      from (
        select case
          when f.state <> m.state then
            array_position(array['accepted', 'held', 'sent', 'undelivered', 'failed', 'delivered', 'read'], f.state)
            > array_position(array['accepted', 'held', 'sent', 'undelivered', 'failed', 'delivered', 'read'], m.state)
          -- An unknown time, code or title counts as the earliest.
          when f.failed_at is distinct from m.failed_at then coalesce(f.failed_at < m.failed_at, f.failed_at is null)
          when f.error_code is distinct from m.error_code then coalesce(f.error_code < m.error_code, f.error_code is null)
          else coalesce(f.error_title collate "C" < m.error_title collate "C", f.error_title is null)
        end as theirs
        offset 0
      ) as judged
    ),
    -- The earliest time of each status. What was read had been delivered, though the provider does not always say so.
    (delivered_at, delivered_inferred, read_at) = (
      select coalesce(t.told, t.read), t.told is null and t.read is not null, t.read
      from (
        select
          least(case when not m.delivered_inferred then m.delivered_at end, f.delivered_at) as told,
          least(m.read_at, f.read_at) as read
      ) as t
    ),
    sent_at = least(m.sent_at, f.sent_at),
    pricing_category = least(m.pricing_category collate "C", f.pricing_category),
    pricing_type = least(m.pricing_type collate "C", f.pricing_type),
    provider_id = coalesce(m.provider_id, f.provider_id)
  from unnest(
    $2::bigint[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[],
    $9::timestamptz[], $10::timestamptz[], $11::integer[], $12::text[], $13::text[], $14::text[]
  ) as f (
    job, attempt, provider_id, state, reason, sent_at, delivered_at, read_at, failed_at, error_code, error_title,
    pricing_category, pricing_type
  )
  where
    m.day = $1
    and m.job = f.job
    and (m.attempt = f.attempt or f.state in ('delivered', 'read'))
  returning
    f.job, f.attempt, m.recipient_key, m.accepted_at, f.state, m.job as own_job, m.attempt as own_attempt, m.was_held,
    coalesce(m.sent_at, m.delivered_at, m.read_at) as sent_at
), released as (
  -- What was held and is sent now counts against the messaging limit anew, from its own attempt's number.
  insert into postrider.released as known (lane, recipient_hash, at)
  select attempt.lane, attempt.recipient_hash, max(applied.sent_at)
  from applied
  join postrider.attempt on attempt.job = applied.own_job and attempt.attempt = applied.own_attempt
    and attempt.at >= $1::timestamp at time zone 'UTC' and attempt.at < ($1 + 1)::timestamp at time zone 'UTC'
  where applied.was_held and applied.state in ('sent', 'delivered', 'read') and attempt.counted
    and applied.sent_at is not null
  group by attempt.lane, attempt.recipient_hash
  on conflict (lane, recipient_hash) do update set at = excluded.at, noted_at = excluded.noted_at
  where excluded.at > known.at
)
select job as "job!", attempt as "attempt!", recipient_key as "recipient_key!", accepted_at as "accepted_at!"
from applied

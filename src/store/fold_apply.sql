-- Brings what receipts of one day said into their messages: the join of rules::receipt, in SQL. Each job comes once per
-- attempt. What another attempt of the job achieved counts too, but its failure is not the failure of this one.
update postrider.message m set
  -- The farther state wins; of two failures, the earlier.
  (state, reason, failed_at, error_code, error_title) = (
    select w.state, w.reason, w.failed_at, w.error_code, w.error_title
    from (values
      (
        array_position(array['accepted', 'held', 'sent', 'undelivered', 'failed', 'delivered', 'read'], m.state),
        m.state, m.reason, m.failed_at, m.error_code, m.error_title
      ),
      (
        array_position(array['accepted', 'held', 'sent', 'undelivered', 'failed', 'delivered', 'read'], f.state),
        f.state, f.reason, f.failed_at, f.error_code, f.error_title
      )
    ) as w (rank, state, reason, failed_at, error_code, error_title)
    order by
      w.rank desc, w.failed_at nulls first, w.error_code nulls first, w.error_title collate "C" nulls first
    limit 1
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
returning f.job as "job!", f.attempt as "attempt!", m.recipient_key

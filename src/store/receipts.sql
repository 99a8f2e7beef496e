-- Appends status updates, and puts those that are about a job of ours into the inbox, under the same id.
with arrived as (
  select nextval('postrider.receipt_id') as id, u.*
  from unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::bigint[], $12::integer[], $13::integer[], $14::date[]
  ) as u (
    phone_number_id, provider_id, callback, status, at, error_code, error_title, pricing_category, pricing_type,
    raw, job, attempt, lane, day
  )
), kept as (
  insert into postrider.receipt (
    id, received_at, phone_number_id, provider_id, callback, status, at, error_code, error_title,
    pricing_category, pricing_type, raw
  )
  select
    id, now(), phone_number_id, provider_id, callback, status, at, error_code, error_title,
    pricing_category, pricing_type, raw
  from arrived
)
insert into postrider.receipt_inbox (
  id, fold_at, received_at, job, attempt, lane, day, provider_id, status, at, error_code, error_title,
  pricing_category, pricing_type
)
select
  id, now(), now(), job, attempt, lane, day, provider_id, status, at, error_code, error_title,
  pricing_category, pricing_type
from arrived
where job is not null

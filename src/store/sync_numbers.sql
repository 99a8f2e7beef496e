-- $1 account, $2 phone number ids, $3 display numbers, $4 names, $5 statuses, $6 qualities, $7 throughput levels, $8 on app
with listed as (
  select distinct on (phone_number_id) *
  from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::boolean[])
    as l(phone_number_id, display_phone_number, verified_name, status, quality_rating, throughput_level, is_on_biz_app)
  order by phone_number_id
),
written as (
  -- A new number has no shard yet: sync_place.sql gives it one, and knows it by its endless free_at.
  insert into postrider.number as n
    (phone_number_id, waba_id, display_phone_number, verified_name, status, quality_rating, throughput_level,
     is_on_biz_app, configured, shard, free_at, synced_at)
  select l.phone_number_id, $1, l.display_phone_number, l.verified_name, coalesce(l.status, 'UNKNOWN'), l.quality_rating,
    l.throughput_level, coalesce(l.is_on_biz_app, false),
    exists (select from postrider.sender_pool s where s.configured and l.phone_number_id = any(s.phone_number_ids)),
    0, 'infinity', now()
  from listed l
  on conflict (phone_number_id) do update set
    waba_id = excluded.waba_id,
    display_phone_number = coalesce(excluded.display_phone_number, n.display_phone_number),
    verified_name = coalesce(excluded.verified_name, n.verified_name),
    status = case excluded.status when 'UNKNOWN' then n.status else excluded.status end,
    quality_rating = coalesce(excluded.quality_rating, n.quality_rating),
    throughput_level = coalesce(excluded.throughput_level, n.throughput_level),
    -- Not excluded's: that is false where the provider did not say.
    is_on_biz_app = coalesce(
      (select l.is_on_biz_app from listed l where l.phone_number_id = excluded.phone_number_id), n.is_on_biz_app),
    synced_at = excluded.synced_at
  returning 1
),
gone as (
  update postrider.number n set status = 'DELETED'
  where n.waba_id = $1 and n.status <> 'DELETED'
    and not exists (select from listed l where l.phone_number_id = n.phone_number_id)
  returning 1
)
select (select count(*) from written) as "changed!", (select count(*) from gone) as "gone!"

-- Proves that receipts can be committed, and notes an outage when the last proof is too long ago. Of several processes at
-- once, one waits for the other and then sees what it wrote.
with last as materialized (
  select seen_at from postrider.receiving for update
), outage as (
  insert into postrider.webhook_outage (began, ended)
  select seen_at, clock_timestamp() from last where seen_at < clock_timestamp() - $1::interval
  on conflict (began) do nothing
  returning began, ended
), cleared as (
  delete from postrider.webhook_outage where ended < now() - interval '7 days' and exists (select from outage)
), seen as (
  update postrider.receiving set seen_at = greatest(receiving.seen_at, clock_timestamp()) from last
)
select extract(epoch from ended - began)::float8 as "lasted_s!" from outage

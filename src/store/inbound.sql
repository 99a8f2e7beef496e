-- Keeps what people wrote, with the job that it answers. A message that is here already changes nothing.
insert into postrider.inbound (
  provider_id, at, received_at, phone_number_id, lane, sender_key, type, body, payload, context_id, job, referral, raw
)
select
  h.provider_id, h.at, now(), h.phone_number_id, n.lane, h.sender_key, h.type, h.body, h.payload, h.context_id,
  (
    -- People answer soon; a month of partitions is probed, each by its index on the provider's id.
    select m.job from postrider.message m
    where m.provider_id = h.context_id and m.day >= current_date - 30
    limit 1
  ),
  h.referral, h.raw
from unnest(
  $1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::jsonb[],
  $10::text[]
) as h (provider_id, at, phone_number_id, sender_key, type, body, payload, context_id, referral, raw)
left join postrider.number n on n.phone_number_id = h.phone_number_id
on conflict (provider_id) do nothing

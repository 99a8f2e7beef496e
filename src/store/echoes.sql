-- Keeps what was sent from phone apps, each once, with whether it counts: unless a service window stayed open.
-- $1 message ids, $2 phone number ids, $3 canonical keys of the recipients, $4 times
insert into postrider.echo (message_hash, lane, recipient_hash, counted, at)
select hashtextextended(e.provider_id, seed.value), n.lane, hashtextextended(person.key, seed.value),
  not exists (
    select from postrider.service_window w
    where w.person = person.key and w.lane = n.lane and w.expires_at > e.at + interval '1 minute'),
  e.at
from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) as e (provider_id, phone_number_id, recipient_key, at)
join postrider.number n on n.phone_number_id = e.phone_number_id
cross join (select (value #>> '{}')::bigint as value from postrider.setting where name = 'recipient_hash_seed') seed
cross join lateral (
  select coalesce((select a.person from postrider.address a where a.key = e.recipient_key), e.recipient_key) as key
) person
on conflict (message_hash) do nothing

-- Opens the service windows of people who wrote to us: 24 h after their last message to that number.
insert into postrider.service_window as w (person, lane, expires_at)
select coalesce(a.person, h.sender_key) as person, n.lane, max(h.at) + interval '24 hours'
from unnest($1::text[], $2::text[], $3::timestamptz[]) as h (sender_key, phone_number_id, at)
join postrider.number n on n.phone_number_id = h.phone_number_id
left join postrider.address a on a.key = h.sender_key
group by 1, 2
order by 1, 2
on conflict (person, lane) do update
  set expires_at = excluded.expires_at
  where w.expires_at < excluded.expires_at

-- What is left of each messaging limit, by the instance that counts it. The newest word holds.
insert into postrider.pool_usage as shown
  (pool, messaging_limit, used, room_normal, room_urgent, next_return_at, returns, at)
select pool, messaging_limit, used, room_normal, room_urgent, next_return_at, returns, clock_timestamp()
from unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::int[], $6::timestamptz[], $7::int[])
  as u(pool, messaging_limit, used, room_normal, room_urgent, next_return_at, returns)
-- In one order, so that two instances cannot wait for each other in a circle.
order by pool
on conflict (pool) do update set
  messaging_limit = excluded.messaging_limit, used = excluded.used, room_normal = excluded.room_normal,
  room_urgent = excluded.room_urgent, next_return_at = excluded.next_return_at, returns = excluded.returns,
  at = excluded.at

select
  pool as "pool!", messaging_limit as "messaging_limit!", used as "used!", coalesce(room_normal, 0) as "room_normal!",
  coalesce(room_urgent, 0) as "room_urgent!", next_return_at, returns as "returns!"
from postrider.pool_usage_now
where messaging_limit is not null
order by pool

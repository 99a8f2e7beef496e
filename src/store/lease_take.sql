-- Takes those of the shards that nobody holds, whose holder's time is over, or that this instance held before a restart.
-- The row is locked first, so no attempt of the former holder commits after us: one that is under way keeps the row locked
-- until it is through, and then the shard is left out.
with free as (
  select shard, epoch, settled_until
  from postrider.lease
  where shard = any ($3::smallint[]) and (instance is null or instance = $1 or expires_at <= clock_timestamp())
  order by shard
  for update skip locked
)
update postrider.lease
set instance = $1, epoch = lease.epoch + 1, expires_at = clock_timestamp() + $2,
    -- What was left open before is seen to in this transaction, so that the next take-over need not do it again.
    settled_until = greatest(lease.settled_until, clock_timestamp() - interval '10 seconds')
from free
where lease.shard = free.shard
returning lease.shard as "shard!", lease.epoch as "epoch!",
  -- How far back open attempts can be; null when nobody ever held it.
  case when free.epoch > 0 then free.settled_until end as open_since,
  extract(epoch from lease.free_at - clock_timestamp())::float8 as "free_in!"

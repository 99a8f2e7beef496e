-- Takes every shard that nobody holds, whose holder's time is over, or that this instance held before a restart. The row
-- is locked first: an attempt of the former holder that is under way commits before us or not at all.
with free as (
  select shard
  from postrider.lease
  where (instance is null or instance = $1 or expires_at <= clock_timestamp())
    and not (shard = any ($3::smallint[]))
  order by shard
  for update
)
update postrider.lease
set instance = $1, epoch = lease.epoch + 1, expires_at = clock_timestamp() + $2
from free
where lease.shard = free.shard
returning lease.shard as "shard!", lease.epoch as "epoch!", lease.free_at as "free_at!",
  lease.settled_until as "settled_until!"

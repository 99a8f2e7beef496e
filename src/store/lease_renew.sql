-- Renews what is still ours, all in one statement, and notes how far back open attempts can be.
with still as (
  -- In the order in which a take-over locks, so that the two cannot wait for each other in a circle.
  select lease.shard
  from unnest($2::smallint[], $3::bigint[]) as held(shard, epoch)
  join postrider.lease on lease.shard = held.shard and lease.epoch = held.epoch
  where lease.instance = $1 and lease.expires_at > clock_timestamp()
  order by lease.shard
  for no key update of lease
)
update postrider.lease
set expires_at = clock_timestamp() + $4,
    settled_until = greatest(lease.settled_until, least($5, clock_timestamp() - interval '10 seconds'))
from still
where lease.shard = still.shard
returning lease.shard as "shard!", lease.epoch as "epoch!"

-- Renews what is still ours, all in one statement, and notes how far back open attempts can be.
update postrider.lease
set expires_at = clock_timestamp() + $4,
    settled_until = greatest(lease.settled_until, least($5, clock_timestamp() - interval '10 seconds'))
from unnest($2::smallint[], $3::bigint[]) as held(shard, epoch)
where lease.shard = held.shard and lease.epoch = held.epoch and lease.instance = $1
  and lease.expires_at > clock_timestamp()
returning lease.shard as "shard!", lease.epoch as "epoch!"

-- The shards that have numbers, with who holds them. Times are told as how far off they are by the database's clock, so that
-- nobody's own clock matters.
select lease.shard, lease.instance,
  extract(epoch from lease.expires_at - clock_timestamp())::float8 as "expires_in!"
from postrider.lease
where exists (select from postrider.number where number.shard = lease.shard)
order by lease.shard

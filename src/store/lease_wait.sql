-- Waits until nobody has the rows locked of those of the shards that could be taken.
select shard
from postrider.lease
where shard = any ($2::smallint[]) and (instance is null or instance = $1 or expires_at <= clock_timestamp())
order by shard
for update

-- Gives shards back. Nobody posts for them before their rest is over, so that the posts of two owners never share a window.
update postrider.lease
set instance = null, former = lease.instance, expires_at = clock_timestamp(), free_at = greatest(lease.free_at, clock_timestamp() + given.rest)
from unnest($2::smallint[], $3::bigint[], $4::interval[]) as given(shard, epoch, rest)
where lease.shard = given.shard and lease.epoch = given.epoch and lease.instance = $1

-- Numbers that came into a shard of ours from another: when the former holder is surely done, what it left open is unknown
-- until a receipt tells, as after a take-over, and then we send for them.
with fence as materialized (
  select lease.shard
  from unnest($2::smallint[], $3::bigint[]) as held(shard, epoch)
  join postrider.lease on lease.shard = held.shard and lease.epoch = held.epoch
  where lease.instance = $1 and lease.expires_at > clock_timestamp()
    and exists (select from postrider.number where number.shard = lease.shard and number.open_since is not null)
  order by lease.shard
  for key share of lease
), arrived as materialized (
  select number.lane, number.open_since
  from postrider.number
  join fence using (shard)
  where number.open_since is not null and number.free_at <= clock_timestamp()
  order by number.lane
  for no key update of number
), left_open as materialized (
  select postrider.mark_left_open(array_agg(lane), min(open_since)) as jobs from arrived having count(*) > 0
)
update postrider.number
set open_since = null
from arrived
cross join left_open
where number.lane = arrived.lane and left_open.jobs is not null
returning number.lane as "lane!"

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
), left_open as (
  update postrider.queue
  set state = 'unknown', reason = 'awaiting_receipt', due_at = clock_timestamp() + kind.resolve_after
  from arrived
  join postrider.attempt on attempt.lane = arrived.lane and attempt.at >= arrived.open_since
  cross join postrider.kind
  where queue.id = attempt.job and queue.tries = attempt.attempt - 1 and queue.state = 'queued'
    and postrider.has_open_attempt(queue.id, queue.tries)
    and kind.name = queue.kind
)
update postrider.number
set open_since = null
from arrived
where number.lane = arrived.lane
returning number.lane as "lane!"

-- First step of a move: locks due jobs of a lane that another lane of their pool can take, urgent ones first, and says which.
-- $1 the instance, $2 the lane, $3 lanes that can send, $4 so many jobs at most
with fence as materialized (
  -- Only the holder of the lane's lease moves its jobs. KEY SHARE keeps a take-over waiting until we commit. The instance
  -- stands for the epoch: one process has that name, and a take-over by another changes it.
  select number.waba_id
  from postrider.number
  join postrider.lease using (shard)
  where number.lane = $2 and lease.instance = $1 and lease.expires_at > clock_timestamp()
  for key share of lease
), usable as (
  -- Lanes that can send, but for those whose limit is used up by the word of the instance that counts it: jobs would be
  -- handed on and back.
  select number.lane, number.waba_id
  from postrider.number
  join postrider.account using (waba_id)
  where number.lane = any($3) and number.lane <> $2
    and not exists (
      select from postrider.pool_usage_now as usage
      where usage.pool = postrider.limit_pool(number.phone_number_id, account.portfolio_id) and usage.room_normal <= 0)
), candidate as materialized (
  -- By sender pool. One that is strict keeps a recipient with their number for as long as the pool has that number.
  select sender_pool.name, usable.lane, usable.waba_id
  from postrider.sender_pool
  join usable on usable.lane = any(sender_pool.lanes)
  where not sender_pool.strict or $2 <> all(sender_pool.lanes)
)
select queue.id as "id!: JobId", target.lane as "lane!: Lane"
from fence
cross join postrider.queue
cross join lateral (
  select coalesce(
    (select address.person from postrider.address where address.key = queue.recipient_key),
    queue.recipient_key) as key
) as person
cross join lateral (
  -- The next in the order in which enqueue chooses, so that all jobs of one person go the same way.
  select candidate.lane
  from candidate
  where candidate.name = queue.sender
    and case
      -- A free-form message goes only where the person wrote to.
      when queue.template is null then exists (
        select from postrider.service_window
        where service_window.person = person.key and service_window.lane = candidate.lane
          and service_window.expires_at > now())
      -- Another account must have the template, or the job would be refused there.
      else candidate.waba_id = fence.waba_id or exists (
        select from postrider.template
        where template.waba_id = candidate.waba_id and template.name = queue.template
          and template.language = queue.language and template.status = 'APPROVED')
    end
  order by hashint4extended(candidate.lane, hashtextextended(person.key, 0)) desc
  limit 1
) as target
where queue.lane = $2 and queue.state = 'queued' and queue.due_at <= now()
  -- Without anywhere to go, the lane is not read at all.
  and exists (select from candidate)
order by queue.priority, queue.due_at, queue.id
limit $4
-- A row that an attempt, cancel or expiry holds is theirs.
for update of queue skip locked

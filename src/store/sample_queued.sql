-- How many jobs there are of each priority and state, and how long the oldest of those that are due has been so.
select
  priority,
  seen.state as "state!",
  count(*) as "count!",
  case when seen.state = 'queued' then extract(epoch from now() - min(due_at))::bigint end as oldest_waited_s
from postrider.queue
cross join lateral (
  select case when state = 'queued' and due_at > now() then 'waiting' else state end as state
) seen
group by priority, seen.state

select
  case priority when 0 then 'urgent' when 1 then 'normal' else 'bulk' end as "priority!",
  count(*) filter (where state = 'queued' and due_at <= now()) as "due!",
  count(*) filter (where state = 'queued' and due_at > now()) as "later!",
  count(*) filter (where state = 'unknown') as "unknown!",
  min(due_at) filter (where state = 'queued' and due_at <= now()) as oldest_due_at
from postrider.queue
group by priority
order by priority

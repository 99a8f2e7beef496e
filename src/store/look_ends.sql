-- How far a look came that read as many rows of these lanes as one may: the last of them. No row where it read all that is due.
select c.lane as "lane!", c.priority as "priority!", last.due_at as "due_at!", last.id as "id!"
from unnest($1::int[], $2::smallint[], $3::timestamptz[], $4::bigint[]) as c(lane, priority, after_due, after_id)
cross join lateral (
  select queue.due_at, queue.id
  from postrider.queue
  where queue.lane = c.lane
    and queue.priority = c.priority
    and (queue.due_at, queue.id) > (c.after_due, c.after_id)
    and queue.due_at <= now()
  order by queue.due_at, queue.id
  limit 1 offset $5::bigint - 1
) as last

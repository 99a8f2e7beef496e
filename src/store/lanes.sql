-- Lanes and priorities that have rows, by skipping from one to the next in the index: idle lanes cost nothing.
with recursive present as (
  (select lane, priority from postrider.queue order by lane, priority limit 1)
  union all
  select next.lane, next.priority
  from present
  cross join lateral (
    select queue.lane, queue.priority
    from postrider.queue
    where (queue.lane, queue.priority) > (present.lane, present.priority)
    order by queue.lane, queue.priority
    limit 1
  ) as next
)
select lane as "lane!", priority as "priority!" from present

-- Lanes with jobs whose shard this instance holds, also of numbers that the configuration no longer names; by skipping from
-- one to the next in the index: idle lanes cost nothing.
with recursive present as (
  (select lane from postrider.queue order by lane limit 1)
  union all
  select next.lane
  from present
  cross join lateral (
    select queue.lane from postrider.queue where queue.lane > present.lane order by queue.lane limit 1
  ) as next
)
select present.lane as "lane!: Lane"
from present
join postrider.number using (lane)
join postrider.lease using (shard)
where lease.instance = $1 and lease.expires_at > now()

-- Second step of a move: the rows are locked by the first, so an attempt that was committed before is visible now, and none
-- can be added. Those without an open one get their new lane; due_at and everything else stays.
with movable as (
  select queue.id, target.lane
  from unnest($1::bigint[], $2::int[]) as target(id, lane)
  join postrider.queue on queue.id = target.id and queue.state = 'queued'
  cross join lateral postrider.next_attempt(queue.id, queue.tries) as next
  where not next.is_open
), moved as (
  update postrider.queue
  set lane = movable.lane
  from movable
  where queue.id = movable.id
  returning queue.lane
), refilled as (
  -- Whoever reads those lanes has passed the keys of these jobs already. In one order, so that two movers cannot wait for
  -- each other in a circle.
  update postrider.number
  set refilled_at = clock_timestamp()
  from (
    select lane from postrider.number where lane in (select lane from moved) order by lane for no key update
  ) as target
  where number.lane = target.lane
)
select lane as "lane!: Lane", count(*) as "jobs!" from moved group by lane

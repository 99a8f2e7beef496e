-- Second step of a move: the rows are locked by the first, so an attempt that was committed before is visible now, and none
-- can be added. Those without an open one get their new lane; due_at and everything else stays.
with locked as (
  select id, lane from unnest($1::bigint[], $2::int[]) as l(id, lane)
), moved as (
  update postrider.queue
  set lane = locked.lane
  from locked
  where queue.id = locked.id
    and queue.state = 'queued'
    and not postrider.has_open_attempt(queue.id, queue.tries)
  returning queue.lane
), refilled as (
  -- Whoever reads those lanes has passed the keys of these jobs already.
  update postrider.number set refilled_at = clock_timestamp() where lane in (select lane from moved)
)
select lane as "lane!: Lane", count(*) as "jobs!" from moved group by lane

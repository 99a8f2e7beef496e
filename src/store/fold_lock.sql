-- First step of settling by receipts: locks the jobs that they may be the first word about. Someone who holds a row, say in a
-- long transaction that cancels, must not hold up everyone's receipts.
with said as (
  select * from unnest($1::bigint[], $2::integer[], $3::timestamptz[]) as f (job, attempt, received_at)
), waiting as (
  -- A job in the queue gets 2 s for its answer to be written by who sent it, unless it is already known that no answer will
  -- come.
  select q.id
  from postrider.queue q
  join said f on f.job = q.id
  where f.attempt <= q.tries
    or f.attempt = q.tries + 1 and (q.state = 'unknown' or f.received_at <= now() - interval '2 seconds')
  for update of q skip locked
), ended as (
  select d.id
  from postrider.dead_letter d
  join said f on f.job = d.id
  where d.state in ('unknown', 'failed')
  for update of d skip locked
)
select id as "id!" from waiting union all select id from ended

-- Where the jobs of a range are, in one snapshot: a job that moves leaves one place and comes to another in one transaction,
-- so this sees it in exactly one.
-- $1 the range's first id, $2 the first after it, $3 so many that are off are named
with seen as (
  -- Places as numbers, because texts take much longer to compare: 0 enqueued, 1 the queue, 2 a message, 3 a dead letter,
  -- 4 dropped; and 5, an attempt.
  select job, 0 as place, 0 as attempt from postrider.enqueued where job >= $1 and job < $2
  union all
  select id, 1, 0 from postrider.queue where id >= $1 and id < $2
  union all
  -- Attempts are kept for 8 days, so an older message says nothing of its own.
  select job, 2, case when day > (now() at time zone 'UTC')::date - 7 then attempt else 0 end
  from postrider.message where job >= $1 and job < $2
  union all
  select id, 3, 0 from postrider.dead_letter where id >= $1 and id < $2
  union all
  select job, 4, 0 from postrider.dropped where job >= $1 and job < $2
  union all
  select job, 5, attempt from postrider.attempt where job >= $1 and job < $2
), counted as (
  select
    job,
    count(*) filter (where place = 0) as enqueued,
    count(*) filter (where place = 1) as queue,
    count(*) filter (where place = 2) as message,
    count(*) filter (where place = 3) as dead_letter,
    count(*) filter (where place = 4) as dropped,
    -- Attempts are numbered from 1 on, so the last one tells.
    coalesce(max(attempt) filter (where place = 2), 0)
      > coalesce(max(attempt) filter (where place = 5), 0) as unattempted
  from seen
  group by job
), job as materialized (
  select
    *,
    enqueued <> 1 or queue + message + dead_letter + dropped <> 1 or unattempted as is_off
  from counted
  -- A row that only an attempt is left of says nothing: those of a restored database, for one.
  where enqueued + queue + message + dead_letter + dropped > 0
)
select
  coalesce(sum(enqueued), 0)::bigint as "jobs!",
  coalesce(sum(queue), 0)::bigint as "queue!",
  coalesce(sum(message), 0)::bigint as "message!",
  coalesce(sum(dead_letter), 0)::bigint as "dead_letter!",
  coalesce(sum(dropped), 0)::bigint as "dropped!",
  count(*) filter (where is_off) as "jobs_off!",
  (
    select coalesce(jsonb_agg(named), '[]')
    from (
      select job, enqueued, queue, message, dead_letter, dropped, unattempted
      from job where is_off order by job limit $3
    ) named
  ) as "off!: Json<Vec<Places>>"
from job

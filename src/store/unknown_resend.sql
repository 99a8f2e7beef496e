-- These jobs go out again: what they were waiting for is closed for good, and the next attempt has the next number. Only who
-- finds the job as it was decided on does it.
with decided as (
  select id, tries from unnest($1::bigint[], $2::int[]) as d(id, tries)
), again as (
  update postrider.queue
  set state = 'queued', reason = null, unknown_since = null, due_at = clock_timestamp(),
      tries = queue.tries + 1, resends = queue.resends + 1
  from decided
  where queue.id = decided.id and queue.tries = decided.tries and queue.state = 'unknown'
  returning queue.id, queue.lane, queue.priority, queue.tries
), answered as (
  -- A crash between attempt and answer left none.
  insert into postrider.answer (job, attempt, lane, outcome, detail, at)
  select id, tries, lane, 'unknown', 'whoever posted it was gone before the answer', clock_timestamp()
  from again
  where not exists (
    select from postrider.answer
    where answer.job = again.id and answer.attempt = again.tries and answer.at > now() - interval '8 days')
)
select id as "id!: JobId", lane as "lane!", priority as "priority!" from again

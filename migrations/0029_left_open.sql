-- What a former holder of a lane left open.

-- Whether the job's next attempt is open: committed, and not answered. A row, so that Postgres plans it into the statement
-- that asks: a function that returns a value sets up its statement for each job anew, which costs more than the answer.
create function postrider.next_attempt(job_id bigint, tries integer) returns table (is_open boolean)
language sql stable
as $$
  select (select count(*) from postrider.attempt a
          where a.job = job_id and a.attempt = tries + 1 and a.at > now() - interval '8 days')
       > (select count(*) from postrider.answer a
          where a.job = job_id and a.attempt = tries + 1 and a.at > now() - interval '8 days')
$$;

create or replace function postrider.has_open_attempt(job_id bigint, tries integer) returns boolean
language sql stable
as $$
  select is_open from postrider.next_attempt(job_id, tries)
$$;

-- Attempts that a former holder of these lanes left open, which cannot be from before `since`: their jobs may have been
-- posted, so nobody posts them again until a receipt tells. Returns how many.
--
-- From the attempts to the queue, whatever the planner believes of their sizes: after a burst it knows nothing of what waits
-- in the queue, and reading that whole takes longer than a lease.
create function postrider.mark_left_open(lanes integer[], since timestamptz) returns bigint
language plpgsql
as $$
declare
  jobs bigint[];
  tries_of integer[];
  marked bigint;
begin
  -- In their order, in which settlements lock them too.
  select array_agg(job.id order by job.id), array_agg(job.tries order by job.id) into jobs, tries_of
  from postrider.attempt
  join unnest(lanes) as taken(lane) on taken.lane = attempt.lane
  cross join lateral (
    select queue.id, queue.tries
    from postrider.queue
    where queue.id = attempt.job and queue.tries = attempt.attempt - 1 and queue.state = 'queued'
    offset 0
  ) as job
  -- One that was answered without being counted (it never left) is not open.
  cross join lateral postrider.next_attempt(job.id, job.tries) as next
  where attempt.at >= since and next.is_open;

  update postrider.queue
  set state = 'unknown', reason = 'awaiting_receipt', unknown_since = clock_timestamp(),
      due_at = clock_timestamp()
        + coalesce((select kind.resolve_after from postrider.kind where kind.name = queue.kind), '2 minutes')
  from unnest(jobs, tries_of) as left_open(id, tries)
  where queue.id = left_open.id and queue.tries = left_open.tries and queue.state = 'queued';
  get diagnostics marked = row_count;
  return marked;
end
$$;

revoke all on function postrider.next_attempt(bigint, integer), postrider.mark_left_open(integer[], timestamptz) from public;
grant execute on function postrider.next_attempt(bigint, integer), postrider.mark_left_open(integer[], timestamptz)
to postrider_daemon, postrider_owner;

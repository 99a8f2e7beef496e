-- Withdrawing jobs, for upstreams.

-- Whether there is permission to post the job that no answer has settled yet. Attempts are counted against answers rather
-- than compared in time, because the two are stamped by different clocks. Whoever takes a job out of the queue locks its
-- row first and asks this in a second statement.
create function postrider.has_open_attempt(job_id bigint, tries integer) returns boolean
language sql stable
as $$
  select (select count(*) from postrider.attempt a
          where a.job = job_id and a.attempt = tries + 1 and a.at > now() - interval '8 days')
       > (select count(*) from postrider.answer a
          where a.job = job_id and a.attempt = tries + 1 and a.at > now() - interval '8 days')
$$;

-- Moves those of the jobs to the dead letters that are surely not sent and that the caller may cancel; returns them.
create function postrider.cancel_jobs(ids bigint[]) returns bigint[]
language plpgsql
as $$
declare
  locked bigint[];
  cancelled bigint[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform postrider.refuse('PR013', current_setting('transaction_isolation'));
  end if;

  -- In the order of their ids, so that two callers cannot wait for each other in a circle. This waits for an attempt that
  -- is being written.
  locked := array(
    select q.id from postrider.queue q
    where q.id = any(ids) and (q.producer = session_user or postrider.sees_all_jobs())
    order by q.id for update);

  -- A second statement sees the attempts that committed while the first one waited, and no new one can come.
  with gone as (
    delete from postrider.queue q
    where q.id = any(locked) and q.state = 'queued' and not postrider.has_open_attempt(q.id, q.tries)
    returning *
  ), moved as (
    insert into postrider.dead_letter (
      id, state, reason, ended_at, lane, priority, due_at, tries, spent, resends, kind, recipient, recipient_key,
      template, language, sender, producer, enqueued_at, expires_at, reference, batch, labels)
    select id, 'cancelled', 'cancelled', clock_timestamp(), lane, priority, due_at, tries, spent, resends, kind, recipient,
           recipient_key, template, language, sender, producer, enqueued_at, expires_at, reference, batch, labels
    from gone
    returning id
  )
  select coalesce(array_agg(moved.id), '{}') into cancelled from moved;
  return cancelled;
end
$$;

-- Withdraws a job: 'cancelled' means that it was not sent and never will be; 'too_late' that it was, may have been, or
-- ended in another way; 'not_found' that there is no such job of the caller's.
create function postrider.cancel(job_id bigint) returns text
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
begin
  if job_id = any(postrider.cancel_jobs(array[job_id])) then
    return 'cancelled';
  end if;
  return coalesce(
    (select case j.state when 'cancelled' then 'cancelled' else 'too_late' end
     from postrider.job_status j where j.id = job_id),
    'not_found');
end
$$;

-- Withdraws all jobs of that reference and returns how many were.
create function postrider.cancel_by_reference(reference text) returns integer
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
begin
  return cardinality(postrider.cancel_jobs(
    array(select q.id from postrider.queue q where q.reference = cancel_by_reference.reference)));
end
$$;

-- Withdraws all jobs of that batch and returns how many were.
create function postrider.cancel_batch(batch text) returns integer
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
begin
  return cardinality(postrider.cancel_jobs(
    array(select q.id from postrider.queue q where q.batch = cancel_batch.batch)));
end
$$;

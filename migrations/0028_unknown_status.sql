-- What an unknown job waits for, and what withdrawing does to one.

-- Where a job in the queue is: its state, the reason, and the reason in words.
create or replace function postrider.queue_state(job postrider.queue, out state text, out reason text, out detail text)
-- Postgres runs a view's functions with the rights of whoever reads the view, who cannot read these tables.
language plpgsql stable security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
declare
  hold record;
begin
  if job.state = 'unknown' then
    state := 'unknown';
    reason := 'awaiting_receipt';
    detail := postrider.unknown_detail(job.kind, job.unknown_since, job.due_at, job.expires_at);
  elsif postrider.has_open_attempt(job.id, job.tries) then
    state := 'sending';
  elsif job.due_at > now() then
    state := 'waiting';
    reason := coalesce(job.reason, 'scheduled');
  else
    hold := postrider.hold_of(job.lane, job.kind, job.priority, job.batch, job.template, job.language);
    state := case when hold.reason is null then 'queued' else 'waiting' end;
    reason := hold.reason;
    detail := hold.detail;
  end if;
end
$$;

-- Since when an unknown job waits, until when, what then, and why that takes longer if it does.
create function postrider.unknown_detail(
  job_kind text, since timestamptz, due_at timestamptz, expires_at timestamptz
) returns text
language sql stable
as $$
  select concat_ws('; ',
    'no answer came' || coalesce(', and no receipt since ' || to_char(since at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), ''),
    case
      when way.seen_at is null then 'its clock stands still: no webhook process ever took receipts'
      when way.seen_at < now() - interval '3 seconds' then
        'its clock stands still: no webhook process has taken receipts since '
          || to_char(way.seen_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
      when due_at > now() then 'decided at ' || to_char(due_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
      else 'its time is over, but no receipt of a later message shows that receipts come: decided by '
        || to_char((since + 5 * kind.resolve_after) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
    end,
    case when kind.on_unknown = 'resend' and expires_at > now() then 'then sent again, if it may be' else 'then given up' end)
  from postrider.receiving as way
  left join postrider.kind on kind.name = job_kind
$$;

-- Moves those of the jobs to the dead letters that are surely not being sent and that the caller may cancel; returns those
-- that never were. One that an earlier attempt may have brought to the provider is not sent again, but stays unknown; one that
-- is unknown now is not sent again either.
create or replace function postrider.cancel_jobs(ids bigint[]) returns bigint[]
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

  update postrider.queue q set expires_at = least(q.expires_at, clock_timestamp())
  where q.id = any(locked) and q.state = 'unknown';

  -- A second statement sees the attempts that committed while the first one waited, and no new one can come.
  with gone as (
    delete from postrider.queue q
    where q.id = any(locked) and q.state = 'queued' and not postrider.has_open_attempt(q.id, q.tries)
    returning *
  ), moved as (
    insert into postrider.dead_letter (
      id, state, reason, detail, ended_at, lane, priority, due_at, tries, spent, resends, kind, recipient, recipient_key,
      template, language, sender, producer, enqueued_at, expires_at, reference, batch, labels)
    select id, case when earlier.may_have_left then 'unknown' else 'cancelled' end,
           case when earlier.may_have_left then 'outcome_unknown' else 'cancelled' end,
           case when earlier.may_have_left then 'withdrawn before it was sent again' end,
           clock_timestamp(), lane, priority, due_at, tries, spent, resends, kind, recipient,
           recipient_key, template, language, sender, producer, enqueued_at, expires_at, reference, batch, labels
    from gone
    cross join lateral (select postrider.may_have_left(gone.id, gone.tries, gone.resends)) as earlier(may_have_left)
    returning id, state
  )
  select coalesce(array_agg(moved.id) filter (where moved.state = 'cancelled'), '{}') into cancelled from moved;
  return cancelled;
end
$$;

revoke all on function postrider.unknown_detail(text, timestamptz, timestamptz, timestamptz) from public;
grant execute on function postrider.unknown_detail(text, timestamptz, timestamptz, timestamptz)
to postrider_daemon, postrider_owner;

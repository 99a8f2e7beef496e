-- Locks that stood in the way of others: of a former holder whose statement does not end, and of who cancels what is being
-- sent.

alter table postrider.lease
  -- Who held it last, when nobody does: what that one has under way may still have it locked.
  add column former text;

-- One plan for all calls: statements over arrays look cheaper to Postgres when it plans them for the array at hand, each time
-- anew, and with the partitions of attempts and answers that takes longer than to run them.
create or replace function postrider.cancel_jobs(ids bigint[]) returns bigint[]
language plpgsql
set plan_cache_mode = force_generic_plan
as $$
declare
  locked bigint[];
  cancelled bigint[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform postrider.refuse('PR013', current_setting('transaction_isolation'));
  end if;

  -- In the order of their ids, so that two callers cannot wait for each other in a circle. This waits for an attempt that
  -- is being written. What is being sent is not locked: its settlement, and that of all others beside it, would wait for the
  -- end of the caller's transaction.
  locked := array(
    select q.id from postrider.queue q
    where q.id = any(ids) and (q.producer = session_user or postrider.sees_all_jobs())
      and (q.state = 'unknown' or not (select next.is_open from postrider.next_attempt(q.id, q.tries) as next))
    order by q.id for update);

  update postrider.queue q set expires_at = least(q.expires_at, clock_timestamp())
  where q.id = any(locked) and q.state = 'unknown';

  -- A second statement sees the attempts that committed while the first one waited, and no new one can come.
  with gone as (
    delete from postrider.queue q
    where q.id = any(locked) and q.state = 'queued'
      and not (select next.is_open from postrider.next_attempt(q.id, q.tries) as next)
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

-- What operators do with dead letters: send them again, or drop them for good. Each leaves a trace at the job, because the
-- history tells only of the whole.

-- Every time that a dead letter was put into the queue again.
create table postrider.redriven (
  -- The job; it keeps its id.
  job bigint not null,
  -- When.
  at timestamptz not null,
  -- The state in which it had ended.
  state text not null,
  -- Why it had ended.
  reason text not null,
  -- The provider's error code of its last answer then.
  error_code integer,
  -- The event of the history that tells who did it, by which filter and why.
  event bigint not null references postrider.operator_event,
  primary key (job, at)
);

-- Dead letters that were dropped for good. `verify` counts them as a place, so that a dropped job is not a lost one.
create table postrider.dropped (
  -- The job.
  job bigint primary key,
  -- When.
  at timestamptz not null,
  -- The state in which it had ended.
  state text not null,
  -- Why it had ended.
  reason text not null,
  -- The event of the history that tells who did it, by which filter and why.
  event bigint not null references postrider.operator_event
);

-- Dead letters that fit; what is null does not matter. Postgres takes it apart within the statements that call it.
create function postrider.dead_matching(
  ids bigint[], states text[], reasons text[], kinds text[], number text, ended_before timestamptz, ended_after timestamptz,
  batch text, reference text, recipient_key text
) returns setof postrider.dead_letter
language sql stable
as $$
  select d.*
  from postrider.dead_letter d
  where (dead_matching.ids is null or d.id = any(dead_matching.ids))
    and (dead_matching.states is null or d.state = any(dead_matching.states))
    and (dead_matching.reasons is null or d.reason = any(dead_matching.reasons))
    and (dead_matching.kinds is null or d.kind = any(dead_matching.kinds))
    and (dead_matching.number is null
         or d.lane = (select n.lane from postrider.number n where n.phone_number_id = dead_matching.number))
    and (dead_matching.ended_before is null or d.ended_at < dead_matching.ended_before)
    and (dead_matching.ended_after is null or d.ended_at >= dead_matching.ended_after)
    and (dead_matching.batch is null or d.batch = dead_matching.batch)
    and (dead_matching.reference is null or d.reference = dead_matching.reference)
    and (dead_matching.recipient_key is null or d.recipient_key = dead_matching.recipient_key)
$$;

-- Counts what was done so far into the event, so that it is right also when somebody stops half-way.
create function postrider.count_into(event bigint, more bigint) returns void
language sql
as $$
  update postrider.operator_event e
  set detail = coalesce(e.detail, '{}')
    || jsonb_build_object('jobs', coalesce((e.detail->>'jobs')::bigint, 0) + more)
  where e.id = event
$$;

-- Puts dead letters into the queue again and returns those that it did: the same jobs under their ids, with a fresh validity
-- (their kind's, or the one given) and nothing spent. Their attempts go on counting where they stopped, so that no number
-- comes twice. What has no content any more cannot be sent; a row that somebody else holds is theirs.
create function postrider.redrive(event bigint, ids bigint[], valid_for interval default null) returns bigint[]
language plpgsql
as $$
#variable_conflict use_column
declare
  -- Not now(): a long transaction's jobs would sort behind what a lane has already passed.
  moment constant timestamptz := clock_timestamp();
  redriven_ids bigint[];
begin
  with chosen as (
    select d.id from postrider.dead_letter d
    where d.id = any(ids) and d.content is not null
    order by d.id
    for update skip locked
  ), gone as (
    delete from postrider.dead_letter d using chosen where d.id = chosen.id
    returning d.*,
      -- An unknown attempt may have been left open for its receipt. It is closed now and counted; a receipt of it still
      -- settles the job.
      d.state = 'unknown' and exists (
        select from postrider.attempt a
        where a.job = d.id and a.attempt = d.tries + 1 and a.at > now() - interval '8 days') as closes_one
  ), closed as (
    insert into postrider.answer (job, attempt, lane, outcome, detail, at)
    select g.id, g.tries + 1, g.lane, 'unknown', 'no receipt told what became of it, and it was redriven', moment
    from gone g
    where g.closes_one
      and not exists (
        select from postrider.answer a where a.job = g.id and a.attempt = g.tries + 1 and a.outcome = 'unknown')
  ), noted as (
    insert into postrider.redriven (job, at, state, reason, error_code, event)
    select g.id, moment, g.state, g.reason, g.error_code, redrive.event from gone g
  ), queued as (
    insert into postrider.queue (
      lane, priority, due_at, id, tries, spent, resends, kind, recipient, recipient_key, template, language, content,
      sender, producer, enqueued_at, expires_at, reference, batch, labels)
    select
      g.lane, g.priority, moment, g.id, g.tries + g.closes_one::integer, 0, g.resends, g.kind, g.recipient,
      g.recipient_key, g.template, g.language, g.content, g.sender, g.producer, g.enqueued_at,
      -- A kind that is no longer configured gives them as long as they had.
      moment + coalesce(redrive.valid_for, k.valid_for, g.expires_at - g.enqueued_at),
      g.reference, g.batch, g.labels
    from gone g left join postrider.kind k on k.name = g.kind
    returning id, lane, priority
  ), rung as (
    select count(pg_notify('postrider_bell', urgent.lane::text)) as bells
    from (select distinct q.lane from queued q where q.priority = 0) urgent
    where (select s.value from postrider.setting s where s.name = 'ring') = 'true'
  )
  select coalesce((select array_agg(q.id) from queued q), '{}') into redriven_ids from rung;
  perform postrider.count_into(event, cardinality(redriven_ids));
  return redriven_ids;
end
$$;

-- Drops dead letters for good and returns those that it did. A row that somebody else holds is theirs.
create function postrider.drop_dead(event bigint, ids bigint[]) returns bigint[]
language plpgsql
as $$
#variable_conflict use_column
declare
  dropped_ids bigint[];
begin
  with chosen as (
    select d.id from postrider.dead_letter d where d.id = any(ids) order by d.id for update skip locked
  ), gone as (
    delete from postrider.dead_letter d using chosen where d.id = chosen.id returning d.*
  ), noted as (
    insert into postrider.dropped (job, at, state, reason, event)
    select g.id, clock_timestamp(), g.state, g.reason, drop_dead.event from gone g
    returning job
  )
  select coalesce(array_agg(n.job), '{}') into dropped_ids from noted n;
  perform postrider.count_into(event, cardinality(dropped_ids));
  return dropped_ids;
end
$$;

revoke all on postrider.redriven, postrider.dropped from public;
revoke all on function
  postrider.dead_matching(bigint[], text[], text[], text[], text, timestamptz, timestamptz, text, text, text),
  postrider.count_into(bigint, bigint), postrider.redrive(bigint, bigint[], interval), postrider.drop_dead(bigint, bigint[])
from public;
grant select, insert, update, delete on postrider.redriven, postrider.dropped to postrider_daemon;
grant select on postrider.redriven, postrider.dropped to postrider_reader;
grant execute on function
  postrider.dead_matching(bigint[], text[], text[], text[], text, timestamptz, timestamptz, text, text, text),
  postrider.count_into(bigint, bigint), postrider.redrive(bigint, bigint[], interval), postrider.drop_dead(bigint, bigint[])
to postrider_daemon, postrider_owner;

-- What operators do, and what upstreams read.

-- Something is stopped, by a person or by the provider's word.
create table postrider.pause (
  -- all, kind, priority, batch, number, account, template.
  scope text not null check (scope in ('all', 'kind', 'priority', 'batch', 'number', 'account', 'template')),
  -- Which: the kind's name, phone_number_id, waba_id, template as waba_id/name/language; empty for all.
  target text not null,
  -- operator, or provider when an answer or a webhook did it.
  source text not null check (source in ('operator', 'provider')),
  -- Why, for people.
  reason text not null,
  -- The provider's error code that caused it.
  error_code integer,
  -- Who: a login role, or postrider.
  by text not null default session_user,
  -- Since when.
  since timestamptz not null default now(),
  -- When it ends by itself; null when somebody must end it.
  until timestamptz,
  primary key (scope, target, source)
);

-- Who paused, resumed, erased, redrove, changed what, when, why.
create table postrider.operator_event (
  -- Ours.
  id bigint generated always as identity primary key,
  -- When.
  at timestamptz not null default now(),
  -- A login role, or postrider.
  who text not null default session_user,
  -- pause, resume, sync, set_rate, ...
  action text not null,
  -- What it was done to.
  target text not null,
  -- Anything more.
  detail jsonb
);

-- A feed of state changes for upstreams, in an order in which nothing appears behind what was already read.
create table postrider.job_event (
  -- Ours, in insert order.
  id bigint generated always as identity,
  -- Its place in the feed, given at publication by one writer; null until then.
  position bigint,
  -- The job.
  job bigint not null,
  -- The state it came to.
  state text not null,
  -- Why.
  reason text,
  -- When.
  at timestamptz not null default clock_timestamp(),
  primary key (id, at)
) partition by range (at);
create index job_event_by_position on postrider.job_event (position);

-- Makes the partitions of the days from `from_day` to `to_day`. The daemon calls it at start and every hour; a partition
-- that is there stays as it is. It waits at most 2 s for a lock, so that it never blocks those who write.
create function postrider.ensure_partitions(from_day date, to_day date) returns integer
language plpgsql
set search_path = pg_catalog, postrider
set lock_timeout = '2s'
as $$
declare
  parent text;
  day date;
  made integer := 0;
begin
  -- One at a time: two instances that start together must not collide.
  perform pg_advisory_xact_lock(hashtext('postrider.ensure_partitions'));
  foreach parent in array array['attempt', 'answer', 'message', 'receipt', 'webhook_event', 'job_event'] loop
    for day in select d::date from generate_series(from_day, to_day, interval '1 day') d loop
      if to_regclass(format('postrider.%I', parent || to_char(day, '_YYYYMMDD'))) is null then
        execute format(
          -- Three receipts update a message; room on its page keeps them from touching the indexes.
          'create table postrider.%I partition of postrider.%I for values from (%L) to (%L)'
            || case when parent = 'message' then ' with (fillfactor = 75)' else '' end,
          parent || to_char(day, '_YYYYMMDD'), parent,
          case when parent = 'message' then day::text else day::text || ' 00:00:00+00' end,
          case when parent = 'message' then (day + 1)::text else (day + 1)::text || ' 00:00:00+00' end);
        made := made + 1;
      end if;
    end loop;
  end loop;
  return made;
end
$$;
revoke all on function postrider.ensure_partitions(date, date) from public;

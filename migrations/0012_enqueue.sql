-- Taking jobs in. Everything happens in the caller's transaction: the job exists exactly when the order does.

-- What became of a job that was not simply taken.
create type postrider.enqueue_exception as (
  -- As in the request.
  ordinal integer,
  -- The first job of the same idempotency key; null when it was refused.
  duplicate_of bigint,
  -- Why it was refused.
  error_code text,
  -- What the refusal is about.
  error_subject text
);

-- Claims the idempotency keys of the jobs and returns the jobs that got theirs. A second transaction with the same key
-- waits here for the first. A key older than 7 days is free again.
create function postrider.claim_keys(jobs postrider.resolved_job[], time_now timestamptz) returns bigint[]
language plpgsql
as $$
#variable_conflict use_column
declare
  claimed bigint[];
begin
  with claim as (
    insert into postrider.idempotency_key as k (key_hash, job, content_hash, at)
    -- In the order of the keys, so that two batches cannot wait for each other in a circle.
    select distinct on (j.key_hash) j.key_hash, j.id, j.content_hash, time_now
    from unnest(jobs) j where j.error_code is null and j.key_hash is not null
    order by j.key_hash, j.ordinal
    on conflict (key_hash) do update
      set job = excluded.job, content_hash = excluded.content_hash, at = excluded.at
      where k.at < excluded.at - interval '7 days'
    returning k.job
  )
  select array_agg(claim.job) into claimed from claim;
  return claimed;
end
$$;

-- Puts what is right into the queue, rings, and returns the rest: what was refused and what was there already.
create function postrider.take_jobs(jobs postrider.resolved_job[], ring boolean, time_now timestamptz)
returns postrider.enqueue_exception[]
language plpgsql
as $$
declare
  claimed bigint[];
  taken postrider.resolved_job[] := jobs;
begin
  if exists (select from unnest(jobs) j where j.key_hash is not null or j.error_code is not null) then
    claimed := postrider.claim_keys(jobs, time_now);
    taken := array(select j from unnest(jobs) j
                   where j.error_code is null and (j.key_hash is null or j.id in (select unnest(claimed))));
  end if;

  insert into postrider.queue (lane, priority, due_at, id, reason, kind, recipient, recipient_key, template, language,
                               content, sender, producer, enqueued_at, expires_at, reference, batch, labels)
  select lane, priority, due_at, id, reason, kind, recipient, recipient_key, template, language,
         content, sender, session_user, time_now, expires_at, reference, batch, labels
  from unnest(taken);
  insert into postrider.enqueued (job, producer, kind, at)
  select id, session_user, kind, time_now from unnest(taken);
  if ring then
    perform pg_notify('postrider_bell', urgent.lane::text)
    from (select distinct t.lane from unnest(taken) t where t.priority = 0 and t.due_at <= time_now) urgent;
  end if;

  if cardinality(taken) = cardinality(jobs) then
    return '{}';
  end if;
  -- A new statement, so that it sees what another transaction committed while this one waited. A refused job is looked
  -- up too: whoever repeats a call after its expires_at still learns that the first one was taken.
  return array(
    select row (j.ordinal,
                case when same then k.job end,
                case when not same then coalesce(j.error_code, 'PR007') end,
                case when not same then coalesce(j.error_subject, k.job::text) end)::postrider.enqueue_exception
    from unnest(jobs) j
    left join postrider.idempotency_key k on k.key_hash = j.key_hash and k.at >= time_now - interval '7 days'
    cross join lateral (select coalesce(k.content_hash = j.content_hash, false) as same) compared
    where j.error_code is not null or j.key_hash is not null and k.job is distinct from j.id);
end
$$;

-- Enqueues one request, whatever is in it, and returns its job, or raises. Statements over arrays look cheaper to Postgres
-- when it plans them for the array at hand, each time anew, which takes longer than to run them: hence plan_cache_mode, here
-- and below.
create function postrider.enqueue_one(request postrider.job_request) returns bigint
language plpgsql
set plan_cache_mode = force_generic_plan
as $$
declare
  -- Not now(): a long transaction's jobs would sort behind what a lane has already passed.
  at constant timestamptz := clock_timestamp();
  settings constant postrider.enqueue_settings := postrider.enqueue_settings();
  job postrider.resolved_job;
  exceptions postrider.enqueue_exception[];
begin
  job := postrider.resolve_job(request, settings, at);
  job.id := nextval('postrider.job_id');
  if job.error_code is null and job.key_hash is null then
    -- The usual case does what take_jobs does, without the detour over arrays, which would cost more than the inserts.
    insert into postrider.queue (lane, priority, due_at, id, reason, kind, recipient, recipient_key, template, language,
                                 content, sender, producer, enqueued_at, expires_at, reference, batch, labels)
    values (job.lane, job.priority, job.due_at, job.id, job.reason, job.kind, job.recipient, job.recipient_key,
            job.template, job.language, job.content, job.sender, session_user, at, job.expires_at, job.reference,
            job.batch, job.labels);
    insert into postrider.enqueued (job, producer, kind, at) values (job.id, session_user, job.kind, at);
    if settings.ring and job.priority = 0 and job.due_at <= at then
      perform pg_notify('postrider_bell', job.lane::text);
    end if;
    return job.id;
  end if;
  exceptions := postrider.take_jobs(array[job], settings.ring, at);
  if exceptions = '{}' then
    return job.id;
  elsif exceptions[1].error_code is not null then
    perform postrider.refuse(exceptions[1].error_code, exceptions[1].error_subject);
  end if;
  return exceptions[1].duplicate_of;
end
$$;

-- The functions for callers follow.

-- Enqueues a template message and returns the job's id.
--
-- Most callers enqueue one job in a transaction, and most of its price is then what Postgres sets up anew for each: every
-- statement, table, index and operator. So the usual job is resolved, checked and inserted by one statement that reads one
-- row. What it does not take goes the general way, which alone says why it refuses: a business-scoped id, a job with a key,
-- a priority, times or labels of its own, one that may be an otp by its template, a language that no template has, and
-- whatever is wrong.
create function postrider.enqueue(
  recipient text, template text, parameters jsonb default '{}', language text default null,
  kind text default null, sender text default null, priority text default null,
  idempotency_key text default null, not_before timestamptz default null, expires_at timestamptz default null,
  reference text default null, batch text default null, labels jsonb default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
#variable_conflict use_variable
declare
  -- Not now(): a long transaction's jobs would sort behind what a lane has already passed.
  at constant timestamptz := clock_timestamp();
  job bigint;
  job_kind text;
  rang boolean;
begin
  -- The id is the column's default: a volatile function among the values would keep Postgres from computing them in one go.
  insert into postrider.queue (lane, priority, due_at, kind, recipient, recipient_key, template, language, content,
                               sender, producer, enqueued_at, expires_at, reference, batch)
  select
    case when cardinality(d.lanes) = 1 then d.lanes[1] else postrider.lane_of(d.lanes, recipient) end,
    d.priority,
    at,
    d.kind_name, recipient, postrider.address_key(recipient), template,
    coalesce(language, postrider.language_for(template, postrider.lane_of(d.lanes, recipient), recipient, d.language)),
    coalesce(parameters, '{}'),
    d.sender_name, session_user, at,
    at + d.valid_for,
    reference, batch
  from postrider.job_default d
  where d.sender = coalesce(sender, '') and d.kind = coalesce(kind, '')
    -- Empty stands for null in that table, but not in a call.
    and (sender = '' or kind = '') is not true
    and num_nonnulls(priority, idempotency_key, not_before, expires_at, labels) = 0
    and (kind is not null or template <> all (d.otp_templates))
    and (language is null or language = any (d.languages))
    and (d.ring or d.priority > 0)
    and postrider.is_plainly_right(recipient, template, coalesce(parameters, '{}'), reference, batch)
  returning queue.id, queue.kind,
    case when queue.priority = 0 then pg_notify('postrider_bell', queue.lane::text) is null end
  into job, job_kind, rang;
  if not found then
    return postrider.enqueue_one(row (
      1, recipient, template, coalesce(parameters, '{}'), false, language, kind, sender, priority, idempotency_key,
      not_before, expires_at, reference, batch, labels, null, null)::postrider.job_request);
  end if;
  insert into postrider.enqueued (job, producer, kind, at) values (job, session_user, job_kind, at);
  return job;
end
$$;

-- Enqueues a free-form message, which goes only while the recipient's service window is open, and returns the job's id.
create function postrider.enqueue_message(
  recipient text, message jsonb,
  kind text default null, sender text default null, priority text default null,
  idempotency_key text default null, not_before timestamptz default null, expires_at timestamptz default null,
  reference text default null, batch text default null, labels jsonb default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
begin
  return postrider.enqueue_one(row (
    1, recipient, null, message, true, null, kind, sender, priority, idempotency_key,
    not_before, expires_at, reference, batch, labels, null, null)::postrider.job_request);
end
$$;

-- A time out of JSON; null for what is none.
create function postrider.time_or_null(value text) returns timestamptz
language plpgsql stable
as $$
begin
  return value::timestamptz;
exception
  when datetime_field_overflow or invalid_datetime_format or invalid_parameter_value then return null;
end
$$;

-- What is wrong with a job's JSON before its values are looked at; null when nothing is.
create function postrider.job_problem(job jsonb, known_keys text[]) returns text
language sql stable
as $$
  select case
    when jsonb_typeof(job) <> 'object' then format('a job must be a JSON object, not %s', jsonb_typeof(job))
    when job - known_keys <> '{}' then format('a job does not know the key "%s"', postrider.unknown_key(job, known_keys))
    when job->>'message' is not null and (job->>'template' is not null or job->>'parameters' is not null) then
      'a job has either a template or a message'
    when job->>'not_before' is not null and postrider.time_or_null(job->>'not_before') is null then
      'not_before is not a time'
    when job->>'expires_at' is not null and postrider.time_or_null(job->>'expires_at') is null then
      'expires_at is not a time'
  end
$$;

-- The requests in a JSON array of objects with the keys of enqueue and enqueue_message.
create function postrider.requests_of(jobs jsonb) returns postrider.job_request[]
language plpgsql
as $$
declare
  known_keys constant text[] := '{recipient,template,parameters,message,language,kind,sender,priority,idempotency_key,'
                                'not_before,expires_at,reference,batch,labels}';
begin
  return array(
    select row (
      element.ordinal, job->>'recipient', job->>'template',
      case when job->>'message' is null then coalesce(nullif(job->'parameters', 'null'), '{}') else job->'message' end,
      job->>'message' is not null,
      job->>'language', job->>'kind', job->>'sender', job->>'priority', job->>'idempotency_key',
      case when problem is null then (job->>'not_before')::timestamptz end,
      case when problem is null then (job->>'expires_at')::timestamptz end,
      job->>'reference', job->>'batch', nullif(job->'labels', 'null'),
      case when problem is not null then 'PR006' end, problem)::postrider.job_request
    from jsonb_array_elements(jobs) with ordinality element (job, ordinal)
    cross join lateral (select postrider.job_problem(job, known_keys) as problem offset 0) checked);
end
$$;

-- Enqueues many jobs: a JSON array of objects with the keys of enqueue and enqueue_message. One that is refused does not
-- stop the others; its row says why.
create function postrider.enqueue_many(jobs jsonb)
returns table (ordinal int, job_id bigint, duplicate boolean, error_code text, error text)
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
set plan_cache_mode = force_generic_plan
-- Most recipients of a batch are different: remembering what was found for one costs more than it saves.
set enable_memoize = off
as $$
#variable_conflict use_column
declare
  at constant timestamptz := clock_timestamp();
  settings constant postrider.enqueue_settings := postrider.enqueue_settings();
  resolved postrider.resolved_job[];
  exceptions postrider.enqueue_exception[];
begin
  if jsonb_typeof(jobs) is distinct from 'array' then
    perform postrider.refuse('PR006', 'jobs must be a JSON array');
  end if;
  resolved := postrider.resolve_jobs(postrider.requests_of(jobs), settings, at);
  exceptions := postrider.take_jobs(resolved, settings.ring, at);
  return query
    select job.ordinal,
           case when exception.ordinal is null then job.id else exception.duplicate_of end,
           exception.duplicate_of is not null,
           exception.error_code,
           case when exception.error_code is not null then
             (select said.sentence || '. ' || said.hint
              from postrider.refusal(exception.error_code, exception.error_subject) said)
           end
    from unnest(resolved) job left join unnest(exceptions) exception using (ordinal)
    order by job.ordinal;
end
$$;

-- From what a caller asks for to what stands in the queue. One function for one job and for a thousand.

-- A job as a caller asks for it; null means the default.
create type postrider.job_request as (
  -- Its place among those asked for together, from 1.
  ordinal integer,
  -- Where it shall go.
  recipient text,
  -- The template's name; null for a free-form message.
  template text,
  -- The template's parameters, or the free-form message.
  content jsonb,
  -- Whether content is a free-form message.
  free_form boolean,
  -- The template's language.
  language text,
  -- What it is about.
  kind text,
  -- The sender pool.
  sender text,
  -- urgent, normal or bulk.
  priority text,
  -- The producer's own key for this job.
  idempotency_key text,
  -- Not sent before this.
  not_before timestamptz,
  -- Not sent after this.
  expires_at timestamptz,
  -- The upstream's own name for it.
  reference text,
  -- The upstream's name for a group of jobs.
  batch text,
  -- Free to use.
  labels jsonb,
  -- What was wrong before it got this far: a SQLSTATE of class PR, ...
  error_code text,
  -- ... and its subject.
  error_subject text
);

-- A job ready for the queue, or why it is refused.
create type postrider.resolved_job as (
  -- As in the request.
  ordinal integer,
  -- The job's id, were it taken.
  id bigint,
  -- Why it is refused; null when it is not.
  error_code text,
  -- What the refusal is about.
  error_subject text,
  -- From here on as in queue.
  lane integer,
  priority smallint,
  due_at timestamptz,
  reason text,
  kind text,
  recipient text,
  recipient_key text,
  template text,
  language text,
  content jsonb,
  sender text,
  expires_at timestamptz,
  reference text,
  batch text,
  labels jsonb,
  -- SHA-256 of producer and idempotency key; null without a key.
  key_hash bytea,
  -- SHA-256 of what was asked for; null without a key.
  content_hash bytea
);

-- The first key of an object that is none of those known; null when all are.
create function postrider.unknown_key(object jsonb, known text[]) returns text
language plpgsql immutable parallel safe
as $$
begin
  return (select min(key) from jsonb_object_keys(object - known) key);
end
$$;

-- Whether template parameters or a free-form message have the right shape. Whether they fit the template is another
-- question, and answered when the job is sent. (Like its siblings below it has no subquery: so Postgres inlines it. Each
-- operator in it is set up anew for every transaction that enqueues, hence no words here about what is wrong.)
create function postrider.content_is_right(content jsonb, free_form boolean) returns boolean
language sql immutable parallel safe
as $$
  select case
    when content is null or jsonb_typeof(content) <> 'object' then false
    when free_form then coalesce(jsonb_typeof(content->(content->>'type')) = 'object', false)
    else
      content - '{body,header,buttons,code,components}'::text[] = '{}'
      and coalesce(jsonb_typeof(content->'body') in ('array', 'object', 'null'), true)
      and coalesce(jsonb_typeof(content->'header') in ('string', 'object', 'null'), true)
      and coalesce(jsonb_typeof(content->'buttons') in ('object', 'null'), true)
      and coalesce(jsonb_typeof(content->'code') in ('string', 'null'), true)
      and coalesce(jsonb_typeof(content->'components') in ('array', 'null'), true)
  end
$$;

-- What is wrong with content whose shape is not right.
create function postrider.content_problem(content jsonb, free_form boolean) returns text
language sql stable parallel safe
as $$
  select case
    when content is null then 'the message is missing'
    when jsonb_typeof(content) <> 'object' then
      format('%s must be a JSON object, not %s', case when free_form then 'the message' else 'parameters' end,
             jsonb_typeof(content))
    when free_form then case
      when content->>'type' is null then 'the message has no "type"'
      when jsonb_typeof(content->(content->>'type')) is distinct from 'object' then
        format('the message has no object %s beside its "type"', content->'type')
    end
    when content - '{body,header,buttons,code,components}'::text[] <> '{}' then
      format('parameters do not know the key "%s"',
             postrider.unknown_key(content, '{body,header,buttons,code,components}'))
    when jsonb_typeof(content->'body') not in ('array', 'object', 'null') then '"body" must be a list or an object'
    when jsonb_typeof(content->'header') not in ('string', 'object', 'null') then '"header" must be a text or an object'
    when jsonb_typeof(content->'buttons') not in ('object', 'null') then '"buttons" must be an object with indexes as keys'
    when jsonb_typeof(content->'code') not in ('string', 'null') then '"code" must be a string: a number loses its zeros'
    when jsonb_typeof(content->'components') not in ('array', 'null') then '"components" must be a list'
  end
$$;

-- What of a request is too long or too large to keep; null when nothing is.
create function postrider.size_problem(template text, content jsonb, idempotency_key text, reference text, batch text,
                                       labels jsonb) returns text
language sql stable parallel safe
as $$
  select case
    when length(reference) not between 1 and 512 then 'the reference is empty or longer than 512 characters'
    when length(batch) not between 1 and 512 then 'the batch is empty or longer than 512 characters'
    when length(idempotency_key) not between 1 and 512 then 'the idempotency key is empty or longer than 512 characters'
    when length(template) > 512 then 'the template''s name is longer than 512 characters'
    when pg_column_size(content) > 65536 then 'parameters are larger than 64 KiB'
    when pg_column_size(labels) > 65536 then 'labels are larger than 64 KiB'
  end
$$;

-- What is wrong with a request's times; null when nothing is. `at` is the time now.
create function postrider.time_problem(not_before timestamptz, expires_at timestamptz, at timestamptz) returns text
language sql stable parallel safe
as $$
  select case
    -- Ten years: what is further is a mistake, and the ends of the calendar would break who reads it.
    when not_before > at + interval '10 years' then 'not_before lies more than ten years ahead'
    when expires_at > at + interval '10 years' then 'expires_at lies more than ten years ahead'
    when expires_at <= at then 'expires_at lies in the past'
    when expires_at <= not_before then 'expires_at is not after not_before'
  end
$$;

-- The template language for a caller who named none: the recipient's own, where the template has it or where nothing is
-- known of the template; else the template's only one; else the configured default.
create function postrider.choose_language(wanted text, languages text[], otherwise text) returns text
language plpgsql immutable parallel safe
as $$
declare
  candidate text;
  language text;
  found text;
begin
  if languages is null then
    return coalesce(wanted, otherwise);
  end if;
  foreach candidate in array array[wanted, case when cardinality(languages) = 1 then languages[1] end, otherwise] loop
    continue when candidate is null;
    if candidate = any(languages) then
      return candidate;
    end if;
    -- pt_BR does for pt, and en for en_GB; of several the first by name, so that it is always the same.
    foreach language in array languages loop
      if split_part(language, '_', 1) = split_part(candidate, '_', 1) then
        found := least(found, language);
      end if;
    end loop;
    if found is not null then
      return found;
    end if;
  end loop;
  return otherwise;
end
$$;

-- The lane of a pool that a recipient's jobs go out from. Rendezvous hashing: the one with the highest hash of person and
-- lane. It sticks, and when a number comes or goes only that number's people move.
create function postrider.lane_of(lanes integer[], recipient text) returns integer
language plpgsql stable
as $$
declare
  person constant text := postrider.person_of(postrider.address_key(recipient));
begin
  return (select lane from unnest(lanes) lane order by hashint4extended(lane, hashtextextended(person, 0)) desc limit 1);
end
$$;

-- The language of a template for a recipient, where the caller left it open.
create function postrider.language_for(template_name text, lane integer, recipient text, otherwise text) returns text
language plpgsql stable
as $$
declare
  person_key constant text := postrider.person_of(postrider.address_key(recipient));
  languages text[];
  preferred text;
begin
  select array_agg(t.language) into languages from postrider.template t
  where t.name = template_name and t.waba_id = (select n.waba_id from postrider.number n where n.lane = language_for.lane);
  select c.language into preferred from postrider.consent c
  where c.person = person_key and c.language is not null
  order by c.opted_in_at desc nulls last limit 1;
  return postrider.choose_language(preferred, languages, otherwise);
end
$$;

-- The values of postrider.setting that enqueue needs, read once a call.
create type postrider.enqueue_settings as (
  -- The kind of a job that names none.
  default_kind text,
  -- The kind of such a job whose template authenticates; null where no such kind is configured.
  otp_kind text,
  -- The language of a template where nothing better is known.
  default_language text,
  -- The sender pool of a job that names none.
  default_sender text,
  -- Whether urgent jobs ring.
  ring boolean
);

create function postrider.enqueue_settings() returns postrider.enqueue_settings
language plpgsql stable
as $$
declare
  settings postrider.enqueue_settings;
begin
  select
    max(value #>> '{}') filter (where name = 'default_kind'),
    (select k.name from postrider.kind k where k.name = 'otp' and k.configured),
    max(value #>> '{}') filter (where name = 'default_language'),
    max(value #>> '{}') filter (where name = 'default_sender'),
    bool_or(value = 'true') filter (where name = 'ring')
  into settings from postrider.setting;
  return settings;
end
$$;

-- The priority of that name as stored; null for what is none.
create function postrider.priority_of(word text) returns smallint
language sql immutable parallel safe
as $$
  select case word when 'urgent' then 0 when 'normal' then 1 when 'bulk' then 2 end::smallint
$$;

-- The SQLSTATE of the first thing that is wrong with a request, given what was found for it; null when nothing is. The
-- state of the world (consent, a template's status) is not looked at: it becomes the job's state, and must not undo
-- somebody's order.
create function postrider.first_problem(
  request postrider.job_request, address_key text, kind text, lane integer, language text, at timestamptz
) returns text
language sql stable
as $$
  select case
    when request.error_code is not null then request.error_code
    when address_key is null then 'PR001'
    when not request.free_form and coalesce(btrim(request.template), '') = '' then 'PR008'
    when not postrider.content_is_right(request.content, request.free_form) then 'PR006'
    when jsonb_typeof(request.labels) <> 'object' then 'PR006'
    when kind is null then 'PR002'
    when request.priority is not null and postrider.priority_of(request.priority) is null then 'PR003'
    when lane is null then 'PR004'
    when postrider.time_problem(request.not_before, request.expires_at, at) is not null then 'PR005'
    when request.language is not null and language is null then 'PR009'
    when postrider.size_problem(request.template, request.content, request.idempotency_key, request.reference,
                                request.batch, request.labels) is not null then 'PR010'
  end
$$;

-- Whether first_problem finds nothing in these of a request's values, which are all that most have: a cheaper question,
-- because each operator is set up anew for every transaction that enqueues. No is no answer: then first_problem tells.
create function postrider.is_plainly_right(recipient text, template text, content jsonb, reference text, batch text)
returns boolean
language sql stable parallel safe
as $$
  select postrider.is_phone_number(recipient)
    and btrim(template) <> '' and length(template) <= 512
    and postrider.content_is_right(content, false) and pg_column_size(content) <= 65536
    and (reference is null or length(reference) between 1 and 512)
    and (batch is null or length(batch) between 1 and 512)
$$;

-- What a refusal with that code is about.
create function postrider.problem_subject(
  code text, request postrider.job_request, settings postrider.enqueue_settings, at timestamptz
) returns text
language plpgsql stable
as $$
begin
  return case code
    when request.error_code then request.error_subject
    when 'PR001' then request.recipient
    when 'PR002' then coalesce(request.kind, settings.default_kind)
    when 'PR003' then request.priority
    when 'PR004' then coalesce(request.sender, settings.default_sender)
    when 'PR005' then postrider.time_problem(request.not_before, request.expires_at, at)
    when 'PR006' then
      coalesce(postrider.content_problem(request.content, request.free_form), 'labels must be a JSON object')
    when 'PR009' then request.language
    when 'PR010' then
      postrider.size_problem(request.template, request.content, request.idempotency_key, request.reference,
                             request.batch, request.labels)
  end;
end
$$;

-- Tells keys of different producers apart; null without a key.
create function postrider.key_hash(idempotency_key text) returns bytea
language sql stable
as $$
  select sha256(convert_to(session_user || E'\x1f' || idempotency_key, 'UTF8'))
$$;

-- Tells whether two requests under one key ask for the same. Without the times: who repeats a call computes them anew.
create function postrider.content_hash(request postrider.job_request) returns bytea
language sql stable
as $$
  select case when request.idempotency_key is not null then
    sha256(convert_to(jsonb_build_array(
      request.recipient, request.template, request.content, request.language, request.kind, request.sender,
      request.priority, request.reference, request.batch, request.labels)::text, 'UTF8'))
  end
$$;

-- Fills in a request's defaults and says what is wrong with it: one request, by a few tiny statements, because a statement
-- of many joins takes longer to start than these take altogether. The id is left to the caller. resolve_jobs below is its
-- twin for many.
create function postrider.resolve_job(
  request postrider.job_request, settings postrider.enqueue_settings, at timestamptz
) returns postrider.resolved_job
language plpgsql stable
as $$
declare
  job postrider.resolved_job;
  lanes integer[];
  authenticates boolean;
  kind_priority smallint;
  valid_for interval;
begin
  job.ordinal := request.ordinal;
  job.recipient := request.recipient;
  job.template := request.template;
  job.content := request.content;
  job.reference := request.reference;
  job.batch := request.batch;
  job.labels := request.labels;

  job.recipient_key := postrider.address_key(request.recipient);
  select p.name, p.lanes into job.sender, lanes
  from postrider.sender_pool p where p.name = coalesce(request.sender, settings.default_sender) and p.configured;
  job.lane := postrider.lane_of(lanes, request.recipient);

  if request.language is not null then
    job.language := postrider.language_code(request.language);
  elsif not request.free_form then
    job.language := postrider.language_for(request.template, job.lane, request.recipient, settings.default_language);
  end if;

  -- What the number's account has under that name, where the caller left the kind to be found out.
  if request.kind is null then
    select bool_or(t.category = 'AUTHENTICATION') into authenticates
    from postrider.template t
    where t.name = request.template
      and t.waba_id = (select n.waba_id from postrider.number n where n.lane = job.lane);
  end if;
  select k.name, k.priority, k.valid_for into job.kind, kind_priority, valid_for
  from postrider.kind k
  where k.name = coalesce(request.kind, case when authenticates then settings.otp_kind end, settings.default_kind)
    and k.configured;
  job.priority := coalesce(postrider.priority_of(request.priority), kind_priority);

  job.due_at := greatest(request.not_before, at);
  job.reason := case when request.not_before > at then 'scheduled' end;
  job.expires_at := coalesce(request.expires_at, job.due_at + valid_for);
  if request.idempotency_key is not null then
    job.key_hash := postrider.key_hash(request.idempotency_key);
    job.content_hash := postrider.content_hash(request);
  end if;

  job.error_code := postrider.first_problem(request, job.recipient_key, job.kind, job.lane, job.language, at);
  if job.error_code is not null then
    job.error_subject := postrider.problem_subject(job.error_code, request, settings, at);
  end if;
  return job;
end
$$;

-- The same for many requests in one statement. Each step is a lateral subquery that Postgres may not merge into its
-- neighbours (offset 0, limit 1), so that it is computed once a job, by one visit of an index, whatever the tables'
-- statistics were when the plan was made.
create function postrider.resolve_jobs(
  requests postrider.job_request[], settings postrider.enqueue_settings, at timestamptz
) returns postrider.resolved_job[]
language plpgsql
as $$
begin
  return array(select row (
    r.ordinal,
    case when problem.code is null then nextval('postrider.job_id') end,
    problem.code,
    case when problem.code is not null then postrider.problem_subject(problem.code, r, settings, at) end,
    lane.lane,
    coalesce(postrider.priority_of(r.priority), kind.priority),
    chosen.due_at,
    case when r.not_before > at then 'scheduled' end,
    kind.name,
    r.recipient,
    address.key,
    r.template,
    chosen.language,
    r.content,
    pool.name,
    coalesce(r.expires_at, chosen.due_at + kind.valid_for),
    r.reference,
    r.batch,
    r.labels,
    postrider.key_hash(r.idempotency_key),
    postrider.content_hash(r)
  )::postrider.resolved_job
  from unnest(requests) r
  cross join lateral (select postrider.address_key(r.recipient) as key offset 0) address
  cross join lateral (
    select coalesce((select a.person from postrider.address a where a.key = address.key), address.key) as key offset 0
  ) person
  left join lateral (
    select p.name, p.lanes from postrider.sender_pool p
    where p.name = coalesce(r.sender, settings.default_sender) and p.configured
    limit 1
  ) pool on true
  left join lateral (
    select member.lane from (select unnest(pool.lanes) as lane) member
    order by hashint4extended(member.lane, hashtextextended(person.key, 0)) desc
    limit 1
  ) lane on true
  left join lateral (
    select array_agg(t.language) as languages,
           bool_or(t.category = 'AUTHENTICATION') as authenticates
    from postrider.number n
    join postrider.template t on t.waba_id = n.waba_id and t.name = r.template
    where n.lane = lane.lane and (r.kind is null or r.language is null)
  ) known on true
  left join lateral (
    select c.language from postrider.consent c
    where c.person = person.key and c.language is not null and r.language is null
    order by c.opted_in_at desc nulls last
    limit 1
  ) preferred on true
  left join lateral (
    select k.name, k.priority, k.valid_for from postrider.kind k
    where k.name = coalesce(r.kind, case when known.authenticates then settings.otp_kind end, settings.default_kind)
      and k.configured
    limit 1
  ) kind on true
  cross join lateral (
    select
      greatest(r.not_before, at) as due_at,
      case
        when r.language is not null then postrider.language_code(r.language)
        when not r.free_form then
          postrider.choose_language(preferred.language, known.languages, settings.default_language)
      end as language
    offset 0
  ) chosen
  cross join lateral (
    select postrider.first_problem(r, address.key, kind.name, lane.lane, chosen.language, at) as code offset 0
  ) problem);
end
$$;

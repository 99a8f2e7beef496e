-- The usual job is enqueued for less. Each operator, and each step of a plan, is set up anew for every transaction that
-- enqueues: what is asked of a job stays the same, and is asked with fewer of them.

-- Whether template parameters or a free-form message have the right shape. Whether they fit the template is another
-- question, and answered when the job is sent; what is wrong with the shape is content_problem's to say. (One path instead
-- of operators for each key. Like its siblings it has no subquery: so Postgres inlines it.)
create or replace function postrider.content_is_right(content jsonb, free_form boolean) returns boolean
language sql immutable parallel safe
as $$
  select case
    when free_form then coalesce(jsonb_typeof(content->(content->>'type')) = 'object', false)
    else coalesce(content @@ '
      $.type() == "object" && !exists($.keyvalue() ? (!(
        @.key == "body" && (@.value.type() == "array" || @.value.type() == "object" || @.value.type() == "null")
        || @.key == "header" && (@.value.type() == "string" || @.value.type() == "object" || @.value.type() == "null")
        || @.key == "buttons" && (@.value.type() == "object" || @.value.type() == "null")
        || @.key == "code" && (@.value.type() == "string" || @.value.type() == "null")
        || @.key == "components" && (@.value.type() == "array" || @.value.type() == "null")
      )))', false)
  end
$$;

-- Whether first_problem finds nothing in these of a request's values, which are all that most have: a cheaper question. No
-- is no answer: then first_problem tells.
create or replace function postrider.is_plainly_right(recipient text, template text, content jsonb, reference text,
                                                      batch text)
returns boolean
language sql stable parallel safe
as $$
  select postrider.is_phone_number(recipient)
    and postrider.content_is_right(content, false) and pg_column_size(content) <= 65536
    -- None of them is empty, and all together are no longer than each may be.
    and template is not null and ('' = any (array[btrim(template), reference, batch])) is not true
    and octet_length(concat(template, reference, batch)) <= 512
$$;

-- The canonical key of a phone number in E.164 form. Only countries whose code begins with 5 have unusual ones.
create function postrider.phone_number_key(phone_number text) returns text
language sql immutable parallel safe
as $$
  select case when left(phone_number, 2) <> '+5' then phone_number else postrider.unusual_address_key(phone_number) end
$$;

-- The canonical key of an address, as before (0008): null for what is neither a phone number nor a business-scoped id.
create or replace function postrider.address_key(address text) returns text
language sql immutable parallel safe
as $$
  select case
    when postrider.is_phone_number(address) then postrider.phone_number_key(address)
    else postrider.unusual_address_key(address)
  end
$$;

-- Enqueues a template message and returns the job's id: the usual job by one statement that reads one row, all others by
-- enqueue_one, which alone says why it refuses (0012 tells which those are; names that are long together are one more).
-- The conditions stand inside of one that depends on the row: by themselves, those that do not would be a step of their own
-- in the plan.
create or replace function postrider.enqueue(
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
  job_lane integer;
  rings boolean;
begin
  -- The id is the column's default: a volatile function among the values would keep Postgres from computing them in one go.
  insert into postrider.queue (lane, priority, due_at, kind, recipient, recipient_key, template, language, content,
                               sender, producer, enqueued_at, expires_at, reference, batch)
  select
    case when cardinality(d.lanes) = 1 then d.lanes[1] else postrider.lane_of(d.lanes, recipient) end,
    d.priority,
    at,
    d.kind_name, recipient, postrider.phone_number_key(recipient), template,
    coalesce(language, postrider.language_for(template, postrider.lane_of(d.lanes, recipient), recipient, d.language)),
    coalesce(parameters, '{}'),
    d.sender_name, session_user, at,
    at + d.valid_for,
    reference, batch
  from postrider.job_default d
  where d.sender = coalesce(sender, '') and d.kind = coalesce(kind, '')
    and case when d.ring or d.priority > 0 then
      num_nonnulls(priority, idempotency_key, not_before, expires_at, labels) = 0
      -- Empty stands for null in that table, but not in a call.
      and ('' = any (array[sender, kind])) is not true
      and template <> all (d.otp_templates)
      and (language is null or language = any (d.languages))
      and postrider.is_plainly_right(recipient, template, coalesce(parameters, '{}'), reference, batch)
    end
  returning queue.id, queue.kind, queue.lane, queue.priority = 0 into job, job_kind, job_lane, rings;
  if not found then
    return postrider.enqueue_one(row (
      1, recipient, template, coalesce(parameters, '{}'), false, language, kind, sender, priority, idempotency_key,
      not_before, expires_at, reference, batch, labels, null, null)::postrider.job_request);
  end if;
  insert into postrider.enqueued (job, producer, kind, at) values (job, session_user, job_kind, at);
  if rings then
    perform pg_notify('postrider_bell', job_lane::text);
  end if;
  return job;
end
$$;

revoke all on function postrider.phone_number_key(text) from public;
grant execute on function postrider.phone_number_key(text) to postrider_daemon, postrider_owner;

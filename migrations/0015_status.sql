-- Views for upstreams and operators. A security barrier keeps a producer's own functions from seeing rows that the view
-- leaves out; comparisons by id, reference and the like still reach the indexes.

-- What is stopped at this moment.
create view postrider.pause_now as
select scope, target, source, reason, error_code, by, since, until
from postrider.pause where until is null or until > now();

-- Why a job that is due is not sent, as far as the tables tell; no row when nothing holds it.
create function postrider.hold_of(
  job_lane integer, job_kind text, job_priority smallint, job_batch text, job_template text, job_language text,
  out reason text, out detail text
) returns record
language plpgsql stable
as $$
declare
  number record;
  paused record;
begin
  select n.phone_number_id, n.waba_id, n.shard into number from postrider.number n where n.lane = job_lane;

  select p.scope, p.target, p.reason, p.until into paused
  from postrider.pause_now p
  where (p.scope, p.target) in (
    ('all', ''), ('kind', job_kind), ('priority', (array['urgent', 'normal', 'bulk'])[job_priority + 1]),
    ('batch', job_batch), ('number', number.phone_number_id), ('account', number.waba_id),
    ('template', number.waba_id || '/' || job_template || '/' || job_language))
  order by p.scope <> 'template', p.since
  limit 1;
  if found then
    reason := case paused.scope when 'template' then 'template_paused' else 'paused' end;
    detail := concat_ws(' ', paused.scope, nullif(paused.target, ''), 'is paused'
                        || coalesce(' until ' || to_char(paused.until at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), '')
                        || ':', paused.reason);
    return;
  end if;

  if exists (select from postrider.template t
             where t.waba_id = number.waba_id and t.name = job_template and t.language = job_language
               and t.status = 'PAUSED') then
    reason := 'template_paused';
    detail := 'the provider paused the template';
  elsif not exists (select from postrider.lease l where l.shard = number.shard and l.expires_at > now()) then
    reason := 'no_dispatcher';
  end if;
end
$$;

-- Where a job in the queue is: its state, the reason, and the reason in words.
create function postrider.queue_state(job postrider.queue, out state text, out reason text, out detail text)
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

-- The word for a priority.
create function postrider.priority_word(priority smallint) returns text
language sql immutable parallel safe
as $$
  select case priority when 0 then 'urgent' when 1 then 'normal' else 'bulk' end
$$;

-- Every job, wherever it is; a producer sees its own.
create view postrider.job_status with (security_barrier) as
select
  job.id, job.reference, job.batch, job.labels, job.producer, job.kind, job.priority,
  number.phone_number_id as number,
  job.recipient, job.template, job.language, job.state, job.reason, job.detail,
  -- Whether nothing more is done for it. A delivered message may still be read, and a dead letter be redriven.
  job.dead or job.state in ('delivered', 'read', 'failed', 'undelivered') as final,
  case
    when job.state in ('delivered', 'read') then 'yes'
    when job.state in ('sending', 'unknown', 'accepted', 'held', 'sent') then 'unknown'
    else 'no'
  end as delivered,
  -- Whether another channel may carry it: it surely did not arrive, and neither the person nor the upstream wanted that.
  (job.dead or job.state in ('failed', 'undelivered'))
    and job.state not in ('unknown', 'cancelled')
    and coalesce(job.reason, '') not in ('opted_out', 'recipient_invalid', 'identity_changed', 'outcome_unknown')
    as retryable_elsewhere,
  job.due_at, job.expires_at, job.attempts, job.provider_message_id,
  job.enqueued_at, job.accepted_at, job.sent_at, job.delivered_at, job.delivered_inferred, job.read_at, job.failed_at,
  job.error_code, job.error_title, job.pricing_category, job.pricing_type, job.ended_at, job.recipient_key
from (
  select
    q.id, q.reference, q.batch, q.labels, q.producer, q.kind, postrider.priority_word(q.priority) as priority, q.lane,
    q.recipient, q.recipient_key, q.template, q.language, now_at.state, now_at.reason, now_at.detail, false as dead,
    q.due_at, q.expires_at, q.tries as attempts, null::text as provider_message_id,
    q.enqueued_at, null::timestamptz as accepted_at, null::timestamptz as sent_at, null::timestamptz as delivered_at,
    false as delivered_inferred, null::timestamptz as read_at, null::timestamptz as failed_at,
    null::integer as error_code, null::text as error_title, null::text as pricing_category, null::text as pricing_type,
    null::timestamptz as ended_at
  from postrider.queue q cross join lateral postrider.queue_state(q) now_at
  union all
  select
    m.job, m.reference, m.batch, m.labels, m.producer, m.kind, postrider.priority_word(m.priority), m.lane,
    m.recipient, m.recipient_key, m.template, m.language, m.state, m.reason, m.error_title, false,
    null, null, m.tries, m.provider_id,
    m.enqueued_at, m.accepted_at, m.sent_at, m.delivered_at,
    m.delivered_inferred, m.read_at, m.failed_at,
    m.error_code, m.error_title, m.pricing_category, m.pricing_type,
    null
  from postrider.message m
  union all
  select
    d.id, d.reference, d.batch, d.labels, d.producer, d.kind, postrider.priority_word(d.priority), d.lane,
    d.recipient, d.recipient_key, d.template, d.language, d.state, d.reason, d.detail, true,
    d.due_at, d.expires_at, d.tries, null,
    d.enqueued_at, null, null, null,
    false, null, case d.state when 'failed' then d.ended_at end,
    d.error_code, case when d.error_code is not null then d.detail end, null, null,
    d.ended_at
  from postrider.dead_letter d
) job
left join postrider.number on number.lane = job.lane
where job.producer = session_user or (select postrider.sees_all_jobs());

-- Every number, with what it may do and what it has to do.
create view postrider.number_status as
select
  n.phone_number_id as number, n.display_phone_number, n.verified_name, n.waba_id, a.portfolio_id, n.lane, n.configured,
  n.status, n.quality_rating, n.throughput_level, n.messages_per_second,
  p.messaging_limit, p.messaging_limit_tier,
  -- Unique recipients that count against the portfolio's limit now. Computed only when asked for.
  (select count(distinct sent.recipient_hash)
   from postrider.number other
   join postrider.account owner on owner.waba_id = other.waba_id
   join postrider.attempt sent on sent.lane = other.lane
   where owner.portfolio_id = a.portfolio_id and sent.counted and sent.at > now() - interval '24 hours') as recipients_24h,
  (select count(*) from postrider.queue q where q.lane = n.lane and q.priority = 0) as urgent_jobs,
  (select count(*) from postrider.queue q where q.lane = n.lane and q.priority = 1) as normal_jobs,
  (select count(*) from postrider.queue q where q.lane = n.lane and q.priority = 2) as bulk_jobs,
  (select string_agg(concat_ws(' ', stop.scope, 'paused:', stop.reason), '; ' order by stop.since)
   from postrider.pause_now stop
   where (stop.scope, stop.target) in (('all', ''), ('number', n.phone_number_id), ('account', n.waba_id))) as paused,
  l.instance as sent_by, n.synced_at
from postrider.number n
join postrider.account a on a.waba_id = n.waba_id
join postrider.portfolio p on p.portfolio_id = a.portfolio_id
left join postrider.lease l on l.shard = n.shard and l.expires_at > now();

-- Every template, and whether it can be sent.
create view postrider.template_status as
select
  t.waba_id, t.name, t.language, t.status, t.category, t.parameter_format, t.quality, t.rejected_reason,
  stop.reason as paused, stop.until as paused_until,
  t.status = 'APPROVED' and stop.reason is null as sendable,
  t.synced_at
from postrider.template t
left join lateral (
  select p.reason, p.until from postrider.pause_now p
  where p.scope = 'template' and p.target = t.waba_id || '/' || t.name || '/' || t.language
  order by p.until desc nulls first limit 1
) stop on true;

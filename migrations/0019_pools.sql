-- Sender pools whose jobs move to another number, and what is left of the messaging limits.

alter table postrider.number
  -- When jobs of another number were last moved here: whoever reads the lane begins at its head again.
  add column refilled_at timestamptz not null default 'epoch';

-- How much of a messaging limit is used, as the instance that counts it last said; it counts in memory, exactly, and
-- writes down every few seconds what people want to see. Rows older than a minute are nobody's word any more.
create table postrider.pool_usage (
  -- What the limit applies to: a portfolio's id, or a number's where limit_scope is number.
  pool text primary key,
  -- Unique recipients per rolling 24 h; null when unlimited.
  messaging_limit integer,
  -- How many of them count now.
  used integer not null,
  -- How many more may get a normal or bulk message now; null when unlimited.
  room_normal integer,
  -- How many more may get an urgent one, reserve included; null when unlimited.
  room_urgent integer,
  -- When the next of those that count leave; null when none does.
  next_return_at timestamptz,
  -- How many leave then, or within the minute after.
  returns integer not null default 0,
  -- When this was so.
  at timestamptz not null
);

-- What the messaging limit of a number applies to.
create function postrider.limit_pool(phone_number_id text, portfolio_id text) returns text
language sql stable
as $$
  select case (select s.value #>> '{}' from postrider.setting s where s.name = 'limit_scope')
    when 'number' then phone_number_id else portfolio_id end
$$;

-- What is known of a messaging limit now; no row when nobody counts it.
create view postrider.pool_usage_now as
select pool, messaging_limit, used, room_normal, room_urgent, next_return_at, returns, at
from postrider.pool_usage where at > now() - interval '1 minute';

-- Why a job that is due is not sent, as far as the tables tell; no row when nothing holds it.
create or replace function postrider.hold_of(
  job_lane integer, job_kind text, job_priority smallint, job_batch text, job_template text, job_language text,
  out reason text, out detail text
) returns record
language plpgsql stable
as $$
declare
  number record;
  paused record;
begin
  select n.phone_number_id, n.waba_id, n.shard, n.status, a.portfolio_id into number
  from postrider.number n join postrider.account a using (waba_id) where n.lane = job_lane;

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
  elsif number.status not in ('CONNECTED', 'UNKNOWN') then
    reason := 'paused';
    detail := format('the provider says that the number %s is %s', number.phone_number_id, number.status);
  elsif not exists (select from postrider.lease l where l.shard = number.shard and l.expires_at > now()) then
    reason := 'no_dispatcher';
  else
    select 'messaging_limit_reached',
           format('%s of %s unique recipients of 24 hours are used', u.used, u.messaging_limit)
             || coalesce(format('; %s return at %s', u.returns,
                                to_char(u.next_return_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')), '')
      into reason, detail
    from postrider.pool_usage_now u
    where u.pool = postrider.limit_pool(number.phone_number_id, number.portfolio_id)
      and case when job_priority = 0 then u.room_urgent else u.room_normal end <= 0;
  end if;
end
$$;

-- Every number, with what it may do and what it has to do. What is left of the limit is null when nobody counts it.
create or replace view postrider.number_status as
select
  n.phone_number_id as number, n.display_phone_number, n.verified_name, n.waba_id, a.portfolio_id, n.lane, n.configured,
  n.status, n.quality_rating, n.throughput_level, n.messages_per_second,
  p.messaging_limit, p.messaging_limit_tier,
  -- Unique recipients that count against the limit now, by the attempts. Computed only when asked for.
  (select count(distinct sent.recipient_hash)
   from postrider.number other
   join postrider.account owner on owner.waba_id = other.waba_id
   join postrider.attempt sent on sent.lane = other.lane
   where postrider.limit_pool(other.phone_number_id, owner.portfolio_id) = pool.name
     and sent.counted and sent.at > now() - interval '24 hours') as recipients_24h,
  (select count(*) from postrider.queue q where q.lane = n.lane and q.priority = 0) as urgent_jobs,
  (select count(*) from postrider.queue q where q.lane = n.lane and q.priority = 1) as normal_jobs,
  (select count(*) from postrider.queue q where q.lane = n.lane and q.priority = 2) as bulk_jobs,
  (select string_agg(concat_ws(' ', stop.scope, 'paused:', stop.reason), '; ' order by stop.since)
   from postrider.pause_now stop
   where (stop.scope, stop.target) in (('all', ''), ('number', n.phone_number_id), ('account', n.waba_id))) as paused,
  l.instance as sent_by, n.synced_at,
  -- What the limit applies to.
  pool.name as limit_pool,
  -- By the instance that counts.
  u.used, u.room_normal, u.room_urgent, u.next_return_at, u.returns
from postrider.number n
join postrider.account a on a.waba_id = n.waba_id
join postrider.portfolio p on p.portfolio_id = a.portfolio_id
cross join lateral (select postrider.limit_pool(n.phone_number_id, a.portfolio_id) as name) pool
left join postrider.lease l on l.shard = n.shard and l.expires_at > now()
left join postrider.pool_usage_now u on u.pool = pool.name;

revoke all on postrider.pool_usage, postrider.pool_usage_now from public;
revoke all on function postrider.limit_pool(text, text) from public;
grant select on postrider.pool_usage, postrider.pool_usage_now to postrider_reader, postrider_owner;
grant select, insert, update, delete on postrider.pool_usage to postrider_daemon;
grant select on postrider.pool_usage_now to postrider_daemon;
-- What the view's function needs of whoever reads it.
grant execute on function postrider.limit_pool(text, text) to postrider_reader, postrider_daemon, postrider_owner;

-- What counts against a number by itself: a messaging limit of its own where limit_scope is number, and what was sent from
-- its phone app.

alter table postrider.number
  -- Unique recipients per rolling 24 h of this number alone, where limit_scope is number; null when unlimited or not told.
  add column messaging_limit integer check (messaging_limit >= 0),
  -- The provider's own word for it; null until it was told of this number, and then the portfolio's limit holds.
  add column messaging_limit_tier text;

-- The messaging limit that each number is under.
create view postrider.number_limit as
select
  n.lane,
  -- What it applies to.
  postrider.limit_pool(n.phone_number_id, a.portfolio_id) as pool,
  case when own.holds then n.messaging_limit else p.messaging_limit end as messaging_limit,
  case when own.holds then n.messaging_limit_tier else p.messaging_limit_tier end as messaging_limit_tier
from postrider.number n
join postrider.account a using (waba_id)
join postrider.portfolio p using (portfolio_id)
cross join lateral (
  select n.messaging_limit_tier is not null
    and exists (select from postrider.setting s where s.name = 'limit_scope' and s.value = '"number"') as holds
) own;

create function postrider.note_number_limit_change() returns trigger
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
begin
  perform postrider.note_change('number ' || new.phone_number_id, 'messaging_limit',
    coalesce(old.messaging_limit::text, 'unlimited'), coalesce(new.messaging_limit::text, 'unlimited'));
  return null;
end
$$;

-- What was not told before is no change.
create trigger number_limit_change after update of messaging_limit on postrider.number
  for each row when (old.messaging_limit is distinct from new.messaging_limit and old.messaging_limit_tier is not null)
  execute function postrider.note_number_limit_change();

-- Every number, with what it may do and what it has to do. What is left of the limit is null when nobody counts it.
create or replace view postrider.number_status as
select
  n.phone_number_id as number, n.display_phone_number, n.verified_name, n.waba_id, a.portfolio_id, n.lane, n.configured,
  n.status, n.quality_rating, n.throughput_level, n.messages_per_second,
  l.messaging_limit, l.messaging_limit_tier,
  -- Unique recipients that count against the limit now, by the attempts. Computed only when asked for.
  (select count(distinct sent.recipient_hash)
   from postrider.number_limit other
   join postrider.attempt sent on sent.lane = other.lane
   where other.pool = l.pool and sent.counted and sent.at > now() - interval '24 hours') as recipients_24h,
  (select count(*) from postrider.queue q where q.lane = n.lane and q.priority = 0) as urgent_jobs,
  (select count(*) from postrider.queue q where q.lane = n.lane and q.priority = 1) as normal_jobs,
  (select count(*) from postrider.queue q where q.lane = n.lane and q.priority = 2) as bulk_jobs,
  (select string_agg(concat_ws(' ', stop.scope, 'paused:', stop.reason), '; ' order by stop.since)
   from postrider.pause_now stop
   where (stop.scope, stop.target) in (('all', ''), ('number', n.phone_number_id), ('account', n.waba_id))) as paused,
  held.instance as sent_by, n.synced_at,
  -- What the limit applies to.
  l.pool as limit_pool,
  -- By the instance that counts.
  u.used, u.room_normal, u.room_urgent, u.next_return_at, u.returns
from postrider.number n
join postrider.account a on a.waba_id = n.waba_id
join postrider.number_limit l on l.lane = n.lane
left join postrider.lease held on held.shard = n.shard and held.expires_at > now()
left join postrider.pool_usage_now u on u.pool = l.pool;

-- Messages that somebody sent from the phone app of a number that is used on both. To the provider they are messages of that
-- number to that person like ours. Whoever counts reads it each second, and once when it takes over; rows that no longer
-- matter are deleted.
create table postrider.echo (
  -- Keyed hash of the provider's message id, which embeds the telephone number: a webhook that is repeated counts once.
  message_hash bigint primary key,
  -- The number's lane.
  lane integer not null,
  -- Keyed hash of the person, as in attempt.
  recipient_hash bigint not null,
  -- Whether it counts against the messaging limit: false while a service window stayed open.
  counted boolean not null,
  -- When it was sent, by the provider's clock.
  at timestamptz not null,
  -- When we were told.
  noted_at timestamptz not null default now()
);
create index echo_by_time on postrider.echo (noted_at);

revoke all on postrider.echo, postrider.number_limit from public;
revoke all on function postrider.note_number_limit_change() from public;
grant select, insert, update, delete on postrider.echo to postrider_daemon;
grant select on postrider.echo to postrider_reader;
grant select on postrider.number_limit to postrider_daemon, postrider_reader, postrider_owner;

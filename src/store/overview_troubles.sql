with
-- Jobs that could go now, by the shard that would send them.
due as (
  select n.shard, q.priority, count(*) as jobs, min(q.due_at) as since
  from postrider.queue q join postrider.number n on n.lane = q.lane
  where q.state = 'queued' and q.due_at <= now()
  group by n.shard, q.priority
),
found as (
  select 0 as rank, format('nobody sends: %s jobs are due and no daemon has a lease', sum(jobs)) as text
  from due
  where not exists (select from postrider.lease where expires_at > now())
  having count(*) > 0
  union all
  select 0, format('%s jobs are not in exactly one place; postrider verify names them', sum(jobs_off))
  from postrider.verify_range where jobs_off > 0
  having count(*) > 0
  union all
  select 1, format('%s jobs are due for numbers that no daemon sends for', sum(jobs))
  from due join postrider.lease l using (shard)
  where l.expires_at <= now() and exists (select from postrider.lease where expires_at > now())
  having count(*) > 0
  union all
  -- An urgent job that waits a minute is a code that somebody asked for again.
  select 1, format('an urgent job is due since %s', to_char(min(since) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
  from due where priority = 0 and since < now() - interval '1 minute'
  having count(*) > 0
  union all
  -- While nobody takes receipts, nobody learns what became of messages, and unknown jobs stay unknown.
  select 1, format('no webhook process takes receipts%s; %s unknown jobs wait for theirs',
                   coalesce(' since ' || to_char(seen_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), ''),
                   (select count(*) from postrider.queue where state = 'unknown'))
  from postrider.receiving
  where coalesce(seen_at, '-infinity') < now() - interval '10 seconds'
    and (exists (select from postrider.lease where expires_at > now())
         or exists (select from postrider.queue where state = 'unknown'))
  union all
  select case when scope = 'all' then 0 else 1 end,
         concat_ws(' ', case scope when 'all' then 'everything' else scope end, nullif(target, ''), 'is paused by the', source
                   || coalesce(' until ' || to_char(until at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), '') || ':', reason)
  from postrider.pause_now
  union all
  select 1, format('the number %s is %s and cannot send', phone_number_id, status)
  from postrider.number where configured and status not in ('CONNECTED', 'UNKNOWN')
  union all
  select 2, format('the messaging limit of %s is reached: %s of %s are used%s', pool, used, messaging_limit,
                   coalesce(format(', %s come back at %s', returns,
                                   to_char(next_return_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')), ''))
  from postrider.pool_usage_now where room_normal <= 0
  union all
  select 2, format('the number %s has quality RED', phone_number_id)
  from postrider.number where configured and quality_rating = 'RED'
  union all
  select 2, format('the account %s was not synced for a day', waba_id)
  from postrider.account where configured and coalesce(synced_at, '-infinity') < now() - interval '1 day'
)
select rank as "rank!", text as "text!" from found order by rank, text

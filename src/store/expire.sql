-- Second step of the sweep: the rows are locked by the first, so an attempt that was committed before is visible now, and
-- none can be added. Those without one end as expired: certainly never taken.
with locked as (
  select id from unnest($1::bigint[]) as l(id)
), gone as (
  delete from postrider.queue
  using locked
  where queue.id = locked.id
    and queue.state = 'queued'
    -- A scalar subquery, because a join would read whole days of attempts.
    and (
      select attempt.job from postrider.attempt
      where attempt.job = queue.id and attempt.attempt = queue.tries + 1 and attempt.at > now() - interval '8 days'
      limit 1) is null
  returning queue.*
)
insert into postrider.dead_letter (
  id, state, reason, detail, ended_at, lane, priority, due_at, tries, spent, resends, kind, recipient, recipient_key,
  template, language, content, sender, producer, enqueued_at, expires_at, reference, batch, labels)
select
  gone.id, 'expired', 'validity_ended', 'its validity ended before it could be sent', clock_timestamp(), gone.lane,
  gone.priority, gone.due_at, gone.tries, gone.spent, gone.resends, gone.kind, gone.recipient, gone.recipient_key,
  gone.template, gone.language, case when kind.keep_parameters <> 'never' then gone.content end,
  gone.sender, gone.producer, gone.enqueued_at, gone.expires_at, gone.reference, gone.batch, gone.labels
from gone
left join postrider.kind on kind.name = gone.kind
on conflict (id) do nothing
returning id as "id!"

-- Second step of the sweep: the rows are locked by the first, so an attempt that was committed before is visible now, and
-- none can be added. Those without one end as expired, which means certainly never taken; what an earlier attempt may have
-- brought to the provider stays unknown.
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
  gone.id, case when earlier.may_have_left then 'unknown' else 'expired' end,
  case when earlier.may_have_left then 'outcome_unknown' else 'validity_ended' end,
  case when earlier.may_have_left then 'its validity ended before it could be sent again'
    else 'its validity ended before it could be sent' end, clock_timestamp(), gone.lane,
  gone.priority, gone.due_at, gone.tries, gone.spent, gone.resends, gone.kind, gone.recipient, gone.recipient_key,
  gone.template, gone.language, case when kind.keep_parameters <> 'never' then gone.content end,
  gone.sender, gone.producer, gone.enqueued_at, gone.expires_at, gone.reference, gone.batch, gone.labels
from gone
cross join lateral (select postrider.may_have_left(gone.id, gone.tries, gone.resends)) as earlier(may_have_left)
left join postrider.kind on kind.name = gone.kind
on conflict (id) do nothing
returning kind as "kind!", state as "state!", reason as "reason!"

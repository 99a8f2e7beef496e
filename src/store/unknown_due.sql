-- Unknown jobs whose time may be over, the longest due first. They stay locked, so that nobody else decides or settles them
-- meanwhile; one that somebody holds is theirs. What waits for evidence is not read before evidence is there, or so much time
-- has passed that it stands for it.
select
  queue.id as "id!: JobId", queue.tries as "tries!", queue.resends as "resends!", queue.expires_at as "expires_at!",
  unknown.since as "since!", extract(epoch from unknown.resolve_after)::float8 as "resolve_after_s!",
  unknown.resends_kind as "resends_kind!", evidence.taken_at as "taken_at?"
from postrider.queue
left join postrider.kind on kind.name = queue.kind
left join postrider.number on number.lane = queue.lane
left join postrider.receipt_flow as flow on flow.waba_id = number.waba_id
cross join lateral (
  -- A kind that was never configured is treated with care.
  select
    coalesce(kind.resolve_after, '2 minutes') as resolve_after,
    coalesce(kind.on_unknown = 'resend', false) as resends_kind,
    coalesce(queue.unknown_since, queue.due_at - coalesce(kind.resolve_after, '2 minutes')) as since
) as unknown
cross join lateral (
  -- What was noted a moment ago counts from the next moment on.
  select case when flow.noted_at <= now() - interval '2 seconds' then flow.taken_at else flow.taken_before end as taken_at
) as evidence
where queue.state = 'unknown' and queue.due_at <= now()
  and (evidence.taken_at > unknown.since or now() >= unknown.since + unknown.resolve_after * $2::float8)
order by queue.due_at
limit $1
for update of queue skip locked

-- Second step: settles jobs whose receipt came though no answer did: a receipt is the provider's word that it took the
-- message. The rows are locked by the first step, so an attempt that was committed before is visible now, and none can be
-- added.
with said as (
  select * from unnest(
    $2::bigint[], $3::integer[], $4::integer[], $5::text[], $6::timestamptz[], $7::timestamptz[]
  ) as f (job, attempt, lane, provider_id, at, received_at)
), meant as (
  select f.*
  from said f
  join postrider.queue q on q.id = f.job and q.id = any($8::bigint[])
  where
    -- The open attempt.
    f.attempt = q.tries + 1 and (q.state = 'unknown' or f.received_at <= now() - interval '2 seconds')
    -- One that stayed without an answer, and whose job waits to be sent again. While the next attempt is open, its answer
    -- comes first.
    or f.attempt <= q.tries
      and (q.state = 'unknown' or not postrider.has_open_attempt(q.id, q.tries))
      and exists (
        select from postrider.answer a
        where a.job = q.id and a.attempt = f.attempt and a.outcome = 'unknown' and a.at > now() - interval '8 days')
  union all
  -- What was given up is found after all, unless the attempt is one that the provider refused.
  select f.*
  from said f
  join postrider.dead_letter d on d.id = f.job and d.id = any($8::bigint[])
  cross join lateral (
    select coalesce(bool_and(a.outcome = 'unknown'), d.state = 'unknown') as unanswered
    from postrider.answer a
    where a.job = d.id and a.attempt = f.attempt and a.at > now() - interval '8 days'
  ) as answers
  where f.attempt <= d.tries + 1 and d.state in ('unknown', 'failed') and answers.unanswered
), taken as (
  delete from postrider.queue q using (select distinct job from meant) m where q.id = m.job
  returning
    q.id, q.priority, q.tries, q.spent, q.kind, q.recipient, q.recipient_key, q.template, q.language, q.content,
    q.sender, q.producer, q.enqueued_at, q.reference, q.batch, q.labels
), found as (
  delete from postrider.dead_letter d using (select distinct job from meant) m where d.id = m.job
  returning
    d.id, d.priority, d.tries, d.spent, d.kind, d.recipient, d.recipient_key, d.template, d.language, d.content,
    d.sender, d.producer, d.enqueued_at, d.reference, d.batch, d.labels
), settled as (
  insert into postrider.message (
    day, job, attempt, lane, priority, state, kind, recipient, recipient_key, template, language, content, sender,
    producer, reference, batch, labels, tries, spent, provider_id, enqueued_at, accepted_at
  )
  select distinct on (j.id)
    $1::date, j.id, f.attempt, f.lane, j.priority, 'accepted', j.kind, j.recipient, j.recipient_key, j.template,
    j.language, case when k.keep_parameters = 'yes' then j.content end, j.sender,
    j.producer, j.reference, j.batch, j.labels, greatest(j.tries, f.attempt), j.spent, f.provider_id, j.enqueued_at, f.at
  from (select * from taken union all select * from found) j
  join meant f on f.job = j.id
  left join postrider.kind k on k.name = j.kind
  order by j.id, f.attempt desc
  on conflict (day, job) do nothing
  returning job, kind
)
select kind as "kind!", exists (select from taken where taken.id = settled.job) as "was_queued!" from settled

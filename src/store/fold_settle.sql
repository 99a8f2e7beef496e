-- Settles jobs whose receipt came though no answer did: a receipt is the provider's word that it took the message. The
-- attempt must be the open one. A job in the queue gets 2 s for its answer to be written by who sent it, unless it is
-- already known that no answer will come; what was given up as unknown is found after all.
with said as (
  select * from unnest(
    $2::bigint[], $3::integer[], $4::integer[], $5::text[], $6::timestamptz[], $7::timestamptz[]
  ) as f (job, attempt, lane, provider_id, at, received_at)
), open as (
  -- Someone who holds a row, say in a long transaction that cancels, must not hold up everyone's receipts.
  select q.id
  from postrider.queue q
  join said f on f.job = q.id and f.attempt = q.tries + 1
  where q.state = 'unknown' or f.received_at <= now() - interval '2 seconds'
  for update of q skip locked
), lost as (
  select d.id
  from postrider.dead_letter d
  join said f on f.job = d.id and f.attempt <= d.tries + 1
  where d.state = 'unknown'
  for update of d skip locked
), taken as (
  delete from postrider.queue q using open where q.id = open.id
  returning
    q.id, q.priority, q.spent, q.kind, q.recipient, q.recipient_key, q.template, q.language, q.content, q.sender,
    q.producer, q.enqueued_at, q.reference, q.batch, q.labels
), found as (
  delete from postrider.dead_letter d using lost where d.id = lost.id
  returning
    d.id, d.priority, d.spent, d.kind, d.recipient, d.recipient_key, d.template, d.language, d.content, d.sender,
    d.producer, d.enqueued_at, d.reference, d.batch, d.labels
)
insert into postrider.message (
  day, job, attempt, lane, priority, state, kind, recipient, recipient_key, template, language, content, sender,
  producer, reference, batch, labels, tries, spent, provider_id, enqueued_at, accepted_at
)
select distinct on (j.id)
  $1::date, j.id, f.attempt, f.lane, j.priority, 'accepted', j.kind, j.recipient, j.recipient_key, j.template,
  j.language, case when k.keep_parameters = 'yes' then j.content end, j.sender,
  j.producer, j.reference, j.batch, j.labels, f.attempt, j.spent, f.provider_id, j.enqueued_at, f.at
from (select * from taken union all select * from found) j
join said f on f.job = j.id
left join postrider.kind k on k.name = j.kind
order by j.id, f.attempt desc
on conflict (day, job) do nothing
returning job as "job!"

-- The provider took these jobs: each leaves the queue and becomes a message, in one statement. A job that is no longer
-- there at this attempt was settled before, so doing it twice changes nothing.
with outcome as (
  select id, attempt, day, provider_id, held, at
  from unnest($1::bigint[], $2::int[], $3::date[], $4::text[], $5::bool[], $6::timestamptz[])
    as o(id, attempt, day, provider_id, held, at)
  order by id
), gone as (
  delete from postrider.queue
  using outcome
  where queue.id = outcome.id and queue.tries = outcome.attempt - 1
  returning queue.*, outcome.attempt, outcome.day, outcome.provider_id, outcome.held, outcome.at
)
insert into postrider.message (
  day, job, attempt, lane, priority, state, kind, recipient, recipient_key, template, language, content, sender, producer,
  reference, batch, labels, tries, spent, provider_id, enqueued_at, accepted_at, was_held)
select
  gone.day, gone.id, gone.attempt, gone.lane, gone.priority, case when gone.held then 'held' else 'accepted' end,
  gone.kind, gone.recipient, gone.recipient_key, gone.template, gone.language,
  case when kind.keep_parameters = 'yes' then gone.content end,
  gone.sender, gone.producer, gone.reference, gone.batch, gone.labels, gone.tries + 1, gone.spent, gone.provider_id,
  gone.enqueued_at, gone.at, gone.held
from gone
left join postrider.kind on kind.name = gone.kind
on conflict (day, job) do nothing
returning job as "job!: JobId"

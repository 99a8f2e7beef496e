-- These jobs are not sent again: each becomes a dead letter that says unknown, and that a late receipt still settles. The
-- payload goes with the job unless its kind keeps it for a redrive.
with decided as (
  select id, tries from unnest($1::bigint[], $2::int[]) as d(id, tries)
), gone as (
  delete from postrider.queue
  using decided
  where queue.id = decided.id and queue.tries = decided.tries and queue.state = 'unknown'
  returning queue.*
), answered as (
  -- A crash between attempt and answer left none.
  insert into postrider.answer (job, attempt, lane, outcome, detail, at)
  select id, tries + 1, lane, 'unknown', 'whoever posted it was gone before the answer', clock_timestamp()
  from gone
  where not exists (
    select from postrider.answer
    where answer.job = gone.id and answer.attempt = gone.tries + 1 and answer.at > now() - interval '8 days')
)
insert into postrider.dead_letter (
  id, state, reason, detail, ended_at, lane, priority, due_at, tries, spent, resends, kind, recipient, recipient_key,
  template, language, content, sender, producer, enqueued_at, expires_at, reference, batch, labels)
select
  gone.id, 'unknown', 'outcome_unknown', 'no answer came, and no receipt said what became of it', clock_timestamp(),
  gone.lane, gone.priority, gone.due_at, gone.tries + 1, gone.spent, gone.resends, gone.kind, gone.recipient,
  gone.recipient_key, gone.template, gone.language, case when kind.keep_parameters <> 'never' then gone.content end,
  gone.sender, gone.producer, gone.enqueued_at, gone.expires_at, gone.reference, gone.batch, gone.labels
from gone
left join postrider.kind on kind.name = gone.kind
on conflict (id) do nothing
returning kind as "kind!"

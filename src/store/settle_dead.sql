-- These jobs end without the provider having taken them: refused by it, given up, or stopped at the gate. The payload
-- goes with the job unless its kind keeps it for a redrive.
with outcome as (
  select id, attempt, answered, outcome, code, http_status, detail, at, state, reason, spent
  from unnest($1::bigint[], $2::int[], $3::bool[], $4::text[], $5::int[], $6::int[], $7::text[], $8::timestamptz[],
              $9::text[], $10::text[], $11::bool[])
    as o(id, attempt, answered, outcome, code, http_status, detail, at, state, reason, spent)
  order by id
), gone as (
  delete from postrider.queue
  using outcome
  where queue.id = outcome.id and queue.tries = outcome.attempt - 1
    -- A job that was stopped at the gate has no attempt, and must not have been posted by anybody else.
    and (outcome.answered or queue.state = 'queued')
  returning queue.*, outcome.attempt, outcome.answered, outcome.outcome, outcome.code, outcome.http_status,
            outcome.detail, outcome.at, outcome.state as final_state, outcome.reason as final_reason,
            outcome.spent as spends
), answered as (
  insert into postrider.answer (job, attempt, lane, outcome, code, http_status, detail, at)
  select id, attempt, lane, outcome, code, http_status, detail, at from gone where answered
  on conflict do nothing
)
insert into postrider.dead_letter (
  id, state, reason, error_code, detail, ended_at, lane, priority, due_at, tries, spent, resends, kind, recipient,
  recipient_key, template, language, content, sender, producer, enqueued_at, expires_at, reference, batch, labels)
select
  gone.id, case when earlier.may_have_left then 'unknown' else gone.final_state end,
  case when earlier.may_have_left then 'outcome_unknown' else gone.final_reason end,
  gone.code, gone.detail, gone.at, gone.lane, gone.priority, gone.due_at,
  gone.tries + gone.answered::int, gone.spent + gone.spends::int, gone.resends, gone.kind, gone.recipient,
  gone.recipient_key, gone.template, gone.language,
  case when kind.keep_parameters <> 'never' then gone.content end,
  gone.sender, gone.producer, gone.enqueued_at, gone.expires_at, gone.reference, gone.batch, gone.labels
from gone
cross join lateral (
  -- What ends without a word of the provider was certainly not sent, unless an earlier attempt stayed without an answer.
  select gone.final_state in ('rejected', 'expired') and postrider.may_have_left(gone.id, gone.tries, gone.resends)
) as earlier(may_have_left)
left join postrider.kind on kind.name = gone.kind
on conflict (id) do nothing
returning kind as "kind!", state as "state!", reason as "reason!"

-- These jobs stay in the queue: to be tried again at their due time, or unknown until a receipt says what became of them.
with outcome as (
  select id, attempt, outcome, code, http_status, detail, at, state, reason, due_at, answered, spent, since
  from unnest($1::bigint[], $2::int[], $3::text[], $4::int[], $5::int[], $6::text[], $7::timestamptz[],
              $8::text[], $9::text[], $10::timestamptz[], $11::bool[], $12::bool[], $13::timestamptz[])
    as o(id, attempt, outcome, code, http_status, detail, at, state, reason, due_at, answered, spent, since)
  order by id
), moved as (
  update postrider.queue
  set state = outcome.state,
      reason = outcome.reason,
      -- Whoever took the shard over may have given it more time already.
      due_at = case when outcome.state = 'unknown' and queue.state = 'unknown' then greatest(queue.due_at, outcome.due_at)
        else outcome.due_at end,
      unknown_since = case when outcome.state = 'unknown' then greatest(queue.unknown_since, outcome.since) end,
      -- An unknown attempt stays open: only its answer or its receipt counts it.
      tries = queue.tries + outcome.answered::int,
      spent = queue.spent + outcome.spent::int
  from outcome
  where queue.id = outcome.id and queue.tries = outcome.attempt - 1
  returning queue.id, queue.lane, outcome.attempt, outcome.outcome, outcome.code, outcome.http_status, outcome.detail,
            outcome.at
)
insert into postrider.answer (job, attempt, lane, outcome, code, http_status, detail, at)
select id, attempt, lane, outcome, code, http_status, detail, at from moved
on conflict do nothing
returning job as "job!"

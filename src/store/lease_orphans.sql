-- Attempts that a former holder left open: their jobs may have been posted, so nobody posts them again until a receipt
-- tells. Run after the shards were taken and before the first look.
update postrider.queue
set state = 'unknown', reason = 'awaiting_receipt', unknown_since = clock_timestamp(),
    due_at = clock_timestamp() + kind.resolve_after
from postrider.attempt
join postrider.number on number.lane = attempt.lane
cross join postrider.kind
where number.shard = any ($1::smallint[])
  and attempt.at >= $2
  and queue.id = attempt.job and queue.tries = attempt.attempt - 1 and queue.state = 'queued'
  -- One that was answered without being counted (it never left) is not open.
  and postrider.has_open_attempt(queue.id, queue.tries)
  and kind.name = queue.kind

-- These jobs have no attempt and come back later. One that somebody attempted, moved or answered since memory saw it is
-- left as it is.
update postrider.queue
set due_at = deferred.due_at, reason = deferred.reason
from unnest($1::bigint[], $2::int[], $3::text[], $4::timestamptz[]) as deferred(id, tries, reason, due_at)
where queue.id = deferred.id and queue.tries = deferred.tries and queue.state = 'queued'
  and not exists (
    select from postrider.attempt
    where attempt.lane = queue.lane and attempt.job = queue.id and attempt.attempt = queue.tries + 1)

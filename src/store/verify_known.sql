-- All that is known of jobs that are off, for whoever has to find out what happened.
select
  off.id as "job!",
  enqueued.kind as "kind?",
  enqueued.producer as "producer?",
  enqueued.at as "enqueued_at?",
  array(
    select 'queue (' || queue.state || ')' from postrider.queue where queue.id = off.id
    union all
    select format('message of %s (%s)', message.day, message.state) from postrider.message where message.job = off.id
    union all
    select format('dead letter (%s: %s)', dead_letter.state, dead_letter.reason)
    from postrider.dead_letter where dead_letter.id = off.id
    union all
    select format('dropped at %s', to_char(dropped.at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'))
    from postrider.dropped where dropped.job = off.id
  ) as "places!",
  attempts.count as "attempts!",
  attempts.last_at as last_attempt_at,
  (
    select concat_ws(' ', answer.outcome, answer.code, answer.detail) from postrider.answer
    where answer.job = off.id order by answer.at desc limit 1
  ) as last_answer,
  (select count(*) from postrider.receipt_inbox where receipt_inbox.job = off.id) as "receipts_waiting!"
from unnest($1::bigint[]) as off(id)
left join lateral (
  select kind, producer, at from postrider.enqueued where enqueued.job = off.id order by at limit 1
) as enqueued on true
cross join lateral (
  select count(*) as count, max(at) as last_at from postrider.attempt where attempt.job = off.id
) as attempts
order by off.id

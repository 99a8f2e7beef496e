select
  id as "id!", reference, batch, labels, producer as "producer!", kind as "kind!", priority as "priority!", number,
  recipient as "recipient!", template, language, state as "state!", reason, detail,
  final as "final!", delivered as "delivered!", retryable_elsewhere as "retryable_elsewhere!",
  due_at, expires_at, attempts as "attempts!", provider_message_id,
  enqueued_at as "enqueued_at!", accepted_at, sent_at, delivered_at, read_at, failed_at, ended_at,
  error_code, error_title
from postrider.job_status
where id = any($1)
order by id desc

select
  waba_id as "waba_id!", name as "name!", language as "language!", status as "status!", category as "category!", quality,
  paused, paused_until, rejected_reason, sendable as "sendable!", synced_at as "synced_at!"
from postrider.template_status
where $1::text is null or name = $1
order by waba_id, name, language

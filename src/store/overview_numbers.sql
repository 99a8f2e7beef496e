select
  number as "number!", display_phone_number, waba_id as "waba_id!", portfolio_id as "portfolio_id!",
  configured as "configured!", status as "status!", quality_rating, messages_per_second::float8 as messages_per_second,
  messaging_limit,
  -- By the daemon that counts; without one by the attempts, which takes longer.
  coalesce(used, recipients_24h) as "recipients_24h!", room_normal, room_urgent, next_return_at, returns,
  urgent_jobs as "urgent_jobs!", normal_jobs as "normal_jobs!", bulk_jobs as "bulk_jobs!",
  paused, sent_by, synced_at
from postrider.number_status
order by number

select
  ordinal as "ordinal!",
  job_id,
  duplicate as "duplicate!",
  error_code,
  error
from postrider.enqueue_many($1)
order by ordinal

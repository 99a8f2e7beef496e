-- The receipts that are due. Whoever folds is alone (see fold.rs), so nothing is locked. `now()` rather than
-- `clock_timestamp()`: only a stable time can bound the index scan.
select
  id, received_at, job, attempt, lane, day, provider_id, status, at, error_code, error_title,
  pricing_category, pricing_type
from postrider.receipt_inbox
where fold_at <= now() and ($2::bigint is null or id = $2)
order by fold_at, id
limit $1

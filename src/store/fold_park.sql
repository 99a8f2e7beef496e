-- Puts off receipts whose message is not there yet, the longer the older they are; the message of one that waited a week
-- will not come.
with gone as (
  delete from postrider.receipt_inbox where id = any($1) and received_at < now() - interval '7 days'
)
update postrider.receipt_inbox
set fold_at = now() + least(greatest((now() - received_at) / 2, interval '250 milliseconds'), interval '10 minutes')
where id = any($1) and received_at >= now() - interval '7 days'

-- Those of the jobs whose receipt is in the inbox. It has no index by job, so it is read once: a list to compare each row
-- with, job by job, takes many seconds when there is much in it.
select distinct receipt_inbox.job as "job!: JobId"
from postrider.receipt_inbox
join unnest($1::bigint[]) as due(job) on due.job = receipt_inbox.job

-- The newest jobs that pass a filter. Each table offers its own newest ones by its own key; a job in the queue is asked for
-- its state only as long as not enough of them were found.
select id as "id!"
from (
  (select q.id from postrider.queue q
   where ($1::text is null or q.recipient_key = $1)
     and ($2::text is null or q.reference = $2)
     and ($3::text is null or q.batch = $3)
     and ($4::text is null or (postrider.queue_state(q)).state = $4)
     and ($5::text is null or q.kind = $5)
     and ($6::timestamptz is null or q.enqueued_at >= $6)
   order by q.id desc limit $7)
  union all
  (select m.job from postrider.message m
   where ($1::text is null or m.recipient_key = $1)
     and ($2::text is null or m.reference = $2)
     and ($3::text is null or m.batch = $3)
     and ($4::text is null or m.state = $4)
     and ($5::text is null or m.kind = $5)
     and ($6::timestamptz is null or m.enqueued_at >= $6)
   order by m.job desc limit $7)
  union all
  (select d.id from postrider.dead_letter d
   where ($1::text is null or d.recipient_key = $1)
     and ($2::text is null or d.reference = $2)
     and ($3::text is null or d.batch = $3)
     and ($4::text is null or d.state = $4)
     and ($5::text is null or d.kind = $5)
     and ($6::timestamptz is null or d.enqueued_at >= $6)
   order by d.id desc limit $7)
) job
order by id desc
limit $7

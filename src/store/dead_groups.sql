select
  state as "state!", reason as "reason!", kind as "kind!", count(*) as "jobs!",
  count(*) filter (where content is not null) as "redrivable!",
  min(ended_at) as "oldest!", max(ended_at) as "newest!"
from postrider.dead_matching($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
group by state, reason, kind
order by count(*) desc, state, reason, kind

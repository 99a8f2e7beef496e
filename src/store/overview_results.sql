select state as "state!", reason, count(*) as "jobs!"
from (
  -- By the day too, so that at most two partitions are read.
  select state, reason from postrider.message
  where day >= (now() at time zone 'UTC')::date - 1 and accepted_at > now() - interval '1 hour'
  union all
  select state, reason from postrider.dead_letter where ended_at > now() - interval '1 hour'
) ended
group by state, reason
order by count(*) desc, state, reason

-- Where these jobs are, and each of their attempts and answers, in the order in which it happened.
select job || ' ' || at || ' ' || told
from (
  select job, at, 'attempt ' || attempt || ' on lane ' || lane as told
  from postrider.attempt
  where job = any ($1)
  union all
  select job, at, format('answer to attempt %s: %s %s %s', attempt, outcome, code, detail)
  from postrider.answer
  where job = any ($1)
  union all
  select id, due_at, format('in the queue: %s %s, tries %s, resends %s', state, reason, tries, resends)
  from postrider.queue
  where id = any ($1)
  union all
  select id, ended_at, format('dead letter: %s %s, tries %s, resends %s', state, reason, tries, resends)
  from postrider.dead_letter
  where id = any ($1)
  union all
  select job, accepted_at, format('message: %s %s, attempt %s', state, reason, attempt)
  from postrider.message
  where job = any ($1)
) as story
order by job, at

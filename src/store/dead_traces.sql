-- What operators did to these jobs when they were dead letters. A job is redriven at any time, and dropped at most once.
select
  done.job as "job!", done.action as "action!", done.at as "at!", event.who as "by!", event.detail->>'why' as why,
  done.state as "state!", done.reason as "reason!"
from (
  select job, 'redrive' as action, at, state, reason, event from postrider.redriven where job = any($1)
  union all
  select job, 'drop', at, state, reason, event from postrider.dropped where job = any($1)
) as done
join postrider.operator_event as event on event.id = done.event
order by done.at

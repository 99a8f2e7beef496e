select
  dead.id as "id!", dead.state as "state!", dead.reason as "reason!", dead.error_code, dead.detail,
  dead.ended_at as "ended_at!", dead.enqueued_at as "enqueued_at!", dead.kind as "kind!",
  number.phone_number_id as "number?", dead.recipient as "recipient!", dead.template, dead.tries as "attempts!",
  dead.content is not null as "redrivable!", dead.reference, dead.batch
from postrider.dead_matching($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) as dead
left join postrider.number on number.lane = dead.lane
order by dead.ended_at desc, dead.id desc
limit $11

-- The newest events that fit, in the order in which they happened.
-- $1 since, $2 part of the target, $3 action, $4 how many
select at as "at!", who as "who!", action as "action!", target as "target!", detail
from (
  select * from postrider.operator_event
  where ($1::timestamptz is null or at >= $1)
    -- Not `like`: what operators type has underscores, which mean any character there.
    and ($2::text is null or position($2 in target) > 0)
    and ($3::text is null or action = $3)
  order by id desc
  limit $4
) as newest
order by id

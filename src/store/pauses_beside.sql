-- Other pauses that stop the same, whole or in part: wider ones, and those of what it consists of. $1 scope, $2 target
select pause.scope as "scope!: Scope", pause.target as "target!", pause.source = 'provider' as "by_provider!",
  pause.reason as "reason!", pause.error_code, pause.by as "by!", pause.since as "since!", pause.until
from postrider.pause_now as pause
where (pause.scope, pause.target) <> ($1, $2) and (
  pause.scope = 'all'
  or $1 = 'all'
  or pause.scope = 'account' and pause.target = case $1
    when 'number' then (select waba_id from postrider.number where phone_number_id = $2)
    when 'template' then split_part($2, '/', 1)
  end
  or $1 = 'account' and pause.scope = 'template' and split_part(pause.target, '/', 1) = $2
  or $1 = 'account' and pause.scope = 'number'
    and pause.target in (select phone_number_id from postrider.number where waba_id = $2))
order by pause.since

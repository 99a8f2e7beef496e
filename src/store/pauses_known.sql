-- Whether there is anything of that name to stop. $1 scope, $2 target
select case $1
  when 'all' then $2 = ''
  when 'priority' then $2 in ('urgent', 'normal', 'bulk')
  when 'kind' then exists (select from postrider.kind where name = $2)
  when 'number' then exists (select from postrider.number where phone_number_id = $2)
  when 'account' then exists (select from postrider.account where waba_id = $2)
  when 'template' then exists (
    select from postrider.template where waba_id || '/' || name || '/' || language = $2)
  when 'batch' then exists (select from postrider.queue where batch = $2)
    or exists (select from postrider.message where batch = $2)
    or exists (select from postrider.dead_letter where batch = $2)
  else false
end as "known!"

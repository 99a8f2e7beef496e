-- Ends a pause. A trigger writes the history; it learns who did it from the setting.
-- $1 scope, $2 target, $3 source, $4 who
with who as (
  select set_config('postrider.who', case $3 when 'provider' then 'provider' else $4 end, true)
),
resumed as (
  delete from postrider.pause using who
  where scope = $1 and target = $2 and ($3 = 'operator' or source = 'provider')
  returning scope
)
select exists (select from resumed) as "resumed!"

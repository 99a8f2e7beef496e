-- Ends a pause. What people do goes into the history.
-- $1 scope, $2 target, $3 source, $4 who
with resumed as (
  delete from postrider.pause
  where scope = $1 and target = $2 and ($3 = 'operator' or source = 'provider')
  returning scope, target, reason
),
noted as (
  insert into postrider.operator_event (who, action, target, detail)
  select $4, 'resume', trim(scope || ' ' || target), jsonb_build_object('reasons', jsonb_agg(reason))
  from resumed
  where $3 = 'operator'
  group by scope, target
)
select exists (select from resumed) as "resumed!"

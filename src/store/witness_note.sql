-- Writes the next number of a host, and tells when it had written the one before.
with before as (
  select at from postrider.witness where instance = $1
)
insert into postrider.witness as witness (instance, number, at) values ($1, 1, clock_timestamp())
on conflict (instance) do update set number = witness.number + 1, at = excluded.at
returning number as "number!", at as "at!", (select at from before) as before,
  (select value #>> '{}' from postrider.setting where name = 'installation') as "installation!"

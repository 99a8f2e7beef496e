-- Ends the sessions of former holders that have leases locked: what they have under way may never commit. $1 the shards,
-- $2 what the names of our own sessions begin with.
select activity.application_name as "session!", pg_terminate_backend(activity.pid, 200) as "ended!"
from pg_stat_activity activity
where activity.datname = current_database() and activity.usename = current_user
  and activity.pid <> pg_backend_pid()
  and not starts_with(activity.application_name, $2)
  and exists (
    select from postrider.lease
    where lease.shard = any ($1::smallint[])
      and starts_with(activity.application_name, 'postrider ' || coalesce(lease.instance, lease.former) || '.'))
  and exists (
    select from pg_locks
    where pg_locks.pid = activity.pid and pg_locks.relation = 'postrider.lease'::regclass)

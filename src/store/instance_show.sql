-- Shows that a process is there.
insert into postrider.instance (id, host, pid, version, roles, started_at, seen_at)
values ($1, $2, $3, $4, $5, now(), now())
on conflict (id) do update
set seen_at = now(), host = excluded.host, version = excluded.version, roles = excluded.roles,
    started_at = case when instance.pid = excluded.pid then instance.started_at else now() end,
    pid = excluded.pid

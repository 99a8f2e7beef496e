-- What each host saw last of this database. The host keeps the same number in its state directory: a database with a smaller
-- one is older than what the host saw (a restored backup, or a fail-over that lost commits), and starts paused.
create table postrider.witness (
  -- The instance's id, from its state directory.
  instance text primary key,
  -- Grows by one each second for as long as the instance runs.
  number bigint not null,
  -- When it last grew.
  at timestamptz not null
) with (fillfactor = 50);

revoke all on postrider.witness from public;
grant select, insert, update, delete on postrider.witness to postrider_daemon;
grant select on postrider.witness to postrider_reader;

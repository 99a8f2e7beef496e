-- Messages that the provider held back to assess their quality count against the messaging limit from when it sends them,
-- not from when it took them.

alter table postrider.message
  -- Whether the provider held it back at first.
  add column was_held boolean not null default false;

-- Held messages that the provider has sent since: their recipients count from then on. Whoever counts reads it each second,
-- and once when it takes over. Rows that no longer matter are deleted.
create table postrider.released (
  -- The number's lane.
  lane integer not null,
  -- Keyed hash of the person, as in attempt.
  recipient_hash bigint not null,
  -- When the last of them was sent, by the provider's clock.
  at timestamptz not null,
  -- When we were told.
  noted_at timestamptz not null default now(),
  primary key (lane, recipient_hash)
);
create index released_by_time on postrider.released (noted_at);

revoke all on postrider.released from public;
grant select, insert, update, delete on postrider.released to postrider_daemon;
grant select on postrider.released to postrider_reader;
grant select (was_held) on postrider.message to postrider_reader;

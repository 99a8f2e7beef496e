-- Several instances send at once: who is there to be given shards, and what a number leaves open when it changes its shard.

alter table postrider.instance
  -- It is counted among those that send until then: written with each renewal of its leases. Null when it does not send, or
  -- stops.
  add column sends_until timestamptz;

alter table postrider.number
  -- When the number changed its shard: attempts from then on may have been left open by the holder of the former one. Null
  -- once the holder of its present shard has seen to them; nothing is sent before.
  add column open_since timestamptz;

-- Which shards have numbers is asked each second.
create index number_by_shard on postrider.number (shard);
create index number_by_open_since on postrider.number (open_since) where open_since is not null;

-- What one process does for all.
create table postrider.duty (
  -- Its name, such as upkeep.
  name text primary key,
  -- Who does it.
  instance text not null,
  -- Somebody else may do it from then on.
  expires_at timestamptz not null
);
revoke all on postrider.duty from public;
grant select, insert, update, delete on postrider.duty to postrider_daemon;
grant select on postrider.duty to postrider_reader;

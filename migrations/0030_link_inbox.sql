-- Addresses of one person that are shown once only.

-- Links that no later webhook shows again (a person changed their number, or the provider their id), kept before the webhook
-- is answered. A row leaves when the two are linked, which may have to wait for a transaction that writes consent.
create table postrider.link_inbox (
  -- The order in which they came: a second change of a number goes on from the first.
  id bigint generated always as identity primary key,
  -- Canonical key of the address that keeps its name for the person.
  known text not null,
  -- Canonical key of the other.
  also text not null,
  -- What showed it: number_change or id_change.
  source text not null,
  -- When we were told.
  at timestamptz not null default now()
);

revoke all on postrider.link_inbox from public;
grant select, insert, delete on postrider.link_inbox to postrider_daemon;
grant select on postrider.link_inbox to postrider_reader;

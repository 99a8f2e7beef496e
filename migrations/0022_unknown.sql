-- Unknown outcomes resolve themselves, by a clock that runs only while receipts can come in.

alter table postrider.queue
  -- Since when an unknown job waits for its receipt: when it was posted or when its shard was taken over, whichever is later.
  add column unknown_since timestamptz;
-- Unknown jobs by when they are to be decided.
create index queue_unknown on postrider.queue (due_at) where state = 'unknown';

-- One row: when a webhook process last proved, by committing, that it can take receipts. Each of them does so every second.
create table postrider.receiving (
  -- There is one row.
  one boolean primary key default true check (one),
  -- The last proof; null when none ever ran.
  seen_at timestamptz
) with (fillfactor = 20);
insert into postrider.receiving default values;

-- When no webhook process could take receipts. Kept for a week.
create table postrider.webhook_outage (
  -- The last proof before it.
  began timestamptz primary key,
  -- The first proof after it.
  ended timestamptz not null
);

-- The evidence that receipts flow, for each account. What came a moment ago counts from the next moment on: the receipt of
-- an earlier message may be right behind it.
create table postrider.receipt_flow (
  -- The account.
  waba_id text primary key,
  -- When the latest attempt was committed that a receipt has come for.
  taken_at timestamptz not null,
  -- When that was noted.
  noted_at timestamptz not null,
  -- The same as taken_at, noted at least a moment before that.
  taken_before timestamptz
) with (fillfactor = 20);

-- Whether the provider may have taken the job in an earlier attempt: one stayed without an answer. Such a job never ends as
-- one that was certainly not sent.
create function postrider.may_have_left(job_id bigint, tries integer, resends integer) returns boolean
language sql stable
as $$
  select resends > 0 or tries > 0 and exists (
    select from postrider.answer a
    where a.job = job_id and a.attempt <= tries and a.outcome = 'unknown' and a.at > now() - interval '8 days')
$$;

revoke all on postrider.receiving, postrider.webhook_outage, postrider.receipt_flow from public;
revoke all on function postrider.may_have_left(bigint, integer, integer) from public;
grant select, insert, update, delete on postrider.receiving, postrider.webhook_outage, postrider.receipt_flow
to postrider_daemon;
grant select on postrider.receiving, postrider.webhook_outage, postrider.receipt_flow to postrider_reader, postrider_owner;
grant select (unknown_since) on postrider.queue to postrider_reader;
grant execute on function postrider.may_have_left(bigint, integer, integer) to postrider_daemon, postrider_owner;

-- Where jobs wait. A row is inserted by enqueue and deleted when the job is settled; on the way to success it is never
-- updated.

create sequence postrider.job_id;

create table postrider.queue (
  -- The number's lane.
  lane integer not null,
  -- 0 urgent, 1 normal, 2 bulk.
  priority smallint not null check (priority between 0 and 2),
  -- Not looked at before this: greatest(not_before, clock_timestamp()) at enqueue, later the next try.
  due_at timestamptz not null,
  -- The job.
  id bigint primary key default nextval('postrider.job_id'),
  -- Attempts answered; the next attempt is number tries + 1.
  tries integer not null default 0,
  -- Attempts that the provider's word spent, against max_attempts.
  spent integer not null default 0,
  -- Times it was sent again after an unknown outcome.
  resends integer not null default 0,
  -- queued, or unknown: posted, but no answer was seen, and nobody posts it until that is resolved.
  state text not null default 'queued' check (state in ('queued', 'unknown')),
  -- Why due_at was moved: scheduled, backing_off, pair_rate_limited, awaiting_receipt; null when it was not.
  reason text,
  -- What it is about.
  kind text not null,
  -- Where it goes: E.164 with +, or a business-scoped id.
  recipient text not null,
  -- Canonical key of that address.
  recipient_key text not null,
  -- The template's name; null for a free-form message.
  template text,
  -- The template's language, in the underscore form; null for a free-form message.
  language text,
  -- The template's parameters, or the free-form message.
  content jsonb not null,
  -- The sender pool that it may go out from.
  sender text not null,
  -- The database role that enqueued it.
  producer text not null,
  -- When (clock time, not the transaction's).
  enqueued_at timestamptz not null,
  -- Not sent after this.
  expires_at timestamptz not null,
  -- The upstream's own name for it, for example an order number.
  reference text,
  -- The upstream's name for a group of jobs.
  batch text,
  -- Free to use; carried along.
  labels jsonb
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
-- The order in which a lane is looked at.
create unique index queue_by_lane on postrider.queue (lane, priority, due_at, id);
-- The sweep for what has expired.
create index queue_by_expiry on postrider.queue (expires_at);
create index queue_by_reference on postrider.queue (reference) where reference is not null;
create index queue_by_batch on postrider.queue (batch) where batch is not null;

-- Every job that was ever enqueued, so that verify can prove that none went missing.
create table postrider.enqueued (
  -- The job.
  job bigint not null,
  -- The database role that enqueued it.
  producer text not null,
  -- What it is about.
  kind text not null,
  -- When.
  at timestamptz not null
) partition by range (job);
create table postrider.enqueued_rest partition of postrider.enqueued default;
create index enqueued_by_job on postrider.enqueued using brin (job);

-- The key under which a producer enqueued a job, kept for 7 days; an expired one is overwritten in place.
create table postrider.idempotency_key (
  -- SHA-256 of producer and key.
  key_hash bytea primary key,
  -- The job it made.
  job bigint not null,
  -- SHA-256 of what was enqueued under it.
  content_hash bytea not null,
  -- When.
  at timestamptz not null
);

-- From the permission to post to what became of it.

-- A daemon process, for people to see who is there.
create table postrider.instance (
  -- From the state directory, so a restart on the same host keeps it.
  id text primary key,
  -- Where it runs.
  host text not null,
  -- Its process id.
  pid integer not null,
  -- Its release.
  version text not null,
  -- dispatch, webhook, upkeep, metrics.
  roles text[] not null,
  -- When the process started.
  started_at timestamptz not null,
  -- When it last renewed.
  seen_at timestamptz not null
);

-- The right of one instance to send for the numbers of a shard.
create table postrider.lease (
  -- 0 to 255.
  shard smallint primary key check (shard between 0 and 255),
  -- Who holds it; null when nobody does.
  instance text,
  -- Grows with every take-over; an attempt of an older epoch is refused.
  epoch bigint not null default 0,
  -- The holder may send until then, less its own margin.
  expires_at timestamptz not null default 'epoch',
  -- Set by a hand-back: nobody posts before this.
  free_at timestamptz not null default 'epoch',
  -- Every attempt before this has its outcome written; a take-over looks for open ones from here on.
  settled_until timestamptz not null default 'epoch'
) with (fillfactor = 20);
insert into postrider.lease (shard) select generate_series(0, 255);

-- The committed permission to post one job once.
create table postrider.attempt (
  -- The number's lane.
  lane integer not null,
  -- The job.
  job bigint not null,
  -- The attempt's number within the job, from 1.
  attempt integer not null,
  -- Keyed hash of the person, for the messaging limit's ledger.
  recipient_hash bigint not null,
  -- Whether it counts against the messaging limit: false while a service window stays open.
  counted boolean not null,
  -- When the permission was written.
  at timestamptz not null,
  primary key (job, attempt, at)
) partition by range (at);
create index attempt_by_time on postrider.attempt using brin (at) with (pages_per_range = 16, autosummarize = on);

-- What the provider answered, for every outcome but accepted.
create table postrider.answer (
  -- The job.
  job bigint not null,
  -- The attempt's number.
  attempt integer not null,
  -- The number's lane.
  lane integer not null,
  -- held, retry, refused, unknown or not_sent.
  outcome text not null,
  -- The provider's error code, where it gave one.
  code integer,
  -- HTTP status, where there was an answer.
  http_status integer,
  -- The provider's words, or what broke.
  detail text,
  -- When we knew.
  at timestamptz not null,
  primary key (job, attempt, at)
) partition by range (at);

-- A job that the provider took, and what became of it.
create table postrider.message (
  -- The UTC day of its attempt; the callback data brings it back, so that a receipt touches one partition.
  day date not null,
  -- The job.
  job bigint not null,
  -- The attempt that was taken.
  attempt integer not null,
  -- The number's lane.
  lane integer not null,
  -- 0 urgent, 1 normal, 2 bulk.
  priority smallint not null,
  -- accepted, held, sent, delivered, read, failed or undelivered.
  state text not null,
  -- Why, for failed and undelivered.
  reason text,
  -- What it is about.
  kind text not null,
  -- Where it went.
  recipient text not null,
  -- Canonical key of that address.
  recipient_key text not null,
  -- The template's name; null for a free-form message.
  template text,
  -- The template's language.
  language text,
  -- The parameters or the free-form message, where the kind keeps them.
  content jsonb,
  -- The sender pool.
  sender text not null,
  -- The database role that enqueued it.
  producer text not null,
  -- The upstream's own name for it.
  reference text,
  -- The upstream's name for a group of jobs.
  batch text,
  -- Free to use; carried along.
  labels jsonb,
  -- Attempts answered.
  tries integer not null,
  -- Attempts that the provider's word spent.
  spent integer not null,
  -- The provider's message id (wamid). It embeds the phone number: treat it as one.
  provider_id text,
  -- When it was enqueued.
  enqueued_at timestamptz not null,
  -- When the provider took it.
  accepted_at timestamptz not null,
  -- When the provider sent it, by its receipt.
  sent_at timestamptz,
  -- When it reached the phone.
  delivered_at timestamptz,
  -- Whether delivered_at was inferred from a read receipt.
  delivered_inferred boolean not null default false,
  -- When it was read.
  read_at timestamptz,
  -- When it failed.
  failed_at timestamptz,
  -- The provider's error code, for failed.
  error_code integer,
  -- The provider's words for it.
  error_title text,
  -- What it was billed as: utility, authentication, ...
  pricing_category text,
  -- regular, free_customer_service, free_entry_point, ...
  pricing_type text,
  primary key (job, day)
) partition by range (day);
-- Inbound messages name the message they answer by the provider's id.
create index message_by_provider_id on postrider.message using hash (provider_id);
create index message_by_recipient on postrider.message (recipient_key);
create index message_by_reference on postrider.message (reference) where reference is not null;
create index message_by_batch on postrider.message (batch) where batch is not null;

-- A job that ended without the provider taking it. Nobody sends it again by themselves.
create table postrider.dead_letter (
  -- The job.
  id bigint primary key,
  -- failed, rejected, expired, cancelled, or unknown: perhaps taken, and a late receipt may still say so.
  state text not null check (state in ('failed', 'rejected', 'expired', 'cancelled', 'unknown')),
  -- Why.
  reason text not null,
  -- The provider's error code of the last answer.
  error_code integer,
  -- The provider's words, or ours, for people.
  detail text,
  -- When it ended.
  ended_at timestamptz not null,
  -- From here on as in queue.
  lane integer not null,
  -- 0 urgent, 1 normal, 2 bulk.
  priority smallint not null,
  -- When it was last due.
  due_at timestamptz not null,
  -- Attempts answered.
  tries integer not null,
  -- Attempts that the provider's word spent.
  spent integer not null,
  -- Times it was sent again after an unknown outcome.
  resends integer not null,
  -- What it is about.
  kind text not null,
  -- Where it was to go.
  recipient text not null,
  -- Canonical key of that address.
  recipient_key text not null,
  -- The template's name.
  template text,
  -- The template's language.
  language text,
  -- The parameters or message; null where the kind never keeps them, and then it cannot be redriven.
  content jsonb,
  -- The sender pool.
  sender text not null,
  -- The database role that enqueued it.
  producer text not null,
  -- When it was enqueued.
  enqueued_at timestamptz not null,
  -- Until when it could have been sent.
  expires_at timestamptz not null,
  -- The upstream's own name for it.
  reference text,
  -- The upstream's name for a group of jobs.
  batch text,
  -- Free to use; carried along.
  labels jsonb
);
create index dead_letter_by_end on postrider.dead_letter (ended_at);
create index dead_letter_by_recipient on postrider.dead_letter (recipient_key);
create index dead_letter_by_reference on postrider.dead_letter (reference) where reference is not null;
create index dead_letter_by_batch on postrider.dead_letter (batch) where batch is not null;

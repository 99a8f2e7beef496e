-- What Postrider knows of the provider's side and of its own configuration. Small tables, read often.

-- Values that SQL functions and every instance must agree on, mirrored from the configuration or made once.
create table postrider.setting (
  -- What it is: installation, recipient_hash_seed, default_kind, default_language, ring, ...
  name text primary key,
  -- The value itself.
  value jsonb not null
);

insert into postrider.setting (name, value) values
  -- Names this installation in the callback data of every request; receipts of others are kept but not applied.
  ('installation', to_jsonb(substr(md5(random()::text || clock_timestamp()::text), 1, 8))),
  -- Keys the recipient hash in attempt, so that the hashes of two installations cannot be compared.
  ('recipient_hash_seed', to_jsonb((random() * 9007199254740991)::bigint)),
  ('default_kind', '"order"'),
  ('default_language', '"en"'),
  ('default_sender', '"default"'),
  -- Whether enqueueing an urgent job rings the bell (NOTIFY); it forbids PREPARE TRANSACTION.
  ('ring', 'true');

-- Meta's business portfolio. Since 2025-10-07 it owns the messaging limit.
create table postrider.portfolio (
  -- Meta's id; the account's id where the portfolio is not known.
  portfolio_id text primary key,
  -- Unique recipients per rolling 24 h outside service windows; null when unlimited.
  messaging_limit integer check (messaging_limit >= 0),
  -- The provider's own word for it, for example TIER_2K; null until first synced.
  messaging_limit_tier text,
  -- When the provider last told us.
  synced_at timestamptz
);

-- A WhatsApp Business Account: owns numbers and templates, and has a token.
create table postrider.account (
  -- Meta's id of the WABA.
  waba_id text primary key,
  -- The portfolio it belongs to.
  portfolio_id text not null references postrider.portfolio,
  -- The app of the configuration whose webhooks speak for it.
  app text not null,
  -- Whether the present configuration names it; one that it no longer names keeps its history.
  configured boolean not null default true,
  -- When the provider last answered for it.
  synced_at timestamptz
);

-- A business phone number. Its queue is its lane.
create table postrider.number (
  -- The small integer that stands for this number in every hot table.
  lane integer generated always as identity primary key,
  -- Meta's id, as in the request's path.
  phone_number_id text not null unique,
  -- The account it belongs to.
  waba_id text not null references postrider.account,
  -- As people see it, for example +1 555-078-3881; webhooks that carry no id name the number by this.
  display_phone_number text,
  -- The business name that recipients see.
  verified_name text,
  -- CONNECTED is the only status that can send (Meta, phone numbers, 2026-09).
  status text not null default 'UNKNOWN',
  -- GREEN, YELLOW, RED or UNKNOWN.
  quality_rating text,
  -- STANDARD (80/s), HIGH (1,000/s) or NOT_APPLICABLE.
  throughput_level text,
  -- Also used on the phone app: then 20 messages a second, fixed.
  is_on_biz_app boolean not null default false,
  -- Messages per second set by an operator for this number; null means the configured default.
  messages_per_second numeric check (messages_per_second > 0),
  -- Whether the present configuration names it.
  configured boolean not null default true,
  -- The shard whose lease covers it.
  shard smallint not null check (shard between 0 and 255),
  -- Nothing may be posted for it before this, because its former owner may still be posting.
  free_at timestamptz not null default 'epoch',
  -- When the provider last told us.
  synced_at timestamptz
);
create index number_by_account on postrider.number (waba_id);

-- A named set of numbers that a job may go out from.
create table postrider.sender_pool (
  -- As jobs name it.
  name text primary key,
  -- Meta's phone number ids.
  phone_number_ids text[] not null check (cardinality(phone_number_ids) > 0),
  -- Whether a recipient's jobs may move to another number of the pool when theirs cannot send.
  strict boolean not null default false,
  -- Whether the present configuration names it; enqueue refuses one that it does not.
  configured boolean not null default true
);

-- What a notification is about, mirrored from the configuration so that enqueue can check without the daemon.
create table postrider.kind (
  -- order, delivery, otp, travel, ...
  name text primary key,
  -- 0 urgent, 1 normal, 2 bulk.
  priority smallint not null check (priority between 0 and 2),
  -- Template categories it may leave as; null allows any.
  categories text[],
  -- How long after enqueue a job may still be sent.
  valid_for interval not null check (valid_for > interval '0'),
  -- How long to wait for the receipt of an unanswered request.
  resolve_after interval not null,
  -- What to do when it does not come.
  on_unknown text not null check (on_unknown in ('resend', 'stop')),
  -- Whether the recipient must have opted in.
  requires_opt_in boolean not null default true,
  -- The scope whose opt-in counts beside the general one; null means the general one alone.
  consent_scope text,
  -- never: not even in a dead letter; no: until sent; yes: with the message too.
  keep_parameters text not null default 'no' check (keep_parameters in ('never', 'no', 'yes')),
  -- Whether the present configuration names it.
  configured boolean not null default true
);

-- A message template of an account in one language, as the provider last showed it.
create table postrider.template (
  -- Ours.
  id bigint generated always as identity primary key,
  -- The account it belongs to.
  waba_id text not null references postrider.account,
  -- Lower case, digits and underscores.
  name text not null,
  -- Underscore form, for example en_US.
  language text not null,
  -- Meta's id; null until synced.
  provider_id text,
  -- APPROVED is the only status that sends (Meta, templates, 2026-09).
  status text not null,
  -- MARKETING, UTILITY or AUTHENTICATION.
  category text not null,
  -- POSITIONAL or NAMED.
  parameter_format text not null default 'POSITIONAL',
  -- The provider's own components array.
  components jsonb not null,
  -- GREEN, YELLOW, RED or UNKNOWN.
  quality text,
  -- Dropped undelivered after this many seconds; null means the category's default, -1 means 30 days.
  message_send_ttl_seconds integer,
  -- Why the provider rejected it, where it did.
  rejected_reason text,
  -- Grows from one sequence with every change, so that an instance reads only what it has not seen.
  revision bigint not null,
  -- When the provider last told us.
  synced_at timestamptz not null default now(),
  unique (waba_id, name, language)
);
create sequence postrider.template_revision;
create index template_by_revision on postrider.template (revision);
create index template_by_name on postrider.template (name, language);

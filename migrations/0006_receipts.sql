-- What the provider and people tell us.

create sequence postrider.receipt_id cache 100;

-- Every status update, as it came.
create table postrider.receipt (
  -- Ours.
  id bigint not null,
  -- When it came in.
  received_at timestamptz not null,
  -- Meta's id of the number it is about.
  phone_number_id text,
  -- The provider's message id.
  provider_id text not null,
  -- The callback data that our request carried, as it came back.
  callback text,
  -- sent, delivered, read, failed, played, or one we do not know.
  status text not null,
  -- The provider's time.
  at timestamptz not null,
  -- The provider's error code, for failed.
  error_code integer,
  -- The provider's words for it.
  error_title text,
  -- What it was billed as.
  pricing_category text,
  -- regular, free_customer_service, ...
  pricing_type text,
  -- The whole element as it came, with keys we do not know.
  raw text not null
) partition by range (received_at);
create index receipt_by_time on postrider.receipt using brin (received_at) with (autosummarize = on);

-- Receipts not yet folded. A row leaves when its message has it, or after 7 days without one.
create table postrider.receipt_inbox (
  -- As in receipt.
  id bigint primary key,
  -- Not tried before this: moves on while the message is not there yet.
  fold_at timestamptz not null,
  -- When it came in.
  received_at timestamptz not null,
  -- From the callback data: the job.
  job bigint not null,
  -- The attempt.
  attempt integer not null,
  -- The number's lane.
  lane integer not null,
  -- The message's partition.
  day date not null,
  -- The provider's message id.
  provider_id text not null,
  -- sent, delivered, read or failed.
  status text not null,
  -- The provider's time.
  at timestamptz not null,
  -- The provider's error code, for failed.
  error_code integer,
  -- The provider's words for it.
  error_title text,
  -- What it was billed as.
  pricing_category text,
  -- regular, free_customer_service, ...
  pricing_type text
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index receipt_inbox_by_time on postrider.receipt_inbox (fold_at, id);

-- What people wrote to us. Few beside what we send, so one table, swept by age.
create table postrider.inbound (
  -- The provider's message id; a repeated webhook changes nothing.
  provider_id text primary key,
  -- The provider's time.
  at timestamptz not null,
  -- When it came in.
  received_at timestamptz not null,
  -- Meta's id of the number they wrote to.
  phone_number_id text not null,
  -- That number's lane; null if we do not know the number.
  lane integer,
  -- Canonical key of the writer.
  sender_key text not null,
  -- text, button, interactive, image, reaction, ...
  type text not null,
  -- The words, or the label of the button.
  body text,
  -- The payload of the button.
  payload text,
  -- The provider's id of the message it answers.
  context_id text,
  -- The job it answers, where that is ours.
  job bigint,
  -- Where an advertisement brought them from.
  referral jsonb,
  -- The whole element as it came.
  raw text not null
);
create index inbound_by_sender on postrider.inbound (sender_key, at);
create index inbound_by_time on postrider.inbound (received_at);

-- Webhook elements that are neither statuses nor messages, or that could not be understood, kept for people to see.
create table postrider.webhook_event (
  -- Ours.
  id bigint generated always as identity,
  -- When it came in.
  received_at timestamptz not null,
  -- The app it came to.
  app text not null,
  -- Meta's name of the field: message_template_status_update, account_update, ...
  field text not null,
  -- Why it was not understood; null when it was.
  problem text,
  -- The element as it came.
  raw text not null,
  primary key (id, received_at)
) partition by range (received_at);

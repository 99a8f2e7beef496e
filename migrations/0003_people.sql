-- People, not strings: all addresses of one person share consent and service windows.

-- Addresses that are known to be one person's. An address without a row here stands for itself alone.
create table postrider.address (
  -- Canonical key of the address: E.164 with the variants of one line made equal, or a business-scoped id.
  key text primary key,
  -- The canonical key that stands for the person; equal for all addresses of one person.
  person text not null,
  -- What showed that they belong together: answer, webhook, number_change, id_change.
  source text not null,
  -- When we learned it.
  linked_at timestamptz not null default now()
);
create index address_by_person on postrider.address (person);

-- The newest opt-in and the newest opt-out of a person, by scope. Whichever is later holds.
create table postrider.consent (
  -- The person's canonical key.
  person text not null,
  -- all, or what it is limited to, for example marketing.
  scope text not null default 'all',
  -- When they agreed; null if they never did.
  opted_in_at timestamptz,
  -- Where: checkout, import, whatsapp, ...
  opt_in_source text,
  -- What proves it: the text shown, who recorded it.
  opt_in_evidence jsonb,
  -- When they withdrew; null if they never did.
  opted_out_at timestamptz,
  -- Where: whatsapp, provider, support, ...
  opt_out_source text,
  -- The language they prefer, in the underscore form.
  language text,
  primary key (person, scope),
  check (opted_in_at is not null or opted_out_at is not null)
);

-- Until when free-form messages may go to a person from a number: 24 h after their last message to it.
create table postrider.service_window (
  -- The person's canonical key.
  person text not null,
  -- The number they wrote to.
  lane integer not null,
  -- The end of the window.
  expires_at timestamptz not null,
  primary key (person, lane)
);

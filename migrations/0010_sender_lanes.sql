-- What enqueue must know of senders, kinds and settings, put together beforehand so that it reads one row instead of
-- joining. First the lanes of a sender pool, beside its numbers' names.

alter table postrider.sender_pool
  -- Lanes of the pool's configured numbers, in order; kept by triggers.
  add column lanes integer[] not null default '{}';

-- The lanes of those of the given numbers that the configuration names.
create function postrider.configured_lanes(numbers text[]) returns integer[]
language sql stable
as $$
  select coalesce(array_agg(n.lane order by n.lane), '{}')
  from postrider.number n
  where n.phone_number_id = any(numbers) and n.configured
$$;

create function postrider.fill_sender_lanes() returns trigger
language plpgsql
as $$
begin
  new.lanes := postrider.configured_lanes(new.phone_number_ids);
  return new;
end
$$;

create trigger fill_lanes before insert or update on postrider.sender_pool
  for each row execute function postrider.fill_sender_lanes();

create function postrider.refresh_sender_lanes() returns trigger
language plpgsql
as $$
begin
  update postrider.sender_pool set lanes = default
  where lanes is distinct from postrider.configured_lanes(phone_number_ids);
  return null;
end
$$;

create trigger refresh_sender_lanes after insert or delete or update of configured, phone_number_id on postrider.number
  for each statement execute function postrider.refresh_sender_lanes();

-- What a job gets that names this sender and this kind. Each job is enqueued in a transaction of its own, where every table
-- and every index costs anew, so there is a row for each answer.
create table postrider.job_default (
  -- The sender pool as the caller named it; empty for one who named none.
  sender text not null,
  -- The kind as the caller named it; empty for one who named none.
  kind text not null,
  -- The sender pool meant.
  sender_name text not null,
  -- Lanes of the pool, at least one.
  lanes integer[] not null,
  -- The kind meant.
  kind_name text not null,
  -- The kind's priority.
  priority smallint not null,
  -- How long after enqueue a job may still be sent.
  valid_for interval not null,
  -- Whether urgent jobs ring.
  ring boolean not null,
  -- The language of a template where nothing better is known.
  language text not null,
  -- Codes of languages that are written as the provider writes them: the default and those of the templates.
  languages text[] not null,
  -- Names of templates that make a job an otp, where no kind was named.
  otp_templates text[] not null,
  primary key (sender, kind)
);

-- What that table should hold.
create function postrider.job_defaults() returns setof postrider.job_default
language sql stable
as $$
  with setting as (
    select
      max(value #>> '{}') filter (where name = 'default_sender') as sender,
      max(value #>> '{}') filter (where name = 'default_kind') as kind,
      max(value #>> '{}') filter (where name = 'default_language') as language,
      bool_or(value = 'true') filter (where name = 'ring') as ring
    from postrider.setting
  ),
  templates as (
    select
      array_agg(distinct language) filter (where language = postrider.language_code(language)) as languages,
      -- Of all accounts: enqueue looks closer at a job whose template is among them.
      array_agg(distinct name) filter (where category = 'AUTHENTICATION') as otps
    from postrider.template
  )
  select named.sender, named.kind, p.name, p.lanes, k.name, k.priority, k.valid_for,
         coalesce(s.ring, false), s.language,
         array_remove(array_append(t.languages, postrider.language_code(s.language)), null),
         case when named.kind = '' then coalesce(t.otps, '{}') else '{}' end
  from setting s
  cross join templates t
  join postrider.sender_pool p on p.configured and p.lanes <> '{}'
  join postrider.kind k on k.configured
  cross join lateral (
    select sender, kind
    from unnest(array[nullif(p.name, ''), case p.name when s.sender then '' end]) sender,
         unnest(array[nullif(k.name, ''), case k.name when s.kind then '' end]) kind
    where sender is not null and kind is not null
  ) named
  where s.language is not null
$$;

create function postrider.refresh_job_default() returns trigger
language plpgsql
as $$
begin
  -- One after the other: who waited here sees what the other committed. Readers are not held up.
  lock table postrider.job_default in share row exclusive mode;
  delete from postrider.job_default d
  using (select * from postrider.job_default except select * from postrider.job_defaults()) stale
  where d.sender = stale.sender and d.kind = stale.kind;
  insert into postrider.job_default
  select * from postrider.job_defaults() except select * from postrider.job_default;
  return null;
end
$$;

create trigger refresh_job_default after insert or update or delete on postrider.sender_pool
  for each statement execute function postrider.refresh_job_default();
create trigger refresh_job_default after insert or update or delete on postrider.kind
  for each statement execute function postrider.refresh_job_default();
create trigger refresh_job_default after insert or update or delete on postrider.setting
  for each statement execute function postrider.refresh_job_default();
create trigger refresh_job_default after insert or delete or update of name, language, category on postrider.template
  for each statement execute function postrider.refresh_job_default();

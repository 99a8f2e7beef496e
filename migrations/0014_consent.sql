-- What people agreed to and what they withdrew.

-- Checks what opt_in and opt_out have in common; returns the person's key. The time comes back in order: null is now, and
-- up to a minute ahead is now too, because it is only the other machine's clock.
create function postrider.consent_of(
  recipient text, source text, at timestamptz, out person text, out said_at timestamptz
)
language plpgsql
as $$
declare
  key constant text := postrider.address_key(recipient);
begin
  if key is null then
    perform postrider.refuse('PR001', recipient);
  elsif coalesce(btrim(source), '') = '' then
    perform postrider.refuse('PR012', source);
  elsif at > clock_timestamp() + interval '1 minute' then
    perform postrider.refuse('PR011', at::text);
  end if;
  person := postrider.person_of(key);
  said_at := least(at, clock_timestamp());
end
$$;

-- Notes that a person agreed to be messaged: to everything, or to what `scope` names. Whichever of the newest opt-in and
-- the newest opt-out is later holds. `language` is the one they want to read.
create function postrider.opt_in(
  recipient text, source text, scope text default null, at timestamptz default null, language text default null,
  evidence jsonb default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
declare
  consent record;
  code constant text := postrider.language_code(language);
begin
  if language is not null and code is null then
    perform postrider.refuse('PR009', language);
  end if;
  consent := postrider.consent_of(recipient, source, at);
  insert into postrider.consent as c (person, scope, opted_in_at, opt_in_source, opt_in_evidence, language)
  values (consent.person, coalesce(nullif(btrim(opt_in.scope), ''), 'all'), consent.said_at, source, evidence, code)
  on conflict on constraint consent_pkey do update set
    opted_in_at = excluded.opted_in_at,
    opt_in_source = excluded.opt_in_source,
    opt_in_evidence = excluded.opt_in_evidence,
    language = coalesce(excluded.language, c.language)
  where c.opted_in_at is null or c.opted_in_at <= excluded.opted_in_at;
end
$$;

-- Notes that a person withdrew: from everything, or from what `scope` names.
create function postrider.opt_out(
  recipient text, source text, scope text default null, at timestamptz default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
declare
  consent record;
begin
  consent := postrider.consent_of(recipient, source, at);
  insert into postrider.consent as c (person, scope, opted_out_at, opt_out_source)
  values (consent.person, coalesce(nullif(btrim(opt_out.scope), ''), 'all'), consent.said_at, source)
  on conflict on constraint consent_pkey do update set
    opted_out_at = excluded.opted_out_at,
    opt_out_source = excluded.opt_out_source
  where c.opted_out_at is null or c.opted_out_at <= excluded.opted_out_at;
end
$$;

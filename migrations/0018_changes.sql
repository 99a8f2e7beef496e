-- What the provider changes by itself (limits, qualities, templates, restrictions), told by webhooks or seen by a sync, and
-- the history of it. Triggers write the history, so that it is whole whichever way a change came: by a webhook, by a sync,
-- by an answer, by a command.

-- When the provider last told us something by webhook, by its own clock: one that comes late undoes nothing newer.
create table postrider.told (
  -- What it is about, as in operator_event.target.
  subject text not null,
  -- Which side of it: status, category, quality, limit, ban, ...
  aspect text not null,
  -- The provider's time of the newest webhook that was heeded.
  at timestamptz not null,
  primary key (subject, aspect)
);

-- When somebody asked for its lists to be read again, because a webhook told of something that we do not know; null when
-- that was done.
alter table postrider.account add column sync_asked_at timestamptz;

-- Finds a webhook that was repeated. Its text is too long for an index.
create index webhook_event_by_content on postrider.webhook_event (md5(raw));

-- Whether a webhook told it within the last minute. A list that was being read meanwhile may be older than that.
create function postrider.told_lately(subject text, aspect text) returns boolean
language sql stable
set search_path = pg_catalog, postrider, pg_temp
as $$
  select exists (
    select from postrider.told t
    where t.subject = told_lately.subject and t.aspect = told_lately.aspect and t.at > now() - interval '1 minute')
$$;

-- Writes a change of the provider's into the history. What the webhook said beside it is in the setting `postrider.told`,
-- for the length of its transaction; a sync says nothing.
create function postrider.note_change(target text, action text, before text, after text) returns void
language sql
set search_path = pg_catalog, postrider, pg_temp
as $$
  insert into postrider.operator_event (who, action, target, detail)
  values ('provider', action, target,
          jsonb_strip_nulls(jsonb_build_object('before', before, 'after', after))
            || coalesce(nullif(current_setting('postrider.told', true), '')::jsonb, '{}'))
$$;

-- Whether a change of category is a surprise: a kind that may leave as the former may not leave as the new one, or it became
-- marketing (dearer, and held back for many people) although no kind asks for that.
create function postrider.is_surprising(former text, present text) returns boolean
language sql stable
set search_path = pg_catalog, postrider, pg_temp
as $$
  select exists (select from postrider.kind k
                 where k.configured and former = any (k.categories) and present <> all (k.categories))
    or present = 'MARKETING'
       and not exists (select from postrider.kind k where k.configured and 'MARKETING' = any (k.categories))
$$;

create function postrider.note_template_change() returns trigger
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
declare
  subject text := concat_ws('/', new.waba_id, new.name, new.language);
begin
  if new.status <> old.status then
    perform postrider.note_change('template ' || subject, 'template_status', old.status, new.status);
  end if;
  if new.quality <> old.quality then
    perform postrider.note_change('template ' || subject, 'template_quality', old.quality, new.quality);
  end if;
  if new.category <> old.category then
    perform postrider.note_change('template ' || subject, 'template_category', old.category, new.category);
    -- It is the operators' own rule, so the pause is theirs: the provider approving the template does not end it.
    delete from postrider.pause where scope = 'template' and target = subject and source = 'operator' and by = 'postrider';
    insert into postrider.pause (scope, target, source, reason, by)
    select 'template', subject, 'operator',
      format('the provider changed its category from %s to %s', old.category, new.category), 'postrider'
    where postrider.is_surprising(old.category, new.category)
      and coalesce((select value from postrider.setting s where s.name = 'on_recategorised'), '"pause"') = '"pause"'
    -- Somebody stopped it already.
    on conflict do nothing;
  end if;
  return null;
end
$$;

create trigger template_change after update of status, category, quality on postrider.template
  for each row when ((old.status, old.category, old.quality) is distinct from (new.status, new.category, new.quality))
  execute function postrider.note_template_change();

create function postrider.note_number_change() returns trigger
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
declare
  number text := 'number ' || new.phone_number_id;
begin
  -- What was not known before is no change.
  if new.status <> old.status and old.status <> 'UNKNOWN' then
    perform postrider.note_change(number, 'number_status', old.status, new.status);
  end if;
  if new.quality_rating <> old.quality_rating then
    perform postrider.note_change(number, 'number_quality', old.quality_rating, new.quality_rating);
  end if;
  if new.throughput_level <> old.throughput_level then
    perform postrider.note_change(number, 'number_throughput', old.throughput_level, new.throughput_level);
  end if;
  if new.verified_name <> old.verified_name then
    perform postrider.note_change(number, 'number_name', old.verified_name, new.verified_name);
  end if;
  return null;
end
$$;

create trigger number_change after update of status, quality_rating, throughput_level, verified_name on postrider.number
  for each row when ((old.status, old.quality_rating, old.throughput_level, old.verified_name)
    is distinct from (new.status, new.quality_rating, new.throughput_level, new.verified_name))
  execute function postrider.note_number_change();

create function postrider.note_limit_change() returns trigger
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
begin
  perform postrider.note_change('portfolio ' || new.portfolio_id, 'messaging_limit',
    coalesce(old.messaging_limit::text, 'unlimited'), coalesce(new.messaging_limit::text, 'unlimited'));
  return null;
end
$$;

-- Until the provider has told its limit, the configuration's holds; that is no change of the provider's.
create trigger limit_change after update of messaging_limit on postrider.portfolio
  for each row when (old.messaging_limit is distinct from new.messaging_limit and new.messaging_limit_tier is not null)
  execute function postrider.note_limit_change();

-- Every pause and every end of one. Who ends it says so in the setting `postrider.who`, for the length of the transaction.
create function postrider.note_pause() returns trigger
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
declare
  told jsonb := coalesce(nullif(current_setting('postrider.told', true), '')::jsonb, '{}');
begin
  if tg_op = 'DELETE' then
    insert into postrider.operator_event (who, action, target, detail)
    select
      case
        when old.until <= now() then 'postrider'
        else coalesce(nullif(current_setting('postrider.who', true), ''),
                      case
                        when old.source = 'provider' then 'provider'
                        when old."by" = 'postrider' then 'postrider'
                        else session_user
                      end)
      end,
      'resume', trim(old.scope || ' ' || old.target),
      jsonb_strip_nulls(jsonb_build_object('reason', old.reason, 'since', old.since, 'until', old.until)) || told;
  else
    insert into postrider.operator_event (who, action, target, detail)
    select
      case new.source when 'provider' then 'provider' else new."by" end,
      'pause', trim(new.scope || ' ' || new.target),
      jsonb_strip_nulls(jsonb_build_object('reason', new.reason, 'code', new.error_code, 'until', new.until)) || told;
  end if;
  return null;
end
$$;

create trigger pause_begins after insert on postrider.pause
  for each row execute function postrider.note_pause();
create trigger pause_ends after delete on postrider.pause
  for each row execute function postrider.note_pause();
-- The provider says the same again with each answer, and each moves the end; that alone is no news.
create trigger pause_changes after update on postrider.pause
  for each row when (
    (old.reason, old.error_code, old.since) is distinct from (new.reason, new.error_code, new.since)
    or new.source = 'operator' and old.until is distinct from new.until)
  execute function postrider.note_pause();

-- What operators ask the history.
create index operator_event_by_time on postrider.operator_event (at);

revoke all on postrider.told from public;
revoke all on function
  postrider.told_lately(text, text), postrider.note_change(text, text, text, text), postrider.is_surprising(text, text),
  postrider.note_template_change(), postrider.note_number_change(), postrider.note_limit_change(), postrider.note_pause()
from public;
grant select, insert, update, delete on postrider.told to postrider_daemon;
grant select on postrider.told to postrider_reader;
grant execute on function postrider.told_lately(text, text) to postrider_daemon, postrider_owner;

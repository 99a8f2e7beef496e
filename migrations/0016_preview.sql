-- What the recipient would read, and what would stop it, without enqueueing anything.

-- The text of a parameter: a plain value, or the fallback of a currency or date. Null for what is neither. Line breaks and
-- runs of blanks become one blank, because the provider refuses them.
create function postrider.parameter_text(value jsonb) returns text
language sql immutable parallel safe
as $$
  select regexp_replace(coalesce(
    case when jsonb_typeof(value) in ('string', 'number') then value #>> '{}' end,
    value->>'text',
    value->'currency'->>'fallback', value->'currency'->>'fallback_value',
    value->'date_time'->>'fallback', value->'date_time'->>'fallback_value'), '\s+', ' ', 'g')
$$;

-- Parameters as texts by name: a list's items are named 1, 2, 3, as positional variables are.
create function postrider.named_texts(given jsonb) returns jsonb
language sql immutable
as $$
  select coalesce(jsonb_object_agg(name, postrider.parameter_text(value)), '{}')
  from (
    select position::text as name, item as value
    from jsonb_array_elements(case jsonb_typeof(given) when 'array' then given else '[]' end) with ordinality list (item, position)
    union all
    select key, value from jsonb_each(case jsonb_typeof(given) when 'object' then given else '{}' end)
  ) named
$$;

-- The names of the variables in a template's text.
create function postrider.variables_of(pattern text) returns text[]
language sql immutable parallel safe
as $$
  select array(select distinct found[1] from regexp_matches(pattern, '\{\{\s*(\w+)\s*\}\}', 'g') found order by 1)
$$;

-- The texts for one component with that pattern, out of parameters in either form: ours ({"body": …}) or the provider's
-- ({"components": …}). A header has one variable at most, so a plain text is for whatever that is called.
create function postrider.component_texts(parameters jsonb, component text, pattern text) returns jsonb
language sql immutable
as $$
  select case
    when jsonb_typeof(parameters->'components') = 'array' then (
      select coalesce(jsonb_object_agg(coalesce(item->>'parameter_name', position::text), postrider.parameter_text(item)), '{}')
      from jsonb_array_elements(parameters->'components') element
      cross join jsonb_array_elements(element->'parameters') with ordinality list (item, position)
      where lower(element->>'type') = component)
    when component = 'body' and parameters->>'code' is not null then jsonb_build_object('1', parameters->'code')
    when component = 'header' and jsonb_typeof(parameters->'header') = 'string' then
      jsonb_build_object(coalesce((postrider.variables_of(pattern))[1], '1'), parameters->'header')
    else postrider.named_texts(parameters->component)
  end
$$;

-- A template's text with its variables filled in; a variable without a value stays as it is. In one pass, so that a value
-- that looks like a variable is left alone.
create function postrider.filled(pattern text, texts jsonb) returns text
language sql immutable
as $$
  select string_agg(literal || coalesce(texts->>name, '{{' || name || '}}', ''), '' order by position)
  from rows from (
    regexp_split_to_table(pattern, '\{\{\s*\w+\s*\}\}'),
    regexp_matches(pattern, '\{\{\s*(\w+)\s*\}\}', 'g')
  ) with ordinality part (literal, found, position)
  cross join lateral (select found[1] as name) variable
$$;

-- What does not fit between a component's variables and the parameters given for it.
create function postrider.misfits(component text, pattern text, texts jsonb) returns setof text
language sql stable
as $$
  select format('parameter_mismatch: the %s needs %s', component, string_agg(format('{{%s}}', name), ', '))
  from unnest(postrider.variables_of(pattern)) name where coalesce(texts->>name, '') = ''
  having count(*) > 0
  union all
  select format('parameter_mismatch: the %s has no %s', component, string_agg(format('{{%s}}', name), ', '))
  from jsonb_object_keys(texts) name where name <> all(postrider.variables_of(pattern))
  having count(*) > 0
$$;

-- What the person's consent would say to a job of that kind; null when nothing.
create function postrider.consent_problem(person text, job_kind text) returns text
language sql stable
as $$
  select case
    when consent.opted_out_at >= coalesce(consent.opted_in_at, '-infinity') then 'opted_out: the recipient opted out'
    when kind.requires_opt_in and consent.opted_in_at is null then 'no_opt_in: the recipient never opted in'
  end
  from postrider.kind kind
  cross join lateral (
    select max(c.opted_in_at) as opted_in_at, max(c.opted_out_at) as opted_out_at
    from postrider.consent c
    where c.person = consent_problem.person and c.scope in ('all', kind.consent_scope)
  ) consent
  where kind.name = job_kind
$$;

-- What the template's standing would say to a job of that kind; null when nothing.
create function postrider.template_problem(template postrider.template, job_kind text) returns text
language sql stable
as $$
  select case
    when template.id is null then 'template_unknown: the account has no such template in that language'
    when template.status = 'PAUSED' then 'template_paused: the provider paused the template; it waits until that ends'
    when template.status = 'DISABLED' then 'template_disabled: the provider disabled the template'
    when template.status <> 'APPROVED' then format('template_not_approved: the template is %s', template.status)
    when template.category <> all(kind.categories) then
      format('category_not_allowed: the template is %s, and %s may leave as %s only',
             template.category, job_kind, array_to_string(kind.categories, ', '))
  end
  from (values (job_kind)) job (kind) left join postrider.kind kind on kind.name = job.kind
$$;

-- The text that the recipient would read, null where the template is not known; and each thing that would stop it, led by
-- the reason that the job would end or wait with.
create function postrider.preview(recipient text, template text, parameters jsonb, language text default null)
returns table (text text, issues text[])
language plpgsql stable security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
declare
  job postrider.resolved_job;
  known postrider.template;
  component record;
  said record;
begin
  job := postrider.resolve_job(
    row (1, recipient, template, coalesce(parameters, '{}'), false, language, null, null, null, null, null, null, null,
         null, null, null, null)::postrider.job_request,
    postrider.enqueue_settings(), clock_timestamp());
  issues := '{}';
  if job.error_code is not null then
    said := postrider.refusal(job.error_code, job.error_subject);
    issues := issues || format('%s: %s', job.error_code, said.sentence);
    return next;
    return;
  end if;

  select t.* into known
  from postrider.template t join postrider.number n on n.waba_id = t.waba_id
  where n.lane = job.lane and t.name = job.template and t.language = job.language;
  issues := array_remove(issues
    || postrider.template_problem(known, job.kind)
    || postrider.consent_problem(postrider.person_of(job.recipient_key), job.kind), null);

  for component in
    select lower(part->>'type') as name, part->>'text' as pattern,
           postrider.component_texts(job.content, lower(part->>'type'), part->>'text') as texts
    from jsonb_array_elements(known.components) part
    where part->>'text' is not null and upper(part->>'type') in ('HEADER', 'BODY', 'FOOTER')
  loop
    text := concat_ws(E'\n\n', text, postrider.filled(component.pattern, component.texts));
    issues := issues || array(select postrider.misfits(component.name, component.pattern, component.texts));
  end loop;
  return next;
end
$$;

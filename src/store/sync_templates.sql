-- $1 account, $2 a revision from before, then the columns of the list
with said as (
  -- en-US and en_US are one language; should the provider list both, one is as good as the other.
  select distinct on (name, language) *
  from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::jsonb[], $10::text[], $11::int[],
              $12::text[])
    as l(provider_id, name, language, status, category, parameter_format, components, quality, ttl, rejected_reason)
  order by name, language, status
),
listed as (
  -- What a webhook told within the last minute stands: the list may have been read before.
  select said.provider_id, said.name, said.language, coalesce(t.status, said.status) as status, said.category,
    said.parameter_format, said.components, said.quality, said.ttl, said.rejected_reason
  from said
  left join postrider.template t on t.waba_id = $1 and t.name = said.name and t.language = said.language
    and postrider.told_lately('template ' || concat_ws('/', $1, said.name, said.language), 'status')
),
written as (
  insert into postrider.template as t
    (waba_id, name, language, provider_id, status, category, parameter_format, components, quality,
     message_send_ttl_seconds, rejected_reason, revision)
  select $1, l.name, l.language, l.provider_id, l.status, l.category, coalesce(l.parameter_format, 'POSITIONAL'),
    case jsonb_typeof(l.components) when 'array' then l.components else '[]' end, l.quality, l.ttl,
    nullif(l.rejected_reason, 'NONE'), nextval('postrider.template_revision')
  from listed l
  on conflict (waba_id, name, language) do update set
    provider_id = excluded.provider_id,
    status = excluded.status,
    category = excluded.category,
    parameter_format = excluded.parameter_format,
    components = excluded.components,
    quality = excluded.quality,
    message_send_ttl_seconds = excluded.message_send_ttl_seconds,
    rejected_reason = excluded.rejected_reason,
    synced_at = excluded.synced_at,
    -- Only a change is news: every instance reads what has a revision that it has not seen.
    revision = case
      when (t.provider_id, t.status, t.category, t.parameter_format, t.components, t.quality, t.message_send_ttl_seconds,
            t.rejected_reason)
        is distinct from
           (excluded.provider_id, excluded.status, excluded.category, excluded.parameter_format, excluded.components,
            excluded.quality, excluded.message_send_ttl_seconds, excluded.rejected_reason)
      then excluded.revision
      else t.revision
    end
  returning t.revision
),
gone as (
  update postrider.template t set status = 'DELETED', revision = nextval('postrider.template_revision')
  where t.waba_id = $1 and t.status <> 'DELETED'
    and not exists (select from listed l where l.name = t.name and l.language = t.language)
  returning 1
)
select (select count(*) from written where revision > $2) as "changed!", (select count(*) from gone) as "gone!"

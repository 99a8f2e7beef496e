-- Makes the persons behind two addresses one: the first ($1) takes over what the second ($2) has. Nothing happens when
-- they are one already.
with pair as (
  select person, other
  from (
    select
      coalesce((select person from postrider.address where key = $1), $1) as person,
      coalesce((select person from postrider.address where key = $2), $2) as other
  ) as found
  where person <> other
), addresses as (
  update postrider.address a set person = pair.person, linked_at = now()
  from pair
  where a.person = pair.other and a.key <> pair.other
), itself as (
  -- A person is called by one of their addresses, and that one may have had no row.
  insert into postrider.address (key, person, source)
  select other, person, $3 from pair
  on conflict (key) do update set person = excluded.person, source = excluded.source, linked_at = now()
), former_consents as (
  delete from postrider.consent c using pair where c.person = pair.other returning c.*
), consents as (
  insert into postrider.consent as c (
    person, scope, opted_in_at, opt_in_source, opt_in_evidence, opted_out_at, opt_out_source, language
  )
  select
    pair.person, f.scope, f.opted_in_at, f.opt_in_source, f.opt_in_evidence, f.opted_out_at, f.opt_out_source, f.language
  from former_consents f, pair
  on conflict (person, scope) do update set
    -- The newest word of each sort stays.
    (opted_in_at, opt_in_source, opt_in_evidence) = (
      select * from (values
        (c.opted_in_at, c.opt_in_source, c.opt_in_evidence),
        (excluded.opted_in_at, excluded.opt_in_source, excluded.opt_in_evidence)
      ) as word (at, source, evidence)
      order by at desc nulls last limit 1
    ),
    (opted_out_at, opt_out_source) = (
      select * from (values
        (c.opted_out_at, c.opt_out_source), (excluded.opted_out_at, excluded.opt_out_source)
      ) as word (at, source)
      order by at desc nulls last limit 1
    ),
    language = coalesce(c.language, excluded.language)
), former_windows as (
  delete from postrider.service_window w using pair where w.person = pair.other returning w.lane, w.expires_at
), windows as (
  insert into postrider.service_window as w (person, lane, expires_at)
  select pair.person, f.lane, f.expires_at from former_windows f, pair
  on conflict (person, lane) do update set expires_at = greatest(w.expires_at, excluded.expires_at)
)
select count(*) = 1 as "linked!" from pair

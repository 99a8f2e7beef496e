-- Writes down what people want, under the person; the newest word of each sort stays.
with said as (
  select coalesce(a.person, w.key) as person, w.scope, w.given, w.at, w.source, w.evidence
  from unnest($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::text[], $6::jsonb[])
    as w (key, scope, given, at, source, evidence)
  left join postrider.address a on a.key = w.key
)
insert into postrider.consent as c (
  person, scope, opted_in_at, opt_in_source, opt_in_evidence, opted_out_at, opt_out_source
)
select
  person, scope,
  max(at) filter (where given),
  (array_agg(source order by at desc) filter (where given))[1],
  (array_agg(evidence order by at desc) filter (where given))[1],
  max(at) filter (where not given),
  (array_agg(source order by at desc) filter (where not given))[1]
from said
group by person, scope
order by person, scope
on conflict (person, scope) do update set
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
  )

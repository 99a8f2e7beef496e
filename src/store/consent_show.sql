select
  c.person, c.scope, c.opted_in_at, c.opt_in_source, c.opt_in_evidence, c.opted_out_at, c.opt_out_source, c.language,
  array(select a.key from postrider.address a where a.person = c.person order by a.key) as "addresses!"
from postrider.consent c
where c.person = postrider.person_of(postrider.address_key($1))
order by c.scope

-- Addresses that are seen for the first time, beside one that may be known: nothing has to be merged, so many are written
-- at once. Returns which pairs were done; the others are for people_link.sql. (Both IN are written so that Postgres hashes
-- them: as joins of a batch with itself it would compare each with each.)
with pair as (
  select ordinal, known, also, source
  from unnest($1::text[], $2::text[], $3::text[]) with ordinality as p (known, also, source, ordinal)
), fresh as (
  select distinct on (pair.also)
    pair.ordinal, pair.also, pair.source,
    coalesce((select a.person from postrider.address a where a.key = pair.known), pair.known) as person
  from pair
  -- Nothing is called by it, here or in this batch, and nothing is written under it.
  where pair.also not in (select other.known from pair other)
    and not exists (select from postrider.address a where a.key = pair.also)
    and not exists (select from postrider.address a where a.person = pair.also)
    and not exists (select from postrider.consent c where c.person = pair.also)
    and not exists (select from postrider.service_window w where w.person = pair.also)
  order by pair.also, pair.ordinal
), met as (
  insert into postrider.address (key, person, source)
  select also, person, source from fresh where person <> also
  on conflict (key) do nothing
  returning key
)
select fresh.ordinal as "ordinal!" from fresh where (fresh.also in (select met.key from met)) is true

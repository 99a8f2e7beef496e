-- Of these pairs of addresses, those that are not known to be one person's.
select u.ordinal as "ordinal!"
from unnest($1::text[], $2::text[]) with ordinality as u (known, also, ordinal)
where coalesce((select k.person from postrider.address k where k.key = u.known), u.known)
   <> coalesce((select a.person from postrider.address a where a.key = u.also), u.also)
order by u.ordinal

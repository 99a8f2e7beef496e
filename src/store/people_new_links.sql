-- Of these pairs of addresses, those that are not known to be one person's.
select u.ordinal as "ordinal!"
from unnest($1::text[], $2::text[]) with ordinality as u (known, also, ordinal)
left join postrider.address k on k.key = u.known
left join postrider.address a on a.key = u.also
where coalesce(k.person, u.known) <> coalesce(a.person, u.also)
order by u.ordinal

insert into postrider.link_inbox (known, also, source)
select known, also, source
from unnest($1::text[], $2::text[], $3::text[]) with ordinality as link (known, also, source, ordinal)
order by ordinal

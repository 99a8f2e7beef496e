-- Messages from phone apps, as far as we were told since then. A little before it too: what commits late was noted before.
select message_hash, lane as "lane: Lane", recipient_hash, counted, at, noted_at
from postrider.echo
where noted_at > $1::timestamptz - interval '30 seconds'
order by noted_at

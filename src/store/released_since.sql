-- Held messages that the provider has sent, as far as we were told since then. A little before it too: what commits late
-- was noted before.
select lane as "lane: Lane", recipient_hash, at, noted_at
from postrider.released
where noted_at > $1::timestamptz - interval '30 seconds'
order by noted_at

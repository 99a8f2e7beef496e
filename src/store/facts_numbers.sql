-- Every number that the configuration names, with the messaging limit that it is under.
select n.lane as "lane: Lane", n.phone_number_id, n.waba_id, a.portfolio_id, l.messaging_limit, n.shard, n.refilled_at,
  -- With attempts of its former shard's holder to be seen to, it is not free whatever the time.
  case when n.open_since is null then n.free_at else '9999-01-01' end as "free_at!",
  n.display_phone_number, n.status, n.quality_rating, n.throughput_level, n.is_on_biz_app,
  n.messages_per_second::float8 as messages_per_second
from postrider.number n
join postrider.account a using (waba_id)
join postrider.number_limit l using (lane)
where n.configured
order by n.lane

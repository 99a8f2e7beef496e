-- The processes that were heard of lately, with what they send for.
select i.id as instance, i.host, i.pid, i.version, i.roles, i.started_at,
  count(distinct n.shard) as "shards!", count(n.lane) filter (where n.configured) as "numbers!"
from postrider.instance i
left join postrider.lease l on l.instance = i.id and l.expires_at > now()
left join postrider.number n on n.shard = l.shard
where i.seen_at > now() - interval '15 s'
group by i.id
order by i.host, i.id

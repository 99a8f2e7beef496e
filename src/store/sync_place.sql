-- Gives every number the shard where it belongs. The numbers of a portfolio with a limit share one, because one instance
-- must count for all of them; every other number stands for itself.
with placed as (
  select n.lane, n.shard as former,
    case when p.messaging_limit is null or scope.value = '"number"' then n.lane % 256
         -- A hash that no release of Postgres changes.
         else ('x' || left(md5(p.portfolio_id), 2))::bit(8)::integer
    end as shard
  from postrider.number n
  join postrider.account a using (waba_id)
  join postrider.portfolio p using (portfolio_id)
  left join postrider.setting scope on scope.name = 'limit_scope'
), leaving as materialized (
  -- Locked until we commit, so that nobody takes a shard that nobody holds while a number leaves it.
  select l.shard, l.expires_at > clock_timestamp() as held, l.free_at, l.settled_until, l.epoch
  from postrider.lease l
  where l.shard in (select former from placed where placed.shard <> placed.former)
  order by l.shard
  for key share
)
update postrider.number n set
  shard = placed.shard,
  free_at = case
    -- New in this transaction: nobody has sent for it yet.
    when n.free_at = 'infinity' then 'epoch'
    -- Nobody holds the shard that it leaves, so nobody can be sending for it.
    when not leaving.held then greatest(n.free_at, leaving.free_at)
    -- Its holder may not have heard of it before its lease would have run out, and may post 1.2 s into the next one's time.
    else greatest(n.free_at, clock_timestamp() + interval '1.2 s' + interval '1 ms' * coalesce(
      (select ttl.value::text::integer from postrider.setting ttl where ttl.name = 'lease_ttl_ms'), 5000))
  end,
  -- What its former holder has under way is seen to by the next one; what is older is settled.
  open_since = case when n.free_at <> 'infinity' and leaving.epoch > 0 then least(n.open_since, leaving.settled_until)
                    else n.open_since end
from placed
left join leaving on leaving.shard = placed.former
where placed.lane = n.lane and (placed.shard <> n.shard or n.free_at = 'infinity')

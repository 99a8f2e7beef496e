-- Gives every number the shard where it belongs. The numbers of a portfolio with a limit share one, because one instance
-- must count for all of them; every other number stands for itself.
with placed as (
  select n.lane,
    case when p.messaging_limit is null or scope.value = '"number"' then n.lane % 256
         -- A hash that no release of Postgres changes.
         else ('x' || left(md5(p.portfolio_id), 2))::bit(8)::integer
    end as shard
  from postrider.number n
  join postrider.account a using (waba_id)
  join postrider.portfolio p using (portfolio_id)
  left join postrider.setting scope on scope.name = 'limit_scope'
)
update postrider.number n set
  shard = placed.shard,
  free_at = case
    -- New in this transaction: nobody has sent for it yet.
    when n.free_at = 'infinity' then 'epoch'
    -- Nobody holds the shard that it leaves, so nobody can be sending for it.
    when not exists (
      select from postrider.lease l where l.shard = n.shard and l.expires_at > clock_timestamp()) then n.free_at
    -- A lease lasts 5 s, and its holder may post 1.2 s into the next one's time: until then the former owner may be at it.
    else greatest(n.free_at, clock_timestamp() + interval '6.2 s')
  end
from placed
where placed.lane = n.lane and (placed.shard <> n.shard or n.free_at = 'infinity')

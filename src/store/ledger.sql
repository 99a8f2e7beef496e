-- Who counts against the messaging limits of some pools: everybody with a counted attempt in the last 24 h and some minutes,
-- through any number of the pool, also one that is no longer configured. An attempt comes a moment before its post, which the
-- minutes cover. What the provider held counts again from when it was sent, and what
-- somebody sent from a number's phone app counts too. Attempts are found by their time, whosever they are: all pools are
-- asked about at once, so that a day is read once.
with own as (
  select lane, pool from unnest($1::int[], $2::int[]) as own(lane, pool)
), any_lane as (
  select lane, pool from own
  union
  select other.lane, own.pool
  from own
  join postrider.number on number.lane = own.lane
  join postrider.account own_account on own_account.waba_id = number.waba_id
  join postrider.account on account.portfolio_id = own_account.portfolio_id
  join postrider.number other on other.waba_id = account.waba_id
  where $3
), lane as materialized (
  -- Through arrays, which are taken for short: else the attempts, which are many, may be sorted for the join.
  select unnest(array_agg(lane)) as lane, unnest(array_agg(pool)) as pool from any_lane
)
select lane.pool as "pool!", person as "person!", max(at) as "at!"
from (
  select attempt.lane, attempt.recipient_hash, attempt.at
  from postrider.attempt
  where attempt.counted
    and attempt.at >= now() - interval '24 hours 6 minutes'
  union all
  select released.lane, released.recipient_hash, released.at
  from postrider.released
  where released.at >= now() - interval '24 hours 6 minutes'
  union all
  select echo.lane, echo.recipient_hash, echo.at
  from postrider.echo
  where echo.counted
    and echo.at >= now() - interval '24 hours 6 minutes'
) as counted(lane, person, at)
join lane on lane.lane = counted.lane
group by lane.pool, person

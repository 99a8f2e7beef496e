-- Who counts against a pool's messaging limit: everybody with a counted attempt in the last 24 h and some minutes, through
-- any number of the pool, also one that is no longer configured. An attempt comes a moment before its post, which the
-- minutes cover. What the provider held counts again from when it was sent, and what
-- somebody sent from a number's phone app counts too.
with lane as materialized (
  select lane from unnest($1::int[]) as own(lane)
  union
  select other.lane
  from postrider.number own
  join postrider.account own_account on own_account.waba_id = own.waba_id
  join postrider.account on account.portfolio_id = own_account.portfolio_id
  join postrider.number other on other.waba_id = account.waba_id
  where $2 and own.lane = any ($1::int[])
)
select person as "person!", max(at) as "at!"
from (
  select attempt.recipient_hash, attempt.at
  from postrider.attempt
  where attempt.counted
    and attempt.at >= now() - interval '24 hours 6 minutes'
    and attempt.lane in (select lane from lane)
  union all
  select released.recipient_hash, released.at
  from postrider.released
  where released.at >= now() - interval '24 hours 6 minutes'
    and released.lane in (select lane from lane)
  union all
  select echo.recipient_hash, echo.at
  from postrider.echo
  where echo.counted
    and echo.at >= now() - interval '24 hours 6 minutes'
    and echo.lane in (select lane from lane)
) as counted(person, at)
group by person

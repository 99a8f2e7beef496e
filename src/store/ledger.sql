-- Who counts against a pool's messaging limit: everybody with a counted attempt in the last 24 h and some minutes, through
-- any number of the pool, also one that is no longer configured. An attempt comes a moment before its post, which the
-- minutes cover.
select attempt.recipient_hash as "person!", max(attempt.at) as "at!"
from postrider.attempt
where attempt.counted
  and attempt.at >= now() - interval '24 hours 6 minutes'
  and (attempt.lane = any ($1::int[])
    or $2 and attempt.lane in (
      select other.lane
      from postrider.number own
      join postrider.account own_account on own_account.waba_id = own.waba_id
      join postrider.account on account.portfolio_id = own_account.portfolio_id
      join postrider.number other on other.waba_id = account.waba_id
      where own.lane = any ($1::int[])))
group by attempt.recipient_hash

-- How many messages each person got of late through each of these numbers, for the pair limit: by the attempts, which come a
-- moment before their posts, and from phone apps, as far as we had been told when it was asked: the worker hears of what came
-- later by itself. Who got one alone, so long ago that its token is back, is left out.
select lane as "lane!: Lane", recipient_hash as "recipient_hash!", count(*) as "messages!"
from (
  select attempt.lane, attempt.recipient_hash, attempt.at
  from postrider.attempt
  where attempt.lane = any ($1::int[]) and attempt.at >= now() - $2::interval
  union all
  select echo.lane, echo.recipient_hash, echo.at
  from postrider.echo
  where echo.lane = any ($1::int[]) and echo.at >= now() - $2::interval and echo.noted_at <= $4::timestamptz
) as got
group by lane, recipient_hash
having count(*) > 1 or max(at) >= now() - $3::interval

-- Notes, for each account, up to which attempt receipts have come: the evidence that they flow. One row a lane comes in. A
-- time is kept for a moment before the next may take its place, so that what is not quite new is always known too.
with told as (
  select number.waba_id, max(attempt.at) as taken_at
  from unnest($1::bigint[], $2::integer[], $3::integer[], $4::date[]) as t(job, attempt, lane, day)
  join postrider.number on number.lane = t.lane
  join postrider.attempt on attempt.job = t.job and attempt.attempt = t.attempt
    and attempt.at >= t.day::timestamp at time zone 'UTC' and attempt.at < (t.day + 1)::timestamp at time zone 'UTC'
  group by number.waba_id
)
insert into postrider.receipt_flow as known (waba_id, taken_at, noted_at)
select waba_id, taken_at, clock_timestamp() from told
on conflict (waba_id) do update
set taken_before = known.taken_at, taken_at = excluded.taken_at, noted_at = excluded.noted_at
where excluded.taken_at > known.taken_at and known.noted_at <= excluded.noted_at - interval '2 seconds'

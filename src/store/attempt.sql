-- The permission to post: one committed row for each job that may go now. What it does not return may not be posted.
with fence as materialized (
  -- Only the holder of the shard's lease, in its present epoch. KEY SHARE keeps a take-over waiting until we commit, and
  -- does not conflict with renewal.
  select lease.shard
  from unnest($1::smallint[], $2::bigint[]) as held(shard, epoch)
  join postrider.lease on lease.shard = held.shard and lease.epoch = held.epoch
  where lease.expires_at > clock_timestamp()
    -- A pause of everything holds from its commit on, whatever memory knows of it.
    and not exists (
      select from postrider.pause
      where pause.scope = 'all' and (pause.until is null or pause.until > clock_timestamp()))
  order by lease.shard
  for key share of lease
), wanted as (
  -- What memory believes: tries proves that nobody answered or moved the job since the look.
  select id, lane, tries, shard, recipient_hash, counted
  from unnest($3::bigint[], $4::int[], $5::int[], $6::smallint[], $7::bigint[], $8::bool[])
    as w(id, lane, tries, shard, recipient_hash, counted)
), permitted as (
  select queue.id, queue.lane, queue.tries, wanted.recipient_hash, wanted.counted
  from wanted
  join fence on fence.shard = wanted.shard
  -- A number that moved to another shard is no longer ours, whatever memory says.
  join postrider.number on number.lane = wanted.lane and number.shard = wanted.shard
    and number.free_at <= clock_timestamp() and number.open_since is null
  join postrider.queue on queue.id = wanted.id and queue.lane = wanted.lane and queue.tries = wanted.tries
  where queue.state = 'queued'
    -- An opt-out since the look. The newest word in the general scope and the kind's own holds.
    and not exists (
      select
      from postrider.consent
      where consent.person = coalesce(
          (select address.person from postrider.address where address.key = queue.recipient_key),
          queue.recipient_key)
        and consent.scope = any (array['all', (select kind.consent_scope from postrider.kind where kind.name = queue.kind)])
      having max(consent.opted_out_at) >= coalesce(max(consent.opted_in_at), '-infinity'))
  order by queue.id
  -- A row that cancel, expiry or a move holds is theirs; it is looked at again.
  for no key update of queue skip locked
)
insert into postrider.attempt (lane, job, attempt, recipient_hash, counted, at)
select lane, id, tries + 1, recipient_hash, counted, clock_timestamp()
from permitted
returning job as "job!", at as "at!"

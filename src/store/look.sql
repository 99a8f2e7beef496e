-- The next due jobs of the given lanes and priorities, with what the gate needs to know about each person.
-- It only reads. Every join is a probe by key, lateral, so that the plan stays the same whatever the statistics say.
with cursor as (
  -- One row for each lane and priority that has room: where the last look stopped, and how many it may take.
  select lane, priority, after_due, after_id, room, account
  from unnest($1::int[], $2::smallint[], $3::timestamptz[], $4::bigint[], $5::int[], $6::text[])
    as c(lane, priority, after_due, after_id, room, account)
), held_template as (
  -- Templates that may not be sent now; their jobs stay where they are and nothing is written.
  select account, name, language
  from unnest($7::text[], $8::text[], $9::text[]) as h(account, name, language)
), seed as (
  select (value #>> '{}')::bigint as value from postrider.setting where name = 'recipient_hash_seed'
)
select
  job.id as "id!", job.lane as "lane!", job.priority as "priority!", job.due_at as "due_at!",
  job.tries as "tries!", job.spent as "spent!", job.kind as "kind!", job.recipient as "recipient!",
  job.template, job.language, job.content::text as "content!",
  job.enqueued_at as "enqueued_at!", job.expires_at as "expires_at!", job.batch,
  person.key as "person!", hashtextextended(person.key, (select value from seed)) as "recipient_hash!",
  consent.opted_in_at, consent.opted_out_at, service_window.expires_at as "window_until?"
from cursor
cross join lateral (
  select near.*
  from (
    select queue.*
    from postrider.queue
    where queue.lane = cursor.lane
      and queue.priority = cursor.priority
      and (queue.due_at, queue.id) > (cursor.after_due, cursor.after_id)
      and queue.due_at <= now()
    order by queue.due_at, queue.id
    -- Millions may be held, and others wait for this look: it goes so far, and the next one goes on from there.
    limit $13
  ) as near
  where near.state = 'queued'
    -- What memory has already, when the look goes back over what it read before.
    and near.id not in (select known from unnest($10::bigint[]) as known)
    -- Held kinds and batches stay too.
    and near.kind not in (select kind from unnest($11::text[]) as kind)
    and (near.batch is null or near.batch not in (select batch from unnest($12::text[]) as batch))
    and not exists (
      select from held_template as held
      where held.account = cursor.account and held.name = near.template and held.language = near.language)
  order by near.due_at, near.id
  limit cursor.room
) as job
cross join lateral (
  select coalesce(
    (select address.person from postrider.address where address.key = job.recipient_key),
    job.recipient_key) as key
) as person
cross join lateral (
  -- The general scope and the kind's own, whichever word is newer.
  select max(consent.opted_in_at) as opted_in_at, max(consent.opted_out_at) as opted_out_at
  from postrider.consent
  where consent.person = person.key
    and consent.scope = any (array['all', (select kind.consent_scope from postrider.kind where kind.name = job.kind)])
) as consent
left join lateral (
  select service_window.expires_at
  from postrider.service_window
  where service_window.person = person.key and service_window.lane = job.lane
  limit 1
) as service_window on true

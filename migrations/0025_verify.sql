-- What `verify` knows of the jobs that were ever enqueued. It looks at ranges of 10,000 ids, each in one short snapshot, and
-- closes those that are finished.

create table postrider.verify_range (
  -- Range n holds the ids from n * 10,000 on, up to the next range.
  range bigint primary key,
  -- When it was last looked at; null before the first time.
  looked_at timestamptz,
  -- Jobs that were enqueued in it, as last seen.
  jobs integer not null default 0,
  -- Jobs that were not in exactly one place, as last seen.
  jobs_off integer not null default 0,
  -- Since when it is proven and finished: no transaction can add a job to it any more, and all of its jobs have left the queue
  -- and ended. Null while that is not so.
  closed_at timestamptz
) with (fillfactor = 70);
create index verify_range_open on postrider.verify_range (looked_at nulls first, range) where closed_at is null;
create index verify_range_off on postrider.verify_range (range) where jobs_off > 0;

-- A range is found by a few pages of `enqueued`, if these are summarised soon after they were filled.
do $$
declare
  part regclass;
begin
  for part in select inhrelid from pg_inherits where inhparent = 'postrider.enqueued_by_job'::regclass loop
    execute format('alter index %s set (autosummarize = on)', part);
  end loop;
end
$$;

-- Summarises what is not yet, for whoever is about to read ranges. It waits for nobody who writes, and is left to the next
-- time when a vacuum is at the table.
create function postrider.summarize_enqueued() returns void
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
set lock_timeout = '100ms'
as $$
declare
  part regclass;
begin
  for part in select inhrelid from pg_inherits where inhparent = 'postrider.enqueued_by_job'::regclass loop
    perform brin_summarize_new_values(part);
  end loop;
exception
  when lock_not_available then null;
end
$$;

-- A dead letter that leaves (redriven, found by its receipt, dropped) opens its range again, so that its way is proven to
-- its new end. The lock, held to the end of the transaction, keeps verify from closing the range by what it saw before.
create function postrider.reopen_ranges() returns trigger
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
declare
  -- In one order, so that two of us cannot wait for each other in a circle.
  ranges constant bigint[] := array(select distinct gone.id / 10000 from gone order by 1);
begin
  if ranges = '{}' then
    return null;
  end if;
  perform pg_advisory_xact_lock_shared(hashtext('postrider.verify'), leaving::integer) from unnest(ranges) as leaving;
  perform from postrider.verify_range where range = any(ranges) and closed_at is not null order by range for update;
  update postrider.verify_range set closed_at = null where range = any(ranges) and closed_at is not null;
  return null;
end
$$;
create trigger dead_letter_leaves after delete on postrider.dead_letter
  referencing old table as gone
  for each statement execute function postrider.reopen_ranges();

revoke all on postrider.verify_range from public;
revoke all on function postrider.summarize_enqueued(), postrider.reopen_ranges() from public;
grant select, insert, update, delete on postrider.verify_range to postrider_daemon;
grant select on postrider.verify_range to postrider_reader;
grant execute on function postrider.summarize_enqueued() to postrider_daemon, postrider_owner;

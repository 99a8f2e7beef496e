-- The lanes of a sender pool, kept beside its numbers' names so that enqueue reads one row instead of joining.

alter table postrider.sender_pool
  -- Lanes of the pool's configured numbers, in order; kept by triggers.
  add column lanes integer[] not null default '{}';

-- The lanes of those of the given numbers that the configuration names.
create function postrider.configured_lanes(numbers text[]) returns integer[]
language sql stable
as $$
  select coalesce(array_agg(n.lane order by n.lane), '{}')
  from postrider.number n
  where n.phone_number_id = any(numbers) and n.configured
$$;

create function postrider.fill_sender_lanes() returns trigger
language plpgsql
as $$
begin
  new.lanes := postrider.configured_lanes(new.phone_number_ids);
  return new;
end
$$;

create trigger fill_lanes before insert or update on postrider.sender_pool
  for each row execute function postrider.fill_sender_lanes();

create function postrider.refresh_sender_lanes() returns trigger
language plpgsql
as $$
begin
  update postrider.sender_pool set lanes = default
  where lanes is distinct from postrider.configured_lanes(phone_number_ids);
  return null;
end
$$;

create trigger refresh_sender_lanes after insert or delete or update of configured, phone_number_id on postrider.number
  for each statement execute function postrider.refresh_sender_lanes();

-- A sender pool as the configuration has it.
insert into postrider.sender_pool (name, phone_number_ids, strict)
values ($1, $2, $3)
on conflict (name) do update set
  phone_number_ids = excluded.phone_number_ids, strict = excluded.strict, configured = true

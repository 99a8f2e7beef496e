-- People, not strings: one key for every way of writing the same line.

-- Whether an address is a phone number in E.164 form. (Without a regular expression, which every transaction that enqueues
-- would have to set up.)
create function postrider.is_phone_number(address text) returns boolean
language sql immutable parallel safe
as $$
  select rtrim(address, '0123456789') = '+' and length(address) between 9 and 16 and left(address, 2) <> '+0'
$$;

-- The canonical key of an address that is no phone number, or one of a country that may have two ways of writing it.
create function postrider.unusual_address_key(address text) returns text
language plpgsql immutable parallel safe
as $$
begin
  return case
    when postrider.is_phone_number(address) then
      case left(address, 3)
        when '+55' then regexp_replace(address, '^\+55([0-9]{2})9([6-9][0-9]{7})$', '+55\1\2')
        when '+52' then regexp_replace(address, '^\+521([0-9]{10})$', '+52\1')
        when '+54' then regexp_replace(address, '^\+549([0-9]{10})$', '+54\1')
        else address
      end
    when address ~ '^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}$' then address
  end;
end
$$;

-- The canonical key of an address, or null for what is neither E.164 with + nor a business-scoped id. Brazil's ninth
-- digit, Mexico's 1 and Argentina's 9 come and go between what people type and what the provider answers, so the key is
-- without them.
create function postrider.address_key(address text) returns text
language sql immutable parallel safe
as $$
  select case
    when postrider.is_phone_number(address) and left(address, 2) <> '+5' then address
    else postrider.unusual_address_key(address)
  end
$$;

-- The key that stands for the person behind an address. An address without a link stands for itself.
create function postrider.person_of(address_key text) returns text
language sql stable parallel safe
as $$
  select coalesce((select a.person from postrider.address a where a.key = address_key), address_key)
$$;

-- An address as it may be shown: +90•••••1234. A short one keeps fewer of its last digits.
create function postrider.mask(address text) returns text
language sql immutable parallel safe
as $$
  select case
    when length(address) < 8 then '•••••'
    else left(address, case left(address, 1) when '+' then 3 else 2 end) || '•••••'
         || right(address, case when length(address) < 11 then 2 else 4 end)
  end
$$;

-- A language as the provider writes it: en-US, en_us and en_US are all en_US. Null for what is no language code.
create function postrider.language_code(code text) returns text
language sql immutable parallel safe
as $$
  select case when code ~ '^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,4})?$' then
    lower(split_part(translate(code, '-', '_'), '_', 1))
    || coalesce('_' || upper(nullif(split_part(translate(code, '-', '_'), '_', 2), '')), '')
  end
$$;

-- Whether whoever is logged in sees the jobs of all producers, or only their own. session_user, because inside a function
-- with its owner's rights current_user is the owner.
create function postrider.sees_all_jobs() returns boolean
language sql stable parallel safe
as $$
  select pg_has_role(session_user, 'postrider_reader', 'member')
      or pg_has_role(session_user, 'postrider_daemon', 'member')
      or pg_has_role(session_user, 'postrider_owner', 'member')
$$;

-- Consents and windows are written under the name that a person goes by at that moment. Linking two persons while somebody
-- writes could leave an opt-out behind under a name that nobody looks at any more. So whoever writes holds a lock of the
-- whole database shared until the end of the transaction, and looks the name up under it; whoever links holds it alone.
create function postrider.under_the_persons_name() returns trigger
language plpgsql security definer
set search_path = pg_catalog, postrider, pg_temp
as $$
begin
  perform pg_advisory_xact_lock_shared(hashtext('postrider.people'));
  new.person := postrider.person_of(new.person);
  return new;
end
$$;
revoke all on function postrider.under_the_persons_name() from public;

create trigger consent_under_the_persons_name before insert on postrider.consent
  for each row execute function postrider.under_the_persons_name();
create trigger service_window_under_the_persons_name before insert on postrider.service_window
  for each row execute function postrider.under_the_persons_name();

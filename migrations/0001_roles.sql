-- The four group roles that users are granted into. They belong to the whole cluster, so another database of the same
-- cluster may have made them already, even at this very moment.
do $$
declare
  role_name text;
begin
  foreach role_name in array array['postrider_owner', 'postrider_daemon', 'postrider_producer', 'postrider_reader'] loop
    if not exists (select from pg_roles where rolname = role_name) then
      begin
        execute format('create role %I nologin', role_name);
      exception
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then
          raise exception 'role % does not exist and % may not create it', role_name, current_user
            using errcode = 'insufficient_privilege',
                  hint = format('Let an administrator run: create role %I nologin;', role_name);
      end;
    end if;
  end loop;
end
$$;

revoke all on schema postrider from public;
grant usage on schema postrider to postrider_owner, postrider_daemon, postrider_producer, postrider_reader;

-- Accounts as the configuration has them.
insert into postrider.account (waba_id, portfolio_id, app)
select * from unnest($1::text[], $2::text[], $3::text[])
on conflict (waba_id) do update set portfolio_id = excluded.portfolio_id, app = excluded.app, configured = true

-- Portfolios of the configuration's accounts. The configured limit ($2) holds until the provider has named its own.
insert into postrider.portfolio (portfolio_id, messaging_limit)
select distinct unnest($1::text[]), $2::integer
on conflict (portfolio_id) do update set messaging_limit = excluded.messaging_limit
where portfolio.messaging_limit_tier is null or portfolio.messaging_limit_tier like '%NOT_SET'

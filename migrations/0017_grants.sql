-- Who may do what. PUBLIC may do nothing; producers call the functions and read their own jobs; readers read everything but
-- payloads and keys; the daemon works on the tables.

revoke all on all tables in schema postrider from public;
revoke all on all sequences in schema postrider from public;
revoke all on all functions in schema postrider from public;

-- The contract for upstreams.
grant execute on function
  postrider.enqueue(text, text, jsonb, text, text, text, text, text, timestamptz, timestamptz, text, text, jsonb),
  postrider.enqueue_message(text, jsonb, text, text, text, text, timestamptz, timestamptz, text, text, jsonb),
  postrider.enqueue_many(jsonb),
  postrider.cancel(bigint), postrider.cancel_by_reference(text), postrider.cancel_batch(text),
  postrider.opt_in(text, text, text, timestamptz, text, jsonb),
  postrider.opt_out(text, text, text, timestamptz),
  postrider.preview(text, text, jsonb, text)
to postrider_producer, postrider_daemon, postrider_owner;
grant select on postrider.job_status, postrider.template_status
to postrider_producer, postrider_reader, postrider_daemon, postrider_owner;

-- What the view's functions need of whoever reads it.
grant execute on function
  postrider.sees_all_jobs(), postrider.queue_state(postrider.queue), postrider.priority_word(smallint)
to postrider_producer, postrider_reader, postrider_daemon, postrider_owner;

-- Operators and monitoring: every table that has no payload, and of the others the columns that are none.
grant select on
  postrider.number_status, postrider.pause_now,
  postrider.setting, postrider.portfolio, postrider.account, postrider.number, postrider.sender_pool, postrider.kind,
  postrider.job_default, postrider.template, postrider.address, postrider.consent, postrider.service_window, postrider.enqueued,
  postrider.attempt, postrider.answer, postrider.instance, postrider.lease, postrider.pause, postrider.operator_event,
  postrider.job_event
to postrider_reader;
do $$
declare
  relation text;
  columns text;
begin
  foreach relation in array array['queue', 'message', 'dead_letter', 'receipt', 'receipt_inbox', 'inbound', 'webhook_event'] loop
    select string_agg(quote_ident(attname), ', ') into columns
    from pg_attribute
    where attrelid = format('postrider.%I', relation)::regclass and attnum > 0 and not attisdropped
      and attname not in ('content', 'raw', 'body', 'payload', 'referral');
    execute format('grant select (%s) on postrider.%I to postrider_reader', columns, relation);
  end loop;
end
$$;

-- The daemon. It drops no table and alters none; days come and go by functions with their owner's rights.
grant select, insert, update, delete on all tables in schema postrider to postrider_daemon;
grant usage, select on all sequences in schema postrider to postrider_daemon;
grant execute on all functions in schema postrider to postrider_daemon, postrider_owner;
alter function postrider.ensure_partitions(date, date) security definer;
alter function postrider.ensure_partitions(date, date) set search_path = pg_catalog, postrider, pg_temp;

-- A kind as the configuration has it.
insert into postrider.kind
  (name, priority, categories, valid_for, resolve_after, on_unknown, requires_opt_in, consent_scope, keep_parameters)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (name) do update set
  priority = excluded.priority,
  categories = excluded.categories,
  valid_for = excluded.valid_for,
  resolve_after = excluded.resolve_after,
  on_unknown = excluded.on_unknown,
  requires_opt_in = excluded.requires_opt_in,
  consent_scope = excluded.consent_scope,
  keep_parameters = excluded.keep_parameters,
  configured = true

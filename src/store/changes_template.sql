-- Changes what a webhook tells of a template; what it does not tell ($4 to $6 null) stays. Only a change gets a revision.
-- $1 account, $2 name, $3 language, $4 status, $5 quality, $6 category
update postrider.template set
  status = coalesce($4, status),
  quality = coalesce($5, quality),
  category = coalesce($6, category),
  -- A category that the provider chose itself has its own time to live (Meta, TTL, 2026-09).
  message_send_ttl_seconds = case when category <> $6 then null else message_send_ttl_seconds end,
  revision = nextval('postrider.template_revision')
where waba_id = $1 and name = $2 and language = $3
  and (status, quality, category) is distinct from (coalesce($4, status), coalesce($5, quality), coalesce($6, category))

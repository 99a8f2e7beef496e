-- Claims the one message that tries what the provider stopped, and says whether that is there at all.
-- $1 scope, $2 target, $3 until when it was stopped, $4 how long an earlier claim is good
with claimed as (
  update postrider.pause set probed_at = now()
  where scope = $1 and target = $2 and source = 'provider'
    -- What was stopped for longer since is not over.
    and until <= $3
    and (probed_at is null or probed_at <= now() - $4::interval)
  returning scope
)
select exists (select from claimed) as "is_granted!",
  exists (select from postrider.pause where scope = $1 and target = $2 and source = 'provider') as "is_there!"

-- Every kind; the interval in seconds, because the driver's has months.
select name, priority, categories, extract(epoch from resolve_after)::float8 as "resolve_after_s!", on_unknown,
  requires_opt_in, consent_scope, keep_parameters
from postrider.kind

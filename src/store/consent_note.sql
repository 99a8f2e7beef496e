-- Each statement by the same functions that upstreams call.
select
  case when said.opt_out then
    postrider.opt_out(said.recipient, said.source, said.scope, said.at)
  else
    postrider.opt_in(said.recipient, said.source, said.scope, said.at, said.language, said.evidence)
  end
from jsonb_to_recordset($1::jsonb) said (
  recipient text, opt_out boolean, source text, scope text, at timestamptz, language text, evidence jsonb)

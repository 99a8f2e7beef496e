-- Ends the provider's pauses of templates of account $1 that became APPROVED after revision $2.
delete from postrider.pause p
using postrider.template t
where p.scope = 'template' and p.source = 'provider' and p.target = concat_ws('/', t.waba_id, t.name, t.language)
  and t.waba_id = $1 and t.status = 'APPROVED' and t.revision > $2

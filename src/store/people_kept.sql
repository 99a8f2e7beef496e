-- Takes the oldest links out of the inbox.
delete from postrider.link_inbox
where id in (select id from postrider.link_inbox order by id limit 1000)
returning id, known, also, source

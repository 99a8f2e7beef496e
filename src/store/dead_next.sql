select id as "id!"
from postrider.dead_matching($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
where id > $11
order by id
limit $12

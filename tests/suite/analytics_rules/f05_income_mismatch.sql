select s.customer_id as "_id.entity", s.transaction_id as "_id.ref", 'medium' as severity, 20 as score,
       s.customer_id, s.store_id, s.transaction_id, s.at as "evidence.transaction_date", s.amount as "evidence.amount",
       c.income as "evidence.income",
       pg_temp.half_even(s.amount / nullif(c.income, 0), 4) as "evidence.share"
  from sale s join customers c on c.customer_id = s.customer_id
 where c.income = 0 and s.amount > 0 or s.amount / nullif(c.income, 0) > 0.30

with counted as (
    select customer_id, count(*) as sales, count(*) filter (where promotion_id is null) as phantoms,
           min(at) as first_date, max(at) as last_date,
           (array_agg(transaction_id order by at, transaction_id))[3] as third
      from moment where promotion_applied group by customer_id
)
select c.customer_id as "_id.entity", c.third as "_id.ref", 'low' as severity, 10 as score, c.customer_id, t.store_id,
       c.third as transaction_id, c.sales as "evidence.sales", c.phantoms as "evidence.phantoms",
       c.first_date as "evidence.first_date", c.last_date as "evidence.last_date"
  from counted c join transactions t on t.transaction_id = c.third

-- A chain begins at a sale that follows no other within a week and reaches to the next such sale.
with repeated as materialized (
    select a.*, exists (
               select from sale e
                where (e.customer_id, e.store_id, e.basket) = (a.customer_id, a.store_id, a.basket)
                  and (e.at, e.transaction_id) < (a.at, a.transaction_id)
                  and e.at >= a.at - interval '7 days') as follows
      from sale a
     where exists (select from sale o
                    where (o.customer_id, o.store_id, o.basket) = (a.customer_id, a.store_id, a.basket)
                      and o.transaction_id <> a.transaction_id)
), member as (
    select s.*, (select b.transaction_id from repeated b
                  where (b.customer_id, b.store_id, b.basket) = (s.customer_id, s.store_id, s.basket)
                    and (b.at, b.transaction_id) <= (s.at, s.transaction_id) and not b.follows
                  order by b.at desc, b.transaction_id desc limit 1) as first_id
      from repeated s
)
select customer_id as "_id.entity", first_id as "_id.ref", 'high' as severity, 30 as score, customer_id, store_id,
       first_id as transaction_id, basket as "evidence.basket", count(*) as "evidence.sales",
       sum(amount) as "evidence.amount", min(at) as "evidence.first_date", max(at) as "evidence.last_date",
       array_agg(transaction_id order by at, transaction_id) as "evidence.transaction_ids"
  from member
 group by customer_id, store_id, basket, first_id
having count(*) >= 2

with month as (
    select s.customer_id, s.transaction_id, s.store_id, s.at, count(*) as sales, max(o.at) as last_date,
           array_agg(distinct p.method_name order by p.method_name) as names,
           count(distinct o.payment_method_id) as methods
      from moment s
      join moment o on o.customer_id = s.customer_id and o.at >= s.at and o.at <= s.at + interval '30 days'
      join paymentmethods p on p.method_id = o.payment_method_id
     group by s.customer_id, s.transaction_id, s.store_id, s.at
)
select distinct on (customer_id)
       customer_id as "_id.entity", transaction_id as "_id.ref", 'medium' as severity, 15 as score, customer_id,
       store_id, transaction_id, at as "evidence.first_date", last_date as "evidence.last_date",
       sales as "evidence.sales", names as "evidence.methods"
  from month where methods >= 3
 order by customer_id, at, transaction_id

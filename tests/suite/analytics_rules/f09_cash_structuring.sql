with hit as (
    select s.* from sale s join paymentmethods p on p.method_id = s.payment_method_id
     where p.method_name = 'Cash' and s.amount >= 9000 and s.amount < 10000
)
select h.store_id as "_id.entity", h.transaction_id as "_id.ref", 'low' as severity, 10 as score, h.customer_id,
       h.store_id, h.transaction_id, h.at as "evidence.transaction_date", h.amount as "evidence.amount",
       (select count(*) from hit o where o.store_id = h.store_id) as "evidence.store_sales",
       (select sum(amount) from hit o where o.store_id = h.store_id) as "evidence.store_amount"
  from hit h

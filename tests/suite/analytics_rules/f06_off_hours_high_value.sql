select customer_id as "_id.entity", transaction_id as "_id.ref", 'low' as severity, 10 as score,
       customer_id, store_id, transaction_id, at as "evidence.transaction_date",
       extract(hour from at)::int as "evidence.hour", amount as "evidence.amount"
  from sale
 where at::time < '05:00' and amount >= 7500

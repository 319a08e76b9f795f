with norm as (
    select store_id, avg(amount) as mean, stddev_pop(amount) as deviation from sale group by store_id
)
select s.store_id as "_id.entity", s.transaction_id as "_id.ref", 'medium' as severity, 15 as score,
       s.customer_id, s.store_id, s.transaction_id, s.at as "evidence.transaction_date", s.amount as "evidence.amount",
       pg_temp.half_even(n.mean, 2) as "evidence.store_mean",
       pg_temp.half_even(n.deviation, 2) as "evidence.store_deviation",
       pg_temp.half_even((s.amount - n.mean) / n.deviation, 4) as "evidence.z_score"
  from sale s join norm n on n.store_id = s.store_id
 where n.deviation > 0 and s.amount > n.mean + 3 * n.deviation

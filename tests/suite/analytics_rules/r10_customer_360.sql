select s.customer_id as _id, s.customer_id, c.age, c.gender, c.income, c.loyalty_level,
       case when sum(s.amount) < 500 then 'Bronze' when sum(s.amount) < 2000 then 'Silver'
            when sum(s.amount) < 5000 then 'Gold' else 'VIP' end as tier,
       count(*) as sales, sum(s.units)::bigint as units, sum(s.amount) as amount,
       pg_temp.half_even(avg(s.amount), 2) as average_sale, array_agg(distinct s.store_id order by s.store_id) as stores,
       count(*) filter (where s.promotion_applied) as promoted_sales, min(s.at) as first_sale, max(s.at) as latest_sale
  from sale s left join customers c on c.customer_id = s.customer_id
 group by s.customer_id, c.customer_id

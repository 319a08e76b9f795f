select s.store_id as _id, s.store_id, st.location, count(distinct s.customer_id) as customers, count(*) as sales,
       sum(s.units)::bigint as units, sum(s.amount) as amount, pg_temp.half_even(avg(s.amount), 2) as average_sale,
       count(*) filter (where s.stockout) as stockouts, max(s.at) as latest_sale,
       pg_temp.half_even(sum(s.amount) * 100 / (select sum(amount) from sale), 2) as amount_percent,
       (select count(*) from sale) as total_sales, (select sum(amount) from sale) as total_amount
  from sale s left join stores st on st.store_id = s.store_id
 group by s.store_id, st.location

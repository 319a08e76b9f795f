select store_id as _id, store_id, st.location, count(distinct s.customer_id) as customers, count(s.transaction_id) as sales,
       coalesce(sum(s.units), 0)::bigint as units, coalesce(sum(s.amount), 0) as amount,
       pg_temp.half_even(avg(s.amount), 2) as average_sale, count(*) filter (where s.stockout) as stockouts,
       max(s.at) as latest_sale,
       pg_temp.half_even(coalesce(sum(s.amount), 0) * 100 / (select sum(amount) from sale), 2) as amount_percent,
       (select count(*) from sale) as total_sales, (select sum(amount) from sale) as total_amount
  from stores st full join sale s using (store_id)
 group by store_id, st.location

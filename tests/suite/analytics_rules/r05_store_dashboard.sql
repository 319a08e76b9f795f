with latest as (
    select store_id, location, (select max(at) from moment m where m.store_id = s.store_id) as at from stores s
), day as (
    select l.store_id, ago, l.at::date - ago as day, count(s.transaction_id) as sales, coalesce(sum(s.units), 0) as units,
           coalesce(sum(s.amount), 0) as amount
      from latest l cross join generate_series(0, 13) as ago
      left join sale s on s.store_id = l.store_id and s.at::date = l.at::date - ago
     group by l.store_id, l.at, ago
), total as (
    select store_id,
           sum(sales) filter (where ago < 7) as sales, sum(units) filter (where ago < 7) as units,
           sum(amount) filter (where ago < 7) as amount,
           sum(sales) filter (where ago >= 7) as sales_before, sum(units) filter (where ago >= 7) as units_before,
           sum(amount) filter (where ago >= 7) as amount_before,
           array_agg(day::timestamp order by day) filter (where ago < 7) as days,
           array_agg(sales order by day) filter (where ago < 7) as day_sales,
           array_agg(amount order by day) filter (where ago < 7) as day_amounts
      from day group by store_id
)
select l.store_id as _id, l.store_id, l.location, l.at as latest_sale,
       t.sales::bigint as "week.sales", t.units::bigint as "week.units", t.amount as "week.amount",
       t.sales_before::bigint as "week_before.sales", t.units_before::bigint as "week_before.units",
       t.amount_before as "week_before.amount",
       pg_temp.half_even((t.amount - t.amount_before) * 100 / nullif(t.amount_before, 0), 2) as change_percent,
       case when l.at is null then '{}' else t.days end as "trend.day",
       case when l.at is null then '{}' else t.day_sales end as "trend.sales",
       case when l.at is null then '{}' else t.day_amounts end as "trend.amount"
  from latest l join total t on t.store_id = l.store_id

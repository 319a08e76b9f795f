with day as (
    select d.store_id, d.day, (select count(distinct o.at::date) from moment o
                                where o.store_id = d.store_id and o.at::date >= d.day) as back
      from (select distinct store_id, at::date as day from moment) d
), rate as (
    select l.store_id, l.product_id, sum(l.quantity) as units,
           (select least(90, max(a.back)) from day a where a.store_id = l.store_id) as days
      from line l join day d on d.store_id = l.store_id and d.day = l.at::date and d.back <= 90
     group by l.store_id, l.product_id
)
select i.store_id as "_id.store_id", i.product_id as "_id.product_id", i.store_id, i.product_id, p.product_name,
       i.inventory_level, r.units, r.days, pg_temp.half_even(r.units::numeric / r.days, 4) as daily_rate,
       pg_temp.half_even(i.inventory_level::numeric * r.days / r.units, 1) as days_of_cover
  from rate r join inventory i using (store_id, product_id) join products p using (product_id)
 where r.units > 0 and i.inventory_level * r.days < 90 * r.units

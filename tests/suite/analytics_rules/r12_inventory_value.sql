select i.store_id as _id, i.store_id, s.location, count(*) as products, sum(i.inventory_level) as units,
       sum(i.inventory_level * p.unit_price) as value, count(*) filter (where i.inventory_level <= 0) as zero,
       count(*) filter (where i.inventory_level between 1 and 10) as low
  from inventory i join products p on p.product_id = i.product_id join stores s on s.store_id = i.store_id
 group by i.store_id, s.location

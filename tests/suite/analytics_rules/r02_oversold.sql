select i.store_id as "_id.store_id", i.product_id as "_id.product_id", i.store_id, i.product_id, p.product_name,
       s.sold, i.inventory_level, s.sold - i.inventory_level as excess
  from inventory i
  join products p on p.product_id = i.product_id
  cross join lateral (select sum(l.quantity) as sold from line l
                       where l.store_id = i.store_id and l.product_id = i.product_id) s
 where s.sold > i.inventory_level

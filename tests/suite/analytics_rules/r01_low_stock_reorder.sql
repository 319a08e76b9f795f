select i.store_id as "_id.store_id", i.product_id as "_id.product_id", i.store_id, i.product_id, p.product_name,
       case when i.inventory_level = 0 then 'out_of_stock' when i.inventory_level between 1 and 10 then 'low'
            when i.inventory_level > 10 then 'reorder' else 'negative' end as status,
       i.inventory_level, p.reorder_point, greatest(p.reorder_quantity, p.reorder_point - i.inventory_level) as suggested_order,
       greatest(p.reorder_quantity, p.reorder_point - i.inventory_level) * p.unit_price as order_value,
       p.supplier_id, s.lead_time
  from inventory i join products p using (product_id) left join suppliers s using (supplier_id)
 where i.inventory_level <= p.reorder_point

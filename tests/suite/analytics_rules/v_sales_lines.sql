select l.transaction_id as "_id.transaction_id", l.product_id as "_id.product_id", l.transaction_id, l.product_id,
       l.quantity, l.price as unit_price, l.amount as line_amount, l.product_name, l.category_id,
       l.at as transaction_date, l.customer_id, l.store_id, t.payment_method_id, t.promotion_applied, t.promotion_id,
       t.weather_id, t.stockout
  from line l join transactions t on t.transaction_id = l.transaction_id

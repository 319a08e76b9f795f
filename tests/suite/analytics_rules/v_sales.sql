select s.transaction_id as _id, s.transaction_id, s.at as transaction_date, s.customer_id, s.store_id,
       s.payment_method_id, s.promotion_applied, s.promotion_id, t.weather_id, s.stockout, s.amount, s.units, s.lines,
       s.basket
  from sale s join transactions t on t.transaction_id = s.transaction_id

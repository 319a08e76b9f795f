-- What every question starts from, as of now. Moments are those that a BSON date can hold.
create function pg_temp.half_even(x numeric, places int) returns numeric language sql immutable as $$
    select case when abs(scaled - trunc(scaled)) = 0.5 and trunc(scaled) % 2 = 0
                then round(trunc(scaled) / 10.0 ^ places, places)
                else round(x, places) end
      from (select x * 10.0 ^ places as scaled) it
$$;
create temp view moment as
select transaction_id, date_trunc('milliseconds', transaction_date) as at, customer_id, store_id, payment_method_id,
       promotion_applied, promotion_id, stockout
  from public.transactions;
create temp table line as
select d.transaction_id, d.product_id, d.quantity, coalesce(d.unit_price, p.unit_price) as price,
       d.quantity * coalesce(d.unit_price, p.unit_price) as amount, p.product_name, p.category_id, m.at, m.customer_id,
       m.store_id
  from public.transactiondetails d
  join public.products p on p.product_id = d.product_id
  join moment m on m.transaction_id = d.transaction_id;
create temp table sale as
select m.*, l.amount, l.units, l.lines, l.basket
  from moment m
  join (select transaction_id, sum(amount) as amount, sum(quantity) as units, count(*) as lines,
               string_agg(format('%sx%s', product_id, quantity), ',' order by product_id) as basket
          from line group by transaction_id) l on l.transaction_id = m.transaction_id;
create index on sale (customer_id, store_id, basket, at);
create index on line (store_id, product_id);
analyze line;
analyze sale;

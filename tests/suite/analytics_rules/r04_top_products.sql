select product_id as _id, row_number() over (order by units desc, amount desc, product_id) as rank, product_id,
       product_name, units, amount, sales
  from (select product_id, product_name, sum(quantity) as units, sum(amount) as amount, count(*) as sales
          from line group by product_id, product_name) of_product
 order by units desc, amount desc, product_id limit 5

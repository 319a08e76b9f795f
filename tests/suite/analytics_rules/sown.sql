-- What chance does not bring: both sides of every threshold, rows of the same moment, and what is missing.
insert into stores values (90, 'Edge'), (91, null), (92, 'Empty'), (93, 'Even');
insert into suppliers values (9001, 12);
insert into products values
    (9001, 'Edge', 1, 9001, 1.00, 10, 5), (9002, 'Edge of chain', 1, 9001, 2.50, 50, 20),
    (9003, 'No supplier', 2, null, 9.99, null, null);
insert into products select product_id, 'Top', 2, 9001, 0.05, 0, 7 from generate_series(9004, 9010) product_id;
insert into inventory
select store_id, product_id, 1000000
  from unnest(array[90, 91, 93]) store_id, generate_series(9001, 9010) product_id;
insert into customers
select 9000000 + i, 40, 'Other', case i when 50 then 0 when 51 then null else 30000.00 end, 'Gold'
  from generate_series(1, 199) i;

-- One sale of one line: who, when, where, how paid, how much.
create function sow(who bigint, at timestamp, store int, method int default 1, amount numeric default 1.00,
                    product int default 9001, quantity int default 1, applied bool default false, promotion int default null)
returns int language plpgsql as $$
declare id int;
begin
    insert into transactions (transaction_date, customer_id, store_id, payment_method_id, promotion_applied, promotion_id,
                              weather_id, stockout)
    values (at, 9000000 + who, store, method, applied, promotion, 1, false) returning transaction_id into id;
    insert into transactiondetails values (id, product, quantity, amount);
    return id;
end $$;

-- Gaps of minutes and of hours, just inside, on and just outside; the last two differ by less than a millisecond.
select sow(10 + n, '2024-05-01 10:00', 90), sow(10 + n, timestamp '2024-05-01 10:00' + gap, 90, product => 9002)
  from unnest(array['0 min', '2 min', '2 min 0.001 s', '10 min', '10 min 0.001 s', '60 min', '60 min 0.001 s',
                    '60 min 0.0004 s']::interval[]) with ordinality as of(gap, n);
select sow(20 + n, '2024-05-01 10:00', 90), sow(20 + n, timestamp '2024-05-01 10:00' + gap, 91)
  from unnest(array['0 h', '59 min 59.999 s', '1 h', '5 h 59 min', '6 h', '12 h', '23 h 59 min 59.999 s', '24 h']::interval[])
       with ordinality as of(gap, n);

-- Three sales at one moment, whose order the number decides: the middle one is in another store.
select sow(30, '2024-05-02 09:00', store, product => product)
  from unnest(array[90, 91, 90], array[9001, 9001, 9002]) as of(store, product);

-- The same basket: two a week apart, a chain of three over two weeks, two a week and a moment apart, then another basket.
select sow(40 + who, timestamp '2024-06-01 08:00' + after, 90, quantity => quantity)
  from unnest(array[1, 1, 2, 2, 2, 3, 3, 4, 4], array['0', '7 d', '0', '7 d', '14 d', '0', '7 d 0.001 s', '0', '1 d']::interval[],
              array[3, 3, 3, 3, 3, 3, 3, 3, 4]) as of(who, after, quantity);

-- An income of 0, an unknown one, exactly 30 % of it and a cent more.
select sow(50, '2024-05-03 12:00', 90), sow(51, '2024-05-03 12:00', 90, amount => 9000),
       sow(52, '2024-05-03 12:00', 90, amount => 9000), sow(53, '2024-05-03 12:00', 90, amount => 9000.01);

-- The edges of the night and of what is a big sale; also far above the store's norm.
select sow(60, '2024-05-04 00:00', 90, amount => 7500), sow(61, '2024-05-04 04:59:59.999', 90, amount => 7500),
       sow(62, '2024-05-04 05:00', 90, amount => 7500), sow(63, '2024-05-04 02:00', 90, amount => 7499.99),
       sow(64, '2024-05-04 23:59:59.9999', 90, amount => 12345.67);

-- A promotion that is named and applied, with the record of another one and of none; one that was recorded rightly.
insert into promotionapplications select sow(70, '2024-05-05 12:00', 91, applied => true, promotion => 1), 2;
insert into promotionapplications select sow(71, '2024-05-05 12:00', 91, applied => true, promotion => 1), 1;
select sow(72, '2024-05-05 12:00', 91, applied => true, promotion => 1), sow(73, '2024-05-05 12:00', 91, applied => true),
       sow(74, '2024-05-05 12:00', 91, promotion => 2);

-- Two, three and five promoted sales; the third of the last customer is at the moment of the second.
select sow(80, timestamp '2024-01-01' + n * interval '40 d', 91, applied => true) from generate_series(1, 2) n;
select sow(81, timestamp '2024-01-01' + n * interval '40 d', 91, applied => true, promotion => nullif(n, 3)) from generate_series(1, 3) n;
select sow(82, timestamp '2024-01-01' + n / 2 * interval '40 d', 91, applied => true, product => 9001 + n % 3) from generate_series(1, 5) n;

-- Cash around 9,000 and 10,000, and as much by card.
select sow(190 + n, '2024-05-06 12:00', 91, 2, amount)
  from unnest(array[8999.99, 9000, 9999.99, 10000]) with ordinality as of(amount, n);
select sow(195, '2024-05-06 12:00', 91, 1, 9500);

-- Three ways to pay: in exactly 30 days, in a moment more, at one moment, and four ways in a row of months.
select sow(100 + who, timestamp '2024-03-01 10:00' + after, 91, method)
  from unnest(array[1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4],
              array['0', '15 d', '30 d', '0', '15 d', '30 d 0.001 s', '0', '0', '0', '0', '20 d', '40 d', '45 d', '50 d']::interval[],
              array[1, 2, 3, 1, 2, 3, 3, 2, 1, 1, 2, 1, 3, 4]) as of(who, after, method);

-- Three ways at one moment again, stored in the opposite order of their numbers.
insert into transactions
select 3000000 - n, '2024-03-01 10:00', 9000105, 91, n, false, null, 1, false from generate_series(1, 3) n;
insert into transactiondetails select 3000000 - n, 9001, 1, 1.00 from generate_series(1, 3) n;

-- Ten sales in one store of which one is exactly 3 deviations above the mean; one day of sales, so that 90 last 90 days.
select sow(150 + n, '2024-05-11 12:00', 93, amount => case n when 10 then 2 else 1 end) from generate_series(1, 10) n;
update inventory set inventory_level = 900 where store_id = 93 and product_id = 9001;

-- Seven products that tie for the best seller: the amount decides, then the number; two of them are cut off.
select sow(product - 8900, '2024-05-07 12:00', 90, product => product::int, quantity => 4000, amount => amount)
  from unnest(array[9004, 9005, 9006, 9007, 9008, 9009, 9010], array[0.09, 0.10, 0.10, 0.25, 0.25, 0.25, 0.25])
       as of(product, amount);

-- Amounts at the edges of the tiers, and averages that end in half a cent.
select sow(120 + n, '2024-05-08 12:00', 90, amount => amount)
  from unnest(array[499.99, 500, 1999.99, 2000, 4999.99, 5000]) with ordinality as of(amount, n);
select sow(130, '2024-05-08 12:00', 90, amount => 0.01), sow(130, '2024-05-09 14:00', 90, amount => 0.02),
       sow(131, '2024-05-08 12:00', 90, amount => 0.02), sow(131, '2024-05-09 14:00', 90, amount => 0.03);

-- A sale of two lines, one at a price of the day and one that came without.
with sold as (select sow(140, '2024-05-10 12:00', 90, amount => 0.75, quantity => 2) as id)
insert into transactiondetails select id, 9002, 3, null from sold;

-- Stock at the edges: none, 10, 11, the reorder point and one more; less than was sold, and exactly as much.
update inventory set inventory_level = 0 where store_id = 91 and product_id = 9001;
update inventory set inventory_level = 10 where store_id = 90 and product_id = 9001;
update inventory set inventory_level = 11 where store_id = 91 and product_id = 9002;
update inventory set inventory_level = 50 where store_id = 90 and product_id = 9002;
update inventory set inventory_level = 4000 where store_id = 90 and product_id = 9005;
update inventory set inventory_level = 3999 where store_id = 90 and product_id = 9006;

-- Forecasts of a demand of nothing, and half of a forecast.
insert into demandforecast values
    ('2024-05-01', 90, 9001, 10, 0), ('2024-05-02', 90, 9001, 10, 8), ('2024-05-03', 90, 9001, null, 8),
    ('2024-05-04', 90, 9001, 3, null), ('2024-05-01', 91, 9001, 5, 0);
drop function sow;

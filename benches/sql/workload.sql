-- The workload of every end-to-end measurement: the retail system's three streamed tables and its sale.
create table transactions (
    transaction_id int primary key, transaction_date timestamp not null, customer_id int, store_id int,
    payment_method_id int, promotion_applied bool, promotion_id int, weather_id int, stockout bool);
create table transactiondetails (
    transaction_id int, product_id int, quantity int not null, primary key (transaction_id, product_id));
create table inventory (
    store_id int, product_id int, inventory_level int not null, primary key (store_id, product_id));
create table wide (id int primary key, body text);
alter table wide alter column body set storage external;

insert into inventory select s, p, 100000 from generate_series(1, 5) s, generate_series(1, 1000) p;
create publication bench for table transactions, transactiondetails, inventory, wide;
create sequence sale_id;

-- One transaction of 1 + lines inserts and ups updates.
create procedure sale(lines int, ups int) language plpgsql as $$
declare id int := nextval('sale_id'); s int := 1 + id % 5; p int := (id::bigint * 7919 % 900)::int;
begin
    insert into transactions values (id, timestamp '2024-01-01' + id * interval '1 second', id % 3848, s, 1 + id % 4,
        id % 2 = 0, case when id % 4 = 0 then 1 end, 1 + id % 4, false);
    insert into transactiondetails select id, p + i, 1 + i % 5 from generate_series(1, lines) i;
    update inventory set inventory_level = inventory_level - 1
        where store_id = s and product_id between p + 1 and p + ups;
end $$;

-- So many transactions of ten rows: five inserts, five updates.
create procedure backlog(transactions int) language plpgsql as $$
begin
    for i in 1..transactions loop call sale(4, 5); commit; end loop;
end $$;

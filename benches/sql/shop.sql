-- Sales of an ordinary shop in place of the workload's own: a minute between one and the next, so that each of 20,000
-- customers comes back after two weeks, to the same store, and pays in the same way.
create or replace procedure sale(lines int, ups int) language plpgsql as $$
declare id int := nextval('sale_id'); c int := id % 20000; s int := 1 + c % 5; p int := (id::bigint * 7919 % 900)::int;
begin
    insert into transactions values
        (id, timestamp '2024-01-01' + id * interval '1 minute', c, s, 1 + c % 4, false, null, 1 + id % 4, false);
    insert into transactiondetails select id, p + i, 1 + i % 5 from generate_series(1, lines) i;
    update inventory set inventory_level = inventory_level - 1
        where store_id = s and product_id between p + 1 and p + ups;
end $$;

insert into transactions
    select id, timestamp '2024-01-01' + id * interval '1 minute', id % 20000, 1 + id % 20000 % 5, 1 + id % 20000 % 4, false,
        null, 1 + id % 4, false
    from (select nextval('sale_id') as id from generate_series(1, 20000)) sale;
insert into transactiondetails
    select transaction_id, transaction_id::bigint * 7919 % 900 + i, 1 + i % 5 from transactions, generate_series(1, 2) i;

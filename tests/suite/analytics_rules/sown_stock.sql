-- Changes of stock, each transaction a case of its own, while the histories are kept.
-- What stands before a `begin` belongs to its transaction.

-- A sale of two products; two sales of one product in one transaction.
begin;
call insert_transaction('2024-05-06 12:00', 9000161, 91, 1, false, null, 1, false, array[9003, 9004], array[1, 2]);
commit;
begin;
call insert_transaction('2024-05-06 12:01', 9000162, 91, 1, false, null, 1, false, array[9003], array[2]);
call insert_transaction('2024-05-06 12:02', 9000163, 91, 1, false, null, 1, false, array[9003], array[3]);
commit;

-- One unit goes, one comes, and a level is written as it was.
begin; update inventory set inventory_level = inventory_level - 1 where store_id = 93 and product_id = 9002; commit;
begin; update inventory set inventory_level = inventory_level + 1 where store_id = 93 and product_id = 9003; commit;
begin; update inventory set inventory_level = inventory_level where store_id = 93 and product_id = 9003; commit;

-- There and back: in one transaction, and in two.
begin;
update inventory set inventory_level = inventory_level - 5 where store_id = 93 and product_id = 9004;
update inventory set inventory_level = inventory_level + 5 where store_id = 93 and product_id = 9004;
commit;
begin; update inventory set inventory_level = inventory_level - 5 where store_id = 93 and product_id = 9005; commit;
begin; update inventory set inventory_level = inventory_level + 5 where store_id = 93 and product_id = 9005; commit;

-- With a sale of two goes one more; a sale is put back on the shelf; a store's sale is taken from another's shelf.
begin;
call insert_transaction('2024-05-06 12:03', 9000164, 91, 1, false, null, 1, false, array[9005], array[2]);
update inventory set inventory_level = inventory_level - 1 where store_id = 91 and product_id = 9005;
commit;
begin;
call insert_transaction('2024-05-06 12:04', 9000165, 91, 1, false, null, 1, false, array[9006], array[2]);
update inventory set inventory_level = inventory_level + 2 where store_id = 91 and product_id = 9006;
commit;
begin;
call insert_transaction('2024-05-06 12:05', 9000166, 91, 1, false, null, 1, false, array[9007], array[1]);
update inventory set inventory_level = inventory_level + 1 where store_id = 91 and product_id = 9007;
update inventory set inventory_level = inventory_level - 1 where store_id = 93 and product_id = 9007;
commit;

-- Ten units are carried from one store to another.
begin;
update inventory set inventory_level = inventory_level - 10 where store_id = 91 and product_id = 9010;
update inventory set inventory_level = inventory_level + 10 where store_id = 93 and product_id = 9010;
commit;

-- A full shelf goes and comes with less; an empty one goes and comes; a shelf becomes that of another product.
begin; delete from inventory where store_id = 93 and product_id = 9008; commit;
begin; insert into inventory values (93, 9008, 7); commit;
begin; update inventory set inventory_level = 0 where store_id = 93 and product_id = 9009; commit;
begin; delete from inventory where store_id = 93 and product_id = 9009; commit;
begin; insert into inventory values (93, 9009, 0); commit;
begin;
delete from inventory where store_id = 93 and product_id = 9006;
update inventory set product_id = 9006 where store_id = 93 and product_id = 9007;
commit;

-- All shelves are emptied and filled again, one with a unit less.
begin;
create temp table kept on commit drop as select * from inventory;
truncate inventory;
insert into inventory
select store_id, product_id, inventory_level - case when store_id = 91 and product_id = 9008 then 1 else 0 end from kept;
commit;

-- A line is corrected with the stock, without it, and in its price alone; becomes one of another product; goes.
begin;
call insert_transaction('2024-05-06 12:06', 9000170, 91, 1, false, null, 1, false, array[9003, 9004], array[5, 1]);
commit;
create function line_of(int) returns int language sql as 'select max(transaction_id) from transactions where customer_id = $1';
begin;
update transactiondetails set quantity = 3 where transaction_id = line_of(9000170) and product_id = 9003;
update inventory set inventory_level = inventory_level + 2 where store_id = 91 and product_id = 9003;
commit;
begin; update transactiondetails set quantity = 4 where transaction_id = line_of(9000170) and product_id = 9003; commit;
begin; update transactiondetails set unit_price = 2.00 where transaction_id = line_of(9000170) and product_id = 9003; commit;
begin; update transactiondetails set product_id = 9005 where transaction_id = line_of(9000170) and product_id = 9003; commit;
begin;
delete from transactiondetails where transaction_id = line_of(9000170) and product_id = 9004;
update inventory set inventory_level = inventory_level + 1 where store_id = 91 and product_id = 9004;
commit;

-- Sales that go whole, with and without their stock.
begin;
call insert_transaction('2024-05-06 12:07', 9000171, 91, 1, false, null, 1, false, array[9003], array[3]);
commit;
begin;
delete from transactiondetails where transaction_id = line_of(9000171);
update inventory set inventory_level = inventory_level + 3 where store_id = 91 and product_id = 9003;
delete from transactions where transaction_id = line_of(9000171);
commit;
begin;
call insert_transaction('2024-05-06 12:08', 9000172, 91, 1, false, null, 1, false, array[9004], array[3]);
commit;
begin;
delete from transactiondetails where transaction_id = line_of(9000172);
delete from transactions where transaction_id = line_of(9000172);
commit;
drop function line_of;

-- Quantities that are none: nothing, and less; the least that is one.
create procedure sell(who int, product int, quantity int) language plpgsql as $$
declare id int;
begin
    insert into transactions (transaction_date, customer_id, store_id, payment_method_id, promotion_applied, weather_id, stockout)
    values ('2024-05-06 12:09', who, 91, 1, false, 1, false) returning transaction_id into id;
    insert into transactiondetails values (id, product, quantity, 1.00);
end $$;
begin; call sell(9000173, 9008, 0); commit;
begin; call sell(9000174, 9004, -2); commit;
begin; call sell(9000175, 9004, 1); commit;
drop procedure sell;

-- Whoever waits for the end waits for this.
begin; update inventory set inventory_level = inventory_level - 1 where store_id = 91 and product_id = 9009; commit;

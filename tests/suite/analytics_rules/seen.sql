-- What triggers see of the stock and of the lines: a row for each state that begins or ends, with its transaction.
alter table transactiondetails drop constraint quantity_positive;
create schema seen;
create table seen.change (
    n bigint generated always as identity primary key, what text, xid bigint, store_id int, product_id int,
    transaction_id int, level int, quantity int);
create function seen.xid() returns bigint language sql as $$ select txid_current() % (1::bigint << 32) $$;

create function seen.stock() returns trigger language plpgsql as $$ begin
    if tg_op in ('UPDATE', 'DELETE') then
        insert into seen.change (what, xid, store_id, product_id, level)
        values ('ended', seen.xid(), old.store_id, old.product_id, old.inventory_level);
    end if;
    if tg_op in ('INSERT', 'UPDATE') then
        insert into seen.change (what, xid, store_id, product_id, level)
        values ('begun', seen.xid(), new.store_id, new.product_id, new.inventory_level);
    end if;
    return null;
end $$;
create function seen.line() returns trigger language plpgsql as $$ begin
    if tg_op in ('UPDATE', 'DELETE') then
        insert into seen.change (what, xid, product_id, transaction_id, quantity)
        values ('ended', seen.xid(), old.product_id, old.transaction_id, old.quantity);
    end if;
    if tg_op in ('INSERT', 'UPDATE') then
        insert into seen.change (what, xid, product_id, transaction_id, quantity)
        values ('begun', seen.xid(), new.product_id, new.transaction_id, new.quantity);
    end if;
    return null;
end $$;
create function seen.emptied() returns trigger language plpgsql as $$ begin
    insert into seen.change (what, xid, store_id, product_id, level)
    select 'ended', seen.xid(), store_id, product_id, inventory_level from public.inventory;
    return null;
end $$;

create trigger seen after insert or update or delete on inventory for each row execute function seen.stock();
create trigger emptied before truncate on inventory for each statement execute function seen.emptied();
create trigger seen after insert or update or delete on transactiondetails for each row execute function seen.line();

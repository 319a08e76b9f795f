-- A sale: one CALL, one database transaction, all of it or nothing.
--
-- Of two products it leaves in the WAL one insert into transactions, two into transactiondetails and two updates of
-- inventory, and with a promotion that was applied one insert into promotionapplications.
--
-- Errors of a sale have their own SQLSTATEs, so that a caller need not read their text:
--   RT001  the store does not hold enough of a product
--   RT002  the arguments are no sale

-- Whose rows the session may see. A store's own role is its store, whatever the session says; any other role is
-- the store that it has named; and who names none sees nothing.
CREATE OR REPLACE FUNCTION current_store() RETURNS integer
    LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT coalesce(
        substring(current_user FROM '^store_user_([0-9]+)$'),
        nullif(current_setting('app.current_store', true), '')
    )::integer
$$;

-- Takes a sold line out of the stock of its store. It stands for every line that is inserted, by the procedure
-- below or by hand. Loading history switches it off for the length of its own transaction: what was sold
-- before the stock was counted is no longer in that count.
--
-- pg_temp stands last in the search path, so that a temporary table cannot stand in for the real one.
CREATE OR REPLACE FUNCTION take_from_inventory() RETURNS trigger
    LANGUAGE plpgsql SET search_path = public, pg_temp
AS $$
BEGIN
    UPDATE inventory
       SET inventory_level = inventory.inventory_level - NEW.quantity
     WHERE inventory.product_id = NEW.product_id
       AND inventory.store_id = (SELECT transactions.store_id
                                   FROM transactions
                                  WHERE transactions.transaction_id = NEW.transaction_id);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the store of transaction % does not stock product %', NEW.transaction_id, NEW.product_id
            USING ERRCODE = 'RT001';
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER sale_takes_from_inventory
    AFTER INSERT ON transactiondetails
    FOR EACH ROW EXECUTE FUNCTION take_from_inventory();

-- Runs with the rights of its caller, so that row-level security holds inside it as well.
CREATE OR REPLACE PROCEDURE insert_transaction(
    transaction_date  timestamp,
    customer_id       integer,
    store_id          integer,
    payment_method_id integer,
    promotion_applied boolean,
    promotion_id      integer,
    weather_id        integer,
    stockout          boolean,
    product_ids       integer[],
    quantities        integer[]
)
    LANGUAGE plpgsql SET search_path = public, pg_temp
AS $$
DECLARE
    sale_id   integer;
    line      record;
    sold      integer[];
    sold_many bigint[];
BEGIN
    IF row_security_active('transactions') AND current_store() IS DISTINCT FROM insert_transaction.store_id THEN
        RAISE EXCEPTION '% may not sell for store %', current_user, insert_transaction.store_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF coalesce(cardinality(product_ids), 0) = 0 THEN
        RAISE EXCEPTION 'a sale needs at least one product' USING ERRCODE = 'RT002';
    END IF;
    IF cardinality(product_ids) IS DISTINCT FROM cardinality(quantities) THEN
        RAISE EXCEPTION 'a sale of % products names % quantities',
            cardinality(product_ids), coalesce(cardinality(quantities), 0)
            USING ERRCODE = 'RT002';
    END IF;

    FOR line IN SELECT * FROM unnest(product_ids, quantities) AS named(product_id, quantity) LOOP
        IF line.product_id IS NULL THEN
            RAISE EXCEPTION 'a product of the sale is NULL' USING ERRCODE = 'RT002';
        ELSIF line.quantity IS NULL OR line.quantity <= 0 THEN
            RAISE EXCEPTION 'the quantity of product % is %, a sale needs a positive one',
                line.product_id, coalesce(line.quantity::text, 'NULL')
                USING ERRCODE = 'RT002';
        END IF;
    END LOOP;

    SELECT array_agg(merged.product_id ORDER BY merged.product_id),
           array_agg(merged.quantity ORDER BY merged.product_id)
      INTO sold, sold_many
      FROM (SELECT named.product_id, sum(named.quantity) AS quantity
              FROM unnest(product_ids, quantities) AS named(product_id, quantity)
             GROUP BY named.product_id) AS merged;

    -- Locked by rising product_id, by every sale: two of them may wait for one another, never in a circle.
    -- What a sale waited for is read anew by the next statement, so nothing is sold twice.
    PERFORM
       FROM inventory
      WHERE inventory.store_id = insert_transaction.store_id AND inventory.product_id = ANY (sold)
      ORDER BY inventory.product_id
        FOR NO KEY UPDATE;

    SELECT wanted.product_id, wanted.quantity, inventory.inventory_level AS held
      INTO line
      FROM unnest(sold, sold_many) AS wanted(product_id, quantity)
      LEFT JOIN inventory ON inventory.store_id = insert_transaction.store_id
                         AND inventory.product_id = wanted.product_id
     WHERE coalesce(inventory.inventory_level, 0) < wanted.quantity
     ORDER BY wanted.product_id
     LIMIT 1;
    IF FOUND AND line.held IS NULL THEN
        RAISE EXCEPTION 'store % does not stock product %', insert_transaction.store_id, line.product_id
            USING ERRCODE = 'RT001';
    ELSIF FOUND THEN
        RAISE EXCEPTION 'store % holds % of product %, the sale wants %',
            insert_transaction.store_id, line.held, line.product_id, line.quantity
            USING ERRCODE = 'RT001';
    END IF;

    INSERT INTO transactions (transaction_date, customer_id, store_id, payment_method_id,
                              promotion_applied, promotion_id, weather_id, stockout)
    VALUES (insert_transaction.transaction_date, insert_transaction.customer_id, insert_transaction.store_id,
            insert_transaction.payment_method_id, insert_transaction.promotion_applied,
            insert_transaction.promotion_id, insert_transaction.weather_id, insert_transaction.stockout)
    RETURNING transactions.transaction_id INTO sale_id;

    INSERT INTO transactiondetails (transaction_id, product_id, quantity, unit_price)
    SELECT sale_id, wanted.product_id, wanted.quantity, products.unit_price
      FROM unnest(sold, sold_many) AS wanted(product_id, quantity)
      JOIN products ON products.product_id = wanted.product_id
     ORDER BY wanted.product_id;

    IF insert_transaction.promotion_applied AND insert_transaction.promotion_id IS NOT NULL THEN
        INSERT INTO promotionapplications (transaction_id, promotion_id)
        VALUES (sale_id, insert_transaction.promotion_id);
    END IF;
END
$$;

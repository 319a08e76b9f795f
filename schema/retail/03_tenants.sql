-- Who sees what: a store its own rows, adminlog all rows, nobody else anything.
--
-- Roles belong to the whole server, so each is made only where it is missing. None gets a password here: set one, or
-- choose how the role logs in (pg_hba.conf), when it is handed out.

-- Makes a role unless it is there; two databases of one server may be set up at the same time.
CREATE OR REPLACE PROCEDURE create_role(name text, attributes text)
    LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
        EXECUTE format('CREATE ROLE %I %s', name, attributes);
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
REVOKE ALL ON PROCEDURE create_role FROM PUBLIC;

CALL create_role('store_users', 'NOLOGIN');
CALL create_role('adminlog', 'LOGIN');

-- One role per store: store_user_<id>, with the rights of store_users. To be called again after a store was added.
CREATE OR REPLACE PROCEDURE create_store_roles()
    LANGUAGE plpgsql
AS $$
DECLARE
    role_name text;
BEGIN
    FOR role_name IN SELECT format('store_user_%s', stores.store_id) FROM public.stores ORDER BY stores.store_id LOOP
        CALL public.create_role(role_name, 'LOGIN');
        IF NOT pg_has_role(role_name, 'store_users', 'MEMBER') THEN
            BEGIN
                EXECUTE format('GRANT store_users TO %I', role_name);
            EXCEPTION
                WHEN unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
END
$$;
REVOKE ALL ON PROCEDURE create_store_roles FROM PUBLIC;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO store_users, adminlog;

-- Customers are those of the whole chain: a store names one in a sale but cannot list them. Foreign keys are checked
-- with the rights of the tables' owner, so the sale needs no more.
GRANT SELECT ON stores, categories, suppliers, products, paymentmethods, promotions, weather TO store_users;
GRANT SELECT, INSERT ON transactions, transactiondetails, promotionapplications TO store_users;
GRANT SELECT, UPDATE (inventory_level) ON inventory TO store_users;
GRANT SELECT ON demandforecast TO store_users;
GRANT USAGE ON SEQUENCE transactions_transaction_id_seq TO store_users;
REVOKE ALL ON PROCEDURE insert_transaction FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE insert_transaction TO store_users;

GRANT SELECT ON ALL TABLES IN SCHEMA public TO adminlog;

-- FORCE: the owner of the tables is no exception. Superusers and roles with BYPASSRLS still are.
-- (SELECT current_store()) is computed once per query, not once per row.
DO $$
DECLARE
    kept text;
BEGIN
    FOREACH kept IN ARRAY ARRAY['transactions', 'inventory', 'demandforecast', 'transactiondetails',
                                'promotionapplications'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', kept);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', kept);
        EXECUTE format('DROP POLICY IF EXISTS rows_of_the_store ON %I', kept);
        EXECUTE format('DROP POLICY IF EXISTS all_rows_for_adminlog ON %I', kept);
        EXECUTE format('CREATE POLICY all_rows_for_adminlog ON %I FOR SELECT TO adminlog USING (true)', kept);
    END LOOP;

    FOREACH kept IN ARRAY ARRAY['transactions', 'inventory', 'demandforecast'] LOOP
        EXECUTE format($policy$
            CREATE POLICY rows_of_the_store ON %I
                USING (store_id = (SELECT current_store()))
                WITH CHECK (store_id = (SELECT current_store()))
        $policy$, kept);
    END LOOP;

    FOREACH kept IN ARRAY ARRAY['transactiondetails', 'promotionapplications'] LOOP
        EXECUTE format($policy$
            CREATE POLICY rows_of_the_store ON %1$I
                USING (EXISTS (SELECT FROM transactions
                                WHERE transactions.transaction_id = %1$I.transaction_id
                                  AND transactions.store_id = (SELECT current_store())))
                WITH CHECK (EXISTS (SELECT FROM transactions
                                     WHERE transactions.transaction_id = %1$I.transaction_id
                                       AND transactions.store_id = (SELECT current_store())))
        $policy$, kept);
    END LOOP;
END
$$;

CALL create_store_roles();

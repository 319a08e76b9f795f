-- What change data capture needs of the source: a publication, and a role that may replicate and read, nothing more.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'walmart_publication') THEN
        CREATE PUBLICATION walmart_publication FOR ALL TABLES;
    ELSIF NOT (SELECT puballtables FROM pg_publication WHERE pubname = 'walmart_publication') THEN
        RAISE EXCEPTION 'publication walmart_publication is there but not FOR ALL TABLES; drop it first';
    END IF;
END
$$;

-- BYPASSRLS: logical decoding ignores row-level security, so the first copy must see the same rows as the stream.
-- Whoever reads downstream sees every store; isolation has to be built there again.
CALL create_role('walferry', 'LOGIN REPLICATION BYPASSRLS');
DO $$
BEGIN
    IF NOT (SELECT rolreplication AND rolbypassrls FROM pg_roles WHERE rolname = 'walferry') THEN
        ALTER ROLE walferry REPLICATION BYPASSRLS;
    END IF;
END
$$;

GRANT USAGE ON SCHEMA public TO walferry;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO walferry;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO walferry;

-- What PostgreSQL in docker-compose.yml begins with, run by psql: the retail schema as an example. Its last file
-- makes the publication and the role that walferry reads with, which gets its password here.
\i /retail/01_tables.sql
\i /retail/02_sales.sql
\i /retail/03_tenants.sql
\i /retail/04_replication.sql
\getenv password WALFERRY_PASSWORD
ALTER ROLE walferry PASSWORD :'password';

INSERT INTO categories VALUES (1, 'Groceries');
INSERT INTO products (product_id, product_name, category_id, unit_price) VALUES (101, 'Apples', 1, 2.50);
INSERT INTO stores VALUES (5, 'Springfield');
INSERT INTO inventory (product_id, store_id, inventory_level) VALUES (101, 5, 43);

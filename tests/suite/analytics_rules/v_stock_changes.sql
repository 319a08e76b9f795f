-- What the triggers saw (seen.sql). `committed` has what only the log knows: when, and where, a transaction ended.
select c.product_id, coalesce(c.store_id, t.store_id) as store_id, c.transaction_id, c.xid, m.lsn, m.at,
       case c.what when 'begun' then c.level else -c.level end as level_change,
       case c.what when 'begun' then c.quantity else -c.quantity end as sold,
       case c.what when 'begun' then c.quantity end as written_quantity
  from seen.change c
  left join committed m on m.xid = c.xid
  left join transactions t on t.transaction_id = c.transaction_id

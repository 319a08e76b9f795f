-- Stock and lines apart, then beside one another. A line whose sale is gone belongs to the one store that has a difference.
with stock as (
    select xid, store_id, product_id, sum(case what when 'begun' then level else -level end) as level_change
      from seen.change where level is not null group by xid, store_id, product_id
), line as (
    select c.xid, t.store_id, c.product_id, sum(case what when 'begun' then quantity else -quantity end) as sold,
           bool_or(what = 'begun' and quantity <= 0) as is_odd, array_agg(distinct c.transaction_id) as ids
      from seen.change c left join transactions t on t.transaction_id = c.transaction_id
     where quantity is not null group by c.xid, t.store_id, c.product_id
), difference as (
    select xid, coalesce(s.store_id, l.store_id) as store_id, product_id, coalesce(level_change, 0) as level_change,
           coalesce(sold, 0) as sold, coalesce(is_odd, false) as is_odd, coalesce(ids, '{}') as ids
      from stock s full join line l using (xid, store_id, product_id)
     where is_odd or coalesce(level_change, 0) + coalesce(sold, 0) <> 0
), placed as (
    select xid, product_id, level_change, sold, is_odd, ids,
           coalesce(store_id, (select case count(*) when 1 then min(o.store_id) end from difference o
                                where (o.xid, o.product_id) = (d.xid, d.product_id) and o.store_id is not null)) as store_id
      from difference d
), found as (
    select xid, product_id, store_id, sum(level_change)::bigint as level_change, sum(sold)::bigint as sold,
           bool_or(is_odd) as is_odd,
           (select coalesce(array_agg(distinct id order by id), '{}') from placed o, unnest(o.ids) id
             where (o.xid, o.product_id) = (p.xid, p.product_id) and o.store_id is not distinct from p.store_id) as ids
      from placed p group by xid, product_id, store_id
)
select f.store_id as "_id.entity.store_id", f.product_id as "_id.entity.product_id", f.xid as "_id.ref.xid",
       m.lsn as "_id.ref.lsn", m.at as "_id.ref.at",
       case when is_odd then 'critical' when level_change + sold < 0 then 'high' else 'low' end as severity,
       case when is_odd then 40 when level_change + sold < 0 then 25 else 5 end as score,
       null::int as customer_id, f.store_id, f.product_id,
       case cardinality(ids) when 1 then ids[1] end as transaction_id,
       case when is_odd then 'non_positive_sale' when level_change + sold < 0 then 'shrinkage' else 'restock' end
           as "evidence.kind",
       m.at as "evidence.committed_at", f.xid as "evidence.xid", level_change as "evidence.level_change",
       sold as "evidence.sold", level_change + sold as "evidence.unexplained", ids as "evidence.transaction_ids"
  from found f left join committed m on m.xid = f.xid
 where is_odd or level_change + sold <> 0

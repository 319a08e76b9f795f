-- The previous sale is looked for, not taken from a window.
select s.customer_id as "_id.entity", s.transaction_id as "_id.ref",
       case when s.at - p.at <= interval '2 minutes' then 'critical'
            when s.at - p.at <= interval '10 minutes' then 'high' else 'medium' end as severity,
       case when s.at - p.at <= interval '2 minutes' then 40
            when s.at - p.at <= interval '10 minutes' then 25 else 10 end as score,
       s.customer_id, s.store_id, s.transaction_id,
       s.at as "evidence.transaction_date",
       extract(epoch from s.at - p.at)::float8 as "evidence.gap_seconds",
       p.transaction_id as "evidence.previous_transaction_id", p.store_id as "evidence.previous_store_id"
  from moment s
  cross join lateral (select * from moment e
                       where e.customer_id = s.customer_id
                         and (e.at, e.transaction_id) < (s.at, s.transaction_id)
                       order by e.at desc, e.transaction_id desc limit 1) p
 where s.at <= p.at + interval '60 minutes'

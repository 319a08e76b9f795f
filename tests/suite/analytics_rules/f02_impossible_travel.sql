select s.customer_id as "_id.entity", s.transaction_id as "_id.ref",
       (array['critical', 'high', 'medium', 'low'])[1 + (gap >= '1 hour')::int + (gap >= '6 hours')::int
                                                      + (gap >= '12 hours')::int] as severity,
       (array[40, 25, 15, 5])[1 + (gap >= '1 hour')::int + (gap >= '6 hours')::int + (gap >= '12 hours')::int] as score,
       s.customer_id, s.store_id, s.transaction_id,
       s.at as "evidence.transaction_date", extract(epoch from gap)::float8 as "evidence.gap_seconds",
       here.location as "evidence.location", p.transaction_id as "evidence.previous_transaction_id",
       p.store_id as "evidence.previous_store_id", there.location as "evidence.previous_location"
  from moment s
  cross join lateral (select * from moment e
                       where e.customer_id = s.customer_id
                         and (e.at, e.transaction_id) < (s.at, s.transaction_id)
                       order by e.at desc, e.transaction_id desc limit 1) p
  cross join lateral (select s.at - p.at as gap) g
  join stores here on here.store_id = s.store_id
  join stores there on there.store_id = p.store_id
 where p.store_id <> s.store_id and gap < interval '24 hours'

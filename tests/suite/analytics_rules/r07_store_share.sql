select t.store_id as _id, t.store_id, s.location, count(*) as transactions,
       pg_temp.half_even(count(*) * 100.0 / (select count(*) from transactions), 2) as percent
  from transactions t join stores s on s.store_id = t.store_id
 group by t.store_id, s.location

select s.promotion_applied as "_id.promotion_applied", s.promotion_id as "_id.promotion_id", s.promotion_applied,
       s.promotion_id, p.promotion_type, count(*) as sales, sum(s.units)::bigint as units, sum(s.amount) as amount,
       pg_temp.half_even(avg(s.amount), 2) as average_amount, pg_temp.half_even(avg(s.units), 2) as average_units
  from sale s left join promotions p on p.promotion_id = s.promotion_id
 group by s.promotion_applied, s.promotion_id, p.promotion_type

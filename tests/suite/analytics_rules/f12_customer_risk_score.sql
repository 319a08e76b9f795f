-- `alert` holds what the other questions' SQL found: rule, customer_id, score.
with best as (
    select customer_id, rule, max(score) as score, count(*) as alerts from alert where score > 0 and customer_id is not null
     group by customer_id, rule
), total as (
    select customer_id, least(100, sum(score)) as score, sum(alerts)::bigint as alerts,
           array_agg(rule order by rule) as rules, array_agg(score order by rule) as scores,
           array_agg(alerts order by rule) as counts
      from best group by customer_id
)
select customer_id as _id, customer_id, score,
       case when score >= 60 then 'critical' when score >= 35 then 'high' when score >= 20 then 'medium'
            else 'low' end as band,
       alerts, rules as "rules.rule", scores as "rules.score", counts as "rules.alerts"
  from total

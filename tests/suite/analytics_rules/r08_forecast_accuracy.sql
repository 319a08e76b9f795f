select f.store_id as _id, f.store_id, s.location, count(*) as forecasts,
       pg_temp.half_even(100 * avg(abs(forecasted_demand - actual_demand)::numeric / nullif(actual_demand, 0)), 2)
           as mape_percent,
       pg_temp.half_even(100 * sum(abs(forecasted_demand - actual_demand))::numeric / nullif(sum(actual_demand), 0), 2)
           as wape_percent,
       pg_temp.half_even(100 * (sum(forecasted_demand) - sum(actual_demand))::numeric / nullif(sum(actual_demand), 0), 2)
           as bias_percent,
       pg_temp.half_even(sqrt(avg((forecasted_demand - actual_demand)::numeric ^ 2)), 2) as rmse
  from demandforecast f join stores s on s.store_id = f.store_id
 where forecasted_demand is not null and actual_demand is not null
 group by f.store_id, s.location

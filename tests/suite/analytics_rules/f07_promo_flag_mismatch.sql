select t.customer_id as "_id.entity", t.transaction_id as "_id.ref", 'info' as severity, 0 as score,
       t.customer_id, t.store_id, t.transaction_id, k.kind as "evidence.kind", t.at as "evidence.transaction_date",
       t.promotion_applied as "evidence.promotion_applied", t.promotion_id as "evidence.promotion_id"
  from moment t
  join (select transaction_id, 'applied_without_promotion' as kind from transactions
         where promotion_applied and promotion_id is null
        union all
        select transaction_id, 'promotion_not_applied' from transactions
         where not promotion_applied and promotion_id is not null
        union all
        (select transaction_id, 'application_missing'
           from (select transaction_id, promotion_id from transactions
                  where promotion_applied and promotion_id is not null
                 except
                 select transaction_id, promotion_id from promotionapplications) missing)) k
    on k.transaction_id = t.transaction_id

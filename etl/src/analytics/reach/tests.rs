use super::super::{RuleFile, RuleSet};
use super::*;

fn file(name: &str, fields: &str) -> RuleFile {
    RuleFile {
        path: format!("rules/{name}.json"),
        text: format!("{{\"title\": \"T\", \"question\": \"Q?\", {fields}}}"),
    }
}

fn view(pipeline: &str) -> RuleFile {
    let index = r#""indexes": [{"collection": "sales", "keys": {"shop": 1}}]"#;
    let fields = format!(r#""kind": "view", "input": "sales", {index}, "pipeline": {pipeline}"#);
    file("v_sales", &fields)
}

/// What a rule per customer over the view reaches.
fn reach_of(view_pipeline: &str, pipeline: &str) -> Result<Reach, Obstacle> {
    let fields = format!(
        r#""kind": "report", "input": "v_sales", "output": "o", "per": "customer", "pipeline": {pipeline}"#
    );
    let set = RuleSet::read(&[view(view_pipeline), file("f01", &fields)]).unwrap();
    set.reach(set.find("f01").unwrap())
}

fn lookup(from: &str, local: &str) -> String {
    format!(
        r#"{{"$lookup": {{"from": "{from}", "localField": "{local}", "foreignField": "key", "as": "{from}"}}}}"#
    )
}

/// The ways, each as `collection.field` with what it goes through.
fn ways(reach: &Reach) -> Vec<String> {
    let way = |it: &Way| match &it.through {
        None => format!("{}.{}", it.collection, it.field),
        Some(to) => format!(
            "{}.{} {}.{}.{}",
            it.collection, it.field, to.collection, to.field, to.value
        ),
    };
    reach.ways.iter().map(way).collect()
}

#[test]
fn what_is_looked_up_by_a_field_of_the_collection_is_followed_to_it() {
    let inner = format!(
        "[{}, {}]",
        lookup("lines", "_id"),
        lookup("goods", "lines.good")
    );
    let outer = format!(
        "[{}, {}, {}]",
        lookup("people", "customer"),
        lookup("shops", "shop"),
        lookup("colours", "colour")
    );
    let reach = reach_of(&inner, &outer).unwrap();
    let expected = [
        "lines.key sales._id.customer",
        "people.key",
        "sales.customer",
        "shops.key sales.shop.customer",
    ];
    assert_eq!(ways(&reach), expected);
    // One is led to by another's field, of the other no index is known.
    assert_eq!(reach.unfollowed, ["goods", "colours"]);
    assert_eq!((&*reach.per, &*reach.field), ("customer", "customer"));
}

#[test]
fn a_field_that_a_stage_may_have_changed_is_not_followed() {
    for stage in [
        r#"{"$set": {"shop": 1}}"#,
        r#"{"$addFields": {"shop.x": 1}}"#,
        r#"{"$unset": ["shop"]}"#,
        r#"{"$project": {"customer": 1}}"#,
        r#"{"$project": {"customer": 1, "shop": "$other"}}"#,
        r#"{"$unwind": "$shop"}"#,
        r#"{"$unwind": {"path": "$x"}}"#,
        r#"{"$setWindowFields": {"output": {"shop": {"$count": {}}}}}"#,
        r#"{"$lookup": {"from": "x", "localField": "a", "foreignField": "b", "as": "shop"}}"#,
        r#"{"$group": {"_id": "$customer", "shop": {"$first": "$shop"}}}"#,
    ] {
        let pipeline = format!(
            "[{stage}, {}, {{\"$set\": {{\"customer\": 1}}}}]",
            lookup("shops", "shop")
        );
        let Ok(reach) = reach_of("[]", &pipeline) else {
            continue;
        };
        assert_eq!(ways(&reach), ["sales.customer"], "{stage}");
        assert!(reach.unfollowed.contains(&"shops".to_owned()), "{stage}");
    }
    for stage in [
        r#"{"$match": {"shop": 1}}"#,
        r#"{"$project": {"x": 0}}"#,
        r#"{"$project": {"shop": 1, "customer": true, "x": {"$sum": "$y"}}}"#,
        r#"{"$setWindowFields": {"partitionBy": "$customer", "output": {"n": {"$count": {}}}}}"#,
    ] {
        let pipeline = format!("[{stage}, {}]", lookup("shops", "shop"));
        assert_eq!(
            ways(&reach_of("[]", &pipeline).unwrap()).len(),
            2,
            "{stage}"
        );
    }
}

#[test]
fn a_lookup_that_may_read_more_than_its_two_fields_say_is_not_followed() {
    let plain = lookup("lines", "_id");
    let more = plain.replace("\"as\"", "\"pipeline\": [], \"as\"");
    let correlated = plain.replace(
        "\"as\"",
        "\"let\": {\"a\": \"$b\"}, \"pipeline\": [], \"as\"",
    );
    for stage in [more, correlated] {
        let reach = reach_of(&format!("[{stage}]"), "[]").unwrap();
        assert_eq!(
            (ways(&reach).len(), &*reach.unfollowed),
            (1, &["lines".to_owned()][..])
        );
    }
    // The same collection once so and once not.
    let twice = format!(
        "[{plain}, {{\"$lookup\": {{\"from\": \"lines\", \"pipeline\": [], \"as\": \"l\"}}}}]"
    );
    let reach = reach_of(&twice, "[]").unwrap();
    assert_eq!(
        (ways(&reach).len(), &*reach.unfollowed),
        (2, &["lines".to_owned()][..])
    );
}

#[test]
fn a_view_that_makes_documents_of_several_or_another_value_leads_nowhere() {
    let view = "v_sales".to_owned();
    for stage in ["$group", "$setWindowFields", "$limit", "$unionWith"] {
        let value = if stage == "$limit" {
            "5"
        } else {
            r#"{"_id": 1, "coll": "x"}"#
        };
        let found = reach_of(&format!(r#"[{{"{stage}": {value}}}]"#), "[]");
        assert_eq!(found, Err(Obstacle::Stage(view.clone(), stage.to_owned())));
    }
    let found = reach_of(r#"[{"$set": {"customer": "$other.customer"}}]"#, "[]");
    assert_eq!(found, Err(Obstacle::Field(view, "customer".to_owned())));
}

#[test]
fn an_answer_has_the_value_under_the_name_that_its_last_stage_gives_it() {
    let field = |pipeline: &str| reach_of("[]", pipeline).map(|it| it.field);
    for (pipeline, expected) in [
        (
            r#"[{"$replaceWith": {"_id": "$id", "who": "$customer"}}]"#,
            "who",
        ),
        (
            r#"[{"$replaceWith": {"a": "$b", "customer": {"$ifNull": ["$customer", null]}}}]"#,
            "customer",
        ),
        (r#"[{"$group": {"_id": "$customer"}}]"#, "_id"),
        (
            r#"[{"$group": {"_id": {"c": "$customer"}}}, {"$replaceWith": {"who": "$_id.c"}}]"#,
            "who",
        ),
        (
            r#"[{"$group": {"_id": "$x", "f": {"$first": "$$ROOT"}}}, {"$replaceWith": "$f"},
             {"$replaceWith": {"customer": "$customer"}}]"#,
            "customer",
        ),
        (r#"[{"$project": {"_id": 1, "who": "$customer"}}]"#, "who"),
    ] {
        assert_eq!(field(pipeline).as_deref(), Ok(expected), "{pipeline}");
    }
    for pipeline in [
        r#"[{"$replaceWith": {"_id": "$id"}}]"#,
        r#"[{"$replaceWith": "$sale"}]"#,
        r#"[{"$group": {"_id": "$shop"}}]"#,
        r#"[{"$project": {"customer": 0}}]"#,
        r#"[{"$replaceRoot": {"newRoot": {"$mergeObjects": ["$a", "$b"]}}}]"#,
    ] {
        assert_eq!(
            field(pipeline),
            Err(Obstacle::Answer("customer".to_owned())),
            "{pipeline}"
        );
    }
}

#[test]
fn a_rule_may_be_per_document_and_an_id_that_is_made_anew_is_not_the_value() {
    let reach_of_id = |pipeline: &str| {
        let fields = format!(
            r#""kind": "report", "input": "v_sales", "output": "o", "per": "_id", "pipeline": {pipeline}"#
        );
        let inner = format!("[{}]", lookup("lines", "_id"));
        let set = RuleSet::read(&[view(&inner), file("f01", &fields)]).unwrap();
        set.reach(set.find("f01").unwrap())
    };
    let outer = format!(
        r#"[{}, {{"$replaceWith": {{"_id": {{"rule": "f01", "ref": "$_id"}}, "sale": "$_id"}}}}]"#,
        lookup("shops", "shop")
    );
    let reach = reach_of_id(&outer).unwrap();
    let expected = ["lines.key", "sales._id", "shops.key sales.shop._id"];
    assert_eq!(ways(&reach), expected);
    assert_eq!((&*reach.per, &*reach.field), ("_id", "sale"));
    assert_eq!(reach_of_id("[]").unwrap().field, "_id");
    let anew = reach_of_id(r#"[{"$replaceWith": {"_id": "$shop"}}]"#);
    assert_eq!(anew, Err(Obstacle::Answer("_id".to_owned())));
}

#[test]
fn what_weighs_values_against_others_is_worked_out_as_a_whole() {
    let window = |by: &str| {
        format!(r#"[{{"$setWindowFields": {{{by} "output": {{"n": {{"$sum": 1}}}}}}}}]"#)
    };
    for own in [
        r#""partitionBy": "$customer","#,
        r#""partitionBy": {"c": "$customer", "s": "$shop"},"#,
    ] {
        assert!(reach_of("[]", &window(own)).is_ok(), "{own}");
    }
    for all in [
        "",
        r#""partitionBy": "$shop","#,
        r#""partitionBy": {"s": "$shop"},"#,
    ] {
        let expected = Err(Obstacle::Among("$setWindowFields".to_owned()));
        assert_eq!(reach_of("[]", &window(all)), expected, "{all}");
    }
    for (stage, value) in [("$limit", "5"), ("$skip", "5")] {
        let again = r#"{"$replaceWith": {"customer": "$customer"}}"#;
        let found = reach_of("[]", &format!(r#"[{{"{stage}": {value}}}, {again}]"#));
        assert_eq!(found, Err(Obstacle::Among(stage.to_owned())));
    }
}

#[test]
fn what_is_not_per_a_field_is_worked_out_as_a_whole() {
    let fields = r#""kind": "report", "input": "sales", "output": "o", "pipeline": []"#;
    let set = RuleSet::read(&[view("[]"), file("r01", fields)]).unwrap();
    assert_eq!(set.reach(set.find("r01").unwrap()), Err(Obstacle::Whole));
    assert_eq!(set.reach(set.find("v_sales").unwrap()), Err(Obstacle::View));
}

use bson::{Bson, doc};

use super::*;

fn file(name: &str, text: &str) -> RuleFile {
    RuleFile {
        path: format!("rules/{name}.json"),
        text: text.to_owned(),
    }
}

/// A rule with these fields beside those that every rule has.
fn rule(name: &str, fields: &str) -> RuleFile {
    let text = format!("{{\n\"title\": \"T\", \"question\": \"Q?\",\n{fields}\n}}");
    file(name, &text)
}

fn view(name: &str, input: &str) -> RuleFile {
    let fields = format!(r#""kind": "view", "input": "{input}", "pipeline": []"#);
    rule(name, &fields)
}

fn report(name: &str, input: &str, output: &str) -> RuleFile {
    let fields =
        format!(r#""kind": "report", "input": "{input}", "output": "{output}", "pipeline": []"#);
    rule(name, &fields)
}

fn alerts(name: &str, input: &str, output: &str) -> RuleFile {
    let RuleFile { path, text } = report(name, input, output);
    let text = text.replace("report", "alerts");
    RuleFile { path, text }
}

fn mistakes(files: &[RuleFile]) -> Vec<String> {
    let mistakes = RuleSet::read(files).unwrap_err();
    mistakes.iter().map(ToString::to_string).collect()
}

fn names<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Vec<&'a str> {
    rules.into_iter().map(|it| &*it.name).collect()
}

#[test]
fn a_whole_rule_is_read() {
    let fields = r#""kind": "alerts", "input": "v_sales", "per": "customer_id", "output": "alerts",
        "parameters": {"least": {"default": {"$numberDecimal": "9000"}, "meaning": "from here on"}},
        "indexes": [{"collection": "sales", "keys": {"customer_id": 1, "at": -1}}],
        "pipeline": [{"$match": {"amount": {"$gte": {"$param": "least"}}}}]"#;
    let set = RuleSet::read(&[rule("f01_big", fields)]).unwrap();
    let rule = set.find("F01").unwrap();
    assert_eq!((&*rule.name, rule.kind), ("f01_big", Kind::Alerts));
    assert_eq!(rule.per.as_deref(), Some("customer_id"));
    assert_eq!(rule.indexes[0].keys, doc! { "customer_id": 1, "at": -1 });
    let amount: bson::Decimal128 = "9000".parse().unwrap();
    let bound = rule
        .pipeline
        .bound(&rule.defaults(), &super::super::Names::new());
    assert_eq!(bound, [doc! { "$match": { "amount": { "$gte": amount } } }]);
}

#[test]
fn every_mistake_of_every_file_is_told_with_its_place() {
    let broken = file("a_broken", "{\n  \"title\": \"T\",\n}");
    let fields = r#""kind": "table", "input": "$x", "inptu": "y", "per": 7, "output": "o",
"parameters": {"least": {"default": 1, "meaning": "m"}, "idle": {"default": 1, "meaning": "m"},
  "bad": {"default": {"$numberDecimal": "x"}}},
"indexes": [{"collection": "c", "keys": {"a": 2}}],
"pipeline": [{"$match": {"a": {"$param": "least"}, "b": {"$param": "most"}}},
  {"$metch": {}}]"#;
    let found = mistakes(&[rule("b_wrong", fields), broken]);
    let expected = [
        "rules/a_broken.json:3:1: not JSON: a name in quotes must stand here",
        "rules/b_wrong.json:3:9: kind must be one of \"view\", \"alerts\", \"report\"",
        "rules/b_wrong.json:3:27: input: \"$x\" cannot be a collection's name",
        "rules/b_wrong.json:3:33: no such field \"inptu\"; a rule has title, question, kind",
        "rules/b_wrong.json:3:54: per must be a text that says something",
        "rules/b_wrong.json:4:57: the parameter \"idle\" is not used",
        "rules/b_wrong.json:5:10: meaning is missing",
        "rules/b_wrong.json:5:22: $numberDecimal must be a decimal number in quotes",
        "rules/b_wrong.json:6:41: keys must be an object of fields",
        "rules/b_wrong.json:7:68: there is no parameter \"most\": the rule has least, idle, bad",
        "rules/b_wrong.json:8:4: $metch is no stage of MongoDB 6.0 that reads data",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let found = mistakes(&[file("a", "{}"), file("B-1", "[]")]);
    for field in ["title", "question", "kind", "input", "pipeline"] {
        let expected = format!("rules/a.json:1:1: {field} is missing");
        assert!(found.contains(&expected), "{found:?}");
    }
    let has = |text: &str| found.iter().any(|it| it.starts_with(text));
    assert!(
        has("rules/B-1.json:1:1: a rule must be an object"),
        "{found:?}"
    );
    assert!(has(
        "rules/B-1.json:1:1: a rule's file must have a name of a-z"
    ));
    let lacking = rule("r", r#""kind": "report", "input": "a", "pipeline": []"#);
    assert_eq!(
        mistakes(&[lacking]),
        ["rules/r.json:1:1: output is missing"]
    );
    let fields = r#""kind": "view", "input": "a", "output": "b", "pipeline": []"#;
    let found = mistakes(&[rule("v", fields)]);
    assert_eq!(
        found,
        ["rules/v.json:3:41: a view has no output: its name is the file's"]
    );
}

#[test]
fn each_rule_comes_after_those_that_write_what_it_reads() {
    let union = r#""kind": "alerts", "input": "sales", "output": "alerts",
        "pipeline": [{"$unionWith": {"coll": "z_totals", "pipeline": []}}]"#;
    let files = [
        report("a_risk", "v_alerts", "risk"),
        view("v_alerts", "alerts"),
        rule("b_alerts", union),
        alerts("c_alerts", "v_sales", "alerts"),
        report("z_totals", "v_sales", "z_totals"),
        view("v_sales", "v_lines"),
        view("v_lines", "sales"),
    ];
    let expected = [
        "z_totals", "b_alerts", "c_alerts", "v_alerts", "v_lines", "v_sales", "a_risk",
    ];
    let set = RuleSet::read(&files).unwrap();
    let order = names(set.in_order());
    let at = |name: &str| order.iter().position(|it| *it == name).unwrap();
    assert_eq!(order.len(), expected.len());
    for (before, after) in [
        ("v_lines", "v_sales"),
        ("v_sales", "z_totals"),
        ("z_totals", "b_alerts"),
        ("b_alerts", "v_alerts"),
        ("c_alerts", "v_alerts"),
        ("v_alerts", "a_risk"),
    ] {
        assert!(at(before) < at(after), "{order:?}");
    }
    let mut turned = files.to_vec();
    turned.reverse();
    let turned = RuleSet::read(&turned).unwrap();
    assert_eq!(names(turned.in_order()), order);
    let risk = set.find("a").unwrap();
    assert_eq!(names(set.views_of(&[risk])), ["v_alerts"]);
    let totals = set.find("z").unwrap();
    assert_eq!(names(set.views_of(&[totals])), ["v_lines", "v_sales"]);
    let lines = set.find("v_lines").unwrap();
    let outside = set.outside_sources(lines).map(|it| it.0);
    assert_eq!(outside.collect::<Vec<_>>(), ["sales"]);
}

#[test]
fn rules_that_read_one_another_are_named() {
    let files = [
        view("v_a", "v_b"),
        view("v_b", "v_c"),
        view("v_c", "v_a"),
        view("v_d", "v_a"),
    ];
    let circle = "rules/v_a.json:3:26: v_a reads v_b reads v_c reads v_a: rules cannot wait for one another in a circle";
    assert_eq!(mistakes(&files), [circle]);
    let own = mistakes(&[alerts("f_own", "alerts", "alerts")]);
    assert!(own[0].contains("f_own reads f_own:"), "{own:?}");
}

#[test]
fn only_alerts_share_an_output() {
    let files = [
        report("r_one", "a", "totals"),
        report("r_two", "a", "totals"),
        alerts("f_one", "a", "v_x"),
        view("v_x", "a"),
        alerts("f_two", "a", "alerts"),
        alerts("f_three", "a", "alerts"),
    ];
    let found = mistakes(&files);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("rules/r_two.json:3:43: totals is what r_one writes"));
    assert!(found[1].contains("v_x is what f_one writes"), "{found:?}");
}

#[test]
fn a_view_has_no_indexes() {
    let fields = r#""kind": "report", "input": "v", "output": "o", "pipeline": [],
        "indexes": [{"collection": "v", "keys": {"a": 1}}]"#;
    let found = mistakes(&[view("v", "a"), rule("r", fields)]);
    assert_eq!(
        found,
        ["rules/r.json:4:21: v is a view, which has no indexes"]
    );
}

#[test]
fn a_rule_is_found_by_its_name_or_what_begins_it() {
    let files = [view("f01_a", "x"), view("f02_a", "x"), view("f02_b", "x")];
    let set = RuleSet::read(&files).unwrap();
    assert_eq!(set.find("F01").unwrap().name, "f01_a");
    assert_eq!(set.find("f02_b").unwrap().name, "f02_b");
    let ambiguous = set.find("f02").unwrap_err().to_string();
    assert!(ambiguous.contains("f02_a, f02_b"), "{ambiguous}");
    assert_eq!(set.find("f0"), Err(Unknown::Rule("f0".into())));
}

#[test]
fn a_parameter_goes_to_each_rule_that_has_it_and_to_one_at_least() {
    let with = |name: &str, default: &str| {
        let fields = format!(
            r#""kind": "view", "input": "x", "parameters": {{"n": {{"default": {default}, "meaning": "m"}}}},
               "pipeline": [{{"$limit": {{"$param": "n"}}}}]"#
        );
        rule(name, &fields)
    };
    let files = [with("a", "1"), with("b", "1.0"), view("c", "x")];
    let set = RuleSet::read(&files).unwrap();
    let chosen: Vec<_> = set.rules().iter().collect();
    let given = |text: &str| vec![text.parse::<Given>().unwrap()];
    let found = values(&chosen, &given("n=5")).unwrap();
    assert_eq!(found[0]["n"], Bson::Int32(5));
    assert_eq!(found[1]["n"], Bson::Double(5.0));
    assert!(found[2].is_empty());
    let error = |text| values(&chosen, &given(text)).unwrap_err().to_string();
    assert_eq!(error("m=5"), "there is no parameter m: a, b, c has n");
    assert_eq!(error("n=x"), "n of a must be a whole number, not \"x\"");
}

use bson::doc;

use super::*;

fn column(name: &str, type_name: &str, key: u16) -> Column {
    Column {
        name: name.into(),
        type_name: type_name.into(),
        kind: Type::from_name(type_name),
        key,
    }
}

fn by(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(own, parents): &(&str, &str)| ((*own).to_owned(), (*parents).to_owned());
    pairs.iter().map(owned).collect()
}

/// The fields of a table with these columns.
fn with<T>(columns: &[Column], see: impl Fn(TableFields<'_>) -> T) -> T {
    let name = TableName::new("public", "t");
    see(TableFields {
        name: &name,
        columns,
        policies: Policies::default(),
    })
}

fn value(type_name: &str, literal: &Literal) -> Result<Bson, Unfit> {
    let columns = [column("c", type_name, 0)];
    let condition = with(&columns, |it| {
        it.condition("c", std::slice::from_ref(literal))
    });
    condition.map(|mut it| it.values.remove(0))
}

#[test]
fn a_value_is_compared_as_the_documents_hold_it() {
    let text = |it: &str| Literal::Text(it.into());
    let uuid = "2f1c3a54-0000-4000-8000-00000000000a";
    let found = value("uuid", &text(&uuid.to_uppercase())).unwrap();
    assert_eq!(found, bson::Uuid::parse_str(uuid).unwrap().into());
    assert_eq!(value("int4", &Literal::Integer(7)).unwrap(), 7_i32.into());
    assert_eq!(value("int8", &Literal::Integer(7)).unwrap(), 7_i64.into());
    assert_eq!(value("bool", &Literal::Bool(true)).unwrap(), true.into());
    assert_eq!(value("float4", &Literal::Float(0.1)).unwrap(), 0.1.into());
    assert_eq!(value("bpchar(3)", &text("a")).unwrap(), "a  ".into());
    let amount = value("numeric(10,2)", &Literal::Float(0.5)).unwrap();
    assert_eq!(amount, Bson::Decimal128("0.5".parse().unwrap()));
    let day = value("date", &text("1970-01-02")).unwrap();
    let expected = bson::DateTime::from_millis(86_400_000);
    assert_eq!(day, expected.into());
}

#[test]
fn a_value_that_the_column_cannot_have_is_a_mistake() {
    let text = Literal::Text("1".into());
    let cases = [
        ("int4", Literal::Integer(1 << 40)),
        ("int4", text.clone()),
        ("int4", Literal::Float(1.0)),
        ("text", Literal::Integer(1)),
        ("bool", Literal::Integer(1)),
        ("uuid", text.clone()),
        ("date", text.clone()),
    ];
    for (kind, literal) in cases {
        let found = value(kind, &literal);
        let is_refused = matches!(found, Err(Unfit::NotOfType { .. }));
        assert!(is_refused, "{kind} {literal}: {found:?}");
    }
    for kind in ["timestamp", "timestamptz(3)", "jsonb", "interval", "bytea"] {
        let found = value(kind, &text);
        let is_refused = matches!(found, Err(Unfit::NotComparable { .. }));
        assert!(is_refused, "{kind}: {found:?}");
    }
}

#[test]
fn a_column_that_is_not_there_is_a_mistake_wherever_it_is_named() {
    let columns = [column("id", "int4", 1)];
    let is_missing = |it: Unfit| matches!(it, Unfit::NoColumn { .. });
    with(&columns, |it| {
        let values = [Literal::Integer(1)];
        assert!(is_missing(it.condition("Id", &values).unwrap_err()));
        let listed = ["id".to_owned(), "name".to_owned()];
        let masks = BTreeMap::from([("name".to_owned(), Mask::Null)]);
        let none = BTreeMap::new();
        assert!(is_missing(it.fields(Some(&listed), &none).unwrap_err()));
        assert!(is_missing(it.fields(None, &masks).unwrap_err()));
        for pair in [("id", "x"), ("x", "id")] {
            let found = it.parent_of(Some(&it), &by(&[pair]));
            assert!(is_missing(found.unwrap_err()));
        }
    });
}

#[test]
fn a_parent_is_found_by_its_id_where_that_says_all() {
    let one = [column("id", "int4", 1), column("other", "int8", 0)];
    let field = |own: &str, parents: &str| Join::Field {
        own: own.into(),
        parents: parents.into(),
    };
    with(&one, |it| {
        let join = |pairs: &[_]| it.parent_of(Some(&it), &by(pairs)).unwrap();
        let by_id = [field("other", "_id"), field("other", "id")];
        assert_eq!(join(&[("other", "id")]), by_id);
        assert_eq!(join(&[("id", "other")]), [field("id", "other")]);
        let both = join(&[("id", "id"), ("other", "other")]);
        assert_eq!(both, [field("id", "id"), field("other", "other")]);
    });
    let two = [column("a", "int4", 2), column("b", "int4", 1)];
    with(&two, |it| {
        let join = it.parent_of(None, &by(&[("_id", "a"), ("y", "b")]));
        let parts = [("b", "y"), ("a", "_id")].map(|(it, own)| (it.into(), own.into()));
        let by_id = [Join::Id(parts.into()), field("_id", "a"), field("y", "b")];
        assert_eq!(join.unwrap(), by_id);
    });
}

#[test]
fn columns_that_are_never_equal_join_nothing() {
    let columns = [column("id", "int4", 1), column("name", "text", 0)];
    let found = with(&columns, |it| {
        it.parent_of(Some(&it), &by(&[("name", "id")]))
    });
    assert!(matches!(found, Err(Unfit::NoPair { .. })), "{found:?}");
}

#[test]
fn an_id_is_shown_with_the_whole_key_and_masked_as_its_columns_are() {
    let columns = [
        column("a", "int4", 1),
        column("b.c", "text", 2),
        column("at", "timestamp", 0),
    ];
    let masks = BTreeMap::from([("b.c".to_owned(), Mask::Hash)]);
    let masked = |path: &str| Masked {
        path: path.into(),
        field: "b．c".into(),
        mask: Mask::Hash,
    };
    with(&columns, |it| {
        let all = Fields::Listed {
            id: ShownId::Of(vec!["a".into(), "b．c".into()]),
            fields: vec!["a".into(), "b．c".into(), "at".into()],
            masked: vec![masked("b．c"), masked("_id.b．c")],
        };
        assert_eq!(it.fields(None, &masks).unwrap(), all);
        let listed = ["at".to_owned(), "a".to_owned()];
        let without = Fields::Listed {
            id: ShownId::Hidden,
            fields: vec!["a".into(), "at".into()],
            masked: Vec::new(),
        };
        let none = BTreeMap::new();
        assert_eq!(it.fields(Some(&listed), &none).unwrap(), without);
        assert_eq!(it.fields(None, &none).unwrap(), Fields::All);
    });
}

#[test]
fn the_microseconds_beside_a_time_are_shown_and_hidden_with_it() {
    let name = TableName::new("public", "t");
    let columns = [column("id", "int4", 1), column("at", "timestamp", 0)];
    let policies = Policies {
        microseconds: Microseconds::Keep,
        ..Policies::default()
    };
    let table = TableFields {
        name: &name,
        columns: &columns,
        policies,
    };
    let fields = |listed: Option<&[String]>, masks: &_| match table.fields(listed, masks) {
        Ok(Fields::Listed { mut fields, .. }) => {
            fields.sort();
            fields
        }
        other => panic!("{other:?}"),
    };
    let listed = ["at".to_owned()];
    assert_eq!(fields(Some(&listed), &BTreeMap::new()), ["at", "at_us"]);
    let masks = BTreeMap::from([("at".to_owned(), Mask::Redact)]);
    assert_eq!(fields(None, &masks), ["at", "id"]);
}

#[test]
fn a_literal_of_no_type_is_what_it_is() {
    let found = [Literal::Integer(1), Literal::Text("x".into())].map(|it| it.bson());
    assert_eq!(doc! { "a": found.to_vec() }, doc! { "a": [1_i64, "x"] });
}

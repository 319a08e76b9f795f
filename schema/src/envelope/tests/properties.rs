use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::value::calendar;
use crate::{Attribute, Image};

/// A cell: NULL, unchanged, or a text.
#[derive(Clone, Debug)]
enum Given {
    Null,
    Unchanged,
    Text(String),
}

fn row_of(cells: &[Given]) -> Row {
    let mut data = Vec::new();
    let mut row = RowBuilder::with_capacity(cells.len());
    for cell in cells {
        match cell {
            Given::Null => row.null(),
            Given::Unchanged => row.unchanged(),
            Given::Text(text) => {
                row.text(data.len(), text.len());
                data.extend_from_slice(text.as_bytes());
            }
        }
    }
    row.build(data.into())
}

/// A type and a text of it as PostgreSQL writes it.
fn typed_text() -> impl Strategy<Value = (Type, String)> {
    let nested = |inner: BoxedStrategy<(Type, String)>| {
        prop_oneof![
            (inner.clone(), vec(0_u8..3, 0..4)).prop_map(array),
            (inner.clone(), any::<bool>()).prop_map(range),
            vec(inner, 1..4).prop_map(composite),
        ]
    };
    prop_oneof![5 => scalar_text(), 2 => scalar_text().prop_recursive(3, 12, 4, nested)]
}

/// An array of one element, repeated, and of nulls.
fn array(((kind, text), items): ((Type, String), Vec<u8>)) -> (Type, String) {
    let item = |null: &u8| {
        if *null == 0 {
            "NULL".to_owned()
        } else {
            quoted(&text)
        }
    };
    let items: Vec<String> = items.iter().map(item).collect();
    let text = match items.len() {
        3 => format!("[0:2]={{{}}}", items.join(",")),
        2 if !matches!(kind, Type::Array(..)) => format!("{{{{{}}},{{{}}}}}", items[0], items[1]),
        _ => format!("{{{}}}", items.join(",")),
    };
    (Type::array_of(kind), text)
}

fn range(((kind, text), is_many): ((Type, String), bool)) -> (Type, String) {
    let range = format!("[{},)", quoted(&text));
    if is_many {
        return (Type::Multirange(kind.into()), format!("{{{range},(,]}}"));
    }
    (Type::Range(kind.into()), range)
}

fn composite(fields: Vec<(Type, String)>) -> (Type, String) {
    let texts: Vec<String> = fields.iter().map(|(_, text)| quoted(text)).collect();
    let attribute = |(index, (kind, _)): (usize, (Type, String))| Attribute {
        name: format!("f{index}").into(),
        kind,
    };
    let attributes = fields.into_iter().enumerate().map(attribute).collect();
    (
        Type::Composite(attributes),
        format!("({})", texts.join(",")),
    )
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn scalar_text() -> impl Strategy<Value = (Type, String)> {
    let of = |kind: Type| move |text: String| (kind.clone(), text);
    let scalars = prop_oneof![
        any::<bool>()
            .prop_map(|b| if b { "t" } else { "f" }.into())
            .prop_map(of(Type::Bool)),
        any::<i16>()
            .prop_map(|n| n.to_string())
            .prop_map(of(Type::Int2)),
        any::<i32>()
            .prop_map(|n| n.to_string())
            .prop_map(of(Type::Int4)),
        any::<i64>()
            .prop_map(|n| n.to_string())
            .prop_map(of(Type::Int8)),
        any::<u32>()
            .prop_map(|n| n.to_string())
            .prop_map(of(Type::Oid)),
        any_float4().prop_map(of(Type::Float4)),
        any_float8().prop_map(of(Type::Float8)),
        "-?[0-9]{1,40}(\\.[0-9]{1,20})?|NaN|-?Infinity".prop_map(of(Type::Numeric(None))),
        "\\\\x([0-9a-f]{2}){0,40}".prop_map(of(Type::Bytea)),
        "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}".prop_map(of(Type::Uuid)),
    ];
    let rare = prop_oneof![
        "-?\\$[0-9]{1,3}(,[0-9]{3}){0,3}\\.[0-9]{2}".prop_map(of(Type::Money(2))),
        "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{0,2}[1-9])?|24:00:00"
            .prop_map(of(Type::Time(3))),
        "1[0-9]:[0-5][0-9]:00(\\.[0-9]{0,5}[1-9])?[+-]0[0-9](:[0-5][0-9]){0,2}"
            .prop_map(of(Type::TimeTz)),
        "P([0-9]{1,5}Y)?(-?[0-9]{1,2}D)T[0-9]H|PT0S|-?infinity".prop_map(of(Type::Interval)),
        "[01]".prop_map(of(Type::Bit(1))),
        "[01]{19}".prop_map(of(Type::Bit(19))),
        (any_float8(), any_float8()).prop_map(|(x, y)| (Type::Point, format!("({x},{y})"))),
        btree_map(any::<String>(), proptest::option::of(any::<String>()), 0..3)
            .prop_map(|it| hstore(&it)),
        vec(any_float4(), 1..4).prop_map(|it| (Type::Vector, format!("[{}]", it.join(",")))),
    ];
    let strings = prop_oneof![
        any::<String>().prop_map(of(Type::Text)),
        "[\"\\\\\u{0}-\u{20}a-zé☃😀]{0,80}".prop_map(of(Type::Text)),
        "\\{\"[a-zé☃]{1,5}\": [0-9]{1,30}\\}".prop_map(of(Type::Json)),
        any::<String>().prop_map(of(Type::Json)),
    ];
    prop_oneof![3 => scalars, 3 => rare, 2 => strings, 2 => moments()]
}

fn hstore(entries: &BTreeMap<String, Option<String>>) -> (Type, String) {
    let entry = |(key, value): (&String, &Option<String>)| {
        let value = value.as_deref().map_or("NULL".to_owned(), quoted);
        format!("{}=>{value}", quoted(key))
    };
    let entries: Vec<String> = entries.iter().map(entry).collect();
    (Type::Hstore, entries.join(", "))
}

fn any_float4() -> impl Strategy<Value = String> {
    let any = any::<u32>().prop_map(|bits| format!("{:e}", f32::from_bits(bits)));
    prop_oneof![any, "-?[0-9]{1,8}(\\.[0-9]{1,4})?"].prop_map(|text| postgresql_float(&text))
}

fn any_float8() -> impl Strategy<Value = String> {
    let any = any::<u64>().prop_map(|bits| format!("{:e}", f64::from_bits(bits)));
    prop_oneof![any, "-?[0-9]{1,16}(\\.[0-9]{1,8})?"].prop_map(|text| postgresql_float(&text))
}

fn postgresql_float(text: &str) -> String {
    text.replace("inf", "Infinity").replace("e-", "e-0")
}

fn moments() -> impl Strategy<Value = (Type, String)> {
    const DAY: i128 = 86_400_000_000;
    // From 4714-11-24 BC to the end of 294276.
    let micros = -2_440_588 * DAY..106_762_940 * DAY;
    let near = -100_000 * DAY..100_000 * DAY;
    let instant = (prop_oneof![micros, near], 0_u8..=6).prop_flat_map(|(micros, precision)| {
        let unit = 10_i128.pow(6 - u32::from(precision));
        let micros = micros.div_euclid(unit) * unit;
        prop_oneof![
            Just((Type::Timestamp(precision), instant_text(micros, ""))),
            Just((Type::TimestampTz(precision), instant_text(micros, "+00"))),
        ]
    });
    let date = (-2_440_588_i64..=2_145_042_905).prop_map(|days| (Type::Date, date_text(days)));
    let endless = (
        prop_oneof![
            Just(Type::Date),
            Just(Type::Timestamp(2)),
            Just(Type::TimestampTz(6))
        ],
        "-?infinity",
    );
    prop_oneof![3 => instant, 1 => date, 1 => endless]
}

fn date_text(days: i64) -> String {
    let (year, month, day) = calendar::civil(days);
    match year {
        1.. => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{:04}-{month:02}-{day:02} BC", 1 - year),
    }
}

fn instant_text(micros: i128, zone: &str) -> String {
    let days = i64::try_from(micros.div_euclid(86_400_000_000)).unwrap();
    let date = date_text(days);
    let time = micros.rem_euclid(86_400_000_000);
    let (seconds, fraction) = (time / 1_000_000, time % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = format!(".{fraction:06}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let (date, era) = date
        .strip_suffix(" BC")
        .map_or((&*date, ""), |date| (date, " BC"));
    format!("{date} {hour:02}:{minute:02}:{second:02}{fraction}{zone}{era}")
}

prop_compose! {
    fn table()(
        columns in btree_map(any::<String>(), (typed_text(), 0_u8..8), 1..9),
        key_len in 0_usize..3,
    ) -> (Relation, Vec<Given>) {
        let mut cells = Vec::new();
        let columns: Vec<Column> = columns
            .into_iter()
            .enumerate()
            .map(|(index, (name, ((kind, text), form)))| {
                let is_key = index < key_len;
                cells.push(match form {
                    0 if !is_key => Given::Null,
                    1 if !is_key => Given::Unchanged,
                    _ => Given::Text(text),
                });
                let place = u16::try_from(key_len - index.min(key_len)).expect("a short key");
                column(&name, kind, place)
            })
            .collect();
        (relation(columns), cells)
    }
}

fn any_modes() -> impl Strategy<Value = Modes> {
    let decimal = prop_oneof![Just(DecimalMode::Double), Just(DecimalMode::Precise)];
    let time = prop_oneof![Just(TimePrecision::Connect), Just(TimePrecision::Isostring)];
    (exact_modes(), decimal, time).prop_map(|(modes, decimal, time_precision)| Modes {
        decimal,
        time_precision,
        interval: IntervalMode::Numeric,
        time_zone: TimeZoneMode::Utc,
        ..modes
    })
}

/// The modes that lose nothing.
fn exact_modes() -> impl Strategy<Value = Modes> {
    let time = prop_oneof![
        Just(TimePrecision::Adaptive),
        Just(TimePrecision::Isostring),
        Just(TimePrecision::Microseconds),
        Just(TimePrecision::Nanoseconds),
    ];
    let binary = prop_oneof![
        Just(BinaryMode::Base64),
        Just(BinaryMode::Base64UrlSafe),
        Just(BinaryMode::Hex),
    ];
    let hstore = prop_oneof![Just(HstoreMode::Json), Just(HstoreMode::Map)];
    (time, binary, hstore).prop_map(|(time_precision, binary, hstore)| Modes {
        time_precision,
        hstore,
        binary,
        ..MODES
    })
}

/// Comparable also where a value is not equal to itself.
fn shown(image: &Image<'_>) -> String {
    format!("{:?}", image.fields)
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_as_the_same_values((relation, cells) in table(), modes in exact_modes()) {
        let columns = &relation.columns;
        let row = row_of(&cells);
        let expected = shown(&row_image(columns, &row).expect("texts of their types"));
        let json = written_as(modes, &relation, &META, Before::Full(&row), Some(&row));
        let envelope = Envelope::as_written(&json).expect("an envelope as it is written");
        prop_assert_eq!(envelope.op, META.op);
        for json in [envelope.before, envelope.after] {
            let image = read_image(columns, modes, json.expect("a row")).expect("an image");
            prop_assert_eq!(shown(&image), &*expected);
        }
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    }

    #[test]
    fn what_is_large_is_written_by_itself_as_it_is_written_with_its_row(
        (relation, cells) in table(),
        modes in any_modes(),
        large: u64,
    ) {
        let row = row_of(&cells);
        let expected = written_as(modes, &relation, &META, Before::Full(&row), Some(&row));
        let marked = row.with_large(|index| large >> (index % 64) & 1 == 1);
        prop_assert_eq!(super::whole::whole(modes, &relation.into(), &marked), expected);
    }

    #[test]
    fn a_key_is_read_back_as_the_key_columns((relation, cells) in table()) {
        let row = row_of(&cells);
        let mut key = Vec::new();
        write_key(&mut key, &relation, MODES, &row).expect("texts of their types");
        prop_assert_eq!(key.is_empty(), relation.key_columns().is_empty());
        if key.is_empty() {
            return Ok(());
        }
        let image = read_key(&relation.columns, MODES, &key).expect("an image");
        let mut expected = row_image(&relation.columns, &row).expect("texts of their types");
        for (field, column) in expected.fields.iter_mut().zip(relation.columns.iter()) {
            if column.key == 0 {
                *field = Field::Absent;
            }
        }
        prop_assert_eq!(shown(&image), shown(&expected));
    }

    #[test]
    fn any_bytes_are_an_envelope_or_an_error_and_never_a_panic(bytes: Vec<u8>) {
        let _ = Envelope::from_bytes(&bytes);
    }

    #[test]
    fn a_damaged_record_is_an_image_or_an_error_and_never_a_panic(
        (relation, cells) in table(),
        damages in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let row = row_of(&cells);
        let mut json = written(&relation, &META, Before::None, Some(&row)).into_bytes();
        for (index, byte) in damages {
            let index = index.index(json.len());
            json[index] = byte;
        }
        if let Ok(Envelope { after: Some(after), .. }) = Envelope::from_bytes(&json) {
            let _ = read_image(&relation.columns, MODES, after);
        }
    }

    #[test]
    fn any_member_is_a_value_or_an_error_and_never_a_panic(
        (kind, _) in typed_text(),
        modes in any_modes(),
        json in "\"[0-9TZ:.+-]{0,30}\"|\"\\\\\\\\u[0-9a-f]{4}\"|-?[0-9]{1,30}(\\.[0-9]{1,5})?(e-?[0-9]{1,4})?|\\[\\]|\\{\\}|true",
    ) {
        let columns = [column("v", kind, 0)];
        let _ = read_image(&columns, modes, &format!("{{\"v\":{json}}}"));
    }
}

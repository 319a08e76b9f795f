use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::Image;
use crate::value::calendar;

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
    let of = |kind: Type| move |text: String| (kind, text);
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
        "-?[0-9]{1,40}(\\.[0-9]{1,20})?|NaN|-?Infinity".prop_map(of(Type::Numeric)),
        "\\\\x([0-9a-f]{2}){0,40}".prop_map(of(Type::Bytea)),
        "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}".prop_map(of(Type::Uuid)),
    ];
    let strings = prop_oneof![
        any::<String>().prop_map(of(Type::Text)),
        "[\"\\\\\u{0}-\u{20}a-zé☃😀]{0,80}".prop_map(of(Type::Text)),
        "\\{\"[a-zé☃]{1,5}\": [0-9]{1,30}\\}".prop_map(of(Type::Json)),
        any::<String>().prop_map(of(Type::Json)),
    ];
    prop_oneof![3 => scalars, 2 => strings, 2 => moments()]
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
    const DAY: i64 = 86_400_000_000;
    let micros = -2_440_588 * DAY..=i64::MAX;
    let near = -100_000 * DAY..100_000 * DAY;
    let instant = (prop_oneof![micros, near], 0_u8..=6).prop_flat_map(|(micros, precision)| {
        let unit = 10_i64.pow(6 - u32::from(precision));
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

fn instant_text(micros: i64, zone: &str) -> String {
    let date = date_text(micros.div_euclid(86_400_000_000));
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

/// Comparable also where a value is not equal to itself.
fn shown(image: &Image<'_>) -> String {
    format!("{:?}", image.fields)
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_as_the_same_values((relation, cells) in table()) {
        let columns = &relation.columns;
        let row = row_of(&cells);
        let expected = shown(&row_image(columns, &row).expect("texts of their types"));
        let json = written(&relation, &META, Before::Full(&row), Some(&row));
        let envelope = Envelope::as_written(&json).expect("an envelope as it is written");
        prop_assert_eq!(envelope.op, META.op);
        for json in [envelope.before, envelope.after] {
            let image = read_image(columns, json.expect("a row")).expect("an image");
            prop_assert_eq!(shown(&image), &*expected);
        }
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    }

    #[test]
    fn a_key_is_read_back_as_the_key_columns((relation, cells) in table()) {
        let row = row_of(&cells);
        let mut key = Vec::new();
        write_key(&mut key, &relation, &row).expect("texts of their types");
        prop_assert_eq!(key.is_empty(), relation.key_columns().is_empty());
        if key.is_empty() {
            return Ok(());
        }
        let image = read_key(&relation.columns, &key).expect("an image");
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
            let _ = read_image(&relation.columns, after);
        }
    }

    #[test]
    fn any_member_is_a_value_or_an_error_and_never_a_panic(
        (kind, _) in typed_text(),
        json in "\"[0-9TZ:.+-]{0,30}\"|\"\\\\\\\\u[0-9a-f]{4}\"|-?[0-9]{1,30}(\\.[0-9]{1,5})?(e-?[0-9]{1,4})?|\\[\\]|\\{\\}|true",
    ) {
        let columns = [column("v", kind, 0)];
        let _ = read_image(&columns, &format!("{{\"v\":{json}}}"));
    }
}

//! What a form of values in Kafka's records loses, before the sink sees them.

use walferry_mongodb::{Fidelity, Note};
use walferry_schema::{
    Column, DecimalMode, IntervalMode, Modes, TimePrecision, TimeZoneMode, Type,
};

/// What is to be known about a column whose values go through records with these modes.
pub(super) fn note(column: &Column, modes: Modes) -> Option<Note> {
    let modes = modes.of(column);
    let lossy = |what, remedy| Some(Note::new(Fidelity::Lossy, what).mended_by(remedy));
    match column.kind.innermost() {
        Type::Numeric(_) | Type::Money(_) if modes.decimal == DecimalMode::Double => lossy(
            "a double in the records: about 16 digits stay",
            "kafka.decimal = \"string\"",
        ),
        Type::Numeric(None) if modes.decimal == DecimalMode::Precise => {
            let what =
                "without a declared scale, numbers keep their value, not their zeros: 1.50 is 1.5";
            let note = Note::new(Fidelity::Exact, what);
            Some(note.mended_by("kafka.decimal = \"string\""))
        }
        Type::Timestamp(4..) | Type::Time(4..)
            if modes.time_precision == TimePrecision::Connect =>
        {
            lossy(
                "milliseconds in the records",
                "another kafka.time_precision than \"connect\"",
            )
        }
        Type::Interval if modes.interval == IntervalMode::Numeric => lossy(
            "microseconds in the records, of months with 30.4375 days",
            "kafka.interval = \"string\"",
        ),
        Type::TimeTz if modes.time_zone == TimeZoneMode::Utc => lossy(
            "in UTC in the records",
            "kafka.compatibility = \"walferry\"",
        ),
        _ => None,
    }
}

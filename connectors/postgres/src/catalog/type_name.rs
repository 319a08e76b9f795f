//! The names of types, with their modifiers.

use std::sync::Arc;

use walferry_schema::Type;

/// Lengths and precisions are stored four too high.
const OFFSET: i32 = 4;

/// The name of a built-in type as [`walferry_schema::Column::type_name`] has it. The modifier of an array is that of its
/// elements.
pub(super) fn built_in(name: &str, modifier: i32) -> String {
    match name.strip_prefix('_') {
        Some(element) => format!("_{}", with_modifier(element, modifier)),
        None => with_modifier(name, modifier),
    }
}

/// The name of another type. One that would be taken for a built-in type keeps its schema.
pub(super) fn user_defined(schema: &str, name: &str) -> Arc<str> {
    match Type::from_name(name) {
        Type::Text => name.into(),
        _ => format!("{schema}.{name}").into(),
    }
}

fn with_modifier(name: &str, modifier: i32) -> String {
    if modifier < 0 {
        return name.to_owned();
    }
    match name {
        "numeric" if modifier >= OFFSET => {
            let packed = modifier - OFFSET;
            // Eleven bits with a sign: numeric(2,-3) is a number of thousands.
            let scale = ((packed & 0x7ff) ^ 0x400) - 0x400;
            format!("numeric({},{scale})", (packed >> 16) & 0xffff)
        }
        "varchar" | "bpchar" if modifier > OFFSET => format!("{name}({})", modifier - OFFSET),
        "timestamp" | "timestamptz" | "time" | "timetz" | "bit" | "varbit" => {
            format!("{name}({modifier})")
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::types::Type as BuiltIn;

    use super::*;

    fn numeric(precision: i32, scale: i32) -> i32 {
        precision * 0x1_0000 + (scale & 0x7ff) + OFFSET
    }

    fn name(oid: u32, modifier: i32) -> String {
        let name = BuiltIn::from_oid(oid).unwrap();
        built_in(name.name(), modifier)
    }

    #[test]
    fn built_in_types_are_named_with_their_modifiers() {
        assert_eq!(name(23, -1), "int4");
        assert_eq!(name(1007, -1), "_int4");
        assert_eq!(name(1700, -1), "numeric");
        assert_eq!(name(1700, numeric(10, 2)), "numeric(10,2)");
        assert_eq!(name(1700, numeric(2, -3)), "numeric(2,-3)");
        assert_eq!(name(1700, numeric(1000, 1000)), "numeric(1000,1000)");
        assert_eq!(name(1043, 24), "varchar(20)");
        assert_eq!(name(1042, 7), "bpchar(3)");
        assert_eq!(name(1114, 0), "timestamp(0)");
        assert_eq!(name(1184, 3), "timestamptz(3)");
        assert_eq!(name(1083, 3), "time(3)");
        assert_eq!(name(1560, 3), "bit(3)");
        assert_eq!(name(1562, 5), "varbit(5)");
        assert_eq!(name(1231, numeric(10, 2)), "_numeric(10,2)");
        assert_eq!(name(1186, 0x7fff_0000), "interval");
    }

    #[test]
    fn a_type_of_a_users_is_never_taken_for_a_built_in_one() {
        assert_eq!(&*user_defined("public", "mood"), "mood");
        assert_eq!(&*user_defined("public", "numeric"), "public.numeric");
        assert_eq!(
            Type::from_name(&user_defined("public", "int4(x")),
            Type::Text
        );
    }
}

//! Which partition a key belongs to: the choice of Java's own producer.

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;

/// The partition of a key among `partitions`; no key goes to partition 0.
///
/// The same as the Java client's `murmur2` partitioner, so that other producers and stream
/// processors agree with us about where a key stands.
pub fn partition_of(key: Option<&[u8]>, partitions: i32) -> i32 {
    match key {
        Some(key) if partitions > 1 => (murmur2(key) & 0x7fff_ffff).cast_signed() % partitions,
        _ => 0,
    }
}

/// `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let (words, rest) = data.as_chunks::<4>();
    let mut hash = SEED ^ length;
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        k ^= k >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ k.wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `Utils.murmur2` and `toPositive(..) % 7` of kafka-clients 4.3.1 print.
    const JAVA: [(&str, i32, i32); 10] = [
        ("", 275_646_681, 2),
        ("a", -1_563_381_124, 5),
        ("21", -973_932_308, 3),
        ("foobar", -790_332_482, 0),
        ("a-little-bit-long-string", -985_981_536, 1),
        ("a-little-bit-longer-string", -1_486_304_829, 0),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
            3,
        ),
        ("abc", 479_470_107, 4),
        (r#"{"id":1}"#, -56_768_732, 3),
        (r#"{"id":42,"größe":7}"#, -1_313_581_632, 3),
    ];

    #[test]
    fn a_key_goes_where_the_java_client_sends_it() {
        for (key, hash, of_seven) in JAVA {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
            assert_eq!(partition_of(Some(key.as_bytes()), 7), of_seven, "{key}");
        }
    }

    #[test]
    fn no_key_goes_to_the_first_partition() {
        assert_eq!(partition_of(None, 7), 0);
    }

    proptest! {
        #[test]
        fn every_key_has_a_partition_that_exists(key: Vec<u8>, partitions in 1..1000_i32) {
            prop_assert!((0..partitions).contains(&partition_of(Some(&key), partitions)));
        }
    }
}

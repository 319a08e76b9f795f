//! Which numbers have come up already.

#[derive(Debug)]
pub(super) struct Seen {
    words: Vec<u64>,
}

// === impl Seen ===

impl Seen {
    /// For the numbers below `count`.
    pub(super) fn new(count: u32) -> Self {
        Self {
            words: vec![0; count.div_ceil(u64::BITS) as usize],
        }
    }

    /// Whether `number` comes up for the first time.
    pub(super) fn is_first(&mut self, number: u32) -> bool {
        let word = &mut self.words[(number / u64::BITS) as usize];
        let bit = 1_u64 << (number % u64::BITS);
        let is_first = *word & bit == 0;
        *word |= bit;
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_first_once() {
        let mut seen = Seen::new(65);
        assert_eq!(
            [0, 63, 64, 0, 63, 64].map(|number| seen.is_first(number)),
            [true, true, true, false, false, false]
        );
    }
}

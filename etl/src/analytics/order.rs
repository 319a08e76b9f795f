//! The order in which rules are refreshed: each after all that it reads.
//!
//! - It depends on the rules alone, not on the order of their files.

use std::collections::BTreeMap;

use super::{Mistake, Rule, Source};

/// What each collection or view is written by, as places in the list of rules.
pub(super) struct Writers<'a> {
    rules: &'a [Rule],
    by_output: BTreeMap<&'a str, Vec<usize>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

/// A walk from rules to what they read.
struct Walk<'a> {
    writers: &'a Writers<'a>,
    states: Vec<State>,
    /// The rules that are open, each with what of the next one it reads.
    path: Vec<(usize, Option<&'a Source>)>,
    order: Vec<usize>,
}

// === impl Writers ===

impl<'a> Writers<'a> {
    pub(super) fn of(rules: &'a [Rule]) -> Self {
        let mut by_output: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (at, rule) in rules.iter().enumerate() {
            by_output.entry(&*rule.output).or_default().push(at);
        }
        Self { rules, by_output }
    }

    pub(super) fn of_output(&self, name: &str) -> &[usize] {
        self.by_output.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn outputs(&self) -> impl Iterator<Item = (&'a str, &[usize])> {
        self.by_output.iter().map(|(name, at)| (*name, &at[..]))
    }

    /// The places of all rules, each after those that write what it reads.
    pub(super) fn order(&self) -> Result<Vec<usize>, Mistake> {
        let mut walk = Walk {
            writers: self,
            states: vec![State::New; self.rules.len()],
            path: Vec::new(),
            order: Vec::new(),
        };
        let mut places: Vec<_> = (0..self.rules.len()).collect();
        places.sort_by_key(|at| (self.rules[*at].kind, &self.rules[*at].name));
        for at in places {
            walk.visit(at)?;
        }
        Ok(walk.order)
    }
}

// === impl Walk ===

impl Walk<'_> {
    /// Recursion is as deep as rules read one another.
    fn visit(&mut self, at: usize) -> Result<(), Mistake> {
        match self.states[at] {
            State::Done => return Ok(()),
            State::Open => return Err(self.cycle(at)),
            State::New => self.states[at] = State::Open,
        }
        let writers = self.writers;
        self.path.push((at, None));
        for source in writers.rules[at].sources() {
            for writer in writers.of_output(&source.name) {
                if let Some(last) = self.path.last_mut() {
                    last.1 = Some(source);
                }
                self.visit(*writer)?;
            }
        }
        self.path.pop();
        self.states[at] = State::Done;
        self.order.push(at);
        Ok(())
    }

    /// The open rules from this one on read one another in a circle.
    fn cycle(&self, at: usize) -> Mistake {
        let rules = self.writers.rules;
        let first = self.path.iter().position(|(open, _)| *open == at);
        let circle = &self.path[first.unwrap_or_default()..];
        let mut names: Vec<_> = circle.iter().map(|(it, _)| &*rules[*it].name).collect();
        names.push(&rules[at].name);
        let read = circle.first().and_then(|(_, source)| *source);
        let read = read.unwrap_or(&rules[at].input);
        let circle = names.join(" reads ");
        let message = format!("{circle}: rules cannot wait for one another in a circle");
        rules[at].mistake(read.place, message)
    }
}

//! Where a transaction stands in the commit log: found by bisection, without reading all of it.
//!
//! - Terms are followed back from the newest, each names the one before; LSNs rise within a term.
//! - A term that began again may hold a transaction once more: every copy is found, the oldest first.
//! - What an older term wrote after the next one began counts for nothing and is not looked at.

use walferry_core::{Bounds, Fault, LogEntry, LogReader};
use walferry_schema::{Commit, LogRecord, Lsn, Term};

use crate::succession::Succession;

/// Records of the tail that tell the newest term.
const TAIL: i64 = 1_000;
/// Records that are read at a time; what is left of a bisection is read one after another.
const PIECE: usize = 200;
const FEW: i64 = 200;
/// Terms that are followed back: more than a week of a reader that fails every few minutes.
const TERMS: usize = 5_000;
/// So many terms in a row that have not come so far are believed: an older one that had would have been
/// followed by readers that all died before they came as far again.
const SHORT: usize = 32;

/// What the commit log says of an LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// The transaction, as often as it stands there; the oldest first, never empty.
    Found(Vec<Copy>),
    /// The log covers it, and no transaction of a streamed table ended there.
    Nothing,
    /// It has not come so far: it covers the source up to this LSN, as far as is known.
    NotYet(Option<Lsn>),
    /// The snapshot of a generation was taken after it: its rows are in that.
    Copied {
        /// The generation.
        generation: u64,
    },
    /// It is older than what the log still holds, whose first offset this is.
    Deleted(i64),
}

/// A transaction as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// The offset of the commit record.
    pub(super) offset: i64,
    /// The record.
    pub(super) commit: Commit,
    /// The term that followed; none when the transaction's is the newest.
    pub(super) followed_by: Option<Term>,
}

/// A term's part of the log.
#[derive(Clone, Debug)]
struct Span {
    term: Term,
    /// Where it begins, or what is left of it.
    first: i64,
    /// Where the next term begins.
    end: i64,
    head: Head,
}

/// How a term began.
#[derive(Clone, Copy, Debug)]
enum Head {
    /// It streams from here on.
    Stream { start: Lsn, follows: i64 },
    /// It copies the tables of its generation.
    Copy { follows: i64 },
    /// The log no longer holds its beginning.
    Deleted,
}

/// What a term has to say of an LSN.
enum Told {
    Commit {
        offset: i64,
        commit: Commit,
    },
    /// It passes over it; the log covered this before.
    Passed {
        after: Lsn,
    },
    /// It has not come so far: its last LSN.
    Short(Option<Lsn>),
}

/// The LSN that a record of a term covers, and how far the log covered the source before it.
struct Mark<'a> {
    term: Term,
    reach: Lsn,
    after: Lsn,
    commit: Option<&'a Commit>,
}

/// Looks for the transaction that ended at `lsn`, or first after it.
///
/// # Errors
/// When the log cannot be read.
pub(super) async fn search<R: LogReader>(log: &mut R, lsn: Lsn) -> Result<Search, Fault> {
    let bounds = log.log_bounds().await?;
    let Some(newest) = newest_term(log, bounds).await? else {
        // An empty log, or one of which nothing is left.
        return Ok(if bounds.end == 0 {
            Search::NotYet(None)
        } else {
            Search::Deleted(bounds.first)
        });
    };
    let mut span = span_at(log, newest, bounds, bounds.end).await?;
    let mut seen = Seen::default();
    let mut followed_by = None;
    for _ in 0..TERMS {
        if let Some(found) = seen.take(log, &span, followed_by, lsn).await? {
            return Ok(found);
        }
        let follows = match span.head {
            Head::Stream { follows, .. } | Head::Copy { follows } if follows >= 0 => follows,
            _ => break,
        };
        if follows < bounds.first && span.first <= bounds.first {
            break;
        }
        let guess = Term {
            number: follows,
            ..span.term
        };
        followed_by = Some(span.term);
        span = span_at(log, guess, bounds, span.first).await?;
    }
    Ok(seen.rest(lsn, bounds))
}

/// Where the terms of a generation streamed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Streamed {
    /// None did.
    #[default]
    Never,
    /// All that were seen from after the LSN.
    After,
    /// One from the LSN or before it.
    Before,
}

/// What the terms said so far, the newest first.
#[derive(Default)]
struct Seen {
    copies: Vec<Copy>,
    /// The transaction, once it is known which one it is.
    target: Option<Lsn>,
    /// Terms in a row that have not come so far.
    shorts: usize,
    is_passed: bool,
    covered: Option<Lsn>,
    /// Where the generation at hand streamed from.
    streamed: Streamed,
    /// The newest generation whose stream begins after the LSN.
    copied: Option<u64>,
    /// Whether a generation's copy is under way.
    is_copying: bool,
}

// === impl Seen ===

impl Seen {
    /// Takes what a term says; the answer when no older term can add to it.
    async fn take<R: LogReader>(
        &mut self,
        log: &mut R,
        span: &Span,
        followed_by: Option<Term>,
        lsn: Lsn,
    ) -> Result<Option<Search>, Fault> {
        match span.head {
            Head::Copy { .. } if self.streamed == Streamed::Before => return Ok(Some(self.end())),
            Head::Copy { .. } => return self.take_copy(log, span, lsn).await,
            Head::Stream { start, .. } if start > lsn => {
                self.streamed = Streamed::After;
                return Ok(None);
            }
            Head::Stream { .. } => self.streamed = Streamed::Before,
            Head::Deleted => {}
        }
        let asked = self.target.unwrap_or(lsn);
        match told(log, span, asked).await? {
            Told::Short(covered) => Ok(self.take_short(covered, lsn)),
            Told::Passed { after } => {
                self.is_passed = true;
                Ok((after < asked).then(|| self.end()))
            }
            Told::Commit { offset, commit } => {
                self.shorts = 0;
                if commit.after < lsn || commit.commit_lsn <= lsn {
                    self.target = Some(commit.commit_lsn);
                }
                self.copies.push(Copy {
                    offset,
                    commit,
                    followed_by,
                });
                Ok(None)
            }
        }
    }

    /// Takes that a term has not come so far.
    fn take_short(&mut self, covered: Option<Lsn>, lsn: Lsn) -> Option<Search> {
        self.covered = self.covered.max(covered);
        self.shorts += 1;
        // Covered to the byte, and nothing ended there: what ends first after it is what is meant.
        let is_told = covered == Some(lsn) || self.shorts >= SHORT;
        is_told.then(|| self.end())
    }

    /// Takes what a generation's copy says, whose stream did not begin before the LSN.
    async fn take_copy<R: LogReader>(
        &mut self,
        log: &mut R,
        span: &Span,
        lsn: Lsn,
    ) -> Result<Option<Search>, Fault> {
        let generation = span.term.generation;
        if std::mem::take(&mut self.streamed) == Streamed::After {
            self.copied.get_or_insert(generation);
            return Ok(None);
        }
        match told(log, span, lsn).await? {
            Told::Short(None) => self.is_copying = true,
            Told::Short(covered) => {
                self.covered = self.covered.max(covered);
                return Ok(Some(self.end()));
            }
            _ => _ = self.copied.get_or_insert(generation),
        }
        Ok(None)
    }

    fn end(&mut self) -> Search {
        let mut copies = std::mem::take(&mut self.copies);
        copies.reverse();
        match copies.first() {
            Some(first) => {
                let lsn = first.commit.commit_lsn;
                copies.retain(|it| it.commit.commit_lsn == lsn);
                Search::Found(copies)
            }
            None if self.is_passed => Search::Nothing,
            None => match self.copied {
                Some(generation) => Search::Copied { generation },
                None => Search::NotYet(self.covered),
            },
        }
    }

    /// The answer once there are no older terms.
    fn rest(mut self, lsn: Lsn, bounds: Bounds) -> Search {
        // The oldest copy may be of a later transaction, when what was asked for is deleted.
        let oldest = self.copies.last();
        let is_it = oldest.is_some_and(|it| lsn >= it.commit.commit_lsn);
        let is_unknown = oldest.is_none() && !self.is_passed;
        let is_reached = self.streamed == Streamed::Before
            || self.is_copying
            || self.covered.is_some()
            || self.copied.is_some();
        if is_it || self.target.is_some() || is_unknown && is_reached {
            return self.end();
        }
        Search::Deleted(bounds.first)
    }
}

// === impl Mark ===

impl<'a> Mark<'a> {
    fn of(record: &'a LogRecord) -> Option<Self> {
        match record {
            LogRecord::Commit(it) => Some(Self {
                term: it.term,
                reach: it.end_lsn,
                after: it.after,
                commit: Some(it),
            }),
            LogRecord::Heartbeat(it) => Some(Self {
                term: it.term,
                reach: it.lsn,
                after: it.after,
                commit: None,
            }),
            LogRecord::SnapshotEnd(it) => Some(Self {
                term: it.term,
                reach: it.lsn,
                after: Lsn::ZERO,
                commit: None,
            }),
            _ => None,
        }
    }
}

async fn newest_term<R: LogReader>(log: &mut R, bounds: Bounds) -> Result<Option<Term>, Fault> {
    let from = bounds.first.max(bounds.end - TAIL);
    let limit = usize::try_from(bounds.end - from).unwrap_or_default();
    let mut terms = Succession::default();
    for entry in log.look_ahead(from, limit).await? {
        terms.judge(&entry);
    }
    Ok(terms.newest())
}

/// The part of a term, which began at its number; its generation is a guess when that is deleted.
async fn span_at<R: LogReader>(
    log: &mut R,
    guess: Term,
    bounds: Bounds,
    end: i64,
) -> Result<Span, Fault> {
    let record = record_at(log, guess.number, bounds).await?;
    let (generation, head) = match record.map(|it| it.record) {
        Some(LogRecord::Open(it)) => {
            let (start, follows) = (it.start_lsn, it.follows);
            (it.generation, Head::Stream { start, follows })
        }
        Some(LogRecord::Generation(it)) => {
            let follows = it.follows;
            (it.generation, Head::Copy { follows })
        }
        _ => (guess.generation, Head::Deleted),
    };
    Ok(Span {
        term: Term {
            generation,
            ..guess
        },
        first: guess.number.max(bounds.first),
        end,
        head,
    })
}

async fn record_at<R: LogReader>(
    log: &mut R,
    offset: i64,
    bounds: Bounds,
) -> Result<Option<LogEntry>, Fault> {
    if offset < bounds.first {
        return Ok(None);
    }
    let found = log.look_ahead(offset, 1).await?;
    Ok(found.into_iter().find(|entry| entry.offset == offset))
}

/// What a term says of an LSN.
async fn told<R: LogReader>(log: &mut R, span: &Span, lsn: Lsn) -> Result<Told, Fault> {
    let tail = span.first.max(span.end - FEW);
    let last = last_mark(log, span, tail).await?;
    if let Some(reach) = last.filter(|it| *it < lsn) {
        return Ok(Told::Short(Some(reach)));
    }
    let (mut from, mut to) = (span.first, span.end);
    while to - from > FEW {
        let middle = from + (to - from) / 2;
        match first_mark(log, span.term, middle, to).await? {
            Some((offset, reach)) if reach < lsn => from = offset,
            _ => to = middle,
        }
    }
    read_from(log, span, from, lsn).await
}

/// The offset and reach of a term's first record within these bounds that has an LSN.
async fn first_mark<R: LogReader>(
    log: &mut R,
    term: Term,
    from: i64,
    to: i64,
) -> Result<Option<(i64, Lsn)>, Fault> {
    let mut next = from;
    while next < to {
        let entries = log.look_ahead(next, PIECE).await?;
        let Some(last) = entries.last() else { break };
        next = last.offset + 1;
        let within = entries.iter().filter(|entry| entry.offset < to);
        let mut marks = within.filter_map(|entry| Some((entry.offset, Mark::of(&entry.record)?)));
        if let Some((offset, mark)) = marks.find(|(_, mark)| mark.term == term) {
            return Ok(Some((offset, mark.reach)));
        }
    }
    Ok(None)
}

/// How far the last of a term's records from `from` on reaches.
async fn last_mark<R: LogReader>(
    log: &mut R,
    span: &Span,
    from: i64,
) -> Result<Option<Lsn>, Fault> {
    let entries = log.look_ahead(from, PIECE).await?;
    let within = entries.iter().filter(|entry| entry.offset < span.end);
    let mut marks = within.filter_map(|entry| Mark::of(&entry.record));
    let last = marks.rfind(|it| it.term == span.term);
    Ok(last.map(|it| it.reach))
}

/// What a term's records from `from` on say of an LSN, one after another.
async fn read_from<R: LogReader>(
    log: &mut R,
    span: &Span,
    from: i64,
    lsn: Lsn,
) -> Result<Told, Fault> {
    let (mut next, mut covered, mut ended) = (from, None, None);
    while next < span.end {
        let entries = log.look_ahead(next, PIECE).await?;
        let Some(last) = entries.last() else { break };
        next = last.offset + 1;
        for entry in entries.iter().filter(|entry| entry.offset < span.end) {
            let Some(mark) = Mark::of(&entry.record).filter(|it| it.term == span.term) else {
                continue;
            };
            covered = Some(mark.reach);
            let commit = mark.commit.map(|it| (entry.offset, it.clone()));
            if mark.reach > lsn {
                // An LSN can be the end of one transaction and the commit of the next.
                let is_its = |(_, it): &(i64, Commit)| it.commit_lsn == lsn;
                let found = commit.clone().filter(is_its).or(ended).or(commit);
                return Ok(told_by(found, mark.after));
            }
            if mark.reach == lsn && commit.is_some() {
                ended = commit;
            }
        }
    }
    Ok(ended.map_or(Told::Short(covered), |it| told_by(Some(it), lsn)))
}

fn told_by(found: Option<(i64, Commit)>, after: Lsn) -> Told {
    match found {
        Some((offset, commit)) => Told::Commit { offset, commit },
        None => Told::Passed { after },
    }
}

#[cfg(test)]
mod tests;

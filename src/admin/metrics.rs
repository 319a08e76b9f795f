//! The metrics, each with its name, its meaning and where its value comes from.
//!
//! - One table is the exposition, its help texts and docs/metrics.md.
//! - What is not known is left out, never shown as 0.

use std::fmt::Write as _;

use walferry_schema::Lsn;

use crate::analytics::Incremental;
use crate::status::{Latency, SinkStatus, State, Status};

/// How a metric changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// A metric of the exposition.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    write: fn(&mut Writer<'_>, &Status),
}

/// Writes the samples of one metric.
pub(super) struct Writer<'a> {
    name: &'static str,
    text: &'a mut String,
}

pub(super) const METRICS: [Metric; 44] = [
    Metric {
        name: "walferry_info",
        kind: Kind::Gauge,
        help: "Always 1; the labels say which pipeline, version, role and way this is.",
        write: |writer, status| {
            let labels = [
                ("pipeline", &*status.pipeline),
                ("version", &status.version),
                ("role", &status.role),
                ("way", &status.way),
            ];
            writer.labelled(&labels, 1.0);
        },
    },
    Metric {
        name: "walferry_pipeline_state",
        kind: Kind::Gauge,
        help: "1 for the state the pipeline is in, 0 for the others: starting, retrying, snapshot, swapping, paused, live, drifted, fenced.",
        write: |writer, status| {
            for state in State::ALL {
                let is_it = f64::from(u8::from(state == status.state));
                writer.labelled(&[("state", &state.to_string())], is_it);
            }
        },
    },
    Metric {
        name: "walferry_pipeline_uptime_seconds",
        kind: Kind::Gauge,
        help: "How long the process has run.",
        write: |writer, status| writer.count(Some(status.uptime_seconds)),
    },
    Metric {
        name: "walferry_pipeline_retries",
        kind: Kind::Gauge,
        help: "How often in a row a part failed and was tried again, last time that happened.",
        write: |writer, status| {
            writer.count(Some(status.last_error.as_ref().map_or(0, |it| it.attempts)));
        },
    },
    Metric {
        name: "walferry_pipeline_last_error_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When a part failed last, in seconds since 1970; absent when none did.",
        write: |writer, status| writer.count(status.last_error.as_ref().map(|it| it.at)),
    },
    Metric {
        name: "walferry_pipeline_lag_seconds",
        kind: Kind::Gauge,
        help: "How long the oldest change that is not visible in MongoDB has waited at most.",
        write: |writer, status| writer.value(status.lag.seconds),
    },
    Metric {
        name: "walferry_pipeline_lag_bytes",
        kind: Kind::Gauge,
        help: "WAL that is not applied yet.",
        write: |writer, status| writer.count(status.lag.bytes),
    },
    Metric {
        name: "walferry_reader_lag_bytes",
        kind: Kind::Gauge,
        help: "WAL that was not read yet.",
        write: |writer, status| writer.count(status.lag.reader_bytes),
    },
    Metric {
        name: "walferry_kafka_lag_bytes",
        kind: Kind::Gauge,
        help: "WAL that was read and not acknowledged by Kafka yet; without Kafka, not applied yet.",
        write: |writer, status| writer.count(status.lag.log_bytes),
    },
    Metric {
        name: "walferry_sink_lag_bytes",
        kind: Kind::Gauge,
        help: "WAL that Kafka holds and that is not applied yet; absent without Kafka.",
        write: |writer, status| writer.count(status.lag.sink_bytes),
    },
    Metric {
        name: "walferry_source_up",
        kind: Kind::Gauge,
        help: "Whether PostgreSQL answered when its slot was last measured.",
        write: |writer, status| {
            writer.count(
                status
                    .source
                    .as_ref()
                    .map(|it| u8::from(it.error.is_none())),
            );
        },
    },
    Metric {
        name: "walferry_source_flush_lsn_bytes",
        kind: Kind::Gauge,
        help: "How far PostgreSQL's log is durable, as a byte position.",
        write: |writer, status| writer.lsn(status.source.as_ref().and_then(|it| it.flush_lsn)),
    },
    Metric {
        name: "walferry_source_retained_wal_bytes",
        kind: Kind::Gauge,
        help: "WAL that PostgreSQL keeps for the slot.",
        write: |writer, status| {
            writer.count(status.source.as_ref().and_then(|it| it.retained_bytes));
        },
    },
    Metric {
        name: "walferry_source_spare_wal_bytes",
        kind: Kind::Gauge,
        help: "WAL that may still be written before the slot is lost; absent without max_slot_wal_keep_size.",
        write: |writer, status| writer.count(status.source.as_ref().and_then(|it| it.spare_bytes)),
    },
    Metric {
        name: "walferry_source_wal_state",
        kind: Kind::Gauge,
        help: "Always 1; the label is PostgreSQL's wal_status of the slot: reserved, extended, unreserved (in danger) or lost.",
        write: |writer, status| {
            let state = status
                .source
                .as_ref()
                .and_then(|it| it.wal_status.as_deref());
            if let Some(state) = state {
                writer.labelled(&[("state", state)], 1.0);
            }
        },
    },
    Metric {
        name: "walferry_source_slot_active",
        kind: Kind::Gauge,
        help: "Whether a process streams from the slot.",
        write: |writer, status| {
            writer.count(status.source.as_ref().map(|it| u8::from(it.is_active)));
        },
    },
    Metric {
        name: "walferry_reader_read_lsn_bytes",
        kind: Kind::Gauge,
        help: "How far the source was read between transactions, as a byte position.",
        write: |writer, status| writer.lsn(status.reader.as_ref().map(|it| it.read_lsn)),
    },
    Metric {
        name: "walferry_reader_confirmed_lsn_bytes",
        kind: Kind::Gauge,
        help: "What the slot may be confirmed to, as a byte position.",
        write: |writer, status| writer.lsn(status.reader.as_ref().map(|it| it.confirmed_lsn)),
    },
    Metric {
        name: "walferry_reader_transactions_total",
        kind: Kind::Counter,
        help: "Source transactions of streamed tables that were read.",
        write: |writer, status| writer.count(status.reader.as_ref().map(|it| it.transactions)),
    },
    Metric {
        name: "walferry_reader_changes_total",
        kind: Kind::Counter,
        help: "Changes that were read from the stream; a truncate is one.",
        write: |writer, status| writer.count(status.reader.as_ref().map(|it| it.changes)),
    },
    Metric {
        name: "walferry_reader_spooled_transactions",
        kind: Kind::Gauge,
        help: "Transactions in progress that are kept on disk until they commit; absent without source.streaming.",
        write: |writer, status| {
            writer.count(
                status
                    .reader
                    .as_ref()
                    .and_then(|it| it.spooled_transactions),
            );
        },
    },
    Metric {
        name: "walferry_reader_spooled_bytes",
        kind: Kind::Gauge,
        help: "What they take on disk.",
        write: |writer, status| {
            writer.count(status.reader.as_ref().and_then(|it| it.spooled_bytes));
        },
    },
    Metric {
        name: "walferry_reader_oversize_rows_total",
        kind: Kind::Counter,
        help: "Rows that were too large for their records, of the snapshot too.",
        write: |writer, status| writer.count(status.reader.as_ref().map(|it| it.oversize_rows)),
    },
    Metric {
        name: "walferry_sink_end_lsn_bytes",
        kind: Kind::Gauge,
        help: "How far the source's log is applied, as a byte position.",
        write: |writer, status| writer.lsn(sink(status).map(|it| it.end_lsn)),
    },
    Metric {
        name: "walferry_sink_rows_total",
        kind: Kind::Counter,
        help: "Rows that were applied, before folding.",
        write: |writer, status| writer.count(sink(status).map(|it| it.rows)),
    },
    Metric {
        name: "walferry_sink_table_rows_total",
        kind: Kind::Counter,
        help: "Rows that were applied, by table.",
        write: |writer, status| {
            for table in sink(status).into_iter().flat_map(|it| &it.tables) {
                writer.labelled(&[("table", &table.table)], number(table.rows));
            }
        },
    },
    Metric {
        name: "walferry_sink_groups_total",
        kind: Kind::Counter,
        help: "MongoDB transactions that were committed.",
        write: |writer, status| writer.count(sink(status).map(|it| it.groups)),
    },
    Metric {
        name: "walferry_sink_repaired_total",
        kind: Kind::Counter,
        help: "Operations that did not find what they expected and were mended from a full image: somebody else writes to the collections.",
        write: |writer, status| writer.count(sink(status).map(|it| it.repaired)),
    },
    Metric {
        name: "walferry_sink_unverified_skips",
        kind: Kind::Gauge,
        help: "Transactions that were passed over, of which a table was not verified since; 100 at most.",
        write: |writer, status| {
            writer.count(status.sink.as_ref().map(|_| status.skipped.len() as u64));
        },
    },
    Metric {
        name: "walferry_sink_parked_total",
        kind: Kind::Counter,
        help: "Changes that became dead letters: MongoDB cannot take them, or they come behind one that it cannot.",
        write: |writer, status| writer.count(sink(status).map(|it| it.parked)),
    },
    Metric {
        name: "walferry_sink_dropped_total",
        kind: Kind::Counter,
        help: "Changes of rows whose dead letters were discarded, which need what those said.",
        write: |writer, status| writer.count(sink(status).map(|it| it.dropped)),
    },
    Metric {
        name: "walferry_sink_dead_letters",
        kind: Kind::Gauge,
        help: "Dead letters that stand, by table; 100 tables at most.",
        write: |writer, status| {
            for parked in &status.dead_letters {
                writer.labelled(&[("table", &parked.table)], number(parked.letters));
            }
        },
    },
    Metric {
        name: "walferry_sink_drifted_tables",
        kind: Kind::Gauge,
        help: "Tables of which documents that did not change since lack what DDL changed without sending it.",
        write: |writer, status| {
            writer.count(status.sink.as_ref().map(|_| status.drifted.len() as u64));
        },
    },
    Metric {
        name: "walferry_sink_latency_seconds",
        kind: Kind::Histogram,
        help: "From a commit in PostgreSQL to its visibility in MongoDB: the oldest transaction of each group. As good as the two clocks agree.",
        write: |writer, status| {
            if let Some(sink) = sink(status) {
                writer.histogram(&sink.latency);
            }
        },
    },
    Metric {
        name: "walferry_analytics_failures_total",
        kind: Kind::Counter,
        help: "Refreshes of rules that failed, the answer left as it was; absent without analytics.refresh.",
        write: |writer, status| writer.count(status.analytics.as_ref().map(|it| it.failures)),
    },
    Metric {
        name: "walferry_analytics_refresh_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When the answers of all rules were refreshed last, in seconds since 1970.",
        write: |writer, status| {
            writer.count(status.analytics.as_ref().and_then(|it| it.refreshed_at));
        },
    },
    Metric {
        name: "walferry_analytics_refresh_seconds",
        kind: Kind::Gauge,
        help: "How long the last refresh of all answers took, whether rules failed or not.",
        write: |writer, status| {
            writer.value(status.analytics.as_ref().and_then(|it| it.refresh_seconds));
        },
    },
    Metric {
        name: "walferry_analytics_incremental_runs_total",
        kind: Kind::Counter,
        help: "How often a rule was asked about values that were touched; this and the next four are absent where nothing is refreshed at once.",
        write: |writer, status| writer.count(incremental(status).map(|it| it.runs)),
    },
    Metric {
        name: "walferry_analytics_incremental_values_total",
        kind: Kind::Counter,
        help: "About how many values rules were asked so.",
        write: |writer, status| writer.count(incremental(status).map(|it| it.values)),
    },
    Metric {
        name: "walferry_analytics_incremental_seconds_total",
        kind: Kind::Counter,
        help: "How long that took.",
        write: |writer, status| writer.value(incremental(status).map(|it| it.seconds)),
    },
    Metric {
        name: "walferry_analytics_incremental_failures_total",
        kind: Kind::Counter,
        help: "How often it failed, or what was touched could not be looked at; it is tried again.",
        write: |writer, status| writer.count(incremental(status).map(|it| it.failures)),
    },
    Metric {
        name: "walferry_analytics_incremental_waiting_seconds",
        kind: Kind::Gauge,
        help: "How long the oldest change has waited that a rule was not asked about yet; 0 when none waits.",
        write: |writer, status| writer.value(incremental(status).map(Incremental::waiting_seconds)),
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the process.",
        write: |writer, _| writer.count(process::resident_bytes()),
    },
    Metric {
        name: "process_cpu_seconds_total",
        kind: Kind::Counter,
        help: "CPU time that the process has used.",
        write: |writer, _| writer.value(process::cpu_seconds()),
    },
];

/// The exposition in Prometheus's text format.
pub(super) fn text(status: &Status) -> String {
    let mut text = String::new();
    for metric in &METRICS {
        let mut samples = String::new();
        let mut writer = Writer {
            name: metric.name,
            text: &mut samples,
        };
        (metric.write)(&mut writer, status);
        if samples.is_empty() {
            continue;
        }
        // Writing to a string never fails.
        let (name, help, kind) = (metric.name, metric.help, metric.kind.name());
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        text.push_str(&samples);
    }
    text
}

fn incremental(status: &Status) -> Option<&Incremental> {
    status.analytics.as_ref()?.incremental.as_ref()
}

fn sink(status: &Status) -> Option<&SinkStatus> {
    status.sink.as_ref()
}

/// Prometheus knows floating point only.
#[expect(
    clippy::cast_precision_loss,
    reason = "beyond 2^53 a byte position is off by less than a page"
)]
fn number(count: u64) -> f64 {
    count as f64
}

// === impl Kind ===

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

// === impl Writer ===

impl Writer<'_> {
    fn value(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.labelled(&[], value);
        }
    }

    fn count(&mut self, count: Option<impl Into<u64>>) {
        self.value(count.map(|count| number(count.into())));
    }

    /// A position; none was reached at zero.
    fn lsn(&mut self, lsn: Option<Lsn>) {
        self.count(lsn.filter(|lsn| *lsn > Lsn::ZERO).map(|lsn| lsn.0));
    }

    fn labelled(&mut self, labels: &[(&str, &str)], value: f64) {
        self.sample("", labels, value);
    }

    fn histogram(&mut self, latency: &Latency) {
        for bucket in &latency.buckets {
            let bound = bucket.seconds.to_string();
            self.sample("_bucket", &[("le", &bound)], number(bucket.count));
        }
        self.sample("_bucket", &[("le", "+Inf")], number(latency.count));
        self.sample("_sum", &[], latency.sum_seconds);
        self.sample("_count", &[], number(latency.count));
    }

    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        // Writing to a string never fails.
        let _ = writeln!(self.text, "{}{suffix}{labels} {value}", self.name);
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// What the kernel says of this process.
mod process {
    /// The kernel counts CPU time for user space in hundredths of a second, on every machine.
    const TICKS_PER_SECOND: f64 = 100.0;

    pub(super) fn resident_bytes() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = text.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        Some(kibibytes * 1_024)
    }

    pub(super) fn cpu_seconds() -> Option<f64> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name before it may hold spaces and parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<f64>().ok();
        Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
    }
}

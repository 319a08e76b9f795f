//! What a process has cost so far, from `/proc`.

use std::path::Path;

use crate::error::{Error, Result};

/// The kernel counts CPU time for user space in hundredths of a second, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has cost since its start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// CPU time in user space and kernel, in seconds.
    pub(crate) cpu_seconds: f64,
    /// The most resident memory it ever had.
    pub(crate) peak_mb: f64,
}

// === impl Cost ===

impl Cost {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let directory = Path::new("/proc").join(pid.to_string());
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).map_err(Error::io(format!("reading {}", path.display())))
        };
        Ok(Self {
            cpu_seconds: cpu_seconds(&read("stat")?).unwrap_or_default(),
            peak_mb: peak_mb(&read("status")?).unwrap_or_default(),
        })
    }
}

/// Fields 14 and 15, counted behind the program's name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn peak_mb(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_does_not_move_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn this_process_has_a_cost() {
        let cost = Cost::of(std::process::id()).expect("our own process can be read");
        assert!(cost.peak_mb > 1.0, "{cost:?}");
    }
}

//! `[telemetry]`: what the daemon writes about itself.

use std::path::Path;

use config::Value;
use http::uri::Authority;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value as Json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::Section;
use super::setting::Setting;

/// How an address begins that is reached by TLS.
const SAFE: &str = "https://";

/// What the daemon writes about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// `log`: which log lines `walferry run` writes; `info` by default. `--verbose` and `RUST_LOG` win over it.
    pub log: Option<LogFilter>,
    /// `otlp` and `ca_file`: the OpenTelemetry collector that traces are sent to, as OTLP over HTTP; none by default.
    pub otlp: Option<Collector>,
}

/// A level, such as `debug`, for walferry's own lines, or a filter as `RUST_LOG` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// A collector, and who may vouch for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// `otlp`: its address, such as `https://collector:4318`, without a path.
    pub address: String,
    /// `ca_file`: the certificates of the authorities that are trusted, instead of those that the system trusts.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
}

/// What `otlp` says.
struct Address(String);

// === impl Telemetry ===

impl Telemetry {
    pub(super) fn read(mut section: Section<'_>, folder: &Path) -> Self {
        let log = section.optional("log");
        let otlp = Collector::read(&mut section, folder);
        section.finish();
        Self { log, otlp }
    }
}

// === impl LogFilter ===

impl LogFilter {
    /// The filter of a level: what others than walferry say only from warnings on.
    pub fn of(level: LevelFilter) -> Self {
        Self(level.to_string())
    }

    /// The same for the subscriber.
    pub fn filter(&self) -> EnvFilter {
        match self.0.parse::<LevelFilter>() {
            Ok(level) => EnvFilter::new(format!("warn,walferry={level}")),
            Err(_) => EnvFilter::new(&self.0),
        }
    }
}

impl Setting for LogFilter {
    fn from_value(value: Value) -> Result<Self, String> {
        let wanted = || {
            "off, error, warn, info, debug or trace, or a filter like \"warn,walferry=debug\""
                .to_owned()
        };
        let text = String::from_value(value).map_err(|_| wanted())?;
        // A filter takes a word that is no level for the name of a module.
        let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
        let is_understood = |part: &str| part.contains('=') || is_level(part);
        let is_filter = EnvFilter::try_new(&text).is_ok() && text.split(',').all(is_understood);
        if is_filter {
            Ok(Self(text))
        } else {
            Err(wanted())
        }
    }

    fn shown(&self) -> Json {
        self.0.as_str().into()
    }
}

// === impl Collector ===

impl Collector {
    /// The address is OTLP over HTTP, by TLS where it begins with `https`.
    fn read(section: &mut Section<'_>, folder: &Path) -> Option<Self> {
        let is_named = section.has("otlp");
        let address = section.optional::<Address>("otlp");
        let file = section.optional::<String>("ca_file");
        let is_safe = |it: &Address| it.0.starts_with(SAFE);
        // A mistaken address is one mistake.
        if file.is_some() && !address.as_ref().map_or(is_named, is_safe) {
            section.problem("ca_file", format!("is for an otlp that begins with {SAFE}"));
        }
        let authorities = file.and_then(|file| {
            let read = authorities(&folder.join(&file));
            let failed = |why| section.problem("ca_file", format!("reading {file}: {why}"));
            read.map_err(failed).ok()
        });
        Some(Self {
            address: address?.0,
            authorities,
        })
    }

    /// Whether it is reached by TLS.
    pub fn is_safe(&self) -> bool {
        self.address.starts_with(SAFE)
    }
}

/// The certificates of a PEM file; at least one.
fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(file).map_err(|error| error.to_string())?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    Ok(certificates)
}

// === impl Address ===

impl Setting for Address {
    fn from_value(value: Value) -> Result<Self, String> {
        let wanted = || {
            "an address like \"https://collector:4318\" or \"http://collector:4318\", without a user or a path"
                .to_owned()
        };
        let text = String::from_value(value).map_err(|_| wanted())?;
        let text = text.strip_suffix('/').unwrap_or(&text);
        let is_place = |place: &&str| place.parse::<Authority>().is_ok() && !place.contains('@');
        let place = text.strip_prefix(SAFE).or(text.strip_prefix("http://"));
        place.filter(is_place).ok_or_else(wanted)?;
        Ok(Self(text.to_owned()))
    }

    fn shown(&self) -> Json {
        self.0.as_str().into()
    }
}

//! Spans of the engine's work, for an OpenTelemetry collector.
//!
//! - Without a collector no span is made and none of its fields is computed.
//! - Spans are of groups, chunks, tables and connections, never of rows.
//! - They are sent in the background from a bounded queue: a collector that is away costs the spans, and one warning. So
//!   does one by whose certificate it cannot be known.
//! - They go to the collector that is named, never to another one that it points to.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use rustls::crypto::ring;
use tracing::{Instrument, Span, debug, info, warn};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::config::Collector;

/// What marks a span as one for the collector. Log lines that are written within it name it, and are its events.
pub(crate) const TARGET: &str = "walferry::spans";
/// How long one request to the collector may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a process that ends waits for its last spans to be sent.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// A span for the collector, which [`within`] can mark as failed.
macro_rules! span {
    ($name:literal $(, $($fields:tt)*)?) => {
        tracing::info_span!(
            target: $crate::traces::TARGET,
            $name,
            otel.status_code = tracing::field::Empty,
            otel.status_description = tracing::field::Empty,
            $($($fields)*)?
        )
    };
}
pub(crate) use span;

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Sends requests to a collector, and says so once when it is away.
#[derive(Debug)]
struct Post {
    agent: ureq::Agent,
    is_away: AtomicBool,
}

// === impl Post ===

impl Post {
    fn to(collector: &Collector) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .tls_config(tls(collector))
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        Self {
            agent,
            is_away: AtomicBool::new(false),
        }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, &body[..]);
        let (head, mut body) = self.agent.run(request)?.into_parts();
        Ok(Response::from_parts(head, body.read_to_vec()?.into()))
    }

    fn tell(&self, sent: &Result<Response<Bytes>, ureq::Error>) {
        let problem = match sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answers {}", answer.status())),
            Err(error) => Some(explained(error)),
        };
        let was_away = self.is_away.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(error) if !was_away => {
                warn!(
                    error,
                    "traces cannot be sent to [telemetry] otlp; they are dropped until they can"
                );
            }
            Some(error) => debug!(error, "traces cannot be sent"),
            None if was_away => info!("traces are sent again"),
            None => {}
        }
    }
}

/// It blocks: it is called on the exporter's own thread.
#[async_trait::async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.send(request);
        self.tell(&sent);
        Ok(sent?)
    }
}

/// What went wrong, and where a certificate is not trusted what decides that.
fn explained(error: &ureq::Error) -> String {
    let tls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|it| it.downcast_ref()),
        _ => None,
    };
    match tls {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            format!(
                "the collector's certificate: {reason}: [telemetry] ca_file names whom to trust"
            )
        }
        _ => error.to_string(),
    }
}

/// By what a collector is known: a certificate of the authorities that are named, or of those that the system trusts.
fn tls(collector: &Collector) -> TlsConfig {
    let authorities = match &collector.authorities {
        Some(authorities) => authorities.clone(),
        None if collector.is_safe() => rustls_native_certs::load_native_certs().certs,
        None => Vec::new(),
    };
    let authorities = authorities
        .iter()
        .map(|it| Certificate::from_der(it).to_owned());
    TlsConfig::builder()
        .root_certs(RootCerts::from(authorities))
        // Named here, as for the other connections: no default for the whole process is set or used.
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build()
}

/// What takes the spans to a collector; to be called once per process.
///
/// # Errors
/// When the environment's `OTEL_` variables cannot be used.
pub(crate) fn layer<S>(collector: &Collector) -> Result<impl Layer<S> + use<S>, ExporterBuildError>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Post::to(collector))
        .with_endpoint(format!("{}/v1/traces", collector.address))
        .with_timeout(PATIENCE)
        .build()?;
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name("walferry").build())
        .with_batch_exporter(exporter)
        .build();
    let tracer = PROVIDER.get_or_init(|| provider).tracer("walferry");
    Ok(OpenTelemetryLayer::new(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false))
}

/// Sends what is left, for a moment: the process is about to end.
pub(crate) fn finish() {
    let Some(provider) = PROVIDER.get() else {
        return;
    };
    if let Err(error) = provider.shutdown_with_timeout(LAST_SPANS) {
        debug!(%error, "the last traces were not sent");
    }
}

/// A filter of log lines that lets the spans pass too, or none of them.
pub(crate) fn with_spans(filter: EnvFilter, is_traced: bool) -> EnvFilter {
    let level = if is_traced { "info" } else { "off" };
    let directive = format!("{TARGET}={level}").parse();
    filter.add_directive(directive.expect("a target and a level"))
}

/// An attempt to reach servers.
pub(crate) fn connecting(servers: &'static str) -> Span {
    span!("connect", servers)
}

/// Runs work within its span, and notes there how it failed.
pub(crate) async fn within<T, E: Display>(
    span: Span,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let done = work.instrument(span.clone()).await;
    if let Err(error) = &done {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", error.to_string());
    }
    done
}

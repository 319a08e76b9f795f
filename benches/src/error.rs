//! Why a measurement could not be made.

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("running the private servers")]
    Harness(#[from] walferry_harness::Error),
    #[error("{doing}")]
    Io {
        doing: String,
        source: std::io::Error,
    },
    #[error("asking PostgreSQL")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("asking MongoDB")]
    Mongo(#[from] mongodb::error::Error),
    #[error("asking Kafka")]
    Kafka(#[from] rdkafka::error::KafkaError),
    #[error("reading or writing JSON")]
    Json(#[from] serde_json::Error),
    #[error("encoding a command")]
    Bson(#[from] bson::error::Error),
    #[error("reading into a log that keeps nothing")]
    Capture(#[from] walferry::capture::CaptureError),
    #[error("making the retail system")]
    Retail(#[from] walferry_retail::Error),
    #[error("reading the configuration of the rules")]
    Config(#[from] walferry::config::ConfigError),
    #[error("asking the rules")]
    Analytics(#[from] walferry::analytics::AnalyticsError),
    #[error("{rule}: {why}")]
    Rule { rule: String, why: String },
    #[error("a task of the bench ended badly")]
    Task(#[from] tokio::task::JoinError),
    #[error("MongoDB is not equal to PostgreSQL after {after}: {difference}")]
    Different { after: String, difference: String },
    #[error("the engine ended early; the end of its log:\n{tail}")]
    EngineEnded { tail: String },
    #[error("{what} has no {field}: the server answered in an unknown form")]
    Answer {
        what: &'static str,
        field: &'static str,
    },
    #[error("{program} failed; the end of its log:\n{tail}")]
    Program { program: String, tail: String },
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

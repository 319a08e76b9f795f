//! What goes wrong with Kafka, and what to do about it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use walferry_core::{Class, Classify};
use walferry_schema::LogFormatError;
use walferry_schema::header::{HeaderError, POSITION};

/// An error of the Kafka connector.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A property of [`crate::Settings::extra`] that walferry's promises rest on.
    #[error("the kafka property {0} is walferry's own to set: remove it from the configuration")]
    Reserved(String),
    /// librdkafka does not take the settings. The value is not shown: it may be a secret.
    #[error(
        "configuring the kafka client: the property {property} is unknown or has a value it cannot have"
    )]
    Property {
        /// The property's name.
        property: String,
    },
    /// The client could not be made.
    #[error("making a kafka client")]
    Client(#[source] KafkaError),
    /// A topic exists with another number of partitions than configured.
    #[error(
        "topic {topic} has {found} partitions and not {expected}: set the table's partitions to \
         {found}, or delete the topic and begin a new generation with a snapshot"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: usize,
        /// How many were asked for.
        expected: i32,
    },
    /// A topic is compacted, so that records may vanish before they are applied.
    #[error(
        "topic {topic} has cleanup.policy={policy}, which removes records before they are applied: \
         set it to delete"
    )]
    Compacted {
        /// The topic.
        topic: String,
        /// Its policy.
        policy: String,
    },
    /// A topic could not be made.
    #[error("making topic {topic}: {reason}")]
    CreateTopic {
        /// The topic.
        topic: String,
        /// What to do about it.
        reason: &'static str,
        /// Kafka's answer.
        source: Code,
    },
    /// A topic that was just made does not show up.
    #[error("waiting for the new topic {topic} to get its leaders")]
    NotReady {
        /// The topic.
        topic: String,
    },
    /// Asking the servers failed.
    #[error("asking kafka for {what}")]
    Ask {
        /// What was asked for.
        what: String,
        /// The cause.
        source: KafkaError,
    },
    /// No broker can be talked to as safely as the properties ask. That it passes is possible: a certificate may have
    /// expired, which librdkafka does not tell from one that was never right.
    #[error(
        "asking kafka for {what}: TLS fails: {reason}; check security.protocol and ssl.ca.location of [kafka.properties], \
         with ssl.certificate.location and ssl.key.location where brokers ask who we are; a broker's certificate must be \
         valid now, for the name in its advertised.listeners, and of an authority in ssl.ca.location"
    )]
    Tls {
        /// What was asked for.
        what: String,
        /// What librdkafka says.
        reason: String,
    },
    /// Records are sent before a term has begun.
    #[error("sending to kafka before a term has begun")]
    NotBegun,
    /// The pace changes in the middle of what is being sent.
    #[error("changing the pace while records are in flight")]
    InFlight,
    /// A record is larger than the log takes.
    #[error(
        "record of {bytes} bytes for topic {topic} is larger than the limit of {limit}: raise \
         kafka.max_record_bytes and the topic's max.message.bytes"
    )]
    TooLarge {
        /// The topic.
        topic: String,
        /// The record's size: key, value and headers.
        bytes: usize,
        /// What the settings allow.
        limit: usize,
    },
    /// The servers refuse a record for its size.
    #[error(
        "kafka refuses a record of {bytes} bytes for topic {topic}: raise the topic's \
         max.message.bytes (and the brokers' message.max.bytes)"
    )]
    Refused {
        /// The topic.
        topic: String,
        /// The record's size: key and value.
        bytes: usize,
    },
    /// A record could not be delivered: the term is over.
    #[error("delivering a record to topic {topic}")]
    Delivery {
        /// The topic.
        topic: String,
        /// The cause.
        source: KafkaError,
    },
    /// An acknowledgement without an offset, or none because the producer is gone.
    #[error("awaiting the acknowledgement of a commit log record: the producer gave no offset")]
    NoOffset,
    /// Kafka does not have the offset that is to be read next.
    #[error(
        "topic {topic}, partition {partition} does not hold offset {offset}: records were deleted \
         before they were applied, or the topic was made anew. Begin a new generation with a \
         snapshot, and raise the topic's retention if the sink was merely late"
    )]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset that was to be read.
        offset: i64,
    },
    /// A topic that should be read does not exist.
    #[error(
        "topic {topic}, partition {partition} does not exist: it was deleted, or never made. Begin \
         a new generation with a snapshot"
    )]
    UnknownTopic {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// There is no commit log yet.
    #[error("the commit log {topic} does not exist: start the reader, which makes it")]
    NoCommitLog {
        /// The topic.
        topic: String,
    },
    /// Kafka does not let us in.
    #[error(
        "kafka refuses access to {what}: check the credentials (sasl.username, \
         sasl.password, sasl.mechanism) and ACLs of walferry's user"
    )]
    Denied {
        /// What was to be used.
        what: String,
        /// Kafka's answer.
        source: Code,
    },
    /// A partition cannot be read.
    #[error("reading topic {topic}, partition {partition} at offset {offset}")]
    Read {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset that was to be read.
        offset: i64,
        /// The cause.
        source: KafkaError,
    },
    /// The partitions to read could not be set.
    #[error("assigning the partitions to read")]
    Assign(#[source] KafkaError),
    /// Reading the commit log took too long.
    #[error("reading the commit log {topic} from offset {offset}: kafka does not answer in time")]
    ScanTimeout {
        /// The topic.
        topic: String,
        /// The offset that was to be read.
        offset: i64,
    },
    /// A row's record without a position is not walferry's.
    #[error(
        "topic {topic}, partition {partition}, offset {offset} has no header {POSITION}: walferry \
         did not write it. Let nobody else write to this topic, and begin a new generation"
    )]
    ForeignRecord {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The record's offset.
        offset: i64,
    },
    /// A row's record whose headers cannot be read.
    #[error("reading the headers of topic {topic}, partition {partition}, offset {offset}")]
    Header {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The record's offset.
        offset: i64,
        /// The cause.
        source: HeaderError,
    },
    /// A record of the commit log that cannot be read.
    #[error("reading offset {offset} of the commit log {topic}")]
    LogRecord {
        /// The topic.
        topic: String,
        /// The record's offset.
        offset: i64,
        /// The cause.
        source: LogFormatError,
    },
    /// A partition is spoken of that is not being read.
    #[error("reading a partition that is not assigned")]
    NotAssigned,
    /// The runtime stopped before a blocking call ended.
    #[error("waiting for a call to kafka")]
    Interrupted(#[source] tokio::task::JoinError),
}

// === impl Error ===

impl Error {
    pub(crate) fn ask(what: impl Into<String>, source: KafkaError) -> Self {
        match source.rdkafka_error_code() {
            Some(code) if is_denied(code) => Self::Denied {
                what: what.into(),
                source: code,
            },
            _ => Self::Ask {
                what: what.into(),
                source,
            },
        }
    }

    /// The error of a record that was not delivered.
    pub(crate) fn delivery(topic: &str, bytes: usize, source: KafkaError) -> Self {
        let topic = topic.to_owned();
        match source.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => {
                Self::Refused { topic, bytes }
            }
            Some(code) if is_denied(code) => Self::Denied {
                what: format!("topic {topic}"),
                source: code,
            },
            _ => Self::Delivery { topic, source },
        }
    }
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::TooLarge { .. } | Self::Refused { .. } => Class::Poison,
            Self::Reserved(_)
            | Self::Property { .. }
            | Self::Partitions { .. }
            | Self::Compacted { .. }
            | Self::CreateTopic { .. }
            | Self::InFlight
            | Self::NotBegun
            | Self::OffsetOutOfRange { .. }
            | Self::UnknownTopic { .. }
            | Self::Denied { .. }
            | Self::ForeignRecord { .. }
            | Self::Header { .. }
            | Self::LogRecord { .. }
            | Self::NotAssigned => Class::Fatal,
            // The properties are the same as when a client was first made; the files that they name may not be.
            Self::Client(_) => Class::File,
            Self::NotReady { .. }
            | Self::Ask { .. }
            | Self::Tls { .. }
            | Self::Delivery { .. }
            | Self::NoOffset
            | Self::NoCommitLog { .. }
            | Self::Read { .. }
            | Self::Assign(_)
            | Self::ScanTimeout { .. }
            | Self::Interrupted(_) => Class::Transient,
        }
    }
}

/// Whether an operator must change credentials or ACLs.
pub(crate) fn is_denied(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
    )
}

/// Whether librdkafka will get over it by itself.
pub(crate) fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
    )
}

pub(crate) fn is_unknown_topic(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicId
    )
}

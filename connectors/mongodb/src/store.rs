//! The connection, and commands whose answers are checked.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, ReadPreference, SelectionCriteria};
use mongodb::{Client, ClientSession, Database};

use crate::command::Limits;
use crate::document::id_filter;
use crate::{Error, Result, Settings};

/// Where positions and loads are recorded.
const WALFERRY: &str = "_walferry";
/// The first MongoDB whose transactions span everything that is done here: 4.4.
const MIN_WIRE_VERSION: i32 = 9;

/// A MongoDB that can be written.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) settings: Settings,
    pub(crate) client: Client,
}

/// What a write command did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// How many documents were inserted, matched or deleted; upserted ones are counted too.
    pub(crate) n: usize,
    /// How many were upserted.
    pub(crate) upserted: usize,
    /// The statements that failed.
    pub(crate) errors: Vec<WriteError>,
}

/// A statement that failed.
#[derive(Clone, Debug)]
pub(crate) struct WriteError {
    pub(crate) index: usize,
    pub(crate) code: i32,
    pub(crate) message: String,
}

// === impl Store ===

impl Store {
    /// Reads the URL and sees whether the server has transactions.
    pub(crate) async fn connect(settings: Settings) -> Result<Self> {
        let mut options = ClientOptions::parse(&settings.url)
            .await
            .map_err(|_| Error::Url)?;
        options
            .app_name
            .get_or_insert_with(|| "walferry".to_owned());
        // Transactions and positions are read where they are written.
        options.selection_criteria =
            Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        options.read_concern = None;
        options.write_concern = None;
        options
            .server_selection_timeout
            .get_or_insert(Duration::from_secs(10));
        let client = Client::with_options(options).map_err(unusable)?;
        let store = Self { settings, client };
        store.check_server().await?;
        Ok(store)
    }

    /// The database of the tables' collections.
    pub(crate) fn database(&self) -> Database {
        self.client.database(&self.settings.database)
    }

    /// The database of walferry's own documents.
    pub(crate) fn own_database(&self) -> Database {
        self.client.database(WALFERRY)
    }

    /// The database of commands about the whole server.
    pub(crate) fn admin(&self) -> Database {
        self.client.database("admin")
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            operations: self.settings.max_command_operations,
            bytes: self.settings.max_command_bytes,
        }
    }

    /// Runs a command outside of any session of ours.
    pub(crate) async fn run(
        &self,
        database: &Database,
        command: Document,
        doing: &'static str,
    ) -> Result<Document> {
        self.in_time(database.run_command(command), doing).await
    }

    /// Runs a write command, in a transaction when there is a session.
    pub(crate) async fn write(
        &self,
        session: Option<&mut ClientSession>,
        command: RawDocumentBuf,
        doing: &'static str,
    ) -> Result<Written> {
        let database = self.database();
        let run = database.run_raw_command(command);
        let answer = match session {
            Some(session) => self.in_time(run.session(session), doing).await?,
            None => self.in_time(run, doing).await?,
        };
        Written::from_answer(&answer, doing)
    }

    /// The document with an `_id` (type byte and payload); none when there is none.
    pub(crate) async fn document(
        &self,
        collection: &str,
        id: &[u8],
    ) -> Result<Option<RawDocumentBuf>> {
        let documents = self.database().collection::<RawDocumentBuf>(collection);
        let find = documents.find_one(id_filter(id)?);
        self.in_time(find, "reading a document").await
    }

    /// Awaits the driver, but not for ever: it has no time limit of its own for an answer.
    pub(crate) async fn in_time<T>(
        &self,
        driver: impl IntoFuture<Output = mongodb::error::Result<T>>,
        doing: &'static str,
    ) -> Result<T> {
        let driver = Box::pin(driver.into_future());
        match tokio::time::timeout(self.settings.command_timeout, driver).await {
            Ok(answer) => answer.map_err(Error::server(doing)),
            Err(_) => Err(Error::NoAnswer { doing }),
        }
    }

    async fn check_server(&self) -> Result<()> {
        let hello = doc! { "hello": 1 };
        let hello = self
            .run(&self.admin(), hello, "connecting to MongoDB")
            .await?;
        let is_member = hello.get_str("setName").is_ok();
        let is_router = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
        let version = hello.get_i32("maxWireVersion").unwrap_or_default();
        if (is_member || is_router) && version >= MIN_WIRE_VERSION {
            return Ok(());
        }
        Err(Error::NoTransactions)
    }
}

// === impl Written ===

impl Written {
    /// That every statement on a collection was carried out.
    pub(crate) fn accepted(&self, doing: &'static str, collection: &str) -> Result<()> {
        let Some(error) = self.errors.first() else {
            return Ok(());
        };
        Err(Error::CollectionRefused {
            doing,
            collection: collection.to_owned(),
            code: error.code,
            message: error.message.clone(),
        })
    }

    pub(crate) fn from_answer(answer: &Document, doing: &'static str) -> Result<Self> {
        let n = answer.get("n").and_then(number);
        let n = n.ok_or(Error::Answer { doing, field: "n" })?;
        let upserted = answer.get_array("upserted").map_or(0, Vec::len);
        let errors = answer
            .get_array("writeErrors")
            .map_or(&[][..], Vec::as_slice);
        let errors = errors
            .iter()
            .filter_map(bson::Bson::as_document)
            .map(WriteError::new);
        let errors = errors.collect();
        Ok(Self {
            n,
            upserted,
            errors,
        })
    }
}

// === impl WriteError ===

impl WriteError {
    fn new(error: &Document) -> Self {
        Self {
            index: error.get("index").and_then(number).unwrap_or_default(),
            code: error.get_i32("code").unwrap_or_default(),
            message: error.get_str("errmsg").unwrap_or_default().to_owned(),
        }
    }
}

/// What the driver finds when it reads what the URL names; no secret is in these.
fn unusable(error: mongodb::error::Error) -> Error {
    match error.kind.as_ref() {
        ErrorKind::InvalidTlsConfig { .. } | ErrorKind::Io(_) => Error::TlsFile(error),
        _ => Error::Url,
    }
}

/// A count in an answer: 32 or 64 bits, or a double from an old router.
fn number(value: &bson::Bson) -> Option<usize> {
    match value {
        bson::Bson::Int32(n) => usize::try_from(*n).ok(),
        bson::Bson::Int64(n) => usize::try_from(*n).ok(),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of at most 100,000"
        )]
        bson::Bson::Double(n) => Some(*n as usize),
        _ => None,
    }
}

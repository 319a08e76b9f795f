//! Whether a database can be the source of a pipeline: everything that is wrong with it at once.
//!
//! - It only looks.
//! - What it finds wanting comes with the statement that mends it.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use walferry_core::{Fault, Finding, Tasks, Verdict};
use walferry_schema::TableName;

use crate::catalog::KEY_INDEX;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::identifier::{self, quoted};
use crate::monitor::{SlotMonitor, SlotReport};
use crate::settings::Settings;
use crate::sql::Sql;

const EXAMINING: &str = "examining the source";
/// The versions that are tested are among these.
const SUPPORTED: std::ops::RangeInclusive<i32> = 14..=18;
/// WAL that a slot keeps before that is worth a word.
const MUCH_WAL: u64 = 10 << 30;

/// A managed service may grant replication by membership in a role of its own.
const SERVER: &str = "
    select pg_catalog.current_setting('server_version_num')::int4, pg_catalog.current_setting('server_version'),
           pg_catalog.current_setting('wal_level'), pg_catalog.current_setting('max_replication_slots')::int4,
           (select count(*) from pg_catalog.pg_replication_slots)::int4,
           pg_catalog.current_setting('max_wal_senders')::int4, (select count(*) from pg_catalog.pg_stat_replication)::int4,
           r.rolname::text, r.rolsuper or r.rolreplication
               or exists (select from pg_catalog.pg_roles g
                          where g.rolname = 'rds_replication' and pg_catalog.pg_has_role(g.oid, 'member')),
           extract(epoch from pg_catalog.clock_timestamp())::float8
    from pg_catalog.pg_roles r where r.rolname = current_user";
const PUBLICATION: &str = "
    select puballtables, pubinsert, pubupdate, pubdelete, pubtruncate
    from pg_catalog.pg_publication where pubname = $1";

/// What the configuration does with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableUse {
    /// Its changes are followed.
    Streamed,
    /// It is loaded as it is.
    Loaded,
    /// Nothing.
    Ignored,
}

/// What is known of one table.
struct Table {
    name: TableName,
    kind: Kind,
    is_published: bool,
    is_readable: bool,
    hides_rows: bool,
    /// The replica identity: `d`, `n`, `f` or `i`.
    identity: String,
    key: Key,
}

/// What a table is, as far as a publication cares.
enum Kind {
    /// Its rows are in its partitions.
    Partitioned,
    /// Its changes are not in the WAL.
    Unlogged,
    Ordinary,
}

/// What identifies the rows of a table.
enum Key {
    /// Nothing does.
    None,
    /// An index that is checked at the end of a transaction only.
    Deferrable(String),
    /// An index.
    Usable,
}

/// The server and our role on it.
struct Server {
    role: String,
    findings: Vec<Finding>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Examined {
    /// What following changes needs.
    pub findings: Vec<Finding>,
    /// What else was found: of the slot that is there, and of tables that are loaded.
    pub beside: Vec<Finding>,
    /// The tables that the configuration does something with, in name order.
    pub tables: Vec<(TableName, TableUse)>,
}

/// Looks at everything that reading from a database needs.
pub async fn examine(
    settings: &Settings,
    use_of: &(dyn Fn(&TableName) -> TableUse + Sync),
    tasks: &Tasks,
) -> Examined {
    let mut examined = Examined::default();
    if let Err(error) = examined.look(settings, use_of, tasks).await {
        let failed = Finding::failed("PostgreSQL", &Fault::from(error));
        examined.findings.push(failed);
    }
    examined
}

// === impl Examined ===

impl Examined {
    async fn look(
        &mut self,
        settings: &Settings,
        use_of: &(dyn Fn(&TableName) -> TableUse + Sync),
        tasks: &Tasks,
    ) -> Result<()> {
        let mut sql = Sql::new(Endpoint::parse(&settings.url)?, tasks.clone());
        let client = sql.client().await?;
        let report = SlotMonitor::new(settings, tasks.clone())?.measure().await?;
        let server = examine_server(client, report.slot.is_some()).await?;
        self.findings.extend(server.findings);
        self.beside.push(slot(&report, &settings.slot));
        let publication = examine_publication(client, &settings.publication).await?;
        self.findings.push(publication);
        let all = tables(client, &settings.publication).await?;
        for table in &all {
            let usage = use_of(&table.name);
            let wrong = table.judge(usage, &settings.publication, &server.role);
            match usage {
                TableUse::Streamed => self.findings.extend(wrong),
                TableUse::Loaded | TableUse::Ignored => self.beside.extend(wrong),
            }
            if usage == TableUse::Loaded || usage == TableUse::Streamed && table.is_published {
                self.tables.push((table.name.clone(), usage));
            }
        }
        self.findings.push(self.chosen(all.len()));
        Ok(())
    }

    fn chosen(&self, of: usize) -> Finding {
        let subject = "PostgreSQL: tables";
        let count = |wanted| self.tables.iter().filter(|(_, it)| *it == wanted).count();
        let (streamed, loaded) = (count(TableUse::Streamed), count(TableUse::Loaded));
        let found = format!("{streamed} streamed, {loaded} in batches, of {of}");
        if streamed > 0 {
            return Finding::pass(subject, found);
        }
        let remedy =
            "give [[table]]s of the publication mode = \"stream\": there is nothing to run";
        Finding::warn(subject, found, remedy)
    }
}

async fn examine_server(client: &Client, has_slot: bool) -> Result<Server> {
    let row = client.query_typed_one(SERVER, &[]).await;
    let row = row.map_err(Error::sql(EXAMINING))?;
    let role: String = row.get(7);
    let senders = room("max_wal_senders", row.get(5), row.get(6), false);
    let findings = vec![
        version(row.get(0), row.get(1)),
        wal_level(row.get(2)),
        replication_role(&role, row.get(8)),
        room("max_replication_slots", row.get(3), row.get(4), has_slot),
        // One comes free when a backup ends or a standby leaves: a start waits for it.
        Finding {
            verdict: senders.verdict.min(Verdict::Warn),
            ..senders
        },
        Finding::clock("PostgreSQL", row.get(9)),
    ];
    Ok(Server { role, findings })
}

fn version(number: i32, text: &str) -> Finding {
    let subject = "PostgreSQL: version";
    match number / 10_000 {
        major if SUPPORTED.contains(&major) => Finding::pass(subject, text),
        major if major < *SUPPORTED.start() => {
            Finding::fail(subject, text, "use PostgreSQL 14 or newer")
        }
        _ => Finding::warn(subject, text, "newer than any version that was tried"),
    }
}

fn wal_level(level: &str) -> Finding {
    let subject = "PostgreSQL: wal_level";
    if level == "logical" {
        return Finding::pass(subject, level);
    }
    let remedy = "ALTER SYSTEM SET wal_level = 'logical'; then restart the server";
    Finding::fail(subject, level, remedy)
}

fn replication_role(role: &str, may_replicate: bool) -> Finding {
    let subject = "PostgreSQL: role";
    if may_replicate {
        return Finding::pass(subject, format!("{role} may replicate"));
    }
    let remedy = format!("ALTER ROLE {} REPLICATION", quoted(role));
    Finding::fail(subject, format!("{role} may not replicate"), remedy)
}

fn room(setting: &str, most: i32, used: i32, is_ours_among_them: bool) -> Finding {
    let subject = format!("PostgreSQL: {setting}");
    let found = format!("{used} of {most} in use");
    if used < most || is_ours_among_them {
        return Finding::pass(subject, found);
    }
    let remedy = format!(
        "ALTER SYSTEM SET {setting} = {}; then restart the server",
        most + 5
    );
    Finding::fail(subject, found, remedy)
}

fn slot(report: &SlotReport, name: &str) -> Finding {
    let subject = format!("PostgreSQL: slot {name}");
    let Some(slot) = &report.slot else {
        return Finding::pass(subject, "not there yet; `walferry run` makes it");
    };
    let retained = slot.retained_bytes.unwrap_or_default();
    let kept = format!("{} MiB of WAL kept", retained >> 20);
    if slot.wal_status == "lost" {
        let remedy = "walferry run --new-snapshot; then raise max_slot_wal_keep_size";
        return Finding::fail(
            subject,
            "lost: the server removed WAL that it needed",
            remedy,
        );
    }
    if slot.is_active {
        return Finding::pass(subject, format!("in use by a running process, {kept}"));
    }
    if retained > MUCH_WAL {
        let remedy = "start `walferry run`, or drop the slot if nobody needs it any more";
        return Finding::warn(subject, kept, remedy);
    }
    Finding::pass(subject, kept)
}

async fn examine_publication(client: &Client, name: &str) -> Result<Finding> {
    let row = client
        .query_typed_opt(PUBLICATION, &[(&name, Type::TEXT)])
        .await;
    let row = row.map_err(Error::sql(EXAMINING))?;
    Ok(publication(name, row.as_ref()))
}

fn publication(name: &str, row: Option<&Row>) -> Finding {
    let subject = format!("PostgreSQL: publication {name}");
    let Some(row) = row else {
        let remedy = format!("CREATE PUBLICATION {} FOR ALL TABLES", quoted(name));
        return Finding::fail(subject, "does not exist", remedy);
    };
    let left_out: Vec<_> = ["insert", "update", "delete", "truncate"]
        .into_iter()
        .zip(1..)
        .filter(|(_, column)| !row.get::<_, bool>(*column))
        .map(|(operation, _)| operation)
        .collect();
    if left_out.is_empty() {
        let found = if row.get(0) {
            "all tables"
        } else {
            "chosen tables"
        };
        return Finding::pass(subject, found);
    }
    let found = format!("leaves out {}", left_out.join(", "));
    let remedy = format!(
        "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')",
        quoted(name)
    );
    Finding::fail(subject, found, remedy)
}

/// The tables that can be chosen. A partition is part of its table, unless the publication publishes it by itself.
async fn tables(client: &Client, publication: &str) -> Result<Vec<Table>> {
    let sql = format!(
        "select n.nspname::text, c.relname::text, p.is_published,
                pg_catalog.has_table_privilege(c.oid, 'SELECT') and pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
                pg_catalog.row_security_active(c.oid), c.relreplident::text, i.indexrelid is not null,
                case when not i.indimmediate then (select x.relname::text from pg_catalog.pg_class x
                                                   where x.oid = i.indexrelid) end,
                c.relkind = 'p', c.relpersistence = 'u'
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace {KEY_INDEX}
         cross join lateral (
             select exists (select from pg_catalog.pg_publication_tables t where t.pubname = $1
                            and t.schemaname = n.nspname and t.tablename = c.relname) as is_published) p
         where c.relkind in ('r', 'p') and c.relpersistence <> 't' and (p.is_published or not c.relispartition)
           and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
         order by 1, 2"
    );
    let rows = client
        .query_typed(&sql, &[(&publication, Type::TEXT)])
        .await;
    let key = |row: &Row| match (row.get(6), row.get(7)) {
        (false, _) => Key::None,
        (true, Some(index)) => Key::Deferrable(index),
        (true, None) => Key::Usable,
    };
    let table = |row: &Row| Table {
        name: TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)),
        is_published: row.get(2),
        is_readable: row.get(3),
        hides_rows: row.get(4),
        identity: row.get(5),
        key: key(row),
        kind: match (row.get(8), row.get(9)) {
            (true, _) => Kind::Partitioned,
            (_, true) => Kind::Unlogged,
            _ => Kind::Ordinary,
        },
    };
    let rows = rows.map_err(Error::sql(EXAMINING))?;
    Ok(rows.iter().map(table).collect())
}

// === impl Table ===

impl Table {
    /// What is wrong with it, for what the configuration does with it.
    fn judge(&self, usage: TableUse, publication: &str, role: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        match usage {
            TableUse::Streamed if self.is_published => {
                findings.extend(self.judge_access(role));
                findings.extend(self.judge_key());
            }
            TableUse::Streamed => findings.push(self.unpublished(publication)),
            TableUse::Loaded => findings.extend(self.judge_access(role)),
            TableUse::Ignored => {}
        }
        if self.is_published && self.is_update_refused() {
            let remedy = format!(
                "ALTER TABLE {} REPLICA IDENTITY FULL, or give it a primary key",
                identifier::table(&self.name)
            );
            let found = "published without a replica identity: the application's own UPDATE and DELETE fail";
            findings.push(Finding::warn(self.subject(), found, remedy));
        }
        findings
    }

    fn judge_access(&self, role: &str) -> Option<Finding> {
        let (table, role) = (identifier::table(&self.name), quoted(role));
        if !self.is_readable {
            let schema = quoted(&self.name.schema);
            let remedy = format!(
                "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {table} TO {role}"
            );
            return Some(Finding::fail(self.subject(), "may not be read", remedy));
        }
        self.hides_rows.then(|| {
            let found = "its row-level security hides rows from us";
            Finding::fail(
                self.subject(),
                found,
                format!("ALTER ROLE {role} BYPASSRLS"),
            )
        })
    }

    /// What is said of a table that is to be followed and whose changes are never sent.
    fn unpublished(&self, publication: &str) -> Finding {
        let (table, publication) = (identifier::table(&self.name), quoted(publication));
        let (found, remedy) = match self.kind {
            Kind::Ordinary => (
                "to be streamed, and not in the publication: its changes are never sent",
                format!("ALTER PUBLICATION {publication} ADD TABLE {table}"),
            ),
            Kind::Partitioned => (
                "to be streamed, and published by its partitions if at all: their names count, not its own",
                format!(
                    "ALTER PUBLICATION {publication} SET (publish_via_partition_root = true), ADD TABLE where it is not in it"
                ),
            ),
            Kind::Unlogged => (
                "to be streamed, and unlogged: its changes are not in the WAL",
                format!("ALTER TABLE {table} SET LOGGED, or configure it as batch"),
            ),
        };
        Finding::warn(self.subject(), found, remedy)
    }

    fn judge_key(&self) -> Option<Finding> {
        let table = identifier::table(&self.name);
        match &self.key {
            Key::Usable => None,
            Key::Deferrable(index) => {
                let found = format!(
                    "its key {index} is deferrable: two rows may have the same for a while"
                );
                let index = quoted(index);
                let remedy =
                    format!("ALTER TABLE {table} DROP CONSTRAINT {index}, ADD PRIMARY KEY (...)");
                Some(Finding::fail(self.subject(), found, remedy))
            }
            Key::None => {
                let found = "has no key: no document could be told from another";
                let remedy = format!(
                    "ALTER TABLE {table} ADD PRIMARY KEY (...), or REPLICA IDENTITY USING INDEX of a unique index"
                );
                Some(Finding::fail(self.subject(), found, remedy))
            }
        }
    }

    /// Whether the server refuses to update its rows, because nothing would say which.
    fn is_update_refused(&self) -> bool {
        match &*self.identity {
            "n" => true,
            "d" => matches!(self.key, Key::None),
            _ => false,
        }
    }

    fn subject(&self) -> String {
        format!("PostgreSQL: table {}", self.name)
    }
}

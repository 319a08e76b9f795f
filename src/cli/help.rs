//! What `--help` says beyond the options.

pub(super) const OVERVIEW: &str = "\
Configuration: walferry.toml, every key overridable by the environment: WALFERRY__SOURCE__URL
is `url` of [source]. `walferry <command> --help` tells more.

Exit codes:
  0  done, or stopped in order
  1  failed; the message says what to do
  2  the command line or the configuration is mistaken
  3  verify found differences, fidelity what may be lost, preview a row without a document,
     access plan steps to take
  4  another process has taken over the pipeline; do not restart this one
  5  trace found the change on its way
  6  trace did not find the change
  141  whoever read the results went away";

pub(super) const RUN: &str = "\
Streams the changes of the tables with mode = \"stream\" until it is told to stop.

The first start makes the replication slot, the topics and the collections, and copies the tables as
they are at that moment; a later start goes on where the last one stopped, whatever ended it. The
changes of one PostgreSQL transaction become visible in MongoDB together and in commit order.

SIGTERM or Ctrl-C stops in order: what was read is written, positions are stored, the slot is freed.
A second signal leaves at once; the next start then repeats a little, and no change is lost or
applied twice.

SIGHUP reads the configuration again. The log level, group_rows, group_bytes and tables of mode
\"batch\" or \"ignore\" behind the streamed ones change at once; the log and `walferry status` name
what waits for a restart. A configuration with mistakes changes nothing.";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  walferry run
  walferry run --config /etc/walferry.toml --log-format json
  walferry run --new-snapshot        copy everything anew, readers keep the old tables until then

Exit codes:
  0  stopped in order
  1  failed; the message says what to do
  2  the command line or the configuration is mistaken
  4  another process has taken over this pipeline; do not restart this one";

pub(super) const INIT: &str = "\
Looks at a database and proposes how to follow it: writes the configuration, with the reason for each
choice, and prints the statements that a superuser runs once: a role that may do no more than it needs,
and the publication. An existing file is never overwritten, and no password is written.

A table with a key that changes after it was loaded is streamed, one that does not is loaded in
batches, one without a key is left out. Change what you know better.";

pub(super) const INIT_EXAMPLES: &str = "\
Examples:
  walferry init --from postgres://postgres@db/shop --to mongodb://target/shop?replicaSet=rs0
  walferry init --from postgres://postgres@db/shop --to mongodb://target/shop --brokers kafka:9092 \\
      --config shop.toml | psql postgres://postgres@db/shop

Exit codes:
  0  the configuration is written
  1  the database could not be asked, or the file is there
  2  the command line is mistaken";

pub(super) const PLAN: &str = "\
Says what `walferry run` and `walferry backfill` would do now: the slot, the topics, what becomes of
each table with its rows and size, and which collections a copy takes the place of, with how many indexes that
it makes anew. It changes nothing;
`walferry check` says whether it would succeed.";

pub(super) const PLAN_EXAMPLES: &str = "\
Examples:
  walferry plan
  walferry plan --json | jq '.tables[] | select(.step == \"not_published\")'

Exit codes:
  0  the plan is shown
  1  a server could not be asked
  2  the command line or the configuration is mistaken";

pub(super) const CHECK: &str = "\
Looks at PostgreSQL, Kafka and MongoDB as the configuration names them: versions, wal_level, roles and
grants, the publication, the slot and the WAL that it keeps, keys and replica identities of the tables,
topics and their settings, privileges, unique indexes, clocks. It changes nothing.

Each line is PASS, WARN (it works, for now), AWAY (could not be looked at) or FAIL, with the statement
that mends it. Before `walferry run` makes a slot it looks at all that following changes needs, and refuses on
FAIL.";

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  walferry check
  walferry check --json | jq '.findings[] | select(.verdict == \"FAIL\")'

Exit codes:
  0  nothing failed
  1  something has to be mended first, or a server did not answer
  2  the command line or the configuration is mistaken";

pub(super) const STATUS: &str = "\
Shows what the running daemon says of itself: what it is doing, how far MongoDB is behind PostgreSQL
and which stage is waited for, WAL that PostgreSQL keeps, rows by table, what waits for you with the
command that mends it (a pause, transactions passed over, drifted tables, dead letters), and the last
error.

When no daemon answers it shows what the servers know, and says so: the slot, the WAL that is kept for it,
and where the sink left off. As JSON that object has \"from\": \"servers\".

With --watch it looks each second, until Ctrl-C, and waits for a daemon that is away.

It asks the daemon at `listen` of [admin], where / is a page with the same, /metrics is for
Prometheus, and /live and /ready are for whoever watches over processes.";

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  walferry status
  walferry status --watch
  walferry status --json | jq .lag.seconds

Exit codes:
  0  changes are followed, tables are copied, or the pipeline is paused
  1  the daemon is starting, tries again after an error, was taken over, or does not answer, whatever the
     servers say
  2  the command line or the configuration is mistaken";

pub(super) const TOP: &str = "\
Shows live, in the terminal, what `walferry status` does: the stages with their rates, the one that is
waited for marked, how far MongoDB is behind, the slot and the WAL that it keeps, rows per second as a
curve, how soon changes are visible, the tables with their rates, and the last errors with what to do.

It looks each second; a daemon that is away is waited for. q, Esc or Ctrl-C leaves, the arrows, PageUp,
PageDown, Home and End go through the tables, s sorts them by rate, rows or name. NO_COLOR is respected.";

pub(super) const TOP_EXAMPLES: &str = "\
Examples:
  walferry top
  walferry top --config /etc/walferry.toml
  walferry status --watch --json | jq .lag     where there is no terminal

Exit codes:
  0  it was left, by a key or a signal
  1  it cannot ask: there is no [admin] listen, or another program listens there
  2  the command line or the configuration is mistaken, or there is no terminal to draw on";

pub(super) const TRACE: &str = "\
Follows one change from its commit in PostgreSQL through Kafka until readers of MongoDB see it: when it
came to each stage, how long that took, where its records stand, and where it waits if it is not there.

An LSN is that of a commit, as the log and the records' headers name it and as pg_current_wal_lsn() shows
it afterwards where nobody else writes; the transaction is the one that ended there, or first after it. A
table and the key of a row stand for the last change of that row: among the table's newest 500,000 records
of a partition, without Kafka in MongoDB's oplog.

It asks the servers, not the daemon, and changes nothing. When a change became visible stands in MongoDB's
oplog, which takes `read` on the database local; without it the answer is only whether it is applied. Times
are by each server's own clock.";

pub(super) const TRACE_EXAMPLES: &str = "\
Examples:
  walferry trace 0/1A2B3C4
  walferry trace public.inventory 5 101    a key of two columns
  walferry trace 0/1A2B3C4 --json | jq .slowest

Exit codes:
  0  applied
  1  failed; the message says what to do
  2  the command line or the configuration is mistaken: no such table, not its key
  5  on its way; the answer says where it waits and why
  6  not found; the answer says what is known";

pub(super) const BACKFILL: &str = "\
Loads the tables with mode = \"batch\" as they are now, all from one snapshot.

Each table goes into a staging collection; when its count is PostgreSQL's and the indexes of the
collection in use are copied, it takes that collection's place at once. Readers never see half a
load, a load that fails leaves the old collection as it was, and a rerun changes nothing. The other
tables go on when one fails.

Streamed tables are refused: a load would undo what the stream has applied.";

pub(super) const BACKFILL_EXAMPLES: &str = "\
Examples:
  walferry backfill                          all batch tables, the biggest first
  walferry backfill customers sales.zones    these two
  walferry backfill --json | jq .rows

Exit codes:
  0  every table was loaded
  1  a table was not loaded; the message names it and says why
  2  the command line or the configuration is mistaken, or a named table cannot be loaded";

pub(super) const VERIFY: &str = "\
Compares MongoDB with PostgreSQL, row by row and field by field, for streamed and batch tables.

Every row is read from one snapshot of PostgreSQL, made into the document that it should be and
compared with the one that MongoDB holds; then documents without a row are looked for. Rows that
change meanwhile may show as different: stop the writers, or look again.";

pub(super) const VERIFY_EXAMPLES: &str = "\
Examples:
  walferry verify
  walferry verify inventory customers
  walferry verify --json | jq .tables

Exit codes:
  0  no difference
  1  failed; the message says what to do
  2  the command line or the configuration is mistaken
  3  there are differences; up to 10 of them are shown";

pub(super) const FIDELITY: &str = "\
Says for each column of the streamed and batch tables which BSON type it becomes, and whether documents keep
all of it: exact; other form, when nothing is lost but some values have another BSON type than the rest; LOSSY,
when something may be missing; REFUSED, when rows would have no document and end a load or the stream. Each
comes with what avoids it, where anything does: an option of [sink], or another type.

It reads the catalog and the configuration, and no row: what may be lost need not be. MongoDB is not asked.
A document of more than 16 MiB is refused whatever its columns are.";

pub(super) const FIDELITY_EXAMPLES: &str = "\
Examples:
  walferry fidelity
  walferry fidelity inventory customers
  walferry fidelity --json | jq '.tables[].columns[] | select(.fidelity == \"lossy\")'

Exit codes:
  0  nothing may be lost: every column is exact, or has another form at worst
  1  a table could not be looked at; the message says what to do
  2  the command line or the configuration is mistaken
  3  something may be lost, or refused";

pub(super) const PREVIEW: &str = "\
Shows the documents that the first rows of a streamed or batch table become, as relaxed extended JSON: rows are
read and encoded as `walferry backfill` does it. Nothing is written, and MongoDB is not asked.

A terminal shows them indented, a pipe gets one line each. A row that cannot be carried (a document too large,
a number that numeric_overflow = \"error\" refuses) is shown with its error instead, in a pipe as an object with
`error` and without `_id`. How many values lost their microseconds is said on stderr.";

pub(super) const PREVIEW_EXAMPLES: &str = "\
Examples:
  walferry preview inventory
  walferry preview public.customers --rows 100 | jq ._id
  walferry preview inventory --json | jq '.rows[] | select(.error)'

Exit codes:
  0  each of the rows has a document
  1  failed; the message says what to do
  2  the command line or the configuration is mistaken
  3  a row cannot be carried";

pub(super) const MOVE: &str = "\
Moves a pipeline that is stopped from direct mode into Kafka, or out of it.

No row is copied: the new way goes on where the old one stopped, and nothing is lost or repeated. It
is refused, and nothing changed, while changes are under way: then the message says what to do first.
The [kafka] section of the configuration must be there for either direction.";

pub(super) const MOVE_EXAMPLES: &str = "\
Examples:
  walferry move --to kafka     after adding [kafka] to the configuration of a direct pipeline
  walferry move --to direct    before removing it

Exit codes:
  0  moved; `walferry run` goes on
  1  refused or failed; the message says what to do
  2  the command line or the configuration is mistaken";

pub(super) const PAUSE: &str = "\
Has the pipeline apply nothing more: what is being written is finished, then it waits. The order stands in
MongoDB, so that it holds for a daemon on another machine and over its restarts. Meanwhile Kafka keeps what
comes, for as long as its retention; without Kafka PostgreSQL keeps its WAL for the slot, which fills its disk.";

pub(super) const PAUSE_EXAMPLES: &str = "\
Examples:
  walferry pause --reason \"index build on transactions\"
  walferry status                    shows who paused it, when and why

Exit codes:
  0  it is paused, now or before
  1  MongoDB could not be asked
  2  the command line or the configuration is mistaken";

pub(super) const RESUME: &str = "\
Takes a pause back: the pipeline goes on where it stood.";

pub(super) const RESUME_EXAMPLES: &str = "\
Examples:
  walferry resume

Exit codes:
  0  it is not paused, now or before
  1  MongoDB could not be asked
  2  the command line or the configuration is mistaken";

pub(super) const SKIP: &str = "\
A change that cannot be applied (a value without a form; with on_poison = \"stop\" also a document too large, or
one that a rule of the collection refuses) stops the pipeline, and its error names the transaction. Mend the cause,
or have the whole transaction passed over: it is then kept in MongoDB, in _walferry.skipped with its changes in
_walferry.skipped_changes, by the same write that moves the position past it. `walferry status` shows it until
`walferry verify` has found its tables equal to their source.";

pub(super) const SKIP_EXAMPLES: &str = "\
Examples:
  walferry skip --commit 1731888000/16/B374D848 --reason \"17 MB document, ticket 4711\"
  walferry skip --commit 1731888000/16/B374D848 --withdraw

Exit codes:
  0  the order stands
  1  the pipeline is past the transaction, or MongoDB could not be asked
  2  the command line or the configuration is mistaken";

pub(super) const DEAD_LETTER: &str = "\
A change that MongoDB cannot take (a document above 16 MiB, or one that a rule or an index of the collection
refuses) becomes a dead letter: it is kept in MongoDB, in _walferry.dead_letters with its document in
_walferry.dead_letter_parts, by the same write that moves the position past it. Later changes of its row are kept
behind it; everything else goes on. `[sink] on_poison = \"stop\"` ends the daemon instead.

Once the row is small enough, or the rule is gone, `retry` applies what was kept; what was too large for the way to
MongoDB it fetches from where it stands. `discard` gives it up: changes of
the row are dropped until one carries all of it, and the document of a row that was deleted meanwhile goes. An emptied table and a new snapshot make its dead letters obsolete.";

pub(super) const DEAD_LETTER_EXAMPLES: &str = "\
Examples:
  walferry dead-letter list --table orders
  walferry dead-letter show 1731888000/16/B374D848/12 --json | jq .content
  walferry dead-letter retry --all
  walferry dead-letter discard --id 1731888000/16/B374D848/12 --reason \"a test, ticket 4711\"

Exit codes:
  0  they are shown, or the order stands
  1  there is no such dead letter, or MongoDB could not be asked
  2  the command line or the configuration is mistaken";

pub(super) const DEAD_LETTER_RETRY_EXAMPLES: &str = "\
Examples:
  walferry dead-letter retry --table orders --reason \"the photos are thumbnails now\"

Exit codes: as `walferry help dead-letter` says";

pub(super) const DEAD_LETTER_DISCARD_EXAMPLES: &str = "\
Examples:
  walferry dead-letter discard --id 1731888000/16/B374D848/12

Exit codes: as `walferry help dead-letter` says";

pub(super) const ANALYTICS: &str = "\
Asks what the rules of [analytics] ask of MongoDB: alerts, reports and views over the collections that were
delivered. A rule is a file of the directory `rules`: a question, an aggregation pipeline with parameters, and the
collection that keeps the answer; docs/analytics.md tells how to write one. An answer is read as of one moment, so
that it never sees half a transaction.

`run RULE` shows an answer and changes nothing. `run --all` makes the views and indexes, asks every rule and keeps
the answers: what is new comes, what no longer holds goes, and a second run changes nothing.";

pub(super) const ANALYTICS_EXAMPLES: &str = "\
Examples:
  walferry analytics list
  walferry analytics check
  walferry analytics run f01 --param window_minutes=30
  walferry analytics run --all

Exit codes:
  0  done; for `check`: no mistake
  1  `check` found a mistake, a rule failed, or MongoDB could not be asked
  2  the command line, the configuration or a rule is mistaken";

pub(super) const ANALYTICS_CHECK_EXAMPLES: &str = "\
Each mistake is told with its file, line and column. When the files are sound, MongoDB is asked whether it would
answer: views that are not there yet stand aside meanwhile, under names that begin with _walferry_aside_.

Examples:
  walferry analytics check --json | jq -r '.mistakes[].file'

Exit codes: as `walferry help analytics` says";

pub(super) const ANALYTICS_RUN_EXAMPLES: &str = "\
Examples:
  walferry analytics run f09_cash_structuring --param least=9500
  walferry analytics run f01 f02 --json | jq '.rules[].rows | length'
  walferry analytics run r01 --csv > reorder.csv
  walferry analytics run --all --json | jq '.rules[] | select(.added > 0)'

Exit codes: as `walferry help analytics` says";

pub(super) const ANALYTICS_WATCH_EXAMPLES: &str = "\
A terminal shows the answers anew each round. A pipe gets a line for each document that came (+), changed (~) or
went (-), with --json an object each round.

Examples:
  walferry analytics watch f01 f02
  walferry analytics watch f01 --every 1s | grep '^+'

Exit codes: as `walferry help analytics` says";

pub(super) const ACCESS: &str = "\
Makes what [[role]] describes: for each role a view of each collection that it reads, and a role of MongoDB that may
read these views and nothing else. A filter chooses rows, by a parent's columns too, and masks stand in the place of
values: what row-level security and column grants are in PostgreSQL. docs/access.md tells how to write one.

What a role names is held against PostgreSQL's catalog before anything is made. A run that ended early is gone on with
by the next; at no moment anybody sees more than before or after. Users are yours to make: give them the role.";

pub(super) const ACCESS_EXAMPLES: &str = "\
Examples:
  walferry access plan
  walferry access apply
  walferry access drop

Exit codes:
  0  done; for `plan`: nothing to do
  1  a name is taken, the user may not, or a server could not be asked; the message says what to do
  2  the command line or the configuration is mistaken
  3  `plan`: there are steps to take";

pub(super) const ACCESS_PLAN_EXAMPLES: &str = "\
Examples:
  walferry access plan
  walferry access plan --json | jq '.steps[] | {view, of, pipeline}'

Exit codes: as `walferry help access` says";

pub(super) const ACCESS_APPLY_EXAMPLES: &str = "\
Nothing that is as it should be is touched; roles and views that are no longer configured are dropped. The user needs
the role dbOwner on the database, and readWrite on _walferry: its URL may be another than the daemon's.

Examples:
  walferry access apply
  WALFERRY__SINK__URL=mongodb://admin@localhost/?replicaSet=rs0 walferry access apply

Exit codes: as `walferry help access` says";

pub(super) const ACCESS_DROP_EXAMPLES: &str = "\
Whoever has one of the roles loses it. Collections, and views and roles that `apply` did not make, stay.

Examples:
  walferry access drop

Exit codes: as `walferry help access` says";

pub(super) const CONFIG: &str = "\
Shows the configuration in effect: every key, defaults included, its value and where that comes from.

It is a configuration itself, as TOML. Passwords, and options and properties whose names speak of a
secret, are shown as ***. Nothing is connected to.";

pub(super) const CONFIG_EXAMPLES: &str = "\
Examples:
  walferry config
  WALFERRY__SINK__GROUP_ROWS=5000 walferry config | grep group
  walferry config --json | jq '.settings[] | select(.origin != \"default\")'

Exit codes:
  0  the configuration can be used
  2  the command line or the configuration is mistaken; all mistakes are shown";

pub(super) const COMPLETIONS: &str = "\
Writes the completions of a shell to stdout.

They belong where the shell looks for them, as in the examples; a new shell has them.";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  walferry completions bash > /usr/share/bash-completion/completions/walferry
  walferry completions zsh > /usr/share/zsh/site-functions/_walferry
  walferry completions fish > /usr/share/fish/vendor_completions.d/walferry.fish

Exit codes:
  0  done
  2  the command line is mistaken";

pub(super) const MAN: &str = "\
Writes the man pages: walferry.1 to stdout, or with a directory that and one for each command, such as
walferry-run.1. The directory is made when it is missing.";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  walferry man | man -l -
  walferry man /usr/local/share/man/man1    then `man walferry-run`

Exit codes:
  0  done
  1  a page could not be written
  2  the command line is mistaken";

pub(super) const VERSION: &str = "\
Shows the version of walferry, and of the format in which it keeps positions and its commit log. As
JSON it has the commit too, where the build was told (WALFERRY_COMMIT), the machine that it was built
for and the servers that its tests run against.";

pub(super) const VERSION_EXAMPLES: &str = "\
Examples:
  walferry version
  walferry version --json | jq -r .version

Exit codes:
  0  done
  2  the command line is mistaken";

//! What the tests share: a call that tells its story, and databases that can be taken away.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tandem::event::{
    CallCreated, CallEnded, CallEvent, CallEventKind, Direction, Disposition, Floor, Heard, Phase, Quality,
    TranscriptLine,
};
use tandem::id::{CallId, LineId};
use tandem::store::journal::Journal;
use tandem::store::{
    Assistant, Committed, Feed, JournalHandle, Number, Organization, Phone, PhoneSecret, RecordingSetting,
    Store,
};
use tandem::time::UnixMs;

pub struct Told {
    pub id: CallId,
    pub start: UnixMs,
    pub organization: Option<String>,
}

impl Told {
    pub fn new(number: u128, organization: Option<&str>) -> Self {
        let start = UnixMs::new(1_790_000_000_000 + number as i64 * 1000);
        let id = CallId::from_parts(start.get() as u64, number);
        Self { id, start, organization: organization.map(str::to_owned) }
    }

    pub fn created(&self) -> CallEvent {
        self.event(
            1,
            CallEventKind::Created(CallCreated {
                direction: Direction::Inbound,
                from: "+15550111".to_owned(),
                to: "100".to_owned(),
                trunk: Some("twilio".to_owned()),
                organization: self.organization.clone(),
                assistant: Some("reception".to_owned()),
                sip_call_id: Some("a84b4c76e66710@pc33".to_owned()),
                verstat: None,
                diversion: None,
            }),
        )
    }

    /// Everything after `created`, to the end.
    pub fn whole(&self) -> Vec<CallEvent> {
        let kinds = [
            CallEventKind::Answered { codec: "PCMU/8000".to_owned() },
            CallEventKind::ProviderConnected {
                provider: "scripted".to_owned(),
                connect_ms: 3,
                resumed: false,
                gap_ms: None,
            },
            CallEventKind::Transcript(self.line(4)),
            CallEventKind::Transcript(self.cut_line(5)),
            CallEventKind::Phase { phase: Phase::InCall, floor: Floor::Assistant },
            CallEventKind::Dtmf { digit: '#', method: "rtp".to_owned() },
            CallEventKind::BargeIn { line_id: self.cut_line(5).line_id, played_ms: 460, stop_ms: 3.5 },
            CallEventKind::Recording { state: "started".to_owned(), file: "recordings/x.wav".to_owned() },
            CallEventKind::Quality(Quality { packets_received: 400, mos: Some(4.4), ..Quality::default() }),
            ended(),
        ];
        kinds.into_iter().zip(2..).map(|(kind, seq)| self.event(seq, kind)).collect()
    }

    pub fn last_seq(&self) -> u64 {
        self.whole().len() as u64 + 1
    }

    pub fn event(&self, seq: u64, kind: CallEventKind) -> CallEvent {
        CallEvent { call: self.id, seq, at: UnixMs::new(self.start.get() + seq as i64 * 10), kind }
    }

    pub fn line(&self, seq: u64) -> TranscriptLine {
        TranscriptLine {
            line_id: LineId::from_parts(self.start.get() as u64, u128::from(seq)),
            who: "caller".to_owned(),
            text: "Grüß Gott, \"is\" this Acme?".to_owned(),
            start_ms: 100,
            end_ms: 900,
            heard: Heard::Full,
            heard_text: None,
        }
    }

    pub fn cut_line(&self, seq: u64) -> TranscriptLine {
        TranscriptLine {
            who: "assistant".to_owned(),
            heard: Heard::Cut,
            heard_text: Some("Acme, good".to_owned()),
            text: "Acme, good morning!".to_owned(),
            ..self.line(seq)
        }
    }
}

pub fn phase() -> CallEventKind {
    CallEventKind::Phase { phase: Phase::InCall, floor: Floor::Assistant }
}

pub fn ended() -> CallEventKind {
    CallEventKind::Ended(CallEnded {
        disposition: Disposition::Completed,
        ended_by: "caller".to_owned(),
        sip_status: 200,
        reason: "the caller hung up".to_owned(),
        duration_ms: 9000,
        billable_ms: 8000,
    })
}

pub fn organization(name: &str) -> Organization {
    Organization { name: name.to_owned(), recording: RecordingSetting::Off, daily_budget: None }
}

pub fn assistant(organization: &str, name: &str) -> Assistant {
    Assistant { organization: organization.to_owned(), name: name.to_owned(), ..Assistant::default() }
}

pub fn phone(organization: &str, user: &str) -> Phone {
    let secret =
        PhoneSecret { realm: "tandem".to_owned(), md5: "a".repeat(32).into(), sha256: "b".repeat(64).into() };
    let (organization, user) = (organization.to_owned(), user.to_owned());
    Phone { organization, user, number: None, trunks: vec!["out".to_owned()], secret }
}

pub fn number(organization: &str, number: &str) -> Number {
    let flow = serde_json::json!([{ "step": "assistant", "assistant": "reception" }]);
    Number { organization: organization.to_owned(), number: number.to_owned(), flow }
}

pub fn seqs(events: &[Committed]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

pub fn bodies(events: &[Committed]) -> Vec<String> {
    events.iter().map(|event| format!("{} {:?} {}", event.wall_seq, event.org_seq, event.body())).collect()
}

pub async fn healthy(journal: &JournalHandle) {
    let back = async {
        while journal.health().degraded {
            journal.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), back).await.expect("the database is back");
}

// --- databases of their own -------------------------------------------------------------------------

/// A database and a data directory, both removed at the end.
pub struct Home {
    pub kind: &'static str,
    pub url: String,
    pub folder: tempfile::TempDir,
    /// The server's own database, from which ours is dropped.
    pub server: Option<(String, String)>,
}

/// A home on each back end.
pub fn homes() -> Vec<Home> {
    [Some(Home::sqlite()), Home::postgres()].into_iter().flatten().collect()
}

pub fn on_each(test: impl AsyncFn(&Home)) {
    for home in homes() {
        eprintln!("on {}", home.kind);
        run(test(&home));
    }
}

/// Runs on a runtime that is gone afterwards, with all its tasks.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(test);
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome
}

impl Home {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("tandem.db").display());
        Self { kind: "SQLite", url, folder, server: None }
    }

    pub fn postgres() -> Option<Self> {
        let Ok(server) = std::env::var("TANDEM_TEST_POSTGRES") else {
            let required = std::env::var("CI").is_ok_and(|ci| ci == "true")
                || std::env::var_os("TANDEM_TEST_REQUIRE_POSTGRES").is_some();
            assert!(!required, "TANDEM_TEST_POSTGRES is not set: PostgreSQL must be tested here");
            static SAID: std::sync::Once = std::sync::Once::new();
            // Written past the test harness, which hides what passing tests print.
            SAID.call_once(|| {
                let words = "NOT RUN ON POSTGRESQL: set TANDEM_TEST_POSTGRES, or use scripts/test\n";
                std::io::stderr().write_all(words.as_bytes()).unwrap();
            });
            return None;
        };
        let name = format!("tandem_test_{:016x}", rand::random::<u64>());
        run(statement(&server, format!("CREATE DATABASE {name}")));
        let (host, _) = server.rsplit_once('/').expect("the URL names a database");
        let url = format!("{host}/{name}");
        let folder = tempfile::tempdir().unwrap();
        Some(Self { kind: "PostgreSQL", url, folder, server: Some((server, name)) })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    pub fn journal_file(&self, name: &str) -> PathBuf {
        self.data().join("journal").join(name)
    }

    pub async fn store(&self) -> Store {
        let store = Store::open(&self.url).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    pub async fn journal(&self) -> (Store, JournalHandle, Feed) {
        let store = self.store().await;
        let (journal, feed) = Journal::start(store.clone(), "node", &self.data()).await.unwrap();
        (store, journal, feed)
    }

    /// Runs a statement on a connection of its own.
    pub async fn sql(&self, text: &str) {
        statement(&self.url, text.to_owned()).await;
    }

    /// Per table its columns, as `name TYPE NULL` or `name TYPE NOT NULL`.
    pub async fn columns(&self) -> BTreeMap<String, Vec<String>> {
        self.store().await;
        let rows: Vec<(String, String, String, bool)> = match self.server {
            None => {
                let text = "SELECT m.name, c.name, c.type, c.\"notnull\" <> 0 FROM sqlite_master m, \
                     pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'";
                let pool = sqlx::SqlitePool::connect(&self.url).await.unwrap();
                sqlx::query_as(text).fetch_all(&pool).await.unwrap()
            }
            Some(_) => {
                let text = "SELECT table_name::text, column_name::text, upper(data_type), is_nullable = 'NO' \
                     FROM information_schema.columns WHERE table_schema = 'public'";
                let pool = sqlx::PgPool::connect(&self.url).await.unwrap();
                sqlx::query_as(text).fetch_all(&pool).await.unwrap()
            }
        };
        let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (table, column, kind, required) in rows {
            if table == "_sqlx_migrations" {
                continue;
            }
            let kind = kind.replace("INTEGER", "BIGINT");
            let null = if required { "NOT NULL" } else { "NULL" };
            tables.entry(table).or_default().push(format!("{column} {kind} {null}"));
        }
        tables.values_mut().for_each(|columns| columns.sort());
        tables
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some((server, name)) = &self.server {
            run(statement(server, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        }
    }
}

async fn statement(url: &str, text: String) {
    use sqlx::Connection as _;
    let text = sqlx::AssertSqlSafe(text);
    if url.starts_with("postgres") {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
        sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// A wire to a server that can be cut, or swallow what goes in.
pub struct Wire {
    pub port: u16,
    pub state: tokio::sync::watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    Whole,
    Cut,
    Hanging,
}

impl Wire {
    pub async fn to(server: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, watched) = tokio::sync::watch::channel(State::Whole);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(near, server, watched.clone()));
            }
        });
        Self { port, state }
    }
}

async fn carry(mut near: tokio::net::TcpStream, server: u16, mut state: tokio::sync::watch::Receiver<State>) {
    if *state.borrow() == State::Whole {
        let mut far = tokio::net::TcpStream::connect(("127.0.0.1", server)).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
            _ = state.wait_for(|state| *state != State::Whole) => {}
        }
    }
    if *state.borrow() == State::Hanging {
        // A connection that hung once never comes back; its two ends are not told.
        std::future::pending::<()>().await;
    }
}

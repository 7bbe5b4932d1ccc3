//! Tools of MCP servers: programs of this machine over stdio, or web servers over streamable HTTP.
//!
//! One task keeps each server: connects, lists its tools (again when the server says that they have changed, and now
//! and then anyway), and connects anew with growing pauses when it is lost. Tools of a server that is away are not
//! offered to new sessions; sessions that have them are told that it is away.

use std::collections::{BTreeMap, HashMap};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult, ClientConfig};
use rmcp::service::{NotificationContext, Peer, RoleClient, RunningService, ServiceError};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientHandler, serve_client};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Definition, Failure, Handler, Invocation, Origin, Remote, RemoteFuture, Tool};
use crate::telemetry::Wire;
use crate::web;

/// How a server is reached, and who may use it.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Name of its `[mcp.NAME]` section.
    pub name: String,
    /// Over what.
    pub link: Link,
    /// Its tools that may be used; empty: all.
    pub tools: Vec<String>,
    /// Put before its tools' names.
    pub prefix: String,
    /// Whose assistants may use it; empty: everybody's.
    pub organizations: Vec<String>,
    /// How long a tool may take.
    pub timeout: Duration,
    /// Its tools are given up when the caller speaks.
    pub cancel_on_barge_in: bool,
}

/// Over what a server is reached.
#[derive(Debug, Clone)]
pub enum Link {
    /// A program that is started, with standard input and output as the line.
    Program {
        /// Program and arguments.
        command: Vec<String>,
        /// Its environment besides `PATH`, `HOME`, `LANG` and `TMPDIR`.
        environment: BTreeMap<String, SecretString>,
    },
    /// Streamable HTTP.
    Http {
        /// URL.
        url: String,
        /// Sent with every request.
        headers: BTreeMap<String, SecretString>,
    },
}

/// All MCP servers.
#[derive(Clone, Default)]
pub struct Servers(Arc<[Arc<Server>]>);

impl Servers {
    /// Keeps these servers connected until `stop`.
    pub fn start(configs: Vec<ServerConfig>, stop: &CancellationToken) -> Self {
        let start = |config: ServerConfig| {
            let server = Arc::new(Server {
                config,
                state: watch::Sender::new(Arc::new(State::away("starting"))),
                look: Notify::new(),
            });
            tokio::spawn(keep(Arc::clone(&server), stop.clone()));
            server
        };
        Self(configs.into_iter().map(start).collect())
    }

    /// Each.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.0.iter()
    }
}

/// One MCP server.
pub struct Server {
    config: ServerConfig,
    state: watch::Sender<Arc<State>>,
    /// Told when its tools should be listed again.
    look: Notify,
}

struct State {
    /// Why it is away.
    away: Option<String>,
    peer: Option<Peer<RoleClient>>,
    tools: Arc<[Arc<Tool>]>,
}

impl State {
    fn away(cause: &str) -> Self {
        Self { away: Some(cause.to_owned()), peer: None, tools: Arc::new([]) }
    }
}

impl Server {
    /// The name of its section.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its tools; none while it is away.
    pub fn tools(&self) -> Arc<[Arc<Tool>]> {
        Arc::clone(&self.state.borrow().tools)
    }

    /// Why it is away.
    pub fn away(&self) -> Option<String> {
        self.state.borrow().away.clone()
    }

    /// Whether assistants of that organization may use it.
    pub fn serves(&self, organization: Option<&str>) -> bool {
        let allowed = &self.config.organizations;
        allowed.is_empty() || organization.is_some_and(|name| allowed.iter().any(|allowed| allowed == name))
    }

    /// Waits until it is there.
    pub async fn there(&self) {
        let mut state = self.state.subscribe();
        // The sender is in `self`.
        let _there = state.wait_for(|state| state.away.is_none()).await;
    }

    fn set(&self, state: State) {
        let there = state.away.is_none();
        metrics::gauge!("tandem_mcp_up", "server" => self.config.name.clone()).set(if there {
            1.0
        } else {
            0.0
        });
        self.state.send_replace(Arc::new(state));
    }
}

type Connection = RunningService<RoleClient, Ears>;

/// Keeps one server connected.
async fn keep(server: Arc<Server>, stop: CancellationToken) {
    let name = server.config.name.clone();
    let mut pause = FIRST_PAUSE;
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let cause = tokio::select! {
            cause = stay(&server) => cause,
            () = stop.cancelled() => break,
        };
        if begun.elapsed() > STABLE {
            pause = FIRST_PAUSE;
        }
        warn!(server = name, cause = %Wire::from(cause.as_str()), again_in = ?pause, "an MCP server is away");
        server.set(State::away(&cause));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => break,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    server.set(State::away("stopped"));
}

/// Connects and stays connected; answers why that has ended.
async fn stay(server: &Arc<Server>) -> String {
    let changed = Arc::new(Notify::new());
    let connected = tokio::time::timeout(START_LIMIT, connect(&server.config, Arc::clone(&changed))).await;
    let connection: Connection = match connected {
        Ok(Ok(connection)) => connection,
        Ok(Err(cause)) => return cause,
        Err(_) => return format!("it did not answer within {} s", START_LIMIT.as_secs()),
    };
    let peer = connection.peer().clone();
    let mut over = std::pin::pin!(connection.waiting());
    loop {
        let listing = tokio::time::timeout(LIST_LIMIT, peer.list_all_tools());
        let listed = tokio::select! {
            listed = listing => listed,
            _ = &mut over => return "it closed the connection".to_owned(),
        };
        match listed {
            Ok(Ok(tools)) => show(server, &peer, tools),
            Ok(Err(error)) => return format!("its tools cannot be listed: {}", innermost(&error)),
            Err(_) => return format!("it did not list its tools within {} s", LIST_LIMIT.as_secs()),
        }
        tokio::select! {
            () = changed.notified() => {}
            () = server.look.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            _ = &mut over => return "it closed the connection".to_owned(),
        }
    }
}

/// Offers what the server lists, as far as it may and can be used.
fn show(server: &Arc<Server>, peer: &Peer<RoleClient>, listed: Vec<rmcp::model::Tool>) {
    let config = &server.config;
    let mut tools: Vec<Arc<Tool>> = Vec::new();
    for tool in listed.into_iter().take(TOOLS_MOST) {
        if !config.tools.is_empty() && !config.tools.iter().any(|allowed| *allowed == tool.name) {
            continue;
        }
        let mut parameters = Value::Object(tool.input_schema.as_ref().clone());
        if parameters.get("type").is_none() {
            parameters["type"] = "object".into();
        }
        let description = tool.description.as_deref().unwrap_or(tool.name.as_ref());
        let definition = Definition {
            name: format!("{}{}", config.prefix, tool.name),
            description: description.chars().take(DESCRIPTION_MOST).collect(),
            parameters,
            timeout: config.timeout,
            speak: None,
            cancel_on_barge_in: config.cancel_on_barge_in,
            origin: Origin::Mcp { server: config.name.clone() },
        };
        let remote = Call { server: Arc::clone(server), name: tool.name.to_string() };
        match Tool::new(definition, Handler::Remote(Arc::new(remote))) {
            Ok(tool) => tools.push(Arc::new(tool)),
            Err(cause) => {
                let tool = Wire::from(tool.name.as_ref());
                warn!(server = config.name, %tool, cause, "a tool of an MCP server cannot be used");
            }
        }
    }
    let before = server.state.borrow().clone();
    let names = |tools: &[Arc<Tool>]| tools.iter().map(|tool| tool.definition.clone()).collect::<Vec<_>>();
    if before.away.is_some() || names(&before.tools) != names(&tools) {
        info!(server = config.name, tools = tools.len(), "an MCP server offers its tools");
        server.set(State { away: None, peer: Some(peer.clone()), tools: tools.into() });
    }
}

async fn connect(config: &ServerConfig, changed: Arc<Notify>) -> Result<Connection, String> {
    let ears = Ears { changed };
    match &config.link {
        Link::Program { command, environment } => {
            let [program, arguments @ ..] = command.as_slice() else {
                return Err("its command is empty".to_owned());
            };
            let mut command = tokio::process::Command::new(program);
            command.args(arguments).env_clear().kill_on_drop(true);
            // Not the whole environment: it holds secrets of this server that are none of that program's business.
            for name in ["PATH", "HOME", "LANG", "TMPDIR"] {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
            for (name, value) in environment {
                command.env(name, value.expose_secret());
            }
            let (transport, complaints) = TokioChildProcess::builder(command)
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|error| format!("{program} cannot be started: {error}"))?;
            if let Some(complaints) = complaints {
                tokio::spawn(hear(config.name.clone(), complaints));
            }
            serve_client(ears, transport).await.map_err(|error| innermost(&error))
        }
        Link::Http { url, headers } => {
            let client = web::streaming_client()?;
            let headers = headers.iter().map(header).collect::<Result<HashMap<_, _>, _>>()?;
            let settings =
                StreamableHttpClientTransportConfig::with_uri(url.as_str()).custom_headers(headers);
            let transport = StreamableHttpClientTransport::with_client(client, settings);
            serve_client(ears, transport).await.map_err(|error| innermost(&error))
        }
    }
}

/// The cause of an error in its own words: those around it name our types and the whole URL.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let words = cause.to_string();
    // Some errors print their cause in place of giving it.
    words
        .rsplit(": ")
        .next()
        .filter(|last| words.len() > CAUSE_MOST && !last.is_empty())
        .unwrap_or(&words)
        .to_owned()
}

fn header((name, value): (&String, &SecretString)) -> Result<(HeaderName, HeaderValue), String> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
    let mut value = HeaderValue::from_str(value.expose_secret())
        .map_err(|_| format!("the value for the header {name} holds what no header can hold"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// What a program writes beside its protocol goes to the log, for whoever looks for a fault.
async fn hear(server: String, mut complaints: tokio::process::ChildStderr) {
    let mut piece = [0; 1024];
    while let Ok(read @ 1..) = complaints.read(&mut piece).await {
        debug!(server, said = %Wire(&piece[..read]), "an MCP server writes");
    }
}

/// Hears that tools have changed.
struct Ears {
    changed: Arc<Notify>,
}

impl ClientHandler for Ears {
    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }

    fn get_info(&self) -> ClientConfig {
        let mut info = ClientConfig::default();
        info.client_info.name = "tandem".to_owned();
        info.client_info.version = env!("CARGO_PKG_VERSION").to_owned();
        info
    }
}

/// One tool of a server.
struct Call {
    server: Arc<Server>,
    /// As the server calls it.
    name: String,
}

impl Remote for Call {
    fn run(&self, invocation: Invocation) -> RemoteFuture {
        let (server, name) = (Arc::clone(&self.server), self.name.clone());
        Box::pin(async move {
            let away = || Failure::unreachable("the system behind this tool is not there at the moment");
            let peer = server.state.borrow().peer.clone().ok_or_else(away)?;
            let arguments = invocation.arguments.as_object().cloned().unwrap_or_default();
            let params = CallToolRequestParams::new(name).with_arguments(arguments);
            // Dropped, it tells the server that the answer is no longer wanted.
            match peer.call_tool_once(params).await {
                Ok(CallToolResponse::Complete(result)) => text(result),
                Ok(_) => Err(Failure::error("the tool asks for more than this server can give it")),
                Err(ServiceError::McpError(error)) => Err(Failure::error(error.message.to_string())),
                Err(error) => {
                    debug!(server = server.config.name, error = %Wire::from(error.to_string().as_str()), "a tool call failed");
                    server.look.notify_one();
                    Err(away())
                }
            }
        })
    }
}

/// What a model is told of a result: its texts, or its structured content where it has no text.
fn text(result: CallToolResult) -> Result<String, Failure> {
    let texts: Vec<&str> =
        result.content.iter().filter_map(|part| Some(part.as_text()?.text.as_str())).collect();
    let mut told = texts.join("\n");
    if told.is_empty()
        && let Some(content) = &result.structured_content
    {
        told = content.to_string();
    }
    let left_out = result.content.len() - texts.len();
    if left_out > 0 {
        told.push_str(&format!("\n({left_out} parts that are no text are left out)"));
    }
    if result.is_error == Some(true) { Err(Failure::error(told)) } else { Ok(told) }
}

/// From starting a server to its first answer.
const START_LIMIT: Duration = Duration::from_secs(30);
const LIST_LIMIT: Duration = Duration::from_secs(15);
/// Tools are listed this often even if nothing is said, which shows that the server lives.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Before a lost server is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A connection that held this long was a good one.
const STABLE: Duration = Duration::from_secs(60);
/// Tools taken of one server.
const TOOLS_MOST: usize = 128;
/// Bytes of a cause that are still readable.
const CAUSE_MOST: usize = 160;
/// Characters of a description.
const DESCRIPTION_MOST: usize = 2000;

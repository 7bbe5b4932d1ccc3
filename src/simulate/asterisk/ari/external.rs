//! externalMedia: a channel that carries audio to the application.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::port::Port;
use super::rest::{Asked, channel_of};
use super::state::{Answer, Behind, Channel, refused};
use super::{Fate, Shared};
use crate::pbx::Coding;
use crate::simulate::asterisk::audiosocket::{self, AudioSocketCall};
use crate::simulate::asterisk::person::Person;
use crate::simulate::asterisk::websocket::{self, WebSocketCall};

impl Shared {
    pub(super) async fn external_media(self: &Arc<Self>, asked: &Asked) -> Answer {
        let bad = |message: &str| refused(400, message);
        let Some(app) = asked.get("app").map(str::to_owned) else { return bad("app cannot be empty") };
        let transport = asked.get("transport").unwrap_or("udp");
        let encapsulation = asked.get("encapsulation").unwrap_or("rtp");
        let connection = asked.get("connection_type").unwrap_or("client");
        if transport == "websocket" && encapsulation != "none" {
            return bad("encapsulation must be 'none' for websocket transport");
        }
        if encapsulation == "rtp" && transport != "udp" {
            return bad("transport must be 'udp' for rtp encapsulation");
        }
        if encapsulation == "audiosocket" && transport != "tcp" {
            return bad("transport must be 'tcp' for audiosocket encapsulation");
        }
        if transport != "websocket" && connection == "server" {
            return bad("'server' connection_type can only be used with the websocket transport");
        }
        let host = match asked.get("external_host") {
            Some(host) => host.to_owned(),
            None if connection == "client" => {
                return bad("external_host is required for all but websocket server connections");
            }
            None => "INCOMING".to_owned(),
        };
        let client = self.config.websocket_clients.get(&host).cloned();
        if transport == "websocket" && connection == "client" && client.is_none() {
            return bad("external_host must be a valid websocket_client connection id.");
        }
        let address = if transport == "websocket" { None } else { host.parse::<SocketAddr>().ok() };
        if transport != "websocket" && address.is_none() {
            return bad("external_host must be <host>:<port> for all transports other than websocket");
        }
        let Some(format) = asked.get("format") else { return bad("format cannot be empty") };
        let Some(coding) = Coding::from_asterisk(format) else {
            return refused(500, "An internal error prevented this request from being handled");
        };
        if asked.get("direction").is_some_and(|direction| !["both", "in", "out"].contains(&direction)) {
            return bad("Invalid direction specified");
        }
        let broken = || refused(500, "An internal error prevented this request from being handled");
        let id = match asked.get("channelId") {
            Some(id) => id.to_owned(),
            None => self.with(|state| state.fresh_id()),
        };
        if self.with(|state| state.channels.contains_key(&id)) {
            return broken();
        }
        let (port, person) = (Arc::new(Port::default()), Person::new());
        let mut shown = BTreeMap::new();
        let mut is_up = true;
        let (name, behind) = match (encapsulation, transport, address) {
            ("audiosocket", "tcp", Some(address)) => {
                let Some(data) = asked.get("data") else { return bad("data can not be empty") };
                let (Ok(uuid), Coding::Linear(rate)) = (data.parse(), coding) else { return broken() };
                let mut setup = audiosocket::Setup::channel(rate);
                (setup.release, setup.starved) = (self.config.release, self.config.starved);
                let call = AudioSocketCall::towards(address, uuid, setup, port.clone(), person.clone()).await;
                let Ok(call) = call else { return broken() };
                shown.insert("AUDIOSOCKET_UUID".to_owned(), uuid.to_string());
                shown.insert("AUDIOSOCKET_SERVICE".to_owned(), host.clone());
                (format!("AudioSocket/{host}-{uuid}"), Behind::AudioSocket(call))
            }
            ("none", "websocket", _) => {
                let mut setup = websocket::Setup::of(coding);
                setup.json = asked.get("transport_data").is_some_and(|data| data.contains("f(json)"));
                setup.variables = json!(asked.variables());
                let frame = coding.bytes_in(crate::simulate::asterisk::measure::SLOT).unwrap_or(0);
                shown.insert("MEDIA_WEBSOCKET_OPTIMAL_FRAME_SIZE".to_owned(), frame.to_string());
                let (call, slot) = match client {
                    Some(url) if connection == "client" => {
                        setup.login = url.1.clone();
                        let at = (host.as_str(), url.0.as_str());
                        match WebSocketCall::outgoing(at, &id, setup, port.clone(), person.clone()).await {
                            Ok(call) => (call, None),
                            Err(_) => return broken(),
                        }
                    }
                    _ => {
                        is_up = false;
                        let (call, slot) = WebSocketCall::incoming(&id, setup, port.clone(), person.clone());
                        (call, Some(slot))
                    }
                };
                shown.insert("MEDIA_WEBSOCKET_CONNECTION_ID".to_owned(), call.connection().to_owned());
                (
                    format!("WebSocket/{host}/0x7f20{:08x}", rand::random::<u32>()),
                    Behind::WebSocket(call, slot),
                )
            }
            ("rtp", "udp", Some(address)) => {
                let Ok(socket) = UdpSocket::bind((self.addr.ip(), 0)).await else { return broken() };
                let Ok(local) = socket.local_addr() else { return broken() };
                shown.insert("UNICASTRTP_LOCAL_ADDRESS".to_owned(), local.ip().to_string());
                shown.insert("UNICASTRTP_LOCAL_PORT".to_owned(), local.port().to_string());
                let stop = CancellationToken::new();
                let whose = (self.clone(), id.clone());
                self.tasks.spawn(super::rtp::run(whose, socket, address, coding, port.clone(), stop.clone()));
                (format!("UnicastRTP/{host}-0x7f20{:08x}", rand::random::<u32>()), Behind::Rtp(stop))
            }
            _ => return refused(501, "The encapsulation and/or transport is not supported"),
        };
        let done = match &behind {
            Behind::AudioSocket(call) => Some(call.done()),
            Behind::WebSocket(call, _) => Some(call.done()),
            _ => None,
        };
        let mut made = channel_of(&id, name, behind, person);
        (made.port, made.shown, made.is_ours) = (Some(port), shown, true);
        made.variables = asked.variables();
        let answer = made.to_json();
        let dial = |channel: &Value, status: &str| json!({"type": "Dial", "dialstatus": status, "forward": "", "dialstring": host, "peer": channel});
        self.with(|state| {
            state.insert(made);
            state.tell(&app, dial(&answer, ""));
            if is_up {
                state.channels.entry(id.clone()).and_modify(|channel| channel.app = Some(app.clone()));
                state.change(&id, "Up");
                let now = state.channels.get(&id).map(Channel::to_json).unwrap_or_default();
                state.tell(&app, dial(&now, "ANSWER"));
                state.enter(&id, &app, &[]);
            } else if let Some(channel) = state.channels.get_mut(&id) {
                // It enters the application when somebody has connected.
                channel.app_data.clone_from(&app);
            }
        });
        if let Some(mut done) = done {
            let (shared, id) = (self.clone(), id);
            self.tasks.spawn(async move {
                // The task's end is an end, too.
                let _ = done.wait_for(|done| *done).await;
                shared.with(|state| {
                    if state.channels.contains_key(&id) {
                        state.leave(&id, Fate::HungUp { cause: 16, by_app: false });
                    }
                });
            });
        }
        (200, answer)
    }
}

//! SIP over WebSocket (RFC 7118): one message to a frame, over the connection that the client made.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::endpoint::Wire;
use super::parse::parse_datagram;
use super::tcp::{Connection, HANDSHAKE_TIMEOUT, WRITE_TIMEOUT, count_closed};

/// Agrees on the subprotocol, then carries messages until either side closes. Returns whether something may be
/// unsent.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut connection: Connection, stream: S) -> bool {
    let most = Some(connection.limits.message_bytes);
    let config = WebSocketConfig::default().max_message_size(most).max_frame_size(most);
    let handshake = accept_hdr_async_with_config(stream, agree, Some(config));
    let Ok(Ok(mut socket)) = timeout(HANDSHAKE_TIMEOUT, handshake).await else {
        count_closed("handshake");
        return false;
    };
    connection.shaken();
    let mut clock = Clock::start(&connection);
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message)) => {
                    clock.heard_at = Instant::now();
                    if !take(&connection, message, &mut clock).await {
                        return false;
                    }
                }
                Some(Err(_)) | None => return false,
            },
            bytes = connection.outgoing.recv() => {
                let Some(bytes) = bytes else {
                    let _gone = timeout(WRITE_TIMEOUT, socket.close(None)).await;
                    return false;
                };
                clock.used_at = Instant::now();
                if !send(&mut socket, framed(bytes)).await {
                    return true;
                }
            }
            () = tokio::time::sleep_until(clock.next()) => {
                if !clock.tick(&connection, &mut socket).await {
                    return false;
                }
            }
            () = connection.stop.cancelled() => {
                while let Ok(bytes) = connection.outgoing.try_recv() {
                    if !send(&mut socket, framed(bytes)).await {
                        break;
                    }
                }
                let _gone = timeout(WRITE_TIMEOUT, socket.close(None)).await;
                return false;
            }
        }
    }
}

/// RFC 7118 section 4.1: the client offers `sip`, and the server must take it or refuse.
#[expect(clippy::result_large_err, reason = "the handshake's own type")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let rows = request.headers().get_all(PROTOCOL).iter().filter_map(|row| row.to_str().ok());
    let offered = rows.flat_map(|row| row.split(',')).any(|name| name.trim().eq_ignore_ascii_case("sip"));
    if !offered {
        let mut refusal = ErrorResponse::new(Some("Sec-WebSocket-Protocol: sip is needed\n".to_owned()));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Err(refusal);
    }
    response.headers_mut().insert(PROTOCOL, HeaderValue::from_static("sip"));
    Ok(response)
}

/// Hands on what a frame holds; whether to go on.
async fn take(connection: &Connection, message: Message, clock: &mut Clock) -> bool {
    let octets = match message {
        Message::Text(text) => Bytes::from(text),
        Message::Binary(octets) => octets,
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return true,
        Message::Close(_) => return false,
    };
    // Some clients keep alive as they would on TCP; the frame itself has done it.
    if octets.iter().all(|octet| matches!(octet, b'\r' | b'\n')) {
        return true;
    }
    clock.used_at = Instant::now();
    connection.hand_on(parse_datagram(&octets, &connection.limits), octets).await
}

/// Browsers read text frames more readily; what is no UTF-8 must go as binary.
fn framed(bytes: Bytes) -> Message {
    match bytes.clone().try_into() {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(bytes),
    }
}

/// Whether it was taken in time.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, message: Message) -> bool {
    let taken = matches!(timeout(WRITE_TIMEOUT, socket.send(message)).await, Ok(Ok(())));
    if !taken {
        count_closed("slow_reader");
    }
    taken
}

/// When to ping, when to ask whether the connection is still needed, and when to give the peer up.
struct Clock {
    keep_alive: Duration,
    idle_timeout: Duration,
    /// The last frame of any kind.
    heard_at: Instant,
    /// The last message either way.
    used_at: Instant,
    ping_at: Instant,
}

impl Clock {
    fn start(connection: &Connection) -> Self {
        let now = Instant::now();
        // Never is a day: the idle timeout is shorter.
        let never = Duration::from_secs(86_400);
        let keep_alive = if connection.keep_alive.is_zero() { never } else { connection.keep_alive };
        let idle_timeout = connection.idle_timeout;
        Self { keep_alive, idle_timeout, heard_at: now, used_at: now, ping_at: now + keep_alive }
    }

    fn next(&self) -> Instant {
        self.ping_at.min(self.used_at + self.idle_timeout)
    }

    /// Does what is due; whether to go on.
    async fn tick<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        connection: &Connection,
        socket: &mut WebSocketStream<S>,
    ) -> bool {
        let now = Instant::now();
        if now >= self.ping_at {
            if now.duration_since(self.heard_at) > self.keep_alive * SILENT_PINGS_MAX {
                count_closed("silent");
                return false;
            }
            self.ping_at = now + self.keep_alive;
            if !send(socket, Message::Ping(Bytes::new())).await {
                return false;
            }
        }
        if now >= self.used_at + self.idle_timeout {
            // The endpoint knows whether a call or a phone needs this connection, and closes it if none does.
            self.used_at = now;
            return connection.wire.first.send(Wire::Idle { id: connection.id }).await.is_ok();
        }
        true
    }
}

const PROTOCOL: &str = "sec-websocket-protocol";
/// Pings without any answer before a client counts as gone.
const SILENT_PINGS_MAX: u32 = 3;

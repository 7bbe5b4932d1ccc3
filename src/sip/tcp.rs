//! Stream connections: accept, connect, cut into messages, and close on whoever is slow, silent or too big.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::endpoint::{ToEndpoint, Wire};
use super::framing::{Frame, PONG, StreamFramer};
use super::limits::Limits;
use super::message::{Message, Transport};
use super::parse::ParseError;
use super::tls::Connector;
use super::transport::{ConnectionId, HostId, Incoming};
use super::ws;

/// What a connection's task needs.
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) transport: Transport,
    pub(super) remote: SocketAddr,
    /// Our address as peers reach it: the listener's port, for a connection we made too.
    pub(super) local: SocketAddr,
    pub(super) limits: Arc<Limits>,
    pub(super) idle_timeout: Duration,
    pub(super) message_timeout: Duration,
    /// How often a connection we made is kept alive, and a WebSocket pinged; zero: never.
    pub(super) keep_alive: Duration,
    pub(super) wire: ToEndpoint,
    /// Counts the connection among those whose handshake is not over.
    pub(super) handshake: Option<OwnedSemaphorePermit>,
    /// Messages to send; closed by the endpoint to close the connection.
    pub(super) outgoing: mpsc::Receiver<Bytes>,
    pub(super) stop: CancellationToken,
}

/// A listener. An IPv6 one takes IPv6 only, so that `0.0.0.0` and `[::]` can be bound side by side.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until cancelled; the endpoint decides who stays.
pub(super) async fn accept(
    listener: TcpListener,
    transport: Transport,
    wire: ToEndpoint,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, remote)) => {
                let Ok(local) = stream.local_addr() else { continue };
                let accepted = Wire::Accepted { stream, transport, remote, local };
                if wire.fresh.send(accepted).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: the connection that could not be taken stays in the queue.
                tracing::warn!(%error, "accepting a SIP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Connection {
    /// Serves a connection a peer made.
    pub(super) async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let (wire, id) = (self.wire.clone(), self.id);
        let broken = match tls {
            None => self.converse(stream).await,
            Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.converse(stream).await,
                Ok(Err(error)) => {
                    tracing::debug!(%error, remote = %self.remote, "TLS handshake of a SIP peer");
                    count_closed("handshake");
                    false
                }
                Err(_) => {
                    count_closed("handshake");
                    false
                }
            },
        };
        // A closed endpoint needs no news.
        let _gone = wire.first.send(Wire::Closed { id, broken }).await;
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut self, stream: S) -> bool {
        if matches!(self.transport, Transport::Ws | Transport::Wss) {
            return ws::serve(self, stream).await;
        }
        // Keeping a connection alive is the business of who made it (RFC 5626 section 3.5).
        self.keep_alive = Duration::ZERO;
        self.run(stream).await
    }

    /// The handshake is over, and another peer may begin one.
    pub(super) fn shaken(&mut self) {
        self.handshake = None;
    }

    /// Makes a connection and serves it. With `tls` the peer must prove its name first, and nothing is sent before.
    pub(super) async fn connect(self, tls: Option<(Connector, Option<HostId>)>) {
        let (wire, id) = (self.wire.clone(), self.id);
        let broken = match timeout(CONNECT_TIMEOUT, TcpStream::connect(self.remote)).await {
            Ok(Ok(stream)) => self.secure(stream, tls).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "connecting for SIP");
                true
            }
            Err(_) => true,
        };
        let _gone = wire.first.send(Wire::Closed { id, broken }).await;
    }

    async fn secure(self, stream: TcpStream, tls: Option<(Connector, Option<HostId>)>) -> bool {
        // Signalling is small and must not wait for more to say.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "SIP connection keeps Nagle's algorithm");
        }
        let Some((connector, name)) = tls else { return self.run(stream).await };
        match timeout(HANDSHAKE_TIMEOUT, connector.connect(stream, name, self.remote)).await {
            Ok(Ok(stream)) => self.run(stream).await,
            Ok(Err(error)) => {
                tracing::warn!(%error, remote = %self.remote, "a SIP peer was not taken at its word by TLS");
                count_closed("handshake");
                true
            }
            Err(_) => {
                count_closed("handshake");
                true
            }
        }
    }

    /// Runs until either side closes. Returns whether something may be unsent.
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut self, stream: S) -> bool {
        self.shaken();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut framer = StreamFramer::new((*self.limits).clone());
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut idle_at = Instant::now() + self.idle_timeout;
        let mut message_by: Option<Instant> = None;
        let mut ping_at = self.next_ping();
        let (mut said, mut heard) = (false, false);
        loop {
            let due = [message_by, ping_at].into_iter().flatten().fold(idle_at, Instant::min);
            tokio::select! {
                read = reader.read(&mut chunk) => {
                    let length = match read {
                        // Who took the connection and closed it without a word has not taken what was said: behind a
                        // dead balancer, or with TLS 1.3 when our certificate was not good enough.
                        Ok(0) | Err(_) => return said && !heard,
                        Ok(length) => length,
                    };
                    heard = true;
                    // The answer to a ping of ours is no use of the connection.
                    if chunk[..length] != *PONG {
                        idle_at = Instant::now() + self.idle_timeout;
                    }
                    framer.feed(&chunk[..length]);
                    if !self.take_frames(&mut framer, &mut writer).await {
                        return false;
                    }
                    message_by = match framer.is_idle() {
                        true => None,
                        false => message_by.or_else(|| Some(Instant::now() + self.message_timeout)),
                    };
                }
                bytes = self.outgoing.recv() => {
                    let Some(bytes) = bytes else { return false };
                    idle_at = Instant::now() + self.idle_timeout;
                    ping_at = self.next_ping();
                    said = true;
                    if !write(&mut writer, &bytes).await {
                        return true;
                    }
                }
                () = tokio::time::sleep_until(due) => {
                    let now = Instant::now();
                    if message_by.is_some_and(|by| by <= now) {
                        count_closed("slow_message");
                        return false;
                    }
                    if ping_at.is_some_and(|at| at <= now) {
                        ping_at = self.next_ping();
                        if !write(&mut writer, PING).await {
                            return true;
                        }
                    }
                    if idle_at <= now {
                        // The endpoint knows whether a call needs this connection, and closes it if none does.
                        idle_at = now + self.idle_timeout;
                        if self.wire.first.send(Wire::Idle { id: self.id }).await.is_err() {
                            return false;
                        }
                    }
                }
                () = self.stop.cancelled() => {
                    self.flush(&mut writer).await;
                    return false;
                }
            }
        }
    }

    fn next_ping(&self) -> Option<Instant> {
        (!self.keep_alive.is_zero()).then(|| Instant::now() + self.keep_alive)
    }

    /// Hands on what is complete; whether to go on.
    async fn take_frames<W: AsyncWrite + Unpin>(&self, framer: &mut StreamFramer, writer: &mut W) -> bool {
        while let Some(frame) = framer.next_frame() {
            let octets = framer.last_octets().clone();
            let sent = match frame {
                Frame::Message(message) => self.hand_on(Ok(message), octets).await,
                Frame::Malformed(error) => self.hand_on(Err(error), octets).await,
                Frame::Ping => write(writer, PONG).await,
                Frame::Broken(error) => {
                    count_closed("out_of_step");
                    if let Some(reply) = error.reply("broken") {
                        write(writer, &reply.to_bytes()).await;
                    }
                    false
                }
            };
            if !sent {
                return false;
            }
        }
        true
    }

    /// Waits while the endpoint is behind: the peer's window closes, and it waits too.
    pub(super) async fn hand_on(&self, message: Result<Message, ParseError>, octets: Bytes) -> bool {
        let incoming = Incoming {
            message,
            source: self.remote,
            local: self.local,
            transport: self.transport,
            connection: Some(self.id),
            raw: if self.wire.tapped { octets } else { Bytes::new() },
        };
        let queue = self.wire.queue(&incoming);
        queue.send(Wire::Message(Box::new(incoming))).await.is_ok()
    }

    /// What was queued before the stop, such as the last BYEs.
    async fn flush<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) {
        while let Ok(bytes) = self.outgoing.try_recv() {
            if !write(writer, &bytes).await {
                return;
            }
        }
    }
}

/// Whether everything was taken in time.
async fn write<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> bool {
    let written = timeout(WRITE_TIMEOUT, async {
        writer.write_all(bytes).await?;
        writer.flush().await
    });
    let taken = matches!(written.await, Ok(Ok(())));
    if !taken {
        count_closed("slow_reader");
    }
    taken
}

pub(super) fn count_closed(reason: &'static str) {
    metrics::counter!("tandem_sip_connections_closed_total", "reason" => reason).increment(1);
}

/// RFC 5626 section 4.4.1.
const PING: &[u8] = b"\r\n\r\n";
const BACKLOG: i32 = 512;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const CHUNK_BYTES: usize = 8_192;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

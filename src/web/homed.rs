//! Connections that change their runtime.
//!
//! What takes long (DNS, TCP, TLS, the WebSocket handshake) runs on the ordinary runtime; the connection is then
//! *re-homed*: its TCP socket is taken out of the runtime that opened it and registered with the one of the
//! calling thread. Bytes that TLS or the WebSocket layer hold at that moment stay in those layers, which know
//! of no runtime, so nothing is lost or repeated.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;

/// An open WebSocket, of either side.
pub type WebSocket = WebSocketStream<Transport>;

/// Moves an open WebSocket to the runtime of the calling thread.
///
/// # Errors
/// When the socket cannot leave its runtime or join this one. The connection is unusable afterwards.
pub fn rehome(socket: &mut WebSocket) -> io::Result<()> {
    match socket.get_mut() {
        Transport::Plain(tcp) => tcp.rehome(),
        Transport::Tls(tls) => tls.get_mut().0.rehome(),
    }
}

/// TCP, with or without TLS.
#[derive(Debug)]
pub enum Transport {
    /// `ws://`
    Plain(Homed),
    /// `wss://`
    Tls(Box<tokio_rustls::TlsStream<Homed>>),
}

/// A TCP stream that can change its runtime.
#[derive(Debug)]
pub struct Homed {
    /// `None` only after a move that failed.
    tcp: Option<TcpStream>,
}

impl From<TcpStream> for Homed {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp: Some(tcp) }
    }
}

impl Homed {
    fn rehome(&mut self) -> io::Result<()> {
        let tcp = self.tcp.take().ok_or_else(homeless)?;
        // `into_std` leaves the socket non-blocking, as `from_std` wants it. Registering with the new
        // runtime reports the socket's present readiness, so no wake-up is missed in between.
        self.tcp = Some(TcpStream::from_std(tcp.into_std()?)?);
        Ok(())
    }

    fn with<T>(
        &mut self,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.tcp {
            Some(tcp) => poll(Pin::new(tcp)),
            None => Poll::Ready(Err(homeless())),
        }
    }
}

fn homeless() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket could not be moved to its media worker")
}

impl AsyncRead for Homed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|tcp| tcp.poll_read(cx, into))
    }
}

impl AsyncWrite for Homed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|tcp| tcp.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|tcp| tcp.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|tcp| tcp.poll_shutdown(cx))
    }
}

impl Transport {
    /// Ready when the socket may have something to read; a read that finds nothing makes it pending again.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let homed = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        };
        match &homed.tcp {
            // An error shows when the socket is read.
            Some(tcp) => tcp.poll_read_ready(cx).map(drop),
            None => Poll::Ready(()),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = into.remaining().min(READ_BYTES);
        let mut part = ReadBuf::new(into.initialize_unfilled_to(most));
        let read = match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, &mut part),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, &mut part),
        };
        let length = part.filled().len();
        into.advance(length);
        read
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Octets read at a time. When a message begins, the library makes room for all of it *besides* what it has
/// read of it: reading little keeps its buffer from growing to twice or three times the message, in every call.
const READ_BYTES: usize = 2048;

//! Messages out of a stream (RFC 3261 section 18.3, RFC 5626 section 3.5.1).
//!
//! Feed whatever the socket gave, then take frames until there is none. Deadlines are the shell's:
//! [`StreamFramer::is_idle`] tells whether the peer owes the rest of a message.

use bytes::{Buf, Bytes, BytesMut};

use super::limits::Limits;
use super::message::Message;
use super::parse::{ParseError, ParseProblem, find_lf, length_on_stream, parse_message, stream_error};

/// Cuts a stream into messages.
#[derive(Debug)]
pub struct StreamFramer {
    limits: Limits,
    buffer: BytesMut,
    /// How far `buffer` was searched for the empty line that ends a head.
    searched: usize,
    state: State,
    /// The octets of the message that was given last.
    last: Bytes,
}

/// What a stream gave.
#[derive(Debug)]
pub enum Frame {
    /// A message.
    Message(Message),
    /// A message that is refused, while the stream stays in step: answer it, go on.
    Malformed(ParseError),
    /// A double CRLF between messages: answer with [`PONG`].
    Ping,
    /// The stream is out of step: answer the error when it says so, then close. No further frame comes.
    Broken(ParseError),
}

/// The answer to a keep-alive on a stream.
pub const PONG: &[u8] = b"\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a start line; so many CR and LF octets of a keep-alive have come.
    Between,
    /// The head is `head` octets long, its body `body`.
    Body {
        head: usize,
        body: usize,
    },
    Broken,
}

impl StreamFramer {
    /// A framer for a new connection. It holds at most one message of `limits.message_bytes` and one chunk.
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: BytesMut::new(), searched: 0, state: State::Between, last: Bytes::new() }
    }

    /// Takes octets in the order they came. Call [`StreamFramer::next_frame`] until `None` after each.
    pub fn feed(&mut self, octets: &[u8]) {
        if self.state != State::Broken {
            self.buffer.extend_from_slice(octets);
        }
    }

    /// The next message, keep-alive or error; `None` when more octets are needed.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            match self.state {
                State::Broken => return None,
                State::Between => {
                    if self.skip_keep_alive() {
                        return Some(Frame::Ping);
                    }
                    match self.find_head() {
                        Ok(true) => {}
                        Ok(false) => return None,
                        Err((head, problem)) => return Some(self.broken(head, problem)),
                    }
                }
                State::Body { head, body } => return self.take_message(head, body),
            }
        }
    }

    /// Whether the peer is between messages, so that only the idle timeout applies, not the deadline for
    /// a message that has begun.
    pub fn is_idle(&self) -> bool {
        self.state == State::Between && self.buffer.iter().all(|b| matches!(b, b'\r' | b'\n'))
    }

    /// The octets of the message, or of what was to be one, that [`StreamFramer::next_frame`] gave last.
    pub fn last_octets(&self) -> &Bytes {
        &self.last
    }

    /// Octets held.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Drops line ends before a start line; true for a double CRLF.
    fn skip_keep_alive(&mut self) -> bool {
        loop {
            if self.buffer.starts_with(b"\r\n\r\n") {
                self.advance(4);
                return true;
            }
            // A lone CRLF may still become a double one.
            if b"\r\n\r\n".starts_with(&self.buffer) {
                return false;
            }
            match self.buffer.first() {
                Some(b'\r' | b'\n') => self.advance(1),
                _ => return false,
            }
        }
    }

    /// Looks for the end of the head; `Ok(true)` once it is known. An error tells how much of the head is
    /// there to answer it with.
    fn find_head(&mut self) -> Result<bool, (usize, ParseProblem)> {
        let Some(head) = self.end_of_head() else {
            let held = self.buffer.len();
            return match (self.first_line_too_long(), held > self.limits.message_bytes) {
                (true, _) => Err((held, ParseProblem::StartLineTooLong)),
                (false, true) => Err((held, ParseProblem::TooLargeForStream)),
                (false, false) => Ok(false),
            };
        };
        let wire = Bytes::copy_from_slice(&self.buffer[..head]);
        let problem = match length_on_stream(wire, &self.limits) {
            Ok(body) if head.saturating_add(body) <= self.limits.message_bytes => {
                self.state = State::Body { head, body };
                return Ok(true);
            }
            Ok(_) => ParseProblem::TooLargeForStream,
            Err(problem) => problem,
        };
        Err((head, problem))
    }

    /// Where the head ends: after an empty line. Each octet is looked at once, however small the chunks.
    fn end_of_head(&mut self) -> Option<usize> {
        while let Some(lf) = find_lf(&self.buffer[self.searched..]) {
            let line_end = self.searched + lf + 1;
            self.searched = line_end;
            match self.buffer.get(line_end..) {
                Some([b'\n', ..]) => return Some(line_end + 1),
                Some([b'\r', b'\n', ..]) => return Some(line_end + 2),
                // Too early to tell: look at this line end again with the next chunk.
                Some([] | [b'\r']) => {
                    self.searched = line_end - 1;
                    return None;
                }
                _ => {}
            }
        }
        self.searched = self.buffer.len();
        None
    }

    fn first_line_too_long(&self) -> bool {
        let most = self.limits.start_line_bytes;
        self.buffer.len() > most && !self.buffer[..most].contains(&b'\n')
    }

    fn take_message(&mut self, head: usize, body: usize) -> Option<Frame> {
        if self.buffer.len() < head + body {
            return None;
        }
        let wire = self.buffer.split_to(head + body).freeze();
        self.searched = 0;
        self.state = State::Between;
        self.last = wire.clone();
        Some(match parse_message(wire, &self.limits) {
            Ok(message) => Frame::Message(message),
            Err(error) if error.problem == ParseProblem::NotSip => {
                self.give_up();
                Frame::Broken(error)
            }
            Err(error) => Frame::Malformed(error),
        })
    }

    fn broken(&mut self, head: usize, problem: ParseProblem) -> Frame {
        let head = Bytes::copy_from_slice(&self.buffer[..head.min(self.limits.message_bytes)]);
        self.give_up();
        Frame::Broken(stream_error(head, &self.limits, problem))
    }

    fn give_up(&mut self) {
        self.state = State::Broken;
        self.buffer = BytesMut::new();
    }

    fn advance(&mut self, octets: usize) {
        self.buffer.advance(octets);
        self.searched = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Method, StatusCode};

    const OPTIONS: &str = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:x@y>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n";

    fn with_body(body: &str) -> String {
        format!("{OPTIONS}l: {}\r\n\r\n{body}", body.len())
    }

    /// Frames of a stream that comes in chunks of `size`, as text.
    fn frames(stream: &str, size: usize) -> Vec<String> {
        let limits = Limits { message_bytes: 2_000, start_line_bytes: 200, ..Limits::default() };
        let mut framer = StreamFramer::new(limits);
        let mut out = Vec::new();
        for chunk in stream.as_bytes().chunks(size) {
            framer.feed(chunk);
            while let Some(frame) = framer.next_frame() {
                out.push(match frame {
                    Frame::Message(message) => format!("message {}", String::from_utf8_lossy(message.body())),
                    Frame::Malformed(error) => {
                        format!("malformed {}", error.status().map_or(0, StatusCode::get))
                    }
                    Frame::Ping => "ping".into(),
                    Frame::Broken(error) => format!("broken {}", error.status().map_or(0, StatusCode::get)),
                });
            }
        }
        out
    }

    fn check(stream: &str, expected: &[&str]) {
        for size in [1, 2, 3, 7, 100, 100_000] {
            assert_eq!(frames(stream, size), expected, "in chunks of {size}: {stream:?}");
        }
    }

    #[test]
    fn pipelined_messages_and_keep_alives_come_apart() {
        let stream =
            format!("\r\n\r\n{}{}\r\n{}\r\n\r\n", with_body("one"), with_body(""), with_body("three"));
        check(&stream, &["ping", "message one", "message ", "message three", "ping"]);
    }

    #[test]
    fn a_message_that_is_refused_leaves_the_stream_in_step() {
        let bad = with_body("x").replace("CSeq: 1 OPTIONS", "CSeq: 1 INVITE");
        check(&format!("{bad}{}", with_body("y")), &["malformed 400", "message y"]);
    }

    #[test]
    fn a_stream_out_of_step_is_given_up() {
        let good = with_body("");
        check(&format!("{OPTIONS}\r\n{good}"), &["broken 400"]);
        check(&format!("{OPTIONS}l: -1\r\n\r\n{good}"), &["broken 400"]);
        check(&format!("{OPTIONS}l: 1\r\nContent-Length: 2\r\n\r\n{good}"), &["broken 400"]);
        check(&format!("{OPTIONS}l: 3000\r\n\r\n"), &["broken 513"]);
        check(&format!("GET / HTTP/1.1\r\nHost: x\r\n\r\n{good}"), &["broken 0"]);
    }

    #[test]
    fn equal_copies_of_content_length_are_forgiven() {
        check(&format!("{OPTIONS}l: 1\r\nContent-Length:   1 \r\n\r\nx"), &["message x"]);
    }

    #[test]
    fn a_head_without_end_is_cut_off() {
        let endless = format!("{OPTIONS}X: {}", "y".repeat(3_000));
        assert_eq!(frames(&endless, 100), ["broken 513"]);
        let endless = format!("OPTIONS sip:{}", "y".repeat(300));
        assert_eq!(frames(&endless, 100), ["broken 414"]);
    }

    #[test]
    fn idle_means_between_messages() {
        let mut framer = StreamFramer::new(Limits::default());
        assert!(framer.is_idle());
        framer.feed(b"\r\n");
        assert!(framer.next_frame().is_none() && framer.is_idle());
        framer.feed(b"O");
        assert!(framer.next_frame().is_none() && !framer.is_idle());
        framer.feed(&with_body("x").as_bytes()[1..]);
        let Some(Frame::Message(crate::sip::Message::Request(request))) = framer.next_frame() else {
            panic!()
        };
        assert_eq!(request.method, Method::Options);
        assert!(framer.is_idle() && framer.buffered() == 0);
    }
}

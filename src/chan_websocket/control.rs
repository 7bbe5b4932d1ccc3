//! The little that a channel can be told over its own WebSocket.

use tokio::sync::mpsc;

use super::protocol::Command;
use super::wire::PendingSocket;
use crate::pbx::{ChannelEvent, Control, Exit};

/// A channel that was dialled with `n`: it is answered when its flow says so. Commands go to the wire, which
/// writes them between the audio.
pub struct SocketControl {
    orders: mpsc::Sender<Command>,
    events: mpsc::Sender<ChannelEvent>,
}

impl SocketControl {
    /// A control, what the wire reads from it, and what the leg does.
    pub fn new() -> (Self, mpsc::Receiver<Command>, mpsc::Receiver<ChannelEvent>) {
        let (orders, to_wire) = mpsc::channel(ORDERS);
        let (events, to_leg) = mpsc::channel(EVENTS);
        (Self { orders, events }, to_wire, to_leg)
    }

    fn order(&self, command: Command) {
        // A wire that is gone has nothing to be told; one that takes none of its few orders is as good as gone.
        let _gone = self.orders.try_send(command);
    }

    fn tell(&self, event: ChannelEvent) {
        // The leg asked, and has little else to read.
        let _full = self.events.try_send(event);
    }
}

/// What answers the channel, and what that tells.
pub(super) type Controlled = Option<(Box<dyn Control>, mpsc::Receiver<ChannelEvent>)>;

/// The connection, with a control if its channel was dialled with `n`.
pub(super) fn controlled(wire: PendingSocket, answer_later: bool) -> (Controlled, PendingSocket) {
    if !answer_later {
        return (None, wire);
    }
    let (control, orders, events) = SocketControl::new();
    (Some((Box::new(control), events)), wire.with_orders(orders))
}

impl Control for SocketControl {
    fn ring(&mut self) {
        // Asterisk's dialplan has done so, if it wanted to; there is no such command.
    }

    fn answer(&mut self) {
        self.order(Command::Answer);
        // Nothing comes back; Asterisk follows it with the next thing it reads.
        self.tell(ChannelEvent::Up);
    }

    fn hang_up(&mut self, _cause: u16) {
        self.order(Command::HangUp);
    }

    fn send_dtmf(&mut self, _digits: &str) {
        self.tell(ChannelEvent::KeysSent);
    }

    fn is_apart(&self) -> bool {
        false
    }

    fn hold(&mut self, _on: bool) {}

    fn can_leave(&self, to: &Exit) -> bool {
        *to == Exit::Continue
    }

    fn leave(&mut self, to: &Exit) {
        if *to == Exit::Continue {
            // Dial() returns, and the dialplan goes on.
            self.order(Command::HangUp);
            self.tell(ChannelEvent::Left);
        } else {
            self.tell(ChannelEvent::Stayed("the channel is not controlled: configure [ari]".to_owned()));
        }
    }

    fn media_lost(&mut self) -> bool {
        false
    }
}

const ORDERS: usize = 4;
const EVENTS: usize = 64;

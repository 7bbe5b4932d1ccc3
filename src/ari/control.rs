//! The hand of a leg on its channel.

use tokio::sync::mpsc;

use super::app::Command;
use super::shell::Message;
use crate::id::LegId;
use crate::pbx::{Control, Exit};

/// Controls the channel of one leg. Dropped, it hangs up.
#[derive(Debug)]
pub struct LegControl {
    leg: LegId,
    messages: mpsc::Sender<Message>,
    over: bool,
}

impl LegControl {
    pub(super) fn new(leg: LegId, messages: mpsc::Sender<Message>) -> Self {
        Self { leg, messages, over: false }
    }

    fn command(&self, command: Command) {
        let message = Message::Leg(self.leg, command);
        let Err(mpsc::error::TrySendError::Full(message)) = self.messages.try_send(message) else { return };
        metrics::counter!("tandem_ari_commands_waited_total").increment(1);
        // What ends a call must arrive, and in its turn.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let messages = self.messages.clone();
            runtime.spawn(async move { messages.send(message).await });
        }
    }
}

impl Control for LegControl {
    fn ring(&mut self) {
        self.command(Command::Ring);
    }

    fn answer(&mut self) {
        self.command(Command::Answer);
    }

    fn hang_up(&mut self, cause: u16) {
        if !std::mem::replace(&mut self.over, true) {
            self.command(Command::HangUp(cause));
        }
    }

    fn send_dtmf(&mut self, digits: &str) {
        self.command(Command::Keys(digits.to_owned()));
    }

    fn hold(&mut self, on: bool) {
        self.command(Command::Hold(on));
    }

    fn leave(&mut self, to: &Exit) {
        self.command(Command::Leave(to.clone()));
    }

    fn media_lost(&mut self) -> bool {
        self.command(Command::MediaLost);
        !self.over
    }
}

impl Drop for LegControl {
    fn drop(&mut self) {
        self.hang_up(NORMAL_CLEARING);
    }
}

/// Q.850.
const NORMAL_CLEARING: u16 = 16;

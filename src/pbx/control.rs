//! What a PBX's channel can be told, and what it tells, beside its audio.

use std::time::Duration;

use super::LegParts;
use crate::id::LegId;

/// A channel of the PBX that somebody controls. Every method returns at once: what must be asked of the PBX
/// is asked elsewhere, and what comes of it arrives as a [`ChannelEvent`].
pub trait Control: Send {
    /// Lets the caller hear ringing.
    fn ring(&mut self);

    /// Answers; [`ChannelEvent::Up`] follows when the PBX has done so and the caller can be heard.
    fn answer(&mut self);

    /// Ends the channel with this Q.850 cause, whatever its state.
    fn hang_up(&mut self, cause: u16);

    /// Presses keys towards the far end; [`ChannelEvent::KeysSent`] follows.
    fn send_dtmf(&mut self, digits: &str);

    /// Whether the channel is something beside its audio. Otherwise it ends with its wire, and keys are tones.
    fn is_apart(&self) -> bool {
        true
    }

    /// Keeps the far end waiting in the PBX's own way, or takes it back.
    fn hold(&mut self, on: bool);

    /// Whether it can be let go there.
    fn can_leave(&self, _to: &Exit) -> bool {
        true
    }

    /// Lets the channel go on elsewhere in the PBX, without us: [`ChannelEvent::Left`] or
    /// [`ChannelEvent::Stayed`] follows.
    fn leave(&mut self, to: &Exit);

    /// The media was lost while the channel is still there. Whether another medium will come.
    fn media_lost(&mut self) -> bool;
}

/// Makes channels towards the PBX's far ends.
pub trait Originate: Send + Sync + std::fmt::Debug {
    /// Begins a channel, and returns at once: [`ChannelEvent::Ringing`], [`ChannelEvent::Up`] or
    /// [`ChannelEvent::Gone`] follow.
    fn originate(&self, leg: LegId, to: &OutgoingChannel) -> LegParts;
}

/// Whom a channel goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingChannel {
    /// The number or extension, as the PBX dials it.
    pub number: String,
    /// The number shown to the callee; `None`: the PBX's own.
    pub caller: Option<String>,
    /// The name shown to the callee.
    pub caller_name: Option<String>,
    /// How long it may ring.
    pub ring_timeout: Duration,
}

/// Where a channel goes on when it leaves us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// At the next priority of its dialplan.
    Continue,
    /// At an extension.
    Dialplan {
        /// Where the extension is looked up; absent: where the channel came from.
        context: Option<String>,
        /// The extension.
        extension: String,
        /// The priority, from 1.
        priority: u32,
    },
    /// In a queue of the PBX's.
    Queue(String),
}

impl Exit {
    /// As people write it after `dialplan:`: nothing (the next priority), `EXTEN`, `EXTEN@CONTEXT`, either with
    /// `,PRIORITY` at the end.
    ///
    /// # Errors
    /// In words, when it is none of these.
    pub fn dialplan(text: &str) -> Result<Self, String> {
        let wrong =
            || "write dialplan:200, dialplan:200@internal, dialplan:200@internal,1 or dialplan:".to_owned();
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::Continue);
        }
        let (place, priority) = match text.rsplit_once(',') {
            Some((place, priority)) => (place, priority.trim().parse().map_err(|_| wrong())?),
            None => (text, 1),
        };
        let (extension, context) = match place.split_once('@') {
            Some((extension, context)) => (extension.trim(), Some(context.trim())),
            None => (place.trim(), None),
        };
        let named = is_name(extension) && context.is_none_or(is_name);
        if !named || priority == 0 {
            return Err(wrong());
        }
        Ok(Self::Dialplan { context: context.map(str::to_owned), extension: extension.to_owned(), priority })
    }

    /// As people write it after `queue:`.
    ///
    /// # Errors
    /// In words, when it is no name of a queue.
    pub fn queue(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match is_name(text) {
            true => Ok(Self::Queue(text.to_owned())),
            false => Err("write the name of a queue, such as queue:support".to_owned()),
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Continue => f.write_str("dialplan:"),
            Self::Dialplan { context, extension, priority } => {
                write!(f, "dialplan:{extension}")?;
                context.iter().try_for_each(|context| write!(f, "@{context}"))?;
                if *priority == 1 { Ok(()) } else { write!(f, ",{priority}") }
            }
            Self::Queue(name) => write!(f, "queue:{name}"),
        }
    }
}

/// Whether the PBX can have a context, an extension or a queue of that name.
fn is_name(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "+-._*#".contains(c);
    !text.is_empty() && text.len() <= NAME_LONGEST && text.chars().all(known)
}

/// What a channel tells its leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEvent {
    /// Outgoing: it rings.
    Ringing,
    /// It is answered.
    Up,
    /// A key was pressed: `0`-`9`, `*`, `#`, `A`-`D`.
    Digit(char),
    /// The keys of [`Control::send_dtmf`] have been pressed.
    KeysSent,
    /// The far end keeps us waiting (`true`), or does not any more.
    Held(bool),
    /// It went where [`Control::leave`] sent it, and is not ours any more.
    Left,
    /// It could not go there, and is still ours; in words, why.
    Stayed(String),
    /// It is over.
    Gone(Departure),
}

/// How a channel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Q.850.
    pub cause: u16,
    /// In words.
    pub reason: String,
    /// The far end did it; otherwise the PBX, or the way to it, failed.
    pub by_peer: bool,
}

/// As long as an extension of Asterisk's can be.
const NAME_LONGEST: usize = 79;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_written_the_way_asterisk_people_write_places() {
        let at = |extension: &str, context: Option<&str>, priority| Exit::Dialplan {
            context: context.map(str::to_owned),
            extension: extension.to_owned(),
            priority,
        };
        for (text, exit) in [
            ("", Exit::Continue),
            ("200", at("200", None, 1)),
            ("200@internal", at("200", Some("internal"), 1)),
            ("_s@from-ai,3", at("_s", Some("from-ai"), 3)),
        ] {
            assert_eq!(Exit::dialplan(text), Ok(exit.clone()));
            assert_eq!(exit.to_string(), format!("dialplan:{text}"));
        }
        for wrong in ["200@", "@internal", "200,0", "200,x", "a b", "200@in,ternal,1"] {
            assert!(Exit::dialplan(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Exit::queue("support"), Ok(Exit::Queue("support".to_owned())));
        assert!(Exit::queue("").is_err());
    }
}

//! The ladder: who said what to whom when, in columns.

use super::document::{TraceDocument, TracedMessage};
use super::story::StoryLine;
use crate::telemetry::for_terminal;

/// The call as text of at most `width` columns (80 at the least), without a line break at the end.
pub fn render(document: &TraceDocument, width: usize) -> String {
    let width = width.max(80);
    let parties = Parties::of(document);
    let mut lines = heading(document, &parties, width);
    let lanes = Lanes::new(&parties, width);
    if let Some(lanes) = &lanes {
        lines.push(lanes.names(&parties));
        lines.push(lanes.row("ms", &[]));
    }
    for step in steps(&document.messages) {
        lines.extend(match &lanes {
            Some(lanes) => lanes.step(&parties, &step),
            None => listed(&parties, &step, width),
        });
    }
    if !document.story.is_empty() {
        lines.push(String::new());
        lines.push("media".to_owned());
        lines.extend(document.story.iter().map(|line| told(line, width)));
    }
    lines.join("\n")
}

/// A message with its repetitions.
struct Step<'a> {
    message: &'a TracedMessage,
    again: usize,
    last_ms: f64,
}

fn steps(messages: &[TracedMessage]) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for message in messages {
        let same = |step: &&mut Step<'_>| {
            step.message.outgoing == message.outgoing
                && step.message.remote == message.remote
                && step.message.text == message.text
        };
        match steps.iter_mut().rev().find(same).filter(|_| message.repeated) {
            Some(step) => {
                step.again += 1;
                step.last_ms = message.offset_ms;
            }
            None => steps.push(Step { message, again: 0, last_ms: message.offset_ms }),
        }
    }
    steps
}

/// The peers by address: the first on the left of Tandem, the others on its right.
struct Parties {
    tandem: String,
    peers: Vec<String>,
}

impl Parties {
    fn of(document: &TraceDocument) -> Self {
        let mut peers: Vec<String> = Vec::new();
        let mut locals: Vec<String> = Vec::new();
        for message in &document.messages {
            for (list, address) in [(&mut peers, party(message)), (&mut locals, message.local.clone())] {
                if !list.contains(&address) {
                    list.push(address);
                }
            }
        }
        let tandem = match locals.as_slice() {
            [only] => format!("tandem {only}"),
            _ => "tandem".to_owned(),
        };
        Self { tandem, peers }
    }

    fn column(&self, message: &TracedMessage) -> usize {
        let party = party(message);
        match self.peers.iter().position(|peer| *peer == party).unwrap_or_default() {
            0 => 0,
            other => other + 1,
        }
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.peers.iter().map(String::as_str).collect();
        names.insert(names.len().min(1), &self.tandem);
        names
    }
}

/// Streams come from many ports of one machine; what tells parties apart there is the address alone.
fn party(message: &TracedMessage) -> String {
    if message.transport == "udp" {
        return message.remote.clone();
    }
    let host = message.remote.rsplit_once(':').map_or(message.remote.as_str(), |(host, _)| host);
    format!("{host} {}", message.transport)
}

fn heading(document: &TraceDocument, parties: &Parties, width: usize) -> Vec<String> {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut lines = vec![format!(
        "{}  {}, {}",
        for_terminal(&document.call_id),
        count(document.legs.len(), "dialog"),
        count(document.messages.len(), "message")
    )];
    for (number, leg) in document.legs.iter().enumerate() {
        let id = for_terminal(&leg.sip_call_id);
        let fate = match (leg.messages, leg.dropped) {
            (0, _) => "  (not kept any more)".to_owned(),
            (_, 0) => String::new(),
            (_, dropped) => format!("  ({dropped} messages in the middle not kept)"),
        };
        lines.push(cut(&format!("  Call-ID {}: {id}{fate}", number + 1), width));
    }
    if parties.peers.len() > MOST_PEERS {
        let named =
            parties.peers.iter().enumerate().map(|(n, peer)| format!("  {}: {}", n + 1, for_terminal(peer)));
        lines.extend(named);
    }
    lines.push(String::new());
    lines
}

/// Where the columns are.
struct Lanes {
    at: Vec<usize>,
    width: usize,
}

impl Lanes {
    /// `None` when there are too many parties to draw, or none.
    fn new(parties: &Parties, width: usize) -> Option<Self> {
        let columns = parties.peers.len() + 1;
        if parties.peers.is_empty() || parties.peers.len() > MOST_PEERS {
            return None;
        }
        let margin = (TIME + 12).min(width / 3);
        let lane = ((width - margin - 12) / (columns - 1)).min(WIDEST_LANE);
        Some(Self { at: (0..columns).map(|n| margin + n * lane).collect(), width })
    }

    fn names(&self, parties: &Parties) -> String {
        let mut line: Vec<char> = vec![' '; self.width];
        for (at, name) in self.at.iter().zip(parties.names()) {
            let lane = self.at[1] - self.at[0];
            let name: Vec<char> = cut(&for_terminal(name), lane - 2).chars().collect();
            let start = at.saturating_sub(name.len() / 2).min(self.width - name.len());
            line[start..start + name.len()].copy_from_slice(&name);
        }
        line.into_iter().collect::<String>().trim_end().to_owned()
    }

    /// The lines of the lanes, with texts put over them.
    fn row(&self, time: &str, over: &[(usize, String)]) -> String {
        let mut line: Vec<char> = vec![' '; self.width];
        for at in &self.at {
            line[*at] = '│';
        }
        for (start, text) in over {
            for (n, letter) in text.chars().enumerate().take_while(|(n, _)| start + n < self.width) {
                line[start + n] = letter;
            }
        }
        let time = format!("{time:>TIME$}");
        for (n, letter) in time.chars().enumerate() {
            line[n] = letter;
        }
        line.into_iter().collect::<String>().trim_end().to_owned()
    }

    fn step(&self, parties: &Parties, step: &Step<'_>) -> Vec<String> {
        let column = parties.column(step.message);
        let (left, right) = (column.min(1), column.max(1));
        let (from, to) = (self.at[left] + 1, self.at[right]);
        let to_right = step.message.outgoing == (column > 1);
        let length = to - from;
        let label = cut(&label(step.message), length - 6);
        let dashes = length - 3 - label.chars().count();
        let (before, after) = (dashes / 2, dashes - dashes / 2);
        let line = |n: usize| "─".repeat(n);
        let arrow = if to_right {
            format!("{} {label} {}▶", line(before), line(after))
        } else {
            format!("◀{} {label} {}", line(before), line(after))
        };
        let mut rows = vec![self.row(&format!("{:.1}", step.message.offset_ms), &[(from, arrow)])];
        if let Some(sdp) = &step.message.sdp {
            rows.push(self.row("", &[(from + 1, cut(&for_terminal(sdp), self.width - from - 2))]));
        }
        if step.again > 0 {
            rows.push(self.row("", &[(from + 1, again(step))]));
        }
        rows
    }
}

fn listed(parties: &Parties, step: &Step<'_>, width: usize) -> Vec<String> {
    let number = parties.peers.iter().position(|peer| *peer == party(step.message)).unwrap_or_default() + 1;
    let way = if step.message.outgoing { "▶" } else { "◀" };
    let line = format!("{:>TIME$.1} {way} {number}  {}", step.message.offset_ms, label(step.message));
    let mut lines = vec![cut(&line, width)];
    if let Some(sdp) = &step.message.sdp {
        lines.push(cut(&format!("{:TIME$}      {}", "", for_terminal(sdp)), width));
    }
    if step.again > 0 {
        lines.push(format!("{:TIME$}      {}", "", again(step)));
    }
    lines
}

fn again(step: &Step<'_>) -> String {
    let times = if step.again == 1 { "once".to_owned() } else { format!("{} times", step.again) };
    format!("repeated {times}, last at {:.1}", step.last_ms)
}

/// `INVITE sip:100@example.com`, `200 OK (INVITE)`.
fn label(message: &TracedMessage) -> String {
    let line = for_terminal(&message.start_line);
    let line = line.trim();
    match message.status {
        Some(_) => format!("{} ({})", line.trim_start_matches("SIP/2.0 "), for_terminal(&message.method)),
        None => line.trim_end_matches(" SIP/2.0").to_owned(),
    }
}

fn told(line: &StoryLine, width: usize) -> String {
    let leg = if line.leg.is_empty() { String::new() } else { format!("{}: ", for_terminal(&line.leg)) };
    cut(&format!("{:>TIME$.1}  {leg}{}", line.offset_ms, for_terminal(&line.text)), width)
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Columns of the time.
const TIME: usize = 10;
/// A lane does not become wider on a wide terminal.
const WIDEST_LANE: usize = 56;
/// Peers that are drawn as columns; more are numbered and listed.
const MOST_PEERS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Transport;
    use crate::sip::trace::{Kept, Trace};

    fn kept(ms: i64, outgoing: bool, remote: &str, text: &str) -> Kept {
        Kept {
            at_us: ms * 1_000,
            outgoing,
            transport: Transport::Udp,
            local: "127.0.0.1:5060".parse().expect("an address"),
            remote: remote.parse().expect("an address"),
            bytes: text.replace('\n', "\r\n").into(),
            repeated: false,
        }
    }

    #[test]
    fn a_call_with_two_legs_has_three_columns() {
        let sdp = "v=0\nc=IN IP4 1.2.3.4\nm=audio 4000 RTP/AVP 0\na=sendrecv\n";
        let invite = format!("INVITE sip:100@h SIP/2.0\nCall-ID: a\nCSeq: 1 INVITE\n\n{sdp}");
        let mut again = kept(500, false, "10.0.0.1:5060", &invite);
        again.repeated = true;
        let a = vec![
            kept(0, false, "10.0.0.1:5060", &invite),
            kept(1, true, "10.0.0.1:5060", "SIP/2.0 100 Trying\nCall-ID: a\nCSeq: 1 INVITE\n\n"),
            again,
        ];
        let b = vec![
            kept(2, true, "10.0.0.2:5060", "INVITE sip:\x1b[2J@h SIP/2.0\nCall-ID: b\nCSeq: 1 INVITE\n\n"),
            kept(700, false, "10.0.0.2:5060", "SIP/2.0 486 Busy Here\nCall-ID: b\nCSeq: 1 INVITE\n\n"),
        ];
        let traces =
            [("a", a), ("b", b)].map(|(id, messages)| Trace { call_id: id.into(), messages, dropped: 0 });
        let ids = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let story = vec![StoryLine { at_ms: 0, offset_ms: 0.0, leg: String::new(), text: "answered".into() }];
        let document = TraceDocument::new("call_1".into(), &ids, &traces, story);
        let text = render(&document, 100);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        let expected = [
            "call_1  3 dialogs, 5 messages",
            "  Call-ID 3: c  (not kept any more)",
            "       0.0            │────── INVITE sip:100@h ───────▶│",
            "                      │ PCMU, 1.2.3.4:4000, sendrecv",
            "                      │ repeated once, last at 500.0",
            "       1.0            │◀───── 100 Trying (INVITE) ─────│",
            "     700.0            │                                │◀─── 486 Busy Here (INVITE) ────│",
        ];
        for line in expected {
            assert!(text.lines().any(|l| l.starts_with(line)), "`{line}` is missing in\n{text}");
        }
    }

    #[test]
    fn many_parties_are_listed() {
        let messages = (1..=5)
            .map(|n| kept(n, true, &format!("10.0.0.{n}:5060"), "OPTIONS sip:h SIP/2.0\nCall-ID: a\n\n"))
            .collect();
        let traces = [Trace { call_id: "a".into(), messages, dropped: 2 }];
        let text = render(&TraceDocument::new("call_1".into(), &["a".into()], &traces, Vec::new()), 80);
        assert!(text.contains("(2 messages in the middle not kept)"), "{text}");
        assert!(text.lines().any(|line| line == "       4.0 ▶ 5  OPTIONS sip:h"), "{text}");
    }
}

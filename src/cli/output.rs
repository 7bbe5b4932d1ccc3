//! What commands print: one JSON document or text for people on standard output, everything else on
//! standard error.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::Value;

use super::failure::{Exit, Failure};
use crate::telemetry::for_terminal;
use crate::time::UnixMs;

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set or the terminal is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How this run prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// One JSON document and nothing else on standard output.
    pub json: bool,
    /// Ids only, and no remarks.
    pub quiet: bool,
    /// Escape sequences for colour on standard output.
    pub colour: bool,
    /// Columns of the terminal; `None` when standard output is none.
    pub width: Option<usize>,
}

impl Output {
    /// What the options and the terminal ask for.
    pub fn new(json: bool, quiet: bool, colour: Colour) -> Self {
        let terminal = io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = match colour {
            Colour::Auto => terminal && !set("NO_COLOR") && !dumb,
            Colour::Always => true,
            Colour::Never => false,
        };
        Self { json, quiet, colour: colour && !json, width: terminal.then(terminal_width) }
    }

    /// Prints a JSON document on one line when piped, indented on a terminal.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = match self.width {
            Some(_) => serde_json::to_string_pretty(value),
            None => serde_json::to_string(value),
        };
        let text = text.map_err(|error| Failure::new(Exit::Failure, error.to_string(), ""))?;
        self.line(&text)
    }

    /// Prints a line on standard output.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            // Whoever reads has seen enough, as with `| head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::told(Exit::Failure)),
            Err(error) => Err(Failure::new(Exit::Failure, format!("standard output: {error}"), "")),
        }
    }

    /// A remark for people, on standard error.
    pub fn remark(&self, text: &str) {
        if !self.quiet && !self.json {
            to_stderr(text);
        }
    }

    /// The text in a colour, where colours are shown.
    pub fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", style as u8) } else { text.to_owned() }
    }

    /// A table: aligned columns, the last cut to the terminal's width.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn table(&self, head: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        self.line(&table(head, rows, self.width))
    }
}

/// SGR codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the colours'")]
pub enum Style {
    Bold = 1,
    Faint = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
    Blue = 34,
    Magenta = 35,
    Cyan = 36,
}

/// Writes a line to standard error; nobody is left to tell when that is closed.
pub fn to_stderr(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// An error and everything that caused it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}

fn table(head: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let clean: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| for_terminal(cell)).collect()).collect();
    let length = |text: &str| text.chars().count();
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(i, title)| {
            clean.iter().filter_map(|row| row.get(i)).map(|c| length(c)).max().unwrap_or(0).max(length(title))
        })
        .collect();
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - length(cell).min(*width)));
        }
        cut(line.trim_end(), width)
    };
    let mut lines = vec![print(&mut head.iter().copied())];
    lines.extend(clean.iter().map(|row| print(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

fn cut(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width => {
            line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
        }
        _ => line.to_owned(),
    }
}

fn terminal_width() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let asked = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    told.or_else(asked).filter(|width| *width >= 20).unwrap_or(80)
}

/// For people: `now`, `40 s ago`, `3 min ago`, `2 h ago`, then the date.
pub fn ago(moment: UnixMs, now: UnixMs) -> String {
    let seconds = now.millis_since(moment) / 1_000;
    match seconds {
        ..5 => "now".into(),
        5..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => moment.to_rfc3339().replace('T', " ")[..16].to_owned(),
    }
}

/// A length of time for people: `0:07`, `12:30`, `1:00:05`.
pub fn clock(millis: u64) -> String {
    let seconds = millis / 1_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// `0:07  caller     Hello?` with the part that was not heard struck out by words.
pub(super) fn transcript_line(output: &Output, line: &Value) -> String {
    let who = text(&line["who"]);
    let style = match who.as_str() {
        "caller" => Style::Cyan,
        "assistant" => Style::Green,
        _ => Style::Yellow,
    };
    let time = clock(line["start_ms"].as_u64().unwrap_or_default());
    let mut words = text(&line["text"]);
    if line["heard"] == "cut" {
        let heard = line["heard_text"]
            .as_str()
            .map_or_else(String::new, |heard| format!(", heard: \"{}\"", for_terminal(heard)));
        words.push_str(&output.paint(Style::Faint, &format!(" [cut{heard}]")));
    }
    format!("{time:>7}  {}  {words}", output.paint(style, &format!("{who:<10}")))
}

/// The elements of an array; of anything else, none.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A JSON value for people.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => for_terminal(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_cut_to_the_terminal() {
        let rows =
            [vec!["call_1".into(), "née Smith".into()], vec!["c".into(), "a\x1b[31m long text".into()]];
        assert_eq!(
            table(&["ID", "NAME"], &rows, Some(16)),
            "ID      NAME\ncall_1  née Smi…\nc       a·[31m …"
        );
        assert_eq!(table(&["ID"], &[], None), "ID");
    }

    #[test]
    fn times_are_told_as_people_do() {
        let now = UnixMs::new(1_790_000_000_000);
        let before = |seconds: i64| ago(UnixMs::new(now.get() - seconds * 1_000), now);
        assert_eq!(
            [before(1), before(40), before(180), before(7_200)],
            ["now", "40 s ago", "3 min ago", "2 h ago"]
        );
        assert_eq!(before(200_000), "2026-09-19 06:40");
        assert_eq!((clock(7_900).as_str(), clock(3_605_000).as_str()), ("0:07", "1:00:05"));
    }
}

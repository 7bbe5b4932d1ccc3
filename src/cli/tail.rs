//! `tandem call tail`: the live feed on a terminal.
//!
//! Reconnects by itself and resumes after the last event it has, so nothing is missed and nothing shown
//! twice.

use std::time::Duration;

use clap::Args;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::Context;
use super::client::{Client, FeedSocket};
use super::failure::{Exit, Failure};
use super::output::{Style, clock, text, transcript_line};
use crate::id::CallId;

#[derive(Debug, Args)]
pub struct TailArgs {
    /// The call; without one, all calls from now on.
    id: Option<CallId>,
    /// Begin after this event number; for a call, everything from its start is shown otherwise.
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
}

impl TailArgs {
    /// One call, from its start.
    pub(super) fn of(id: CallId) -> Self {
        Self { id: Some(id), since: None }
    }
}

pub(super) async fn run(context: &Context, client: &Client, args: &TailArgs) -> Result<(), Failure> {
    let topic = args.id.map_or_else(|| "wall".to_owned(), |id| format!("call:{id}"));
    let since = args.since.or(args.id.map(|_| 0));
    let mut tail = Tail { context, follows: args.id.is_some(), topic, epoch: None, since, acked: since };
    // The first connection must succeed: a typo should not wait for ever.
    let mut socket = client.feed().await?;
    let mut pause = FIRST_PAUSE;
    loop {
        match tail.follow(&mut socket).await? {
            Outcome::Finished => return Ok(()),
            Outcome::Lost { progressed } => {
                if progressed {
                    pause = FIRST_PAUSE;
                }
            }
        }
        context.output.remark("the connection is lost; trying again");
        socket = loop {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match client.feed().await {
                Ok(socket) => break socket,
                Err(failure) if failure.exit() == Exit::Unreachable => {}
                Err(failure) => return Err(failure),
            }
        };
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The server pings every 20 s; three missed ones mean that nobody is there.
const SILENCE: Duration = Duration::from_secs(65);
const ACK_INTERVAL: Duration = Duration::from_secs(1);

enum Outcome {
    Finished,
    Lost { progressed: bool },
}

enum Step {
    Continue,
    Finished,
    Lost,
}

struct Tail<'a> {
    context: &'a Context,
    /// One call is followed: its end is the end.
    follows: bool,
    topic: String,
    epoch: Option<String>,
    since: Option<u64>,
    acked: Option<u64>,
}

impl Tail<'_> {
    async fn follow(&mut self, socket: &mut FeedSocket) -> Result<Outcome, Failure> {
        let mut progressed = false;
        let mut subscribe = json!({ "op": "subscribe", "topic": self.topic });
        if let Some(since) = self.since {
            subscribe["since"] = since.into();
        }
        if let Some(epoch) = &self.epoch {
            subscribe["epoch"] = epoch.as_str().into();
        }
        if socket.send(Message::text(subscribe.to_string())).await.is_err() {
            return Ok(Outcome::Lost { progressed });
        }
        let mut acks = interval_at(Instant::now() + ACK_INTERVAL, ACK_INTERVAL);
        acks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = timeout(SILENCE, socket.next()) => {
                    let Ok(Some(Ok(message))) = message else { return Ok(Outcome::Lost { progressed }) };
                    let Message::Text(frame) = message else { continue };
                    let Ok(frame) = serde_json::from_str::<Value>(&frame) else { continue };
                    progressed = true;
                    match self.frame(&frame)? {
                        Step::Continue => {}
                        Step::Finished => {
                            let _ = socket.close(None).await; // Whether the farewell arrives changes nothing.
                            return Ok(Outcome::Finished);
                        }
                        Step::Lost => return Ok(Outcome::Lost { progressed }),
                    }
                }
                _ = acks.tick(), if self.acked != self.since => {
                    let ack = json!({ "op": "ack", "topic": self.topic, "seq": self.since });
                    if socket.send(Message::text(ack.to_string())).await.is_err() {
                        return Ok(Outcome::Lost { progressed });
                    }
                    self.acked = self.since;
                }
            }
        }
    }

    fn frame(&mut self, frame: &Value) -> Result<Step, Failure> {
        match frame["type"].as_str().unwrap_or_default() {
            "subscribed" => {
                self.epoch = frame["epoch"].as_str().map(str::to_owned);
                // Where the server replays nothing, resuming starts from its head.
                self.since = self.since.or(frame["head"].as_u64());
                Ok(Step::Continue)
            }
            "error" => {
                let problem = frame["problem"].clone();
                let status = problem["status"].as_u64().and_then(|s| u16::try_from(s).ok()).unwrap_or(500);
                Err(Failure::from_problem(status, problem))
            }
            "bye" => Ok(Step::Lost),
            "snapshot" if self.follows && frame["data"]["call"]["ended_at"].is_string() => Ok(Step::Finished),
            "hello" | "snapshot" | "reply" | "pong" | "ping" => Ok(Step::Continue),
            _ => self.event(frame),
        }
    }

    fn event(&mut self, frame: &Value) -> Result<Step, Failure> {
        if let Some(seq) = frame["seq"].as_u64() {
            if self.since.is_some_and(|since| seq <= since) {
                return Ok(Step::Continue);
            }
            self.since = Some(seq);
        }
        let output = &self.context.output;
        if output.json {
            output.line(&frame.to_string())?;
        } else if let Some(line) = self.line(frame) {
            output.line(&line)?;
        }
        let over = self.follows && frame["type"] == "call.ended";
        Ok(if over { Step::Finished } else { Step::Continue })
    }

    /// One event for people; `None` for those that only programs want.
    fn line(&self, frame: &Value) -> Option<String> {
        let output = &self.context.output;
        let data = &frame["data"];
        let paint = |style, text: &str| output.paint(style, text);
        let line = match frame["type"].as_str()? {
            "call.created" => {
                format!("{} {} → {}", paint(Style::Bold, "call"), text(&data["from"]), text(&data["to"]))
            }
            "call.answered" => format!("{} {}", paint(Style::Bold, "answered"), text(&data["codec"])),
            "call.phase" => {
                paint(Style::Faint, &format!("{}, floor: {}", text(&data["phase"]), text(&data["floor"])))
            }
            "call.media" => {
                paint(Style::Faint, &format!("media {} {}", text(&data["state"]), text(&data["codec"])))
            }
            "call.ended" => format!(
                "{} {}, by {}: {} ({})",
                paint(Style::Bold, "ended"),
                text(&data["disposition"]),
                text(&data["ended_by"]),
                text(&data["reason"]),
                clock(data["duration_ms"].as_u64().unwrap_or_default()),
            ),
            "transcript.final" => transcript_line(&self.context.output, data),
            "dtmf.received" => format!("{} {}", paint(Style::Magenta, "key"), text(&data["digit"])),
            "tool.started" => {
                format!("{} {} {}", paint(Style::Magenta, "tool"), text(&data["name"]), text(&data["args"]))
            }
            "tool.finished" => {
                let how = if data["ok"] == true { "done" } else { "failed" };
                format!(
                    "{} {} {how} in {} ms",
                    paint(Style::Magenta, "tool"),
                    text(&data["name"]),
                    data["ms"]
                )
            }
            "provider.connected" => {
                let how = if data["resumed"] == true { "goes on" } else { "joined" };
                paint(Style::Faint, &format!("{} {how}", text(&data["provider"])))
            }
            "provider.lost" => {
                format!(
                    "{} {}: {}",
                    paint(Style::Red, "lost"),
                    text(&data["provider"]),
                    text(&data["reason"])
                )
            }
            "barge_in" => paint(Style::Faint, &format!("cut after {} ms", data["played_ms"])),
            "call.quality" | "speech.level" | "transcript.partial" => return None,
            other => paint(Style::Faint, other),
        };
        let call = frame["call_id"].as_str().unwrap_or_default();
        Some(if self.follows || call.is_empty() {
            line
        } else {
            format!("{} {line}", paint(Style::Faint, call))
        })
    }
}

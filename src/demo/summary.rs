//! What the demo's call was like, step by step, measured.

use std::path::Path;

use serde_json::Value;

use super::measure::{audible, millis, samples, stretches, through_phone};
use super::{CALLER, Options, data_of};
use crate::audio::voice;
use crate::audio::wav::Wav;
use crate::simulate::phone::CallReport;
use crate::store::Committed;

/// One thing that must have happened.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// What.
    pub(super) name: &'static str,
    /// Whether it did.
    pub(super) ok: bool,
    /// The figures.
    pub(super) measured: String,
}

/// All steps.
#[derive(Debug, Clone)]
pub(super) struct Summary {
    /// In the order of the call.
    pub(super) steps: Vec<Step>,
}

impl Summary {
    /// Measures the call.
    pub(super) fn of(options: &Options, report: &CallReport, events: &[Committed], recording: &Path) -> Self {
        let lines = data_of(events, "transcript.final");
        let mut steps = vec![
            answered(report),
            greeted(report),
            conversation(&lines),
            response(report),
            stopped(report),
            truncated(options, report, events, &lines),
            tool(events),
            ended(report, events),
            quality(report, events),
            recorded(report, recording),
        ];
        steps.push(Step {
            name: "events without a gap",
            ok: events.iter().zip(1..).all(|(event, seq)| event.seq == seq),
            measured: format!("{} events", events.len()),
        });
        Self { steps }
    }

    /// How many steps failed.
    pub(super) fn failures(&self) -> usize {
        self.steps.iter().filter(|step| !step.ok).count()
    }
}

fn answered(report: &CallReport) -> Step {
    let since = |at: Option<std::time::Instant>| at.map(|at| (at - report.dialled).as_secs_f64() * 1000.0);
    let (ringing, answer) = (since(report.ringing), since(report.answered));
    Step {
        name: "call answered",
        ok: answer.is_some(),
        measured: format!("180 after {}, 200 after {}", shown(ringing), shown(answer)),
    }
}

fn greeted(report: &CallReport) -> Step {
    let first = stretches(&report.heard, PAUSE_MS).first().map(|(start, _)| millis(*start));
    let answer = report.answered.map(|at| report.position_ms(at));
    let delay = first.zip(answer).map(|(first, answer)| first - answer);
    Step {
        name: "greeting heard",
        ok: delay.is_some(),
        measured: format!("{} after the answer", shown(delay)),
    }
}

fn conversation(lines: &[Value]) -> Step {
    let of = |who: &str| lines.iter().filter(|line| line["who"] == who).count();
    let (caller, assistant) = (of("caller"), of("assistant"));
    Step {
        name: "lines transcribed",
        ok: caller >= CALLER.len() && assistant >= CALLER.len(),
        measured: format!("{caller} of the caller, {assistant} of the assistant"),
    }
}

/// End of the caller's line to the first of the answer, as the caller hears it.
fn response(report: &CallReport) -> Step {
    let heard = stretches(&report.heard, PAUSE_MS);
    let delays: Vec<f64> = report
        .spoke
        .iter()
        .filter_map(|(_, end)| {
            let end = report.position_ms(*end);
            heard.iter().map(|(start, _)| millis(*start)).find(|start| *start >= end).map(|start| start - end)
        })
        .collect();
    let mean = delays.iter().sum::<f64>() / delays.len().max(1) as f64;
    Step {
        name: "answers after the caller",
        ok: delays.len() >= CALLER.len() - 1,
        measured: format!("{} answers, {mean:.0} ms on average after the last word", delays.len()),
    }
}

/// From the caller's first sound over the assistant to its silence, by waveform.
fn stopped(report: &CallReport) -> Step {
    let interruption = report.spoke.get(1).map(|(began, _)| report.position_ms(*began));
    let heard = stretches(&report.heard, SHORT_PAUSE_MS);
    let stop = interruption.and_then(|at| {
        let cut = heard.iter().find(|(start, end)| millis(*start) < at && millis(*end) > at)?;
        Some(millis(cut.1) - at)
    });
    Step {
        name: "assistant stops",
        ok: stop.is_some_and(|stop| stop < 1000.0),
        measured: format!("{} after the caller began to speak over it", shown(stop)),
    }
}

/// What the provider was told of the cut line, against what the waveform says.
fn truncated(options: &Options, report: &CallReport, events: &[Committed], lines: &[Value]) -> Step {
    let name = "truncation accuracy";
    let Some(cut) = data_of(events, "barge_in").into_iter().next() else {
        return Step { name, ok: false, measured: "the caller did not interrupt".to_owned() };
    };
    let told = cut["played_ms"].as_f64().unwrap_or_default();
    let line = lines.iter().find(|line| line["line_id"] == cut["line_id"]);
    let stop_ms = cut["stop_ms"].as_f64().unwrap_or_default();
    if options.provider != "scripted" {
        let measured = format!("told {told:.0} ms, silent {stop_ms:.1} ms after the event");
        return Step { name, ok: told > 0.0, measured };
    }
    let Some(text) = line.and_then(|line| line["text"].as_str()) else {
        return Step { name, ok: false, measured: "the cut line is not in the transcript".to_owned() };
    };
    let around = report.spoke.first().map_or(0, |(_, end)| samples(report.position_ms(*end)));
    let reference = through_phone(&voice::speak(text));
    match audible(&reference, &report.heard, around, SEARCH_MS) {
        Some((heard, _)) => Step {
            name,
            ok: (told - heard).abs() <= 20.0 && stop_ms <= STOP_MS,
            measured: format!(
                "told {told:.0} ms, heard {heard:.0} ms ({:+.0} ms); last audio {stop_ms:.1} ms after the event",
                told - heard
            ),
        },
        None => Step { name, ok: false, measured: "the cut line cannot be found in the waveform".to_owned() },
    }
}

fn tool(events: &[Committed]) -> Step {
    let ran =
        data_of(events, "tool.finished").iter().any(|tool| tool["name"] == "end_call" && tool["ok"] == true);
    Step { name: "tool end_call", ok: ran, measured: if ran { "ran" } else { "did not run" }.to_owned() }
}

fn ended(report: &CallReport, events: &[Committed]) -> Step {
    let end = data_of(events, "call.ended").into_iter().next().unwrap_or_default();
    let by = end["ended_by"].as_str().unwrap_or("nobody").to_owned();
    Step {
        name: "hang-up by the assistant",
        ok: by == "assistant" && report.hang_up.is_some() && end["disposition"] == "completed",
        measured: format!("{by}, after {:.1} s", end["duration_ms"].as_f64().unwrap_or_default() / 1000.0),
    }
}

fn quality(report: &CallReport, events: &[Committed]) -> Step {
    let server = data_of(events, "call.quality").pop().unwrap_or_default();
    let lost = server["packets_lost"].as_u64().unwrap_or(u64::MAX);
    let phone_lost = report.quality.as_ref().map_or(u64::MAX, |quality| quality.packets_lost);
    let ms = |key: &str| shown(server[key].as_f64());
    Step {
        name: "media",
        ok: lost == 0 && phone_lost == 0,
        measured: format!(
            "no loss, MOS {}, uplink p99 {}, pacing p99 {}",
            server["mos"].as_f64().map_or("unknown".to_owned(), |mos| format!("{mos:.2}")),
            ms("uplink_p99_ms"),
            ms("pacing_p99_ms"),
        )
        .replacen("no loss", if lost == 0 && phone_lost == 0 { "no loss" } else { "loss" }, 1),
    }
}

/// The recording's right side must be what the caller heard, its length that of the call.
fn recorded(report: &CallReport, recording: &Path) -> Step {
    let name = "stereo recording";
    let read = std::fs::File::open(recording).map_err(|error| error.to_string());
    let wav = read.and_then(|file| Wav::read(file, 256 << 20).map_err(|error| error.to_string()));
    match wav {
        Ok(wav) => {
            let frames = wav.samples.len() / usize::from(wav.channels);
            let seconds = frames as f64 / f64::from(wav.rate);
            let talked = report.answered.map_or(0.0, |at| (report.ended - at).as_secs_f64());
            Step {
                name,
                ok: wav.channels == 2 && (seconds - talked).abs() < 0.5,
                measured: format!("{seconds:.1} s, {} channels at {} Hz", wav.channels, wav.rate),
            }
        }
        Err(error) => Step { name, ok: false, measured: error },
    }
}

fn shown(millis: Option<f64>) -> String {
    millis.map_or_else(|| "never".to_owned(), |millis| format!("{millis:.1} ms"))
}

/// One slot, and the 2 ms a packet may be off the grid.
const STOP_MS: f64 = 22.0;
/// Pauses within one stretch of speech.
const PAUSE_MS: f64 = 600.0;
const SHORT_PAUSE_MS: f64 = 350.0;
/// Where the cut line may begin: after the caller's line, within the time an answer takes.
const SEARCH_MS: f64 = 3000.0;

//! What the demo shows while it runs and at its end.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::Options;
use super::summary::Summary;
use crate::store::{FeedItem, Subscription};

/// Standard output of the demo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    json: bool,
    colour: bool,
}

/// Lines of the call being shown.
pub(super) struct Listening(JoinHandle<()>);

impl Listening {
    /// Waits until the call's end has been shown.
    pub(super) async fn finish(self) {
        // A panic while showing lines does not change what is measured.
        let _shown = tokio::time::timeout(std::time::Duration::from_secs(5), self.0).await;
    }
}

#[expect(clippy::print_stdout, reason = "showing a call is what the demo is for")]
impl Screen {
    pub(super) fn new(options: &Options) -> Self {
        Self { json: options.json, colour: options.colour }
    }

    pub(super) fn greet(self, provider: &str, sip: SocketAddr, http: SocketAddr) {
        if self.json {
            return;
        }
        println!("tandem {} - one whole call on this machine", env!("CARGO_PKG_VERSION"));
        println!("SIP on {sip}, API on http://{http}");
        if provider == "scripted" {
            println!("Scripted assistant, simulated caller: nothing leaves this machine. Ctrl-C ends it.");
            println!("(The scripted assistant recognises no words: its script holds what the caller says.)");
        } else {
            println!("The assistant is OpenAI Realtime: the call's audio goes there and is billed.");
        }
        println!();
    }

    /// Shows each line as it is stored.
    pub(super) fn follow(self, mut feed: Subscription) -> Listening {
        Listening(tokio::spawn(async move {
            while let Some(item) = feed.next().await {
                let FeedItem::Committed(event) = item else { continue };
                let data: Value = serde_json::from_str(event.data.get()).unwrap_or_default();
                self.event(&event.kind, &data);
                if &*event.kind == "call.ended" {
                    break;
                }
            }
        }))
    }

    fn event(self, kind: &str, data: &Value) {
        if self.json {
            return;
        }
        match kind {
            "call.created" => println!("        {} calls {}", text(data, "from"), text(data, "to")),
            "call.answered" => println!("        answered, {}", text(data, "codec")),
            "provider.connected" => println!("        assistant joined ({})", text(data, "provider")),
            "transcript.final" => self.line(data),
            "barge_in" => println!(
                "        the caller interrupts: {} ms of the line were heard",
                data["played_ms"].as_u64().unwrap_or_default()
            ),
            "tool.finished" => println!("        tool {} ran", text(data, "name")),
            "call.ended" => println!("        {} hung up: {}", text(data, "ended_by"), text(data, "reason")),
            _ => {}
        }
    }

    fn line(self, data: &Value) {
        let who = text(data, "who");
        let seconds = data["start_ms"].as_f64().unwrap_or_default() / 1000.0;
        let said =
            data["heard_text"].as_str().map_or_else(|| text(data, "text"), |heard| format!("{heard} ✂"));
        let name = if self.colour && who == "assistant" {
            format!("\x1b[36m{who:<9}\x1b[0m")
        } else if self.colour {
            format!("\x1b[32m{who:<9}\x1b[0m")
        } else {
            format!("{who:<9}")
        };
        println!("{seconds:>6.2}  {name} {said}");
    }

    /// The end: what was measured and where the recording is.
    pub(super) fn summarise(self, summary: &Summary, recording: &Path) -> anyhow::Result<()> {
        if self.json {
            let steps: Vec<Value> = summary
                .steps
                .iter()
                .map(|step| json!({"name": step.name, "ok": step.ok, "measured": step.measured}))
                .collect();
            let document = json!({
                "ok": summary.failures() == 0, "steps": steps, "recording": recording.display().to_string(),
            });
            println!("{}", serde_json::to_string(&document)?);
            return Ok(());
        }
        println!();
        for step in &summary.steps {
            let mark = if step.ok { "ok    " } else { "FAILED" };
            println!("{mark}  {:<28} {}", step.name, step.measured);
        }
        println!();
        println!("Recording (left: caller, right: what the caller was sent): {}", recording.display());
        println!();
        println!("Next: `tandem init` writes a configuration; `tandem serve` answers calls on this machine;");
        println!("      with OPENAI_API_KEY set, `tandem demo --provider openai` talks to the real service.");
        Ok(())
    }
}

fn text(data: &Value, key: &str) -> String {
    data[key].as_str().unwrap_or_default().to_owned()
}

//! The media of a call in a few lines, from the call's own durable events.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line of the story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoryLine {
    /// Milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// Milliseconds since the first message of the call.
    pub offset_ms: f64,
    /// Whose media: a leg's name, empty for the call's first leg.
    pub leg: String,
    /// In words.
    pub text: String,
}

/// An event of a call as it is on the feed: moment, type, data.
pub type Event<'a> = (i64, &'a str, &'a Value);

/// The Call-IDs of a call's legs in the order they came up.
pub fn sip_call_ids<'a>(events: impl IntoIterator<Item = Event<'a>>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, kind, data) in events {
        if let ("call.created" | "leg.added", Some(id)) = (kind, data["sip_call_id"].as_str())
            && !found.iter().any(|known| known == id)
        {
            found.push(id.to_owned());
        }
    }
    found
}

/// What is told of the media, in order. Only the last statistics of each leg are told.
pub fn tell<'a>(events: impl IntoIterator<Item = Event<'a>>) -> Vec<StoryLine> {
    let mut lines: Vec<StoryLine> = Vec::new();
    let mut last_quality: Vec<(String, i64, &Value)> = Vec::new();
    for (at_ms, kind, data) in events {
        let leg = data["leg"].as_str().unwrap_or_default().to_owned();
        if kind == "call.quality" {
            last_quality.retain(|(known, ..)| *known != leg);
            last_quality.push((leg, at_ms, data));
            continue;
        }
        if let Some(text) = sentence(kind, data) {
            lines.push(StoryLine { at_ms, offset_ms: 0.0, leg, text });
        }
    }
    for (leg, at_ms, data) in last_quality {
        let told =
            quality(data).into_iter().map(|text| StoryLine { at_ms, offset_ms: 0.0, leg: leg.clone(), text });
        lines.extend(told);
    }
    lines.sort_by_key(|line| line.at_ms);
    lines
}

fn sentence(kind: &str, data: &Value) -> Option<String> {
    let word = |key: &str| data[key].as_str().unwrap_or_default();
    match kind {
        "call.answered" => Some(format!("answered with {}", word("codec"))),
        "call.media" => Some(format!("media {}, {}", word("state").replace('_', " "), word("codec"))),
        "call.bridged" => Some(match word("mode") {
            "relay" => "bridged: packets are passed on as they are".to_owned(),
            mode => format!("bridged: {mode}"),
        }),
        "call.transfer" => {
            let status = data["status"].as_u64().filter(|status| *status > 0);
            let status = status.map(|status| format!(" ({status})")).unwrap_or_default();
            Some(format!("transfer {}{status}", word("state")))
        }
        "leg.ended" => {
            let status = data["status"].as_u64().unwrap_or_default();
            Some(format!("leg ended by {}: {status} {}", word("by"), word("reason")))
        }
        "call.ended" => {
            let status = data["sip_status"].as_u64().unwrap_or_default();
            Some(format!("{} by {}: {status} {}", word("disposition"), word("ended_by"), word("reason")))
        }
        _ => None,
    }
}

fn quality(data: &Value) -> Vec<String> {
    let count = |key: &str| data[key].as_u64().unwrap_or_default();
    let received = count("packets_received");
    let lost = count("packets_lost");
    let expected = received + lost;
    let percent = if expected == 0 { 0.0 } else { lost as f64 * 100.0 / expected as f64 };
    let mut heard = format!("heard {received} packets, {lost} lost ({percent:.1} %)");
    for (key, what) in
        [("packets_late", "late"), ("packets_duplicate", "twice"), ("packets_reordered", "reordered")]
    {
        if count(key) > 0 {
            heard.push_str(&format!(", {} {what}", count(key)));
        }
    }
    for (key, unit) in [("jitter_ms", "ms jitter"), ("mos", "MOS")] {
        if let Some(value) = data[key].as_f64() {
            heard.push_str(&format!(", {value:.1} {unit}"));
        }
    }
    let mut told = vec![heard];
    let mut said = format!("sent {} packets", count("packets_sent"));
    if let Some(loss) = data["peer_loss"].as_f64() {
        said.push_str(&format!(", peer reports {:.1} % lost", loss * 100.0));
    }
    if let Some(ms) = data["round_trip_ms"].as_f64() {
        said.push_str(&format!(", round trip {ms:.0} ms"));
    }
    if count("pacing_late") > 0 {
        said.push_str(&format!(", {} off the 20 ms grid", count("pacing_late")));
    }
    told.push(said);
    if count("max_gap_ms") > GAP_TOLD_MS {
        told.push(format!(
            "longest time without a packet {} ms, {} ms concealed",
            count("max_gap_ms"),
            count("concealed_ms")
        ));
    }
    if count("packets_foreign") > 0 {
        told.push(format!("{} packets from strangers dropped", count("packets_foreign")));
    }
    told
}

/// Gaps up to this long are nothing to tell.
const GAP_TOLD_MS: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_story_has_codec_changes_and_the_last_statistics() {
        let events = [
            (0, "call.created", json!({"sip_call_id": "a"})),
            (5, "leg.added", json!({"sip_call_id": "b", "leg": "leg_1"})),
            (10, "call.answered", json!({"codec": "PCMU/8000"})),
            (20, "call.quality", json!({"packets_received": 1})),
            (30, "call.media", json!({"state": "held_by_peer", "codec": "PCMU/8000"})),
            (
                40,
                "call.quality",
                json!({"packets_received": 99, "packets_lost": 1, "packets_sent": 100, "mos": 4.36, "jitter_ms": 0.2}),
            ),
        ];
        let events = || events.iter().map(|(at, kind, data)| (*at, *kind, data));
        assert_eq!(sip_call_ids(events()), ["a", "b"]);
        let told: Vec<String> = tell(events()).into_iter().map(|line| line.text).collect();
        assert_eq!(
            told,
            [
                "answered with PCMU/8000",
                "media held by peer, PCMU/8000",
                "heard 99 packets, 1 lost (1.0 %), 0.2 ms jitter, 4.4 MOS",
                "sent 100 packets",
            ]
        );
    }
}

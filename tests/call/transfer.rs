//! Calls that are moved: by REFER, by Replaces, over the API; and what is heard on hold.

use std::net::SocketAddr;

use serde_json::json;
use tandem::event::Disposition;
use tandem::store::{CallRecord, Committed};

use super::PORTS;
use super::support::{Lab, Setup, answer, data_of, kinds, within};
use super::wire::{Packet, Talk, Wire, header};

/// A server with a way in (`in`) and two ways out: `600` calls bob, `700` carol, `800` answers and calls bob, `100`
/// is an assistant. `refer` is the policy for those who call in.
pub struct Stage {
    pub lab: Lab,
    pub ann: Wire,
    pub bob: Wire,
    pub carol: Wire,
}

impl Stage {
    pub async fn open(refer: &'static str, setup: Setup) -> Self {
        Self::open_for(refer, "acme", setup).await
    }

    /// The numbers that are joined are this organization's.
    pub async fn open_for(refer: &'static str, organization: &str, setup: Setup) -> Self {
        let (ann, bob, carol) = (Wire::open("ann").await, Wire::open("bob").await, Wire::open("carol").await);
        let lab = Lab::open(PORTS, staged(refer, organization, [bob.address, carol.address], setup)).await;
        Self { lab, ann, bob, carol }
    }

    /// As [`Stage::open`], with a setup that knows where bob and carol are.
    pub async fn open_with(setup: impl FnOnce(SocketAddr, SocketAddr) -> Setup) -> Self {
        let (ann, bob, carol) = (Wire::open("ann").await, Wire::open("bob").await, Wire::open("carol").await);
        let setup = setup(bob.address, carol.address);
        let lab = Lab::open(PORTS, staged("local", "acme", [bob.address, carol.address], setup)).await;
        Self { lab, ann, bob, carol }
    }

    pub fn at(&self) -> SocketAddr {
        self.lab.sip
    }

    /// Ann talks with bob.
    pub async fn bridged(&mut self) -> (Talk, Talk) {
        let (ann, bob) = tokio::join!(self.ann.call(self.lab.sip, "600"), self.bob.pick_up("0 101"));
        bob.line.hears(10, "ann", Packet::is_loud).await;
        ann.line.hears(10, "bob", Packet::is_loud).await;
        (ann, bob)
    }

    pub async fn post(&self, what: &str, body: serde_json::Value) -> (u16, serde_json::Value) {
        let call = self.lab.live_call().await;
        let path = format!("/api/v1/calls/{}/{what}", call.id);
        self.lab.http("POST", &path, &self.lab.token().await, &body.to_string()).await
    }

    /// Waits until the latest event of a transfer is this one.
    async fn transferred(&self, state: &str) {
        let call = self.lab.live_call().await;
        within(60, state, async || {
            let states = states(&self.lab.events(call.id).await);
            states.last().is_some_and(|last| last == state).then_some(())
        })
        .await;
    }

    pub async fn closed(&self, count: usize) -> Vec<CallRecord> {
        self.lab.closed(count).await
    }

    fn bob_uri(&self) -> String {
        format!("sip:bob@{}", self.bob.address)
    }

    fn carol_uri(&self) -> String {
        format!("sip:carol@{}", self.carol.address)
    }
}

fn staged(refer: &'static str, organization: &str, [bob, carol]: [SocketAddr; 2], setup: Setup) -> Setup {
    let mut setup = setup;
    let before = std::mem::replace(&mut setup.configure, Box::new(|_| ()));
    let mut setup = setup.configure(move |config| {
        let trunk = |name: &str, rest: &str| {
            let text = format!("name = \"{name}\"\nprofile = \"generic\"\n{rest}\n");
            toml::from_str(&text).expect("a trunk")
        };
        config.trunk = vec![
            trunk("in", &format!("allow = [\"127.0.0.1\"]\nrefer = \"{refer}\"")),
            trunk("bob", &format!("peers = [\"{bob}\"]")),
            trunk("carol", &format!("peers = [\"{carol}\"]")),
        ];
        before(config);
    });
    for (number, flow) in [
        ("600", format!("{{ step = \"dial\", to = \"sip:bob@{bob}\" }}")),
        ("700", format!("{{ step = \"dial\", to = \"sip:carol@{carol}\" }}")),
        ("800", format!("{{ step = \"answer\" }}, {{ step = \"dial\", to = \"sip:bob@{bob}\" }}")),
    ] {
        let entry = format!(
            "\n[[number]]\norganization = \"{organization}\"\nnumber = \"{number}\"\nflow = [{flow}]\n"
        );
        setup.resources.push_str(&entry);
    }
    setup
}

fn talkative() -> Setup {
    Setup::default().script(&answer("tone:500", 4000).repeat(4))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_hands_the_phone_over_and_the_assistant_goes_on() {
    let mut stage = Stage::open("local", talkative()).await;
    let mut ann = stage.ann.call(stage.at(), "100").await;
    ann.line.hush(true);
    ann.line.hears(10, "the assistant", Packet::is_loud).await;
    let to = stage.carol_uri();
    assert_eq!(stage.ann.refer(&mut ann, &to).await, 202);
    let carol = stage.carol.pick_up("0 101").await;
    carol.line.hush(true);
    let news = stage.ann.news(&ann).await;
    assert_eq!((news[0], news.last()), (100, Some(&200)), "{news:?}");
    stage.ann.hung_up(&ann).await;
    carol.line.hears(20, "the assistant", Packet::is_loud).await;
    let mut carol = carol;
    stage.carol.bye(&mut carol).await;
    let (call, events) = stage.lab.record().await;
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("caller")));
    let states: Vec<_> = data_of(&events, "call.transfer").iter().map(|e| e["state"].to_string()).collect();
    assert_eq!(states, ["\"asked\"", "\"accepted\"", "\"completed\""], "{:?}", kinds(&events));
    assert_eq!(data_of(&events, "provider.connected").len(), 1, "one session for both");
    assert!(data_of(&events, "provider.lost").is_empty());
    stage.lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_fails_leaves_the_caller_with_the_assistant() {
    let mut stage = Stage::open("local", talkative()).await;
    let mut ann = stage.ann.call(stage.at(), "100").await;
    ann.line.hush(true);
    let to = stage.carol_uri();
    assert_eq!(stage.ann.refer(&mut ann, &to).await, 202);
    let (invite, server) = stage.carol.ringing().await;
    stage.carol.refuse(&invite, server, "486 Busy Here").await;
    assert_eq!(stage.ann.news(&ann).await.last(), Some(&486));
    ann.line.hears(10, "the assistant", Packet::is_loud).await;
    // A target that is no trunk's is refused, and costs nothing either.
    assert_eq!(stage.ann.refer(&mut ann, "sip:rich@198.51.100.7").await, 202);
    assert_eq!(stage.ann.news(&ann).await.last(), Some(&403));
    assert!(!stage.ann.is_hung_up(&ann).await);
    stage.ann.bye(&mut ann).await;
    let (call, _) = stage.lab.record().await;
    assert_eq!(call.ended_by.as_deref(), Some("caller"));
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trunk_that_may_not_transfer_is_told_so() {
    let mut stage = Stage::open("refuse", talkative()).await;
    let mut ann = stage.ann.call(stage.at(), "100").await;
    let to = stage.carol_uri();
    assert_eq!(stage.ann.refer(&mut ann, &to).await, 403);
    stage.ann.bye(&mut ann).await;
    let (mut ann, bob) = stage.bridged().await;
    assert_eq!(stage.ann.refer(&mut ann, &to).await, 403);
    // Nor may anybody take its dialogs over.
    let replaces = format!("Replaces: {}\r\n", ann.replaces());
    let refused = stage.carol.call_with(stage.lab.sip, "600", &replaces, "0 101").await;
    assert_eq!(refused.err(), Some(403));
    stage.ann.bye(&mut ann).await;
    stage.bob.hung_up(&bob).await;
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callee_transfers_the_caller_blindly() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let (mut ann, mut bob) = stage.bridged().await;
    let to = stage.carol_uri();
    assert_eq!(stage.bob.refer(&mut bob, &to).await, 202);
    // Bob leaves at once; ann must not.
    stage.bob.bye(&mut bob).await;
    let mut carol = stage.carol.pick_up("0 101").await;
    carol.line.hears(10, "ann", Packet::is_loud).await;
    ann.line.hears(10, "carol", Packet::is_loud).await;
    assert!(!stage.ann.is_hung_up(&ann).await);
    // And once more, by the other side; carol is busy on the phone, so it fails.
    let to = stage.bob_uri();
    assert_eq!(stage.ann.refer(&mut ann, &to).await, 202);
    let (invite, server) = stage.bob.ringing().await;
    stage.bob.refuse(&invite, server, "603 Decline").await;
    assert_eq!(stage.ann.news(&ann).await.last(), Some(&603));
    ann.line.hears(10, "carol", Packet::is_loud).await;
    stage.carol.bye(&mut carol).await;
    stage.ann.hung_up(&ann).await;
    let (call, _) = stage.lab.record().await;
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("callee")));
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_referrer_who_left_takes_the_call_along_when_the_transfer_fails() {
    let mut stage = Stage::open("local", talkative()).await;
    let mut ann = stage.ann.call(stage.at(), "100").await;
    let to = stage.carol_uri();
    assert_eq!(stage.ann.refer(&mut ann, &to).await, 202);
    let (invite, server) = stage.carol.ringing().await;
    stage.ann.bye(&mut ann).await;
    stage.carol.refuse(&invite, server, "486 Busy Here").await;
    let (call, events) = stage.lab.record().await;
    assert_eq!(call.disposition, Some(Disposition::Completed), "{:?}", kinds(&events));
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_ends_gives_its_transfer_up() {
    let mut stage = Stage::open("local", talkative()).await;
    let mut ann = stage.ann.call(stage.at(), "100").await;
    assert_eq!(stage.post("transfer", json!({"to": stage.carol_uri()})).await.0, 202);
    stage.carol.ringing().await;
    stage.ann.bye(&mut ann).await;
    stage.carol.until("CANCEL", |m| m.starts_with("CANCEL ")).await;
    let (_, events) = stage.lab.record().await;
    let states: Vec<_> = data_of(&events, "call.transfer").iter().map(|e| e["state"].to_string()).collect();
    assert_eq!(states, ["\"accepted\"", "\"failed\""]);
    assert_eq!(data_of(&events, "leg.ended")[0]["status"], 487);
    stage.lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_moves_a_caller_from_the_assistant_to_somebody_else() {
    let mut stage = Stage::open("local", talkative()).await;
    let mut ann = stage.ann.call(stage.at(), "100").await;
    ann.line.hush(true);
    ann.line.hears(10, "the assistant", Packet::is_loud).await;
    let (status, problem) = stage.post("hold", json!({"on": true})).await;
    assert_eq!(status, 409, "{problem}");
    let (status, _) = stage.post("transfer", json!({"to": stage.carol_uri()})).await;
    assert_eq!(status, 202);
    let (invite, server) = stage.carol.ringing().await;
    let (status, _) = stage.post("transfer", json!({"to": stage.bob_uri()})).await;
    assert_eq!(status, 409, "one at a time");
    // Until carol answers, the assistant talks on.
    ann.line.hears(10, "the assistant", Packet::is_loud).await;
    let carol = stage.carol.take(invite, server, "0 101").await;
    ann.line.hush(false);
    carol.line.hears(10, "ann", Packet::is_loud).await;
    stage.lab.service_until("the session is closed", |report| report.summary.ended == 1).await;
    carol.line.hush(true);
    within(60, "the assistant is gone", async || {
        let heard = ann.line.heard();
        heard.iter().rev().take(25).all(|packet| !packet.is_loud()).then_some(())
    })
    .await;
    let (status, problem) = stage.post("say", json!({"text": "Hello."})).await;
    assert_eq!(status, 409, "{problem}");
    stage.ann.bye(&mut ann).await;
    stage.carol.hung_up(&carol).await;
    let (call, _) = stage.lab.record().await;
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("caller")));
    stage.lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_moves_the_caller_of_a_bridged_call() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let (mut ann, bob) = stage.bridged().await;
    assert_eq!(stage.post("transfer", json!({"to": stage.carol_uri()})).await.0, 202);
    let carol = stage.carol.pick_up("0 101").await;
    stage.bob.hung_up(&bob).await;
    carol.line.hears(10, "ann", Packet::is_loud).await;
    ann.line.hears(10, "carol", Packet::is_loud).await;
    stage.ann.bye(&mut ann).await;
    stage.carol.hung_up(&carol).await;
    stage.lab.record().await;
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_who_leaves_before_the_next_one_answers_does_not_end_the_call() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let (mut ann, mut bob) = stage.bridged().await;
    assert_eq!(stage.post("transfer", json!({"to": stage.carol_uri()})).await.0, 202);
    let (invite, server) = stage.carol.ringing().await;
    stage.bob.bye(&mut bob).await;
    let carol = stage.carol.take(invite, server, "0 101").await;
    carol.line.hears(10, "ann", Packet::is_loud).await;
    ann.line.hears(10, "carol", Packet::is_loud).await;
    stage.ann.bye(&mut ann).await;
    stage.carol.hung_up(&carol).await;
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_rings_is_picked_up_elsewhere() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let at = stage.at();
    let picking = async {
        let (invite, _) = stage.bob.ringing().await;
        let replaces = format!("Replaces: {}\r\n", Talk::replaces_ringing(&stage.bob, &invite));
        // The ringing may not have been heard of yet.
        let carol = within(60, "it is picked up", async || {
            stage.carol.call_with(at, "600", &replaces, "0 101").await.ok()
        });
        carol.await
    };
    let (ann, carol) = tokio::join!(stage.ann.call(at, "600"), picking);
    let mut ann = ann;
    let cancel = stage.bob.until("CANCEL", |m| m.starts_with("CANCEL ")).await;
    assert!(header(&cancel, "Reason").contains("cause=200"), "{cancel}");
    carol.line.hears(10, "ann", Packet::is_loud).await;
    ann.line.hears(10, "carol", Packet::is_loud).await;
    stage.ann.bye(&mut ann).await;
    stage.carol.hung_up(&carol).await;
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ringing_call_takes_no_transfer() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let at = stage.at();
    let ringing = async {
        let (invite, server) = stage.bob.ringing().await;
        let call = stage.lab.live_call().await;
        let token = stage.lab.token().await;
        for (what, body) in
            [("transfer", r#"{"to": "100"}"#), ("hold", r#"{"on": true}"#), ("dtmf", r#"{"digits": "1"}"#)]
        {
            let path = format!("/api/v1/calls/{}/{what}", call.id);
            let (status, problem) = stage.lab.http("POST", &path, &token, body).await;
            assert_eq!(status, 409, "{what}: {problem}");
        }
        stage.bob.refuse(&invite, server, "486 Busy Here").await;
    };
    let (refused, ()) = tokio::join!(stage.ann.call_with(at, "600", "", "0 101"), ringing);
    assert_eq!(refused.err(), Some(486));
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_transfers_are_passed_the_other_party_is_asked_to_call() {
    let mut stage = Stage::open("pass", Setup::default()).await;
    let (mut ann, mut bob) = stage.bridged().await;
    let to = stage.carol_uri();
    assert_eq!(stage.ann.refer(&mut ann, &to).await, 202);
    let refer = stage.bob.until("a REFER", |m| m.starts_with("REFER ")).await;
    assert!(header(&refer, "Refer-To").contains(&to), "{refer}");
    stage.bob.answer_refer(&refer, &mut bob, "202 Accepted", &[180, 200]).await;
    let news = stage.ann.news(&ann).await;
    assert_eq!(news.last(), Some(&200), "{news:?}");
    stage.ann.hung_up(&ann).await;
    stage.bob.hung_up(&bob).await;
    let (call, events) = stage.lab.record().await;
    assert_eq!(call.disposition, Some(Disposition::Completed), "{:?}", kinds(&events));
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_passes_a_caller_on_where_the_trunk_says_so() {
    let mut stage = Stage::open("pass", talkative()).await;
    let mut ann = stage.ann.call(stage.at(), "100").await;
    ann.line.hush(true);
    assert_eq!(stage.post("transfer", json!({"to": stage.carol_uri()})).await.0, 202);
    let refer = stage.ann.until("a REFER", |m| m.starts_with("REFER ")).await;
    assert!(header(&refer, "Refer-To").contains(&stage.carol_uri()), "{refer}");
    // The first time the other side fails, and ann stays where she is.
    stage.ann.answer_refer(&refer, &mut ann, "202 Accepted", &[100, 503]).await;
    ann.line.hears(10, "the assistant", Packet::is_loud).await;
    assert_eq!(stage.post("transfer", json!({"to": stage.carol_uri()})).await.0, 202);
    let refer = stage.ann.until("a REFER", |m| m.starts_with("REFER ")).await;
    stage.ann.answer_refer(&refer, &mut ann, "202 Accepted", &[100, 200]).await;
    stage.ann.hung_up(&ann).await;
    let (call, events) = stage.lab.record().await;
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("api")));
    let states: Vec<_> = data_of(&events, "call.transfer").iter().map(|e| e["state"].to_string()).collect();
    assert_eq!(states, ["\"accepted\"", "\"failed\"", "\"accepted\"", "\"completed\""]);
    stage.lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_that_cannot_call_by_itself_is_moved_here() {
    let mut stage = Stage::open("pass", Setup::default()).await;
    let (mut ann, mut bob) = stage.bridged().await;
    let to = stage.carol_uri();
    assert_eq!(stage.ann.refer(&mut ann, &to).await, 202);
    let refer = stage.bob.until("a REFER", |m| m.starts_with("REFER ")).await;
    stage.bob.answer_refer(&refer, &mut bob, "501 Not Implemented", &[]).await;
    let carol = stage.carol.pick_up("0 101").await;
    assert_eq!(stage.ann.news(&ann).await.last(), Some(&200));
    stage.ann.hung_up(&ann).await;
    carol.line.hears(10, "bob", Packet::is_loud).await;
    stage.bob.bye(&mut bob).await;
    stage.carol.hung_up(&carol).await;
    stage.lab.record().await;
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialog_elsewhere_is_named_to_whoever_is_called() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let (mut ann, bob) = stage.bridged().await;
    let to = format!("{}?Replaces=x%40y%3Bto-tag%3D7%3Bfrom-tag%3D8", stage.carol_uri());
    assert_eq!(stage.ann.refer(&mut ann, &to).await, 202);
    let mut carol = stage.carol.pick_up("0 101").await;
    assert_eq!(header(&carol.invite, "Replaces"), "x@y;to-tag=7;from-tag=8");
    assert_eq!(stage.ann.news(&ann).await.last(), Some(&200));
    stage.ann.hung_up(&ann).await;
    carol.line.hears(10, "bob", Packet::is_loud).await;
    bob.line.hears(10, "carol", Packet::is_loud).await;
    stage.carol.bye(&mut carol).await;
    stage.bob.hung_up(&bob).await;
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_calls_of_one_party_become_one_on_whatever_workers_they_are() {
    let mut stage = Stage::open("local", Setup::default().configure(|config| config.media.workers = 2)).await;
    let (mut first, mut bob) = stage.bridged().await;
    let at = stage.at();
    let (second, carol) = tokio::join!(stage.ann.call(at, "700"), stage.carol.pick_up("0 101"));
    carol.line.hears(10, "ann", Packet::is_loud).await;
    first.line.hush(true);
    second.line.hush(true);
    let to = format!("{}?Replaces={}", stage.carol_uri(), second.replaces_escaped());
    assert_eq!(stage.ann.refer(&mut first, &to).await, 202);
    assert_eq!(stage.ann.news(&first).await.last(), Some(&200));
    stage.ann.hung_up(&first).await;
    stage.ann.hung_up(&second).await;
    carol.line.hears(25, "bob", Packet::is_loud).await;
    bob.line.hears(25, "carol", Packet::is_loud).await;
    let streams: std::collections::HashSet<u32> = carol.line.heard().iter().map(|p| p.ssrc).collect();
    assert_eq!(streams.len(), 1, "carol's stream goes on under its source");
    stage.bob.bye(&mut bob).await;
    stage.carol.hung_up(&carol).await;
    for call in stage.closed(2).await {
        assert_eq!(call.disposition, Some(Disposition::Completed));
    }
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_is_joined_with_the_assistant_of_another_call() {
    let mut stage = Stage::open("local", talkative().configure(|config| config.media.workers = 2)).await;
    let (mut first, mut bob) = stage.bridged().await;
    let second = stage.ann.call(stage.lab.sip, "100").await;
    second.line.hush(true);
    bob.line.hush(true);
    first.line.hush(true);
    let to = format!("{}?Replaces={}", stage.carol_uri(), second.replaces_escaped());
    assert_eq!(stage.ann.refer(&mut first, &to).await, 202);
    assert_eq!(stage.ann.news(&first).await.last(), Some(&200));
    stage.ann.hung_up(&first).await;
    stage.ann.hung_up(&second).await;
    bob.line.hears(20, "the assistant", Packet::is_loud).await;
    stage.bob.bye(&mut bob).await;
    stage.closed(2).await;
    stage.lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invite_with_replaces_takes_the_place_of_a_party() {
    let mut stage = Stage::open("local", talkative()).await;
    let (ann, bob) = stage.bridged().await;
    let replaces = format!("Replaces: {}\r\n", ann.replaces());
    let carol = stage.carol.call_with(stage.lab.sip, "600", &replaces, "0 101").await;
    let mut carol = carol.expect("it is answered");
    stage.ann.hung_up(&ann).await;
    carol.line.hears(10, "bob", Packet::is_loud).await;
    bob.line.hears(10, "carol", Packet::is_loud).await;
    stage.carol.bye(&mut carol).await;
    stage.bob.hung_up(&bob).await;
    stage.lab.record().await;
    // The same for a caller who talks with an assistant, and for a dialog that is not there.
    let ann = stage.ann.call(stage.lab.sip, "100").await;
    ann.line.hush(true);
    let replaces = format!("Replaces: {}\r\n", ann.replaces());
    let carol = stage.carol.call_with(stage.lab.sip, "600", &replaces, "0 101").await;
    let mut carol = carol.expect("it is answered");
    carol.line.hush(true);
    stage.ann.hung_up(&ann).await;
    carol.line.hears(20, "the assistant", Packet::is_loud).await;
    stage.carol.bye(&mut carol).await;
    let gone = "Replaces: nobody;to-tag=1;from-tag=2\r\n";
    assert_eq!(stage.carol.call_with(stage.lab.sip, "600", gone, "0 101").await.err(), Some(481));
    stage.closed(2).await;
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_on_hold_hears_music_until_it_is_taken_back() {
    let music = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(music.path(), wav(&super::support::tone(400.0, 9000.0, 300))).expect("it can be written");
    let path = music.path().to_owned();
    let setup = Setup::default().configure(move |config| config.media.hold_music = Some(path));
    let mut stage = Stage::open("local", setup).await;
    let (mut ann, bob) = stage.bridged().await;
    ann.line.hush(true);
    let answer = stage.ann.offer(&mut ann, "0 101", "sendonly").await;
    assert!(answer.contains("a=recvonly"), "{answer}");
    // Longer than the file: it is played over and over.
    bob.line.hears(40, "music", Packet::is_loud).await;
    stage.ann.offer(&mut ann, "0 101", "sendrecv").await;
    ann.line.hears(10, "bob", Packet::is_loud).await;
    bob.line.hush(true);
    within(60, "the music stops", async || {
        bob.line.heard().iter().rev().take(25).all(|packet| !packet.is_loud()).then_some(())
    })
    .await;
    // And by the API: both wait.
    assert_eq!(stage.post("hold", json!({"on": true})).await.0, 202);
    bob.line.hears(20, "music", Packet::is_loud).await;
    ann.line.hears(20, "music", Packet::is_loud).await;
    assert_eq!(stage.post("hold", json!({"on": false})).await.0, 202);
    ann.line.hush(false);
    bob.line.hears(20, "ann", |packet| packet.payload.first() == Some(&0x10)).await;
    stage.ann.bye(&mut ann).await;
    stage.bob.hung_up(&bob).await;
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_was_answered_hears_why_the_call_ends() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let ann = stage.ann.call(stage.at(), "800").await;
    let (invite, server) = stage.bob.ringing().await;
    stage.bob.refuse(&invite, server, "486 Busy Here").await;
    ann.line.hears(30, "an apology", Packet::is_loud).await;
    let bye = stage.ann.hung_up(&ann).await;
    assert!(header(&bye, "Reason").contains("cause=17"), "{bye}");
    let (call, _) = stage.lab.record().await;
    assert_eq!((call.disposition, call.sip_status), (Some(Disposition::Busy), Some(486)));
    stage.lab.close().await;
}

fn states(events: &[Committed]) -> Vec<String> {
    let told = data_of(events, "call.transfer").into_iter();
    told.map(|event| format!("{} {}", event["state"].as_str().unwrap_or_default(), event["status"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_sends_the_caller_to_the_assistant() {
    let mut stage = Stage::open("local", talkative()).await;
    let (mut ann, mut bob) = stage.bridged().await;
    ann.line.hush(true);
    let to = format!("sip:100@{}", stage.at());
    assert_eq!(stage.bob.refer(&mut bob, &to).await, 202);
    assert_eq!(stage.bob.news(&bob).await.last(), Some(&200));
    stage.bob.hung_up(&bob).await;
    ann.line.hears(20, "the assistant", Packet::is_loud).await;
    // The flow is the call's now: what the API asks of an assistant, this one does.
    assert_eq!(stage.post("say", json!({"text": "Hello."})).await.0, 202);
    stage.ann.bye(&mut ann).await;
    let (call, events) = stage.lab.record().await;
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("caller")));
    assert_eq!(states(&events), ["asked 0", "accepted 202", "completed 200"]);
    assert_eq!(data_of(&events, "provider.connected").len(), 1, "{:?}", kinds(&events));
    assert_eq!(data_of(&events, "leg.ended")[0]["by"], "callee");
    stage.lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_sends_the_callee_to_the_assistant_even_where_transfers_are_passed() {
    let mut stage = Stage::open("pass", talkative()).await;
    let (mut ann, mut bob) = stage.bridged().await;
    bob.line.hush(true);
    let to = format!("sip:100@{}", stage.at());
    assert_eq!(stage.ann.refer(&mut ann, &to).await, 202);
    // Bob is not asked to call a number that only we know.
    assert_eq!(stage.ann.news(&ann).await.last(), Some(&200));
    stage.ann.hung_up(&ann).await;
    bob.line.hears(20, "the assistant", Packet::is_loud).await;
    stage.bob.bye(&mut bob).await;
    let (call, events) = stage.lab.record().await;
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("callee")));
    assert_eq!(states(&events), ["asked 0", "accepted 202", "completed 200"]);
    assert_eq!(data_of(&events, "leg.ended")[0]["by"], "caller");
    stage.lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_moves_a_caller_from_one_flow_to_another_and_back() {
    let mut stage = Stage::open("local", talkative()).await;
    let mut ann = stage.ann.call(stage.at(), "100").await;
    ann.line.hush(true);
    ann.line.hears(10, "the assistant", Packet::is_loud).await;
    assert_eq!(stage.post("transfer", json!({"to": "400"})).await.0, 202);
    stage.lab.service_until("the session is closed", |report| report.summary.ended == 1).await;
    ann.line.hush(false);
    ann.line.hears(20, "herself", Packet::is_loud).await;
    ann.line.hush(true);
    // The same from a call with two parties: the callee leaves, the caller goes on.
    assert_eq!(stage.post("transfer", json!({"to": stage.carol_uri()})).await.0, 202);
    let carol = stage.carol.pick_up("0 101").await;
    carol.line.hush(true);
    assert_eq!(stage.post("transfer", json!({"to": "100"})).await.0, 202);
    stage.carol.hung_up(&carol).await;
    ann.line.hears(20, "the assistant", Packet::is_loud).await;
    stage.ann.bye(&mut ann).await;
    let (call, events) = stage.lab.record().await;
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("caller")));
    assert_eq!(states(&events), ["accepted 202", "completed 200"].repeat(3));
    assert_eq!(data_of(&events, "provider.connected").len(), 2, "{:?}", kinds(&events));
    stage.lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_cannot_take_the_call_leaves_it_where_it_is() {
    let mut stage = Stage::open("local", talkative()).await;
    let mut ann = stage.ann.call(stage.at(), "100").await;
    ann.line.hush(true);
    ann.line.hears(10, "the assistant", Packet::is_loud).await;
    // 300 refuses calls.
    assert_eq!(stage.post("transfer", json!({"to": "300"})).await.0, 202);
    stage.transferred("failed 486").await;
    // Whoever talks with an assistant has nobody to send to another flow.
    let to = format!("sip:400@{}", stage.at());
    assert_eq!(stage.ann.refer(&mut ann, &to).await, 202);
    assert_eq!(stage.ann.news(&ann).await.last(), Some(&488));
    stage.transferred("failed 488").await;
    // 500 is an extension of somebody else: not ours, it is dialled as any other number.
    assert_eq!(stage.post("transfer", json!({"to": "500"})).await.0, 202);
    let (invite, server) = stage.bob.ringing().await;
    stage.bob.refuse(&invite, server, "404 Not Found").await;
    ann.line.hears(10, "the assistant", Packet::is_loud).await;
    assert!(!stage.ann.is_hung_up(&ann).await);
    stage.ann.bye(&mut ann).await;
    let (_, events) = stage.lab.record().await;
    let failed = ["accepted 202", "failed 486"];
    let asked = ["asked 0", "accepted 202", "failed 488"];
    assert_eq!(states(&events), [&failed[..], &asked, &["accepted 202", "failed 404"]].concat());
    assert_eq!(data_of(&events, "provider.connected").len(), 1, "the same session throughout");
    stage.lab.close_without_violations().await;
}

/// 24 kHz, one channel.
pub fn wav(samples: &[i16]) -> Vec<u8> {
    let length = samples.len() as u32 * 2;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + length).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    for value in [1u16, 1] {
        file.extend(value.to_le_bytes());
    }
    file.extend(24_000u32.to_le_bytes());
    file.extend(48_000u32.to_le_bytes());
    for value in [2u16, 16] {
        file.extend(value.to_le_bytes());
    }
    file.extend(b"data");
    file.extend(length.to_le_bytes());
    samples.iter().for_each(|sample| file.extend(sample.to_le_bytes()));
    file
}

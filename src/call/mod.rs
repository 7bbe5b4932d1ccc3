//! The call: one task on a media worker that owns its legs, its conversation, its record and its end.
//!
//! A [`Call`] offers what a flow can do with a caller: ring, answer, wait, play, echo, converse. Each of
//! these runs the call until its own goal is reached or the call is over; everything that must work in
//! every state (a hang-up, a command, recording, hold) is handled in one place, [`Call::next`].
//!
//! Ownership is the promise here: when the task returns, is cancelled or panics, the leg hangs up and
//! returns its ports, the session closes, the recording gets its header, and the record is closed.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, info};

use crate::event::{CallEventKind, Disposition, Floor, Phase};
use crate::provider::{Event, Session};
use crate::rtp::{ItemKey, PlayedItem};
use crate::sip::leg::{HangUp, HangUpCause, LegSignal};
use crate::sip::message::StatusCode;
use crate::sip::trunk::Trunk;
use crate::sip::ua::HangupReason;

pub mod assistant;
pub mod bridge;
pub mod conversation;
pub mod dial;
pub mod handle;
pub mod hunt;
pub mod ledger;
pub mod leg;
pub mod levels;
pub mod onward;
pub mod outgoing;
pub mod recording;
pub mod replace;
pub mod sip_agent;
pub mod tools;
pub mod transfer;
pub mod worker;

use dial::{Party, Permit};
use handle::{CallCommand, Listed};
use ledger::{Ending, Ledger};
use leg::Leg;
use onward::Onward;
use recording::{Recorder, RecordingWriter};
use tools::ToolDesk;
use transfer::{Far, MoveNews, Moving, Outcome, Place, Reach};

/// The call has ended; nothing more can be done with it. How it ended is in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over;

/// What wakes a call.
#[derive(Debug)]
enum Wake {
    Leg(LegSignal),
    Command(CallCommand),
    Provider(Event),
    Move(MoveNews),
    /// A tool call of the assistant has come to something.
    Tools,
    /// Another party is on the near leg now; what the one before did not hear to its end.
    Swapped(Vec<PlayedItem>),
    Deadline,
    Stop,
}

/// What a call consists of before it has a party.
pub struct Frame {
    /// Its record, opened.
    pub ledger: Ledger,
    /// Where others put their commands.
    pub inbox: mpsc::Receiver<CallCommand>,
    /// Ends the call.
    pub stop: CancellationToken,
    /// Its place in the table of live calls.
    pub listed: Listed,
    /// Set when the organization wants recordings.
    pub recordings: Option<RecordingWriter>,
    /// Runs what must not run on a media worker.
    pub runtime: tokio::runtime::Handle,
    /// Whom it can reach.
    pub reach: Reach,
}

/// One conversation with one caller.
pub struct Call {
    leg: Leg,
    inbox: mpsc::Receiver<CallCommand>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    timer: Pin<Box<Sleep>>,
    timer_armed: bool,
    timer_at: Option<Instant>,
    recordings: Option<RecordingWriter>,
    recorder: Option<Recorder>,
    runtime: tokio::runtime::Handle,
    answered: bool,
    /// We placed it.
    outbound: bool,
    over: Option<Ending>,
    audio: Vec<i16>,
    sent: Vec<i16>,
    reach: Box<Reach>,
    /// The leg's.
    trunk: Arc<Trunk>,
    /// Somebody is about to take a place in the call.
    moving: Option<Box<Moving>>,
    /// Who has taken the place of the flow.
    joined: Far,
    /// What has taken the place of the flow.
    onward: Option<Onward>,
    /// Tool calls of the assistant.
    desk: Option<Box<ToolDesk>>,
    /// The record does not say which keys the caller presses: one of them may belong to a PIN.
    keys_hidden: bool,
    /// After the leg: its channel is free once it has said goodbye.
    permit: Permit,
    /// What a service has to tell when the call is over.
    epilogue: Option<sip_agent::Epilogue>,
    /// Sessions that have talked on it.
    sessions: u32,
    // After the leg: a record is closed once the leg has said goodbye.
    ledger: Ledger,
    listed: Listed,
}

impl Call {
    /// A call with this party, whom we have called (`placed`) or who calls us. It does nothing until it is told to.
    pub fn new(frame: Frame, party: Party, placed: bool) -> Self {
        let (mut listed, mut ledger) = (frame.listed, frame.ledger);
        listed.own(party.leg.id());
        ledger.own_leg(party.leg.id());
        Self {
            leg: party.leg,
            inbox: frame.inbox,
            stop: Box::pin(frame.stop.cancelled_owned()),
            timer: Box::pin(tokio::time::sleep_until(tokio::time::Instant::now())),
            timer_armed: false,
            timer_at: None,
            recordings: frame.recordings,
            recorder: None,
            runtime: frame.runtime,
            answered: false,
            outbound: placed,
            over: None,
            audio: Vec::with_capacity(960),
            sent: Vec::with_capacity(480),
            reach: Box::new(frame.reach),
            trunk: party.trunk,
            moving: None,
            joined: None,
            onward: None,
            desk: None,
            keys_hidden: false,
            permit: party.permit,
            epilogue: None,
            sessions: 0,
            ledger,
            listed,
        }
    }

    /// Lets the caller's phone ring: 180.
    pub fn ring(&mut self) {
        if !self.answered {
            self.leg.ring(false);
            self.phase(Phase::Ringing, Floor::None);
        }
    }

    /// Lets the caller hear audio before the answer: 183.
    pub fn early_media(&mut self) {
        if !self.answered {
            self.leg.ring(true);
            self.phase(Phase::Ringing, Floor::None);
        }
    }

    /// Answers, unless that is done already.
    ///
    /// # Errors
    /// [`Over`].
    pub async fn answer(&mut self) -> Result<(), Over> {
        if let Some(Over) = self.is_over() {
            return Err(Over);
        }
        self.answer_now();
        Ok(())
    }

    fn answer_now(&mut self) {
        if self.answered {
            return;
        }
        self.leg.answer();
        self.is_up();
    }

    /// From here on the party hears us: the record says so, and recording begins.
    pub fn is_up(&mut self) {
        self.answered = true;
        let now = Instant::now();
        let codec = self.leg.codec().map_or_else(|| "unknown".to_owned(), |codec| codec.to_string());
        self.ledger.answered(now, codec);
        self.start_recording(now);
        self.leg.watch_slots(self.recorder.is_some());
        info!(setup_ms = self.ledger.elapsed_ms(now), "call answered");
    }

    /// Whether the call has been answered.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// Lets time pass; media flows meanwhile.
    ///
    /// # Errors
    /// [`Over`].
    pub async fn wait(&mut self, span: Duration) -> Result<(), Over> {
        let until = Instant::now() + span;
        loop {
            match self.next(None, Some(until)).await? {
                Wake::Deadline => return Ok(()),
                Wake::Leg(LegSignal::Audio { .. }) => self.hear(|_| ()),
                _ => {}
            }
        }
    }

    /// Plays 24 kHz audio to its end, or for `limit` if that is shorter.
    ///
    /// # Errors
    /// [`Over`].
    pub async fn play(&mut self, pcm: &[i16], limit: Option<Duration>) -> Result<(), Over> {
        // Of no other call either: the leg may have come out of one.
        let item = ItemKey::from(format!("prompt-{:016x}", rand::random::<u64>()).as_str());
        // One that is never finished (the caller holds) ends by the clock.
        let length = Duration::from_secs_f64(pcm.len() as f64 / f64::from(crate::audio::BRIDGE_RATE));
        let until = Instant::now() + limit.unwrap_or(length + PROMPT_SLACK);
        let mut rest = self.play_more(&item, pcm);
        loop {
            // Bit by bit: all of a long file at once would keep the worker's other calls waiting.
            let more = (!rest.is_empty()).then(|| Instant::now() + PLAYED_AT_ONCE / 2);
            match self.next(None, Some(more.map_or(until, |more| more.min(until)))).await? {
                Wake::Leg(LegSignal::ItemFinished { item: finished, .. }) if finished == item => {
                    return Ok(());
                }
                Wake::Deadline if Instant::now() >= until => {
                    self.leg.clear();
                    return Ok(());
                }
                Wake::Leg(LegSignal::Audio { .. }) => self.hear(|_| ()),
                Wake::Swapped(_) => rest = self.play_more(&item, pcm),
                _ => {}
            }
            if !rest.is_empty() && self.leg.queued() < PLAYED_AT_ONCE / 2 {
                rest = self.play_more(&item, rest);
            }
        }
    }

    /// Queues the next bit of an item; answers what is left of it.
    fn play_more<'a>(&mut self, item: &ItemKey, pcm: &'a [i16]) -> &'a [i16] {
        let (now, rest) = pcm.split_at(pcm.len().min(SAMPLES_AT_ONCE));
        self.leg.play(item, now);
        if rest.is_empty() {
            self.leg.end_item(item);
        }
        rest
    }

    /// Gives the caller their own audio back, for `span` or until they hang up: live, two slots late, so that what comes
    /// a little late makes no gap.
    ///
    /// # Errors
    /// [`Over`].
    pub async fn echo(&mut self, span: Option<Duration>) -> Result<(), Over> {
        self.phase(Phase::InCall, Floor::None);
        let until = span.map(|span| Instant::now() + span);
        let mut heard = Vec::new();
        loop {
            match self.next(None, until).await? {
                Wake::Leg(LegSignal::Audio { .. }) => {
                    heard.clear();
                    self.hear(|pcm| heard.extend_from_slice(pcm));
                    self.leg.play_live(&heard);
                }
                Wake::Deadline => return Ok(()),
                _ => {}
            }
        }
    }

    /// Refuses a call that was not answered, and hangs up one that was.
    pub fn reject(&mut self, status: StatusCode, reason: &str) {
        if self.answered {
            return self.hang_up("system", reason);
        }
        self.leg.reject(status, Vec::new());
        let disposition = if status.get() == 486 { Disposition::Busy } else { Disposition::Rejected };
        self.end(Ending::new(disposition, "system", status.get(), reason));
    }

    /// Hangs up in the ordinary way.
    pub fn hang_up(&mut self, by: &str, reason: &str) {
        self.leg.hang_up(HangupReason::normal());
        let answered = self.answered;
        let disposition = if answered { Disposition::Completed } else { Disposition::Rejected };
        self.end(Ending::new(disposition, by, if answered { 200 } else { 480 }, reason));
    }

    /// Ends a call that went wrong.
    pub fn fail(&mut self, status: StatusCode, reason: &str) {
        if self.answered {
            let text = reason.to_owned();
            self.leg.hang_up(HangupReason { protocol: "Q.850", cause: 41, text });
        } else {
            self.leg.reject(status, Vec::new());
        }
        self.end(Ending::new(Disposition::Failed, "system", status.get(), reason));
    }

    /// Closes the record. Called by whoever runs the call, once its flow has ended.
    pub fn finish(mut self: Box<Self>) {
        if self.over.is_none() {
            self.hang_up("system", "the flow has ended");
        }
        self.give_up_moving();
        let now = Instant::now();
        if let Some(quality) = self.leg.quality() {
            report(&quality);
            self.ledger.record(CallEventKind::Quality(quality));
        }
        self.stop_recording();
        if let Some(ending) = self.over.take() {
            info!(disposition = ending.disposition.as_str(), by = ending.by, "call ended");
            self.close(now, ending);
        }
    }

    /// Closes the record; where a service has something to tell yet, when it has told.
    fn close(mut self: Box<Self>, now: Instant, ending: Ending) {
        let Some(epilogue) = self.epilogue.take() else { return self.ledger.end(now, ending) };
        let Self { ledger, runtime, stop, leg, listed, .. } = *self;
        // Says goodbye.
        drop(leg);
        runtime.spawn(async move {
            epilogue.write(ledger, stop, now, ending).await;
            // Until here a server that stops waits for the call, or cancels it.
            drop(listed);
        });
    }

    /// Waits for what the present step must know of. Hang-ups, commands that end the call, hold, keys, transfers
    /// and recording are dealt with here, for every step alike.
    async fn next(
        &mut self,
        mut session: Option<&mut (dyn Session + '_)>,
        deadline: Option<Instant>,
    ) -> Result<Wake, Over> {
        loop {
            if let Some(Over) = self.is_over() {
                return Err(Over);
            }
            let until = [deadline, self.ledger.cost_due()].into_iter().flatten().min();
            self.timer_armed = until.is_some();
            if let Some(until) = until
                && self.timer_at != Some(until)
            {
                self.timer.as_mut().reset(until.into());
                self.timer_at = Some(until);
            }
            let wake = std::future::poll_fn(|cx| self.poll(cx, session.as_deref_mut())).await;
            if matches!(wake, Wake::Deadline) {
                let now = Instant::now();
                self.ledger.tell_cost(now);
                if deadline.is_none_or(|deadline| now < deadline) {
                    continue;
                }
            }
            if let Some(wake) = self.sorted(wake) {
                return Ok(wake);
            }
        }
    }

    /// What is left for the present step.
    fn sorted(&mut self, wake: Wake) -> Option<Wake> {
        if matches!(wake, Wake::Leg(LegSignal::HungUp(_))) && self.left(Place::Near) {
            return None;
        }
        self.noted(&wake);
        if self.over.is_some() {
            return None;
        }
        let mut far = None;
        let outcome = match self.other_parties(&mut far, wake) {
            ControlFlow::Break(outcome) => outcome,
            ControlFlow::Continue(wake) => return self.alone(wake),
        };
        self.joined = far;
        match outcome {
            Outcome::Replaced(cleared) if self.joined.is_none() => Some(Wake::Swapped(cleared)),
            Outcome::Replaced(_) | Outcome::Open | Outcome::Led | Outcome::Over => None,
        }
    }

    /// Commands that mean something else where there is a second party.
    fn alone(&mut self, wake: Wake) -> Option<Wake> {
        match wake {
            Wake::Command(CallCommand::Dtmf { digits, taken }) => {
                if self.answered {
                    taken.yes();
                    self.leg.send_dtmf(&digits);
                } else {
                    taken.no("the call has not been answered yet");
                }
                None
            }
            Wake::Command(CallCommand::Hold { taken, .. }) => {
                taken.no("the call is not joined with another party: there is nobody to keep waiting");
                None
            }
            other => Some(other),
        }
    }

    /// Deals with what is the same in every state.
    fn noted(&mut self, wake: &Wake) {
        match wake {
            Wake::Leg(LegSignal::HungUp(hang_up)) => self.hung_up(hang_up.clone()),
            Wake::Leg(LegSignal::Sent { due, .. }) => self.record_sent(*due),
            Wake::Leg(LegSignal::MediaChanged { state, codec }) => {
                let (state, codec) = ((*state).to_owned(), codec.to_string());
                self.ledger.record(CallEventKind::Media { state, codec });
            }
            Wake::Leg(LegSignal::Established) if matches!(self.leg, Leg::Pbx(_)) => {
                // How a PBX's audio is coded may be known only now.
                let codec = self.leg.codec().map_or_else(String::new, |codec| codec.to_string());
                self.ledger.record(CallEventKind::Media { state: "active".to_owned(), codec });
            }
            Wake::Leg(LegSignal::Dtmf { digit, method }) => {
                // What is collected for a tool may be a PIN, begun before the tool is called or ended after it.
                let hidden = self.keys_hidden || self.desk.as_ref().is_some_and(|desk| desk.collects());
                let (digit, method) = (if hidden { '?' } else { *digit }, (*method).to_owned());
                self.ledger.record(CallEventKind::Dtmf { digit, method });
            }
            Wake::Command(CallCommand::End { by, reason }) => {
                let (by, reason) = (by.clone(), reason.clone());
                self.hang_up(&by, &reason);
            }
            Wake::Command(CallCommand::Drain) if !self.answered => {
                self.leg.reject(StatusCode::SERVICE_UNAVAILABLE, Vec::new());
                self.end(Ending::new(Disposition::Rejected, "system", 503, "the server is stopping"));
            }
            Wake::Stop => {
                let text = "the server is stopping".to_owned();
                self.leg.hang_up(HangupReason { protocol: "Q.850", cause: 41, text: text.clone() });
                self.end(Ending::new(Disposition::Interrupted, "system", 503, text));
            }
            _ => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, session: Option<&mut (dyn Session + '_)>) -> Poll<Wake> {
        if let Poll::Ready(signal) = self.leg.poll(cx) {
            return Poll::Ready(Wake::Leg(signal));
        }
        self.poll_others(cx, session)
    }

    /// Everything but the leg.
    fn poll_others(&mut self, cx: &mut Context<'_>, session: Option<&mut (dyn Session + '_)>) -> Poll<Wake> {
        if let Some(session) = session
            && let Poll::Ready(event) = session.poll_event(cx)
        {
            return Poll::Ready(Wake::Provider(event));
        }
        if let Poll::Ready(Some(command)) = self.inbox.poll_recv(cx) {
            return Poll::Ready(Wake::Command(command));
        }
        if let Some(moving) = &mut self.moving
            && let Poll::Ready(news) = moving.poll(cx)
        {
            return Poll::Ready(Wake::Move(news));
        }
        if let Some(desk) = &mut self.desk
            && desk.poll(cx).is_ready()
        {
            return Poll::Ready(Wake::Tools);
        }
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Wake::Stop);
        }
        if self.timer_armed && self.timer.as_mut().poll(cx).is_ready() {
            self.timer_at = None;
            return Poll::Ready(Wake::Deadline);
        }
        Poll::Pending
    }

    /// Takes the caller's audio off the leg, for the recording and for `listener`.
    fn hear(&mut self, listener: impl FnOnce(&[i16])) {
        self.audio.clear();
        self.leg.take_audio(&mut self.audio);
        if self.audio.is_empty() {
            return;
        }
        if let Some(recorder) = &mut self.recorder {
            // What must not be recorded is as long in the file as it was.
            let silence = unrecorded(&self.desk).then(|| vec![0; self.audio.len()]);
            recorder.caller(Instant::now(), silence.as_deref().unwrap_or(&self.audio));
        }
        listener(&self.audio);
    }

    fn record_sent(&mut self, due: Instant) {
        if let Some(recorder) = &mut self.recorder {
            self.sent.clear();
            self.leg.sent_frame(&mut self.sent);
            if unrecorded(&self.desk) {
                self.sent.fill(0);
            }
            recorder.sent(due, &self.sent);
        }
    }

    fn start_recording(&mut self, now: Instant) {
        if let Some(writer) = &self.recordings {
            let recorder = writer.record(&format!("{}.wav", self.ledger.call()), now);
            let file = file_name(recorder.file().to_owned());
            self.recorder = Some(recorder);
            self.ledger.record(CallEventKind::Recording { state: "started".to_owned(), file });
        }
    }

    fn stop_recording(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            let file = file_name(recorder.file().to_owned());
            drop(recorder);
            self.ledger.record(CallEventKind::Recording { state: "stopped".to_owned(), file });
        }
    }

    fn recording_file(&self) -> String {
        self.recorder.as_ref().map(|recorder| file_name(recorder.file().to_owned())).unwrap_or_default()
    }

    fn phase(&mut self, phase: Phase, floor: Floor) {
        self.ledger.record(CallEventKind::Phase { phase, floor });
    }

    fn hung_up(&mut self, hang_up: HangUp) {
        debug!(cause = ?hang_up.cause, status = hang_up.status, "the leg is over");
        let (disposition, by, status) = match hang_up.cause {
            HangUpCause::Peer if self.outbound => (Disposition::Completed, "callee", hang_up.status),
            // A PBX's channel may be up before its caller is answered here.
            HangUpCause::Peer if !self.answered => (Disposition::Cancelled, "caller", GIVEN_UP),
            HangUpCause::Peer => (Disposition::Completed, "caller", hang_up.status),
            HangUpCause::Cancelled => (Disposition::Cancelled, "caller", hang_up.status),
            HangUpCause::Refused if !self.outbound => (Disposition::Cancelled, "caller", GIVEN_UP),
            HangUpCause::Refused if hang_up.status == 486 => (Disposition::Busy, "callee", hang_up.status),
            HangUpCause::Refused => (Disposition::NoAnswer, "callee", hang_up.status),
            HangUpCause::MediaTimeout | HangUpCause::Lost => (Disposition::Failed, "system", hang_up.status),
        };
        self.end(Ending::new(disposition, by, status, hang_up.reason));
    }

    fn end(&mut self, ending: Ending) {
        self.over.get_or_insert(ending);
    }

    fn is_over(&self) -> Option<Over> {
        (self.over.is_some() || self.joined.is_some() || self.onward.is_some()).then_some(Over)
    }

    /// A further leg is over: the record says how it was.
    fn note_leg_ended(&mut self, leg: &Leg, status: u16, reason: &str, by: &str) {
        let quality = leg.quality();
        quality.iter().for_each(report);
        let (leg, reason, by) = (leg.id().to_string(), reason.to_owned(), by.to_owned());
        let quality = quality.map(Box::new);
        self.ledger.record(CallEventKind::LegEnded { leg, status, reason, by, quality });
    }

    fn now_ms(&self) -> u64 {
        self.ledger.elapsed_ms(Instant::now())
    }
}

/// What a call leaves in the metrics.
fn report(quality: &crate::event::Quality) {
    metrics::counter!("tandem_rtp_packets_received_total").increment(quality.packets_received);
    metrics::counter!("tandem_rtp_packets_sent_total").increment(quality.packets_sent);
    metrics::counter!("tandem_rtp_packets_lost_total").increment(quality.packets_lost);
    metrics::counter!("tandem_rtp_packets_late_total").increment(quality.packets_late);
    metrics::counter!("tandem_rtp_packets_duplicate_total").increment(quality.packets_duplicate);
    metrics::counter!("tandem_rtp_packets_foreign_total").increment(quality.packets_foreign);
    metrics::counter!("tandem_rtp_concealed_ms_total").increment(quality.concealed_ms);
    metrics::counter!("tandem_playout_underruns_total").increment(quality.underruns);
    metrics::counter!("tandem_playout_late_total").increment(quality.pacing_late);
    for (name, millis) in [
        ("tandem_pacing_p99_seconds", quality.pacing_p99_ms),
        ("tandem_uplink_p99_seconds", quality.uplink_p99_ms),
    ] {
        if let Some(millis) = millis {
            metrics::histogram!(name).record(millis / 1000.0);
        }
    }
    if let Some(mos) = quality.mos {
        metrics::histogram!("tandem_call_mos").record(mos);
    }
}

/// Whether the recording is paused.
fn unrecorded(desk: &Option<Box<ToolDesk>>) -> bool {
    desk.as_ref().is_some_and(|desk| desk.unrecorded)
}

fn file_name(path: PathBuf) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// As much of a sound is queued at a time.
const PLAYED_AT_ONCE: Duration = Duration::from_secs(1);
const SAMPLES_AT_ONCE: usize = crate::audio::BRIDGE_RATE as usize;
/// A prompt may take this much longer than its length before it is given up.
const PROMPT_SLACK: Duration = Duration::from_secs(2);
/// Request Terminated: what a caller gets who gives up before the answer (RFC 3261 section 15.1.2).
const GIVEN_UP: u16 = 487;

/// Short prompts of our own, made once.
#[derive(Debug, Clone)]
pub struct Prompts {
    /// Said when the assistant is lost in mid-call, or nobody can be called, and the call must end.
    pub apology: Arc<[i16]>,
    /// Said when somebody was called for a caller and did not answer, and nothing else is left.
    pub nobody: Arc<[i16]>,
}

impl Prompts {
    /// Speaks the prompts with the built-in voice.
    pub fn spoken() -> Self {
        let spoken = |words: &str| crate::audio::voice::speak(words).into();
        Self {
            apology: spoken(
                "I am sorry, we have a technical problem. Please call again in a moment. Goodbye.",
            ),
            nobody: spoken("I am sorry, nobody can take your call at the moment. Goodbye."),
        }
    }
}

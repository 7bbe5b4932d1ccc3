//! Two user agents and a bad network between them; time jumps to whatever happens next.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::RngExt;

use super::*;
use crate::sip::uri::Uri;

/// A network that loses, repeats and reorders, from a seed.
struct Net {
    now: Instant,
    agents: [UserAgent; 2],
    rng: StdRng,
    loss: f64,
    repeat: f64,
    latency_ms: u64,
    flying: BTreeMap<(Instant, u64), (usize, Bytes)>,
    planned: BTreeMap<(Instant, u64), (usize, LegId, LegCommand)>,
    count: u64,
    told: [Vec<LegEvent>; 2],
}

const CALLER: usize = 0;
const CALLEE: usize = 1;
const ADDRESSES: [&str; 2] = ["192.0.2.10:5060", "192.0.2.20:5060"];

impl Net {
    fn seeded(seed: u64, loss: f64) -> Self {
        Self {
            now: Instant::now(),
            agents: [agent(UaConfig::default(), trunk(), seed), agent(UaConfig::default(), trunk(), !seed)],
            rng: StdRng::seed_from_u64(seed.rotate_left(17)),
            loss,
            repeat: loss,
            latency_ms: 200,
            flying: BTreeMap::new(),
            planned: BTreeMap::new(),
            count: 0,
            told: [Vec::new(), Vec::new()],
        }
    }

    fn dial(&mut self) -> LegId {
        let leg = LegId::from_parts(0, 5);
        let target = Target::new(Transport::Udp, address(ADDRESSES[CALLEE]), address(ADDRESSES[CALLER]));
        let to = Uri::parse("sip:100@192.0.2.20").expect("a URI");
        let from = Uri::parse("sip:200@192.0.2.10").expect("a URI");
        let invite = OutgoingInvite {
            sdp: Some(OFFER.into()),
            reliable: true,
            session_expires: Some(Duration::from_secs(90)),
            ..OutgoingInvite::new(target, to, from)
        };
        self.agents[CALLER].invite(self.now, leg, invite);
        leg
    }

    fn plan(&mut self, after_ms: u64, who: usize, leg: LegId, command: LegCommand) {
        self.count += 1;
        self.planned.insert((self.now + Duration::from_millis(after_ms), self.count), (who, leg, command));
    }

    /// Runs until nothing flies, nothing is planned and no timer runs.
    fn run(&mut self, mut react: impl FnMut(&mut Self, usize, &UaEvent)) {
        for _ in 0..100_000 {
            self.carry(&mut react);
            let flying = self.flying.keys().next().map(|(at, _)| *at);
            let planned = self.planned.keys().next().map(|(at, _)| *at);
            let timers = self.agents.iter().filter_map(UserAgent::next_timeout).min();
            let Some(next) = [flying, planned, timers].into_iter().flatten().min() else { return };
            self.now = self.now.max(next);
            if flying == Some(next) {
                let ((_, _), (to, bytes)) = self.flying.pop_first().expect("something flies");
                let incoming = Incoming {
                    raw: Bytes::new(),
                    message: parse_datagram(&bytes, &Limits::default()),
                    source: address(ADDRESSES[1 - to]),
                    local: address(ADDRESSES[to]),
                    transport: Transport::Udp,
                    connection: None,
                };
                self.agents[to].receive(self.now, incoming);
            } else if planned == Some(next) {
                let (_, (who, leg, command)) = self.planned.pop_first().expect("something is planned");
                self.agents[who].command(self.now, leg, command);
            } else {
                for agent in &mut self.agents {
                    agent.handle_timeout(self.now);
                }
            }
        }
        panic!("the network never came to rest");
    }

    fn carry(&mut self, react: &mut impl FnMut(&mut Self, usize, &UaEvent)) {
        for who in [CALLER, CALLEE] {
            while let Some(output) = self.agents[who].poll() {
                match output {
                    Output::Send { bytes, .. } => self.fly(1 - who, bytes),
                    Output::Event(event) => {
                        react(self, who, &event);
                        if let UaEvent::Leg(_, event) = event {
                            self.told[who].push(event);
                        }
                    }
                }
            }
        }
    }

    fn fly(&mut self, to: usize, bytes: Bytes) {
        let copies = 1 + usize::from(self.rng.random_bool(self.repeat));
        for _ in 0..copies {
            if !self.rng.random_bool(self.loss) {
                let latency = Duration::from_millis(self.rng.random_range(1..=self.latency_ms));
                self.count += 1;
                self.flying.insert((self.now + latency, self.count), (to, bytes.clone()));
            }
        }
    }

    /// Neither side remembers anything, and each leg had exactly one last event.
    fn assert_at_rest(&self, legs_told: [bool; 2]) {
        for who in [CALLER, CALLEE] {
            assert!(
                !self.agents[who].is_busy(),
                "{who} still has something to do: {}",
                self.agents[who].remains()
            );
            assert_eq!(self.agents[who].transaction_counts(), (0, 0));
            let last = self.told[who].iter().filter(|event| is_last(event)).count();
            assert_eq!(last, usize::from(legs_told[who]), "{who}: {:?}", self.told[who]);
        }
    }
}

fn is_last(event: &LegEvent) -> bool {
    matches!(event, LegEvent::Ended { .. } | LegEvent::Failed { .. } | LegEvent::Cancelled { .. })
}

/// What a script does, in milliseconds after the INVITE arrived or was sent.
#[derive(Debug, Clone)]
struct Script {
    seed: u64,
    loss: f64,
    answer_after: Option<u64>,
    caller_hangs_up_after: u64,
    callee_hangs_up_after: u64,
    caller_reoffers_after: u64,
    callee_reoffers_after: u64,
}

fn scripts() -> impl Strategy<Value = Script> {
    let times = (0..40_000_u64, 0..40_000_u64, 0..20_000_u64, 0..20_000_u64);
    (any::<u64>(), 0.0..0.4, proptest::option::of(0..5_000_u64), times).prop_map(
        |(seed, loss, answer_after, (caller, callee, offer_a, offer_b))| Script {
            seed,
            loss,
            answer_after,
            caller_hangs_up_after: caller,
            callee_hangs_up_after: callee,
            caller_reoffers_after: offer_a,
            callee_reoffers_after: offer_b,
        },
    )
}

fn play(script: &Script) -> Net {
    let mut net = Net::seeded(script.seed, script.loss);
    let caller = net.dial();
    net.plan(script.caller_reoffers_after, CALLER, caller, LegCommand::Reinvite { sdp: OFFER.into() });
    net.plan(script.caller_hangs_up_after, CALLER, caller, LegCommand::Hangup { reason: None });
    let mut invited = false;
    net.run(|net, who, event| match event {
        UaEvent::Invite(invite) => {
            assert!(!invited, "one call was told twice");
            invited = true;
            let leg = invite.leg;
            net.plan(10, who, leg, LegCommand::Ring { status: StatusCode::RINGING, sdp: None });
            if let Some(after) = script.answer_after {
                net.plan(after, who, leg, LegCommand::Answer { sdp: OFFER.into() });
            }
            net.plan(script.callee_reoffers_after, who, leg, LegCommand::Reinvite { sdp: OFFER.into() });
            net.plan(script.callee_hangs_up_after, who, leg, LegCommand::Hangup { reason: None });
        }
        UaEvent::Leg(leg, LegEvent::Reinvite { .. }) => {
            net.plan(5, who, *leg, LegCommand::AnswerReinvite { sdp: OFFER.into() });
        }
        _ => {}
    });
    net.assert_at_rest([true, invited]);
    net
}

#[test]
fn on_a_perfect_network_both_sides_agree() {
    let script = Script {
        seed: 1,
        loss: 0.0,
        answer_after: Some(100),
        caller_hangs_up_after: 30_000,
        callee_hangs_up_after: 35_000,
        caller_reoffers_after: 5_000,
        callee_reoffers_after: 10_000,
    };
    let net = play(&script);
    let has = |who: usize, wanted: fn(&LegEvent) -> bool| net.told[who].iter().any(wanted);
    assert!(has(CALLER, |e| matches!(e, LegEvent::Answered { .. })));
    assert!(has(CALLEE, |e| matches!(e, LegEvent::Acked { .. })));
    for who in [CALLER, CALLEE] {
        assert!(has(who, |e| matches!(e, LegEvent::Reinvite { .. })));
        assert!(has(who, |e| matches!(e, LegEvent::ReinviteResult { status: StatusCode::OK, .. })));
    }
    assert!(has(CALLEE, |e| matches!(e, LegEvent::Ended { by: EndedBy::Peer, .. })));
}

#[test]
fn a_reinvite_that_crosses_both_byes_is_forgotten_in_the_end() {
    play(&Script {
        seed: 12_818_013_171_692_422_431,
        loss: 0.187_064_200_117_117_3,
        answer_after: Some(10),
        caller_hangs_up_after: 12_585,
        callee_hangs_up_after: 12_400,
        caller_reoffers_after: 12_045,
        callee_reoffers_after: 11_895,
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_network_does_every_call_ends_once_on_both_sides(script in scripts()) {
        play(&script);
    }
}

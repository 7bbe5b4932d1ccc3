//! What does one whole call cost in signalling? INVITE, 100, 180, 200, ACK, BYE, 200, through two user agents, parsing
//! and printing included. The yardstick of the Rust SIP stacks we measured: 93 µs, with a floor of 27 µs.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tandem::id::LegId;
use tandem::sip::message::Transport;
use tandem::sip::profile::Profile;
use tandem::sip::transport::{Incoming, Target};
use tandem::sip::trunk::{Trunk, Trunks};
use tandem::sip::ua::{LegCommand, LegEvent, OutgoingInvite, Output, UaConfig, UaEvent, UserAgent};
use tandem::sip::{Limits, StatusCode, Uri, parse_datagram};

const ADDRESSES: [&str; 2] = ["192.0.2.10:5060", "192.0.2.20:5060"];
const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
                   m=audio 20000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
                   a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n";

struct Pair {
    agents: [UserAgent; 2],
    limits: Limits,
    now: Instant,
    calls: u128,
}

impl Pair {
    fn new() -> Self {
        let agent = |seed| {
            let mut trunk = Trunk::new("bench", Arc::new(Profile::default()));
            trunk.allow = vec!["192.0.2.0/24".parse().expect("a network")];
            UserAgent::new(UaConfig::default(), Trunks::new([trunk]), StdRng::seed_from_u64(seed))
        };
        Self { agents: [agent(1), agent(2)], limits: Limits::default(), now: Instant::now(), calls: 0 }
    }

    /// One call from its INVITE to the end of its BYE; returns how many messages it took.
    fn call(&mut self) -> usize {
        self.calls += 1;
        let caller = LegId::from_parts(0, self.calls);
        let address = |at: usize| ADDRESSES[at].parse().expect("an address");
        let target = Target::new(Transport::Udp, address(1), address(0));
        let to = Uri::parse("sip:+15550111@192.0.2.20").expect("a URI");
        let from = Uri::parse("sip:+15550122@192.0.2.10").expect("a URI");
        let invite = OutgoingInvite { sdp: Some(SDP.into()), ..OutgoingInvite::new(target, to, from) };
        self.agents[0].invite(self.now, caller, invite);
        let mut messages = 0;
        let mut quiet = 0;
        let mut who = 0;
        while quiet < 2 {
            match self.agents[who].poll() {
                None => {
                    quiet += 1;
                    who = 1 - who;
                    continue;
                }
                Some(Output::Send { bytes, .. }) => {
                    messages += 1;
                    let incoming = Incoming {
                        message: parse_datagram(&bytes, &self.limits),
                        source: address(who),
                        local: address(1 - who),
                        transport: Transport::Udp,
                        connection: None,
                        raw: bytes::Bytes::new(),
                    };
                    self.agents[1 - who].receive(self.now, incoming);
                }
                Some(Output::Event(UaEvent::Invite(invite))) => {
                    let ring = LegCommand::Ring { status: StatusCode::RINGING, sdp: None };
                    self.agents[who].command(self.now, invite.leg, ring);
                    self.agents[who].command(self.now, invite.leg, LegCommand::Answer { sdp: SDP.into() });
                }
                Some(Output::Event(UaEvent::Leg(leg, LegEvent::Acked { .. }))) => {
                    self.agents[who].command(self.now, leg, LegCommand::Hangup { reason: None });
                }
                Some(Output::Event(_)) => {}
            }
            quiet = 0;
        }
        messages
    }

    /// Lets the transactions of finished calls run out, as they do on a node that has been up for a while.
    fn forget(&mut self) {
        self.now += Duration::from_secs(40);
        for agent in &mut self.agents {
            agent.handle_timeout(self.now);
            while let Some(output) = agent.poll() {
                black_box(output);
            }
        }
    }
}

fn one_call_through_two_user_agents(c: &mut Criterion) {
    let mut pair = Pair::new();
    assert_eq!(pair.call(), 7, "INVITE, 100, 180, 200, ACK, BYE, 200");
    pair.forget();
    assert!(pair.agents.iter().all(|agent| !agent.is_busy()), "the call ended on both sides");
    c.bench_function("sip: one call, both sides, timers included", |b| {
        b.iter_custom(|calls| {
            let start = Instant::now();
            for n in 0..calls {
                black_box(pair.call());
                if n % 100 == 99 {
                    pair.forget();
                }
            }
            pair.forget();
            start.elapsed()
        });
    });
}

criterion_group!(benches, one_call_through_two_user_agents);
criterion_main!(benches);

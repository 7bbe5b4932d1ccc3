//! The breaker: by example, against a reference model, and in every state it can get into.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

fn policy(failures: u32, cool_down: u64, slow: u64, probes: u32) -> Policy {
    Policy {
        failures,
        cool_down: Duration::from_millis(cool_down),
        slow: Duration::from_millis(slow),
        probes,
    }
}

fn go(breaker: &mut Breaker, now: Instant) -> PermitId {
    match breaker.admit(now) {
        Admission::Go(id) => id,
        other => panic!("admitted: {other:?}"),
    }
}

#[test]
fn five_failures_in_a_row_open_it_for_thirty_seconds_and_one_probe_decides() {
    let (mut breaker, start) = (Breaker::new(Policy::default()), Instant::now());
    let at = |ms| start + Duration::from_millis(ms);
    for n in 1..=5 {
        assert_eq!(breaker.state(at(n)), State::Closed);
        let id = go(&mut breaker, at(n));
        breaker.finish(at(n), id, Outcome::Failed);
    }
    assert_eq!(breaker.state(at(5)), State::Open);
    assert_eq!(breaker.admit(at(1_005)), Admission::Stop(Duration::from_secs(29)));
    assert_eq!(breaker.state(at(30_005)), State::HalfOpen);
    let probe = go(&mut breaker, at(30_005));
    assert!(matches!(breaker.admit(at(30_006)), Admission::Stop(_)), "one probe only");
    breaker.finish(at(30_100), probe, Outcome::Failed);
    assert_eq!(breaker.state(at(60_099)), State::Open);
    let probe = go(&mut breaker, at(60_100));
    breaker.finish(at(60_200), probe, Outcome::Succeeded);
    assert_eq!(breaker.state(at(60_200)), State::Closed);
}

#[test]
fn a_success_in_between_forgives() {
    let (mut breaker, now) = (Breaker::new(Policy::default()), Instant::now());
    for outcome in [Outcome::Failed, Outcome::Failed, Outcome::Succeeded].iter().cycle().take(60) {
        let id = go(&mut breaker, now);
        breaker.finish(now, id, *outcome);
    }
    assert_eq!(breaker.state(now), State::Closed);
}

#[test]
fn our_own_mistakes_count_neither_way() {
    let (mut breaker, now) = (Breaker::new(Policy::default()), Instant::now());
    for outcome in [Outcome::Failed; 4].into_iter().chain([Outcome::Blameless; 20]) {
        let id = go(&mut breaker, now);
        breaker.finish(now, id, outcome);
    }
    assert_eq!((breaker.state(now), breaker.failed()), (State::Closed, 4));
    let id = go(&mut breaker, now);
    breaker.finish(now, id, Outcome::Failed);
    assert_eq!(breaker.state(now), State::Open);
}

#[test]
fn who_takes_too_long_has_failed_without_anybody_waiting_for_it() {
    let (mut breaker, start) = (Breaker::new(Policy::default()), Instant::now());
    let ids: Vec<_> = (0..5).map(|_| go(&mut breaker, start)).collect();
    assert_eq!(breaker.admit(start), Admission::Wait(start + Duration::from_secs(3)));
    let late = start + Duration::from_secs(3);
    assert_eq!(breaker.admit(late), Admission::Stop(Duration::from_secs(30)));
    assert_eq!(breaker.late(), 5);
    assert!(!breaker.finish(late, ids[0], Outcome::Succeeded), "too late to count");
    assert_eq!(breaker.state(late), State::Open);
}

#[test]
fn each_sign_of_life_admits_as_many_again() {
    let (mut breaker, now) = (Breaker::new(Policy::default()), Instant::now());
    let first = go(&mut breaker, now);
    let mut under_way = 1;
    while let Admission::Go(_) = breaker.admit(now) {
        under_way += 1;
    }
    assert_eq!(under_way, 5);
    breaker.finish(now, first, Outcome::Succeeded);
    while let Admission::Go(_) = breaker.admit(now) {
        under_way += 1;
    }
    assert_eq!(under_way, 10);
}

#[test]
fn an_abandoned_try_makes_room_and_an_abandoned_probe_frees_its_place() {
    let (mut breaker, now) = (Breaker::new(policy(1, 1000, 500, 1)), Instant::now());
    let id = go(&mut breaker, now);
    assert!(matches!(breaker.admit(now), Admission::Wait(_)));
    breaker.finish(now, id, Outcome::Abandoned);
    let id = go(&mut breaker, now);
    breaker.finish(now, id, Outcome::Failed);
    let later = now + Duration::from_secs(1);
    let probe = go(&mut breaker, later);
    breaker.finish(later, probe, Outcome::Abandoned);
    assert_eq!(breaker.state(later), State::HalfOpen);
    go(&mut breaker, later);
    // This one never says anything.
    assert_eq!(breaker.state(later + Duration::from_millis(500)), State::Open);
}

#[test]
fn sessions_that_break_together_are_one_failure() {
    let (mut breaker, start) = (Breaker::new(Policy::default()), Instant::now());
    for _ in 0..200 {
        breaker.broke(start);
    }
    assert_eq!(breaker.failed(), 1);
    for n in 1..=4 {
        assert_eq!(breaker.state(start), State::Closed);
        breaker.broke(start + TOGETHER * n);
    }
    assert_eq!(breaker.state(start + TOGETHER * 4), State::Open);
}

#[test]
fn several_probes_come_one_after_the_other() {
    let (mut breaker, start) = (Breaker::new(policy(1, 100, 50, 2)), Instant::now());
    let id = go(&mut breaker, start);
    breaker.finish(start, id, Outcome::Failed);
    let later = start + Duration::from_millis(100);
    for expected in [State::HalfOpen, State::Closed] {
        let probe = go(&mut breaker, later);
        assert!(matches!(breaker.admit(later), Admission::Stop(_)));
        breaker.finish(later, probe, Outcome::Succeeded);
        assert_eq!(breaker.state(later), expected);
    }
}

/// What can happen to a breaker. Tries are named by the order in which they began.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Pass(u64),
    Admit,
    Finish(usize, Outcome),
    Broke,
}

/// The same rules written down as simply as can be: whole milliseconds, one after the other.
struct Model {
    policy: Policy,
    now: u64,
    in_a_row: u32,
    /// Since when it is shut; `None`: it is not.
    shut_since: Option<u64>,
    probing: bool,
    passed: u32,
    /// Who is trying, since when, and whether that is still unproven.
    trying: BTreeMap<usize, (u64, bool)>,
    began: usize,
    broke: Option<u64>,
}

impl Model {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            now: 0,
            in_a_row: 0,
            shut_since: None,
            probing: false,
            passed: 0,
            trying: BTreeMap::new(),
            began: 0,
            broke: None,
        }
    }

    fn slow(&self) -> u64 {
        self.policy.slow.as_millis() as u64
    }

    fn cool_down(&self) -> u64 {
        self.policy.cool_down.as_millis() as u64
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            self.look_at_the_clock();
        }
    }

    fn look_at_the_clock(&mut self) {
        if self.shut_since.is_some_and(|since| self.now >= since + self.cool_down()) {
            (self.shut_since, self.probing, self.passed) = (None, true, 0);
        }
        while let Some(late) = self.late() {
            self.trying.remove(&late);
            self.failure();
        }
    }

    fn late(&self) -> Option<usize> {
        self.trying.iter().find(|(_, (since, _))| self.now >= since + self.slow()).map(|(name, _)| *name)
    }

    fn failure(&mut self) {
        self.in_a_row += 1;
        if self.probing || self.in_a_row >= self.policy.failures {
            (self.shut_since, self.probing, self.in_a_row) = (Some(self.now), false, 0);
            self.trying.clear();
        }
    }

    fn state(&self) -> State {
        match (self.shut_since, self.probing) {
            (Some(_), _) => State::Open,
            (None, true) => State::HalfOpen,
            (None, false) => State::Closed,
        }
    }

    /// The answer, with times counted from the beginning.
    fn admit(&mut self) -> String {
        if let Some(since) = self.shut_since {
            return format!("stop {}", since + self.cool_down() - self.now);
        }
        if self.probing {
            if let Some((since, _)) = self.trying.values().next() {
                return format!("stop {}", since + self.slow() - self.now);
            }
        } else {
            let unproven: Vec<u64> =
                self.trying.values().filter(|(_, unproven)| *unproven).map(|(since, _)| *since).collect();
            if unproven.len() as u32 + self.in_a_row >= self.policy.failures {
                let oldest = unproven.iter().min().expect("failures alone would have shut it");
                return format!("wait {}", oldest + self.slow());
            }
        }
        self.trying.insert(self.began, (self.now, true));
        self.began += 1;
        "go".to_owned()
    }

    fn finish(&mut self, name: usize, outcome: Outcome) {
        if self.trying.remove(&name).is_none() {
            return;
        }
        let alive = matches!(outcome, Outcome::Succeeded | Outcome::Blameless);
        match outcome {
            Outcome::Failed => self.failure(),
            Outcome::Succeeded if self.probing => {
                self.passed += 1;
                if self.passed == self.policy.probes {
                    (self.probing, self.in_a_row) = (false, 0);
                }
            }
            Outcome::Succeeded => self.in_a_row = 0,
            Outcome::Blameless | Outcome::Abandoned => {}
        }
        if alive {
            self.trying.values_mut().for_each(|(_, unproven)| *unproven = false);
        }
    }

    fn broke(&mut self) {
        let together = self.broke.is_some_and(|before| self.now < before + TOGETHER.as_millis() as u64);
        if self.state() == State::Closed && !together {
            self.broke = Some(self.now);
            self.failure();
        }
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Succeeded),
        6 => Just(Outcome::Failed),
        1 => Just(Outcome::Blameless),
        1 => Just(Outcome::Abandoned),
    ];
    prop_oneof![
        2 => (0..60u64).prop_map(Happening::Pass),
        1 => (60..1500u64).prop_map(Happening::Pass),
        6 => Just(Happening::Admit),
        6 => (0..8usize, outcome).prop_map(|(back, outcome)| Happening::Finish(back, outcome)),
        1 => Just(Happening::Broke),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn ten_thousand_histories_agree_with_the_model(
        failures in 1..6u32,
        cool_down in 1..300u64,
        slow in 1..100u64,
        probes in 1..4u32,
        history in proptest::collection::vec(happening(), 1..60),
    ) {
        let policy = policy(failures, cool_down, slow, probes);
        let (mut breaker, mut model, start) = (Breaker::new(policy), Model::new(policy), Instant::now());
        let mut permits = Vec::new();
        for step in history {
            let now = |model: &Model| start + Duration::from_millis(model.now);
            match step {
                Happening::Pass(ms) => model.pass(ms),
                Happening::Admit => {
                    let expected = model.admit();
                    let answer = match breaker.admit(now(&model)) {
                        Admission::Go(id) => {
                            permits.push(id);
                            "go".to_owned()
                        }
                        Admission::Wait(until) => format!("wait {}", (until - start).as_millis()),
                        Admission::Stop(wait) => format!("stop {}", wait.as_millis()),
                    };
                    prop_assert_eq!(answer, expected);
                }
                Happening::Finish(back, outcome) => {
                    let Some(name) = permits.len().checked_sub(back + 1) else { continue };
                    breaker.finish(now(&model), permits[name], outcome);
                    model.finish(name, outcome);
                }
                Happening::Broke => {
                    breaker.broke(now(&model));
                    model.broke();
                }
            }
            prop_assert_eq!(breaker.state(now(&model)), model.state());
            if model.state() == State::Closed {
                prop_assert_eq!(breaker.failed(), model.in_a_row);
            }
        }
    }
}

/// Every state a breaker can get into when time goes in ticks of half of [`TOGETHER`] and a few try at once.
/// What was seen is told apart by everything that decides the future, with times as they are from now.
struct Explorer {
    start: Instant,
    policy: Policy,
    seen: HashMap<String, usize>,
    open: Vec<Node>,
}

#[derive(Clone)]
struct Node {
    breaker: Breaker,
    /// In ticks.
    now: u32,
    /// Permits that nobody has finished, the forgotten ones too.
    held: BTreeSet<PermitId>,
}

const TICK: Duration = Duration::from_millis(500);
const HELD_MAX: usize = 3;

impl Explorer {
    fn at(&self, tick: u32) -> Instant {
        self.start + TICK * tick
    }

    /// What decides the future of a node.
    fn key(&self, node: &Node) -> String {
        let now = self.at(node.now);
        let ago = |at: Instant| now.saturating_duration_since(at).as_millis();
        let ahead = |at: Instant| at.saturating_duration_since(now).as_millis();
        let age = |one: &Try| {
            let held = node.held.contains(&one.id);
            format!(
                "{}{}{}",
                ago(one.since),
                if one.unproven { "u" } else { "p" },
                if held { "h" } else { "" }
            )
        };
        let phase = match &node.breaker.phase {
            Phase::Closed { failed, tries } => {
                format!("closed {failed} {:?}", tries.iter().map(age).collect::<Vec<_>>())
            }
            Phase::Open { until } => format!("open {}", ahead(*until)),
            Phase::HalfOpen { passed, probe } => format!("half {passed} {:?}", probe.as_ref().map(age)),
        };
        let broke = node.breaker.broke.map(|at| ago(at).min(TOGETHER.as_millis()));
        // A stale permit changes nothing, so only how many there are matters for how many more are held.
        let stale = node.held.len();
        format!("{phase} broke {broke:?} held {stale}")
    }

    fn visit(&mut self, mut node: Node) {
        let now = self.at(node.now);
        node.breaker.state(now);
        let key = self.key(&node);
        let count = self.seen.len();
        if let std::collections::hash_map::Entry::Vacant(slot) = self.seen.entry(key) {
            slot.insert(count);
            self.check(&node);
            self.open.push(node);
        }
    }

    /// What must hold in every state.
    fn check(&self, node: &Node) {
        let now = self.at(node.now);
        let policy = self.policy;
        if let Phase::Closed { failed, tries } = &node.breaker.phase {
            assert!(*failed < policy.failures, "so many failures have opened it");
            assert!(tries.iter().all(|one| now < one.since + policy.slow), "nobody takes longer than `slow`");
        }
        // Whoever is told to wait or stop is told a time after which the answer has changed for good: with
        // nobody doing anything but asking, somebody may try within one `slow` and one cool-down each.
        let (mut waiting, mut at) = (node.breaker.clone(), now);
        for _ in 0..=(policy.failures + 3) {
            at += match waiting.admit(at) {
                Admission::Go(_) => break,
                Admission::Wait(until) => {
                    assert!(until > at && until <= at + policy.slow, "a wait has an end, and it is not now");
                    until - at
                }
                Admission::Stop(wait) => {
                    assert!(!wait.is_zero() && wait <= policy.cool_down.max(policy.slow));
                    wait
                }
            };
        }
        assert!(at - now <= (policy.slow + policy.cool_down) * 2, "open always ends");
    }

    fn explore(&mut self) {
        self.visit(Node { breaker: Breaker::new(self.policy), now: 0, held: BTreeSet::new() });
        while let Some(node) = self.open.pop() {
            let before = node.breaker.clone().state(self.at(node.now));
            self.visit(Node { now: node.now + 1, ..node.clone() });
            let mut broken = node.clone();
            broken.breaker.broke(self.at(node.now));
            assert_ne!(
                (before, broken.breaker.clone().state(self.at(node.now))),
                (State::HalfOpen, State::Closed)
            );
            self.visit(broken);
            if node.held.len() < HELD_MAX {
                let mut asked = node.clone();
                let unproven = match &asked.breaker.phase {
                    Phase::Closed { failed, tries } => {
                        failed + tries.iter().filter(|one| one.unproven).count() as u32
                    }
                    _ => 0,
                };
                let probing = matches!(asked.breaker.phase, Phase::HalfOpen { probe: Some(_), .. });
                if let Admission::Go(id) = asked.breaker.admit(self.at(node.now)) {
                    assert!(before != State::Open, "nobody tries while it is open");
                    assert!(!probing, "never more than one probe");
                    assert!(
                        unproven < self.policy.failures,
                        "a dead service is tried no oftener than it may fail"
                    );
                    asked.held.insert(id);
                    self.visit(asked);
                }
            }
            for id in &node.held {
                for outcome in [Outcome::Succeeded, Outcome::Failed, Outcome::Blameless, Outcome::Abandoned] {
                    self.finish(&node, *id, outcome);
                }
            }
        }
    }

    fn finish(&mut self, node: &Node, id: PermitId, outcome: Outcome) {
        let now = self.at(node.now);
        let mut next = node.clone();
        let probe =
            matches!(&next.breaker.phase, Phase::HalfOpen { probe: Some(probe), .. } if probe.id == id);
        let (before, failed) = (next.breaker.state(now), next.breaker.failed());
        let counted = next.breaker.finish(now, id, outcome);
        next.held.remove(&id);
        let after = next.breaker.state(now);
        match (before, after) {
            (State::Closed, State::Open) => assert_eq!(outcome, Outcome::Failed),
            (State::HalfOpen, State::Open) => assert!(probe && outcome == Outcome::Failed),
            (State::HalfOpen, State::Closed) => {
                assert!(probe && outcome == Outcome::Succeeded, "only a probe closes it");
            }
            (before, after) => assert_eq!(before, after),
        }
        if before == State::Closed && after == State::Closed && counted {
            let expected = match outcome {
                Outcome::Succeeded => 0,
                Outcome::Failed => failed + 1,
                Outcome::Blameless | Outcome::Abandoned => failed,
            };
            assert_eq!(next.breaker.failed(), expected, "no failure is lost");
        }
        if !counted {
            assert_eq!(
                (before, failed),
                (after, next.breaker.failed()),
                "who comes too late changes nothing"
            );
        }
        self.visit(next);
    }
}

#[test]
fn every_state_it_can_get_into_is_sound() {
    for (failures, cool_down, slow, probes) in [(1, 3, 2, 1), (2, 3, 2, 1), (2, 2, 3, 2), (3, 4, 2, 1)] {
        let policy = Policy { failures, cool_down: TICK * cool_down, slow: TICK * slow, probes };
        let start = Instant::now();
        let mut explorer = Explorer { start, policy, seen: HashMap::new(), open: Vec::new() };
        explorer.explore();
        let states: BTreeSet<_> = explorer.seen.keys().map(|key| key.split(' ').next()).collect();
        assert_eq!(states, ["closed", "half", "open"].map(Some).into(), "all three are reached");
        assert!(explorer.seen.len() > 50, "{failures} failures: {} states", explorer.seen.len());
    }
}

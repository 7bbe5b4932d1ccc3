//! Counts what one call uses, and prices it with what was in force when the call began.

use super::Tokens;
use super::prices::{MILLION, MINUTE_MS, PriceBook, TimePrice, portion};
use crate::config::{MONEY_SCALE, Money};
use crate::event::{Cost, CostItem, CostPart, CostParts, Direction};
use crate::time::UnixMs;

/// Something a provider charges for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Charge<'a> {
    /// The tokens of one response.
    Response {
        /// The model that answered.
        model: &'a str,
        /// How many.
        tokens: Tokens,
    },
    /// Writing down what was said.
    Transcription {
        /// The model that wrote.
        model: &'a str,
        /// How many tokens; none where it is billed by time.
        tokens: Tokens,
        /// Audio; 0 where it is billed by tokens.
        audio_ms: u64,
    },
    /// The time of the present session so far.
    Session {
        /// The model.
        model: &'a str,
        /// Billed so far.
        billed_ms: u64,
    },
}

/// What one call has used.
#[derive(Debug)]
pub struct Meter {
    at: UnixMs,
    lines: Vec<Line>,
    legs: Vec<Leg>,
}

#[derive(Debug)]
struct Line {
    part: CostPart,
    provider: String,
    model: String,
    what: &'static str,
    count: Count,
}

#[derive(Debug)]
enum Count {
    /// Counted together, rounded once.
    Sum { quantity: u64, unit: &'static str, price: Option<(Money, u64)> },
    /// Rounded stretch by stretch: those that are over, and the one that runs.
    Time { ended_ms: u64, ended: u64, running_ms: u64, price: Option<TimePrice> },
}

#[derive(Debug)]
struct Leg {
    id: String,
    trunk: String,
    direction: Direction,
    /// Of the price; empty without one.
    prefix: String,
    price: Option<TimePrice>,
    up_at_ms: Option<u64>,
    /// Once it is over.
    lasted_ms: Option<u64>,
}

impl Leg {
    fn ms(&self, now_ms: u64) -> u64 {
        let running = self.up_at_ms.map_or(0, |up| now_ms.saturating_sub(up));
        self.lasted_ms.unwrap_or(running)
    }
}

impl Meter {
    /// The meter of a call that began at this moment.
    pub fn new(at: UnixMs) -> Self {
        Self { at, lines: Vec::new(), legs: Vec::new() }
    }

    /// Counts what a provider of this section name and kind charges for. Answers the models seen for the first time
    /// that have no price.
    pub fn charge(&mut self, book: &PriceBook, provider: &str, kind: &str, charge: Charge<'_>) -> bool {
        let at = self.at;
        let before = self.lines.len();
        match charge {
            Charge::Response { model, tokens } => {
                let price = book.tokens(kind, model, at);
                let uncached_text = tokens.input_text.saturating_sub(tokens.cached_text);
                let uncached_audio = tokens.input_audio.saturating_sub(tokens.cached_audio);
                for (part, what, quantity, price) in [
                    (CostPart::Llm, "text_in", uncached_text, price.and_then(|p| p.text_in)),
                    (
                        CostPart::Llm,
                        "text_cached",
                        tokens.cached_text,
                        price.and_then(|p| p.text_cached.or(p.text_in)),
                    ),
                    (CostPart::Llm, "audio_in", uncached_audio, price.and_then(|p| p.audio_in)),
                    (
                        CostPart::Llm,
                        "audio_cached",
                        tokens.cached_audio,
                        price.and_then(|p| p.audio_cached.or(p.audio_in)),
                    ),
                    (CostPart::Llm, "text_out", tokens.output_text, price.and_then(|p| p.text_out)),
                    (CostPart::Tts, "audio_out", tokens.output_audio, price.and_then(|p| p.audio_out)),
                ] {
                    let price = price.map(|price| (price, MILLION));
                    self.add(part, provider, model, what, (quantity, "tokens"), price);
                }
            }
            Charge::Transcription { model, tokens, audio_ms } => {
                let price = book.transcription(kind, model, at);
                let input_audio = price.and_then(|p| p.audio_in);
                // A model with a price of its minutes alone that reports tokens: those of audio are a clock, too.
                let by_minute = price.is_some_and(|p| p.per_minute.is_some() && p.audio_in.is_none());
                let (tokens, audio_ms) = match by_minute && audio_ms == 0 {
                    true => (Tokens::default(), tokens.input_audio * MS_PER_AUDIO_TOKEN),
                    false => (tokens, audio_ms),
                };
                for (what, quantity, price) in [
                    ("text_in", tokens.input_text, price.and_then(|p| p.text_in)),
                    ("audio_in", tokens.input_audio, input_audio),
                    ("text_out", tokens.output_text, price.and_then(|p| p.text_out)),
                ] {
                    let price = price.map(|price| (price, MILLION));
                    self.add(CostPart::Stt, provider, model, what, (quantity, "tokens"), price);
                }
                let per_minute = price.and_then(|p| p.per_minute).map(|price| (price, MINUTE_MS));
                self.add(CostPart::Stt, provider, model, "audio", (audio_ms, "ms"), per_minute);
            }
            Charge::Session { model, billed_ms } => {
                let price = book.session(kind, model, at);
                let fresh = Count::Time { ended_ms: 0, ended: 0, running_ms: 0, price };
                let line = self.line(CostPart::Llm, provider, model, "session", fresh);
                if let Count::Time { running_ms, .. } = &mut line.count {
                    *running_ms = billed_ms;
                }
            }
        }
        self.lines[before..].iter().any(|line| line.amount().is_none())
    }

    /// A new session has begun: the time of the one before is final.
    pub fn new_session(&mut self) {
        for line in &mut self.lines {
            if let Count::Time { ended_ms, ended, running_ms, price } = &mut line.count {
                *ended += price.map_or(0, |price| price.of(*running_ms));
                *ended_ms += std::mem::take(running_ms);
            }
        }
    }

    /// A tool was run. Those without a price are free.
    pub fn tool(&mut self, book: &PriceBook, name: &str) {
        if let Some(price) = book.tool(name) {
            self.add(CostPart::Tools, name, "", "run", (1, "calls"), Some((price, 1)));
        }
    }

    /// A leg over a trunk is being set up.
    pub fn leg(&mut self, book: &PriceBook, id: &str, trunk: &str, direction: Direction, number: &str) {
        if book.prices_trunks() {
            let found = book.trunk(trunk, direction, number, self.at);
            let prefix = found.map_or("", |(prefix, _)| if prefix.is_empty() { "any" } else { prefix });
            self.legs.push(Leg {
                id: id.to_owned(),
                trunk: trunk.to_owned(),
                direction,
                prefix: prefix.to_owned(),
                price: found.map(|(_, price)| price),
                up_at_ms: None,
                lasted_ms: None,
            });
        }
    }

    /// A leg was answered.
    pub fn leg_up(&mut self, id: &str, now_ms: u64) {
        if let Some(leg) = self.open_leg(id) {
            leg.up_at_ms.get_or_insert(now_ms);
        }
    }

    /// A leg is over.
    pub fn leg_down(&mut self, id: &str, now_ms: u64) {
        if let Some(leg) = self.open_leg(id) {
            leg.lasted_ms = Some(leg.ms(now_ms));
        }
    }

    fn open_leg(&mut self, id: &str) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.id == id && leg.lasted_ms.is_none())
    }

    /// Whether time alone changes the sum.
    pub fn is_running(&self) -> bool {
        self.legs.iter().any(|leg| leg.up_at_ms.is_some() && leg.lasted_ms.is_none())
    }

    /// Whether anything was used.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.legs.iter().all(|leg| leg.up_at_ms.is_none())
    }

    /// The sum, in billionths.
    pub fn total(&self, now_ms: u64) -> u64 {
        let lines = self.lines.iter().filter_map(Line::amount);
        let legs = self.legs.iter().filter_map(|leg| leg.price.map(|price| price.of(leg.ms(now_ms))));
        lines.chain(legs).fold(0, u64::saturating_add)
    }

    /// Everything used, priced.
    pub fn cost(&self, book: &PriceBook, now_ms: u64) -> Cost {
        let mut items: Vec<CostItem> = self.lines.iter().map(Line::item).collect();
        for leg in self.legs.iter().filter(|leg| leg.up_at_ms.is_some()) {
            let ms = leg.ms(now_ms);
            let what = leg.direction.as_str();
            let amount = leg.price.map(|price| price.of(ms));
            let same = |item: &&mut CostItem| {
                item.part == CostPart::Trunk
                    && item.provider == leg.trunk
                    && item.model == leg.prefix
                    && item.what == what
            };
            if let Some(item) = items.iter_mut().find(same) {
                item.quantity += ms;
                item.amount = item.amount.zip(amount).map(|(one, other)| one.saturating_add(other));
                continue;
            }
            items.push(CostItem {
                part: CostPart::Trunk,
                provider: leg.trunk.clone(),
                model: leg.prefix.clone(),
                what: what.to_owned(),
                quantity: ms,
                unit: "ms".to_owned(),
                amount,
            });
        }
        let mut by = CostParts::default();
        for item in &items {
            let part = by.part(item.part);
            *part = part.saturating_add(item.amount.unwrap_or(0));
        }
        let total = [by.trunk, by.stt, by.llm, by.tts, by.tools].into_iter().fold(0, u64::saturating_add);
        Cost { currency: book.currency().to_owned(), scale: MONEY_SCALE, total, by, items }
    }

    fn add(
        &mut self,
        part: CostPart,
        provider: &str,
        model: &str,
        what: &'static str,
        (more, unit): (u64, &'static str),
        price: Option<(Money, u64)>,
    ) {
        if more == 0 {
            return;
        }
        let line = self.line(part, provider, model, what, Count::Sum { quantity: 0, unit, price });
        if let Count::Sum { quantity, .. } = &mut line.count {
            *quantity += more;
        }
    }

    fn line(
        &mut self,
        part: CostPart,
        provider: &str,
        model: &str,
        what: &'static str,
        fresh: Count,
    ) -> &mut Line {
        let same = |line: &Line| {
            line.part == part && line.what == what && line.provider == provider && line.model == model
        };
        let index = self.lines.iter().position(same).unwrap_or_else(|| {
            let (provider, model) = (provider.to_owned(), model.to_owned());
            self.lines.push(Line { part, provider, model, what, count: fresh });
            self.lines.len() - 1
        });
        &mut self.lines[index]
    }
}

impl Line {
    fn amount(&self) -> Option<u64> {
        match &self.count {
            Count::Sum { quantity, price, .. } => price.map(|(price, per)| portion(*quantity, price, per)),
            Count::Time { ended, running_ms, price, .. } => {
                price.map(|price| ended.saturating_add(price.of(*running_ms)))
            }
        }
    }

    fn item(&self) -> CostItem {
        let (quantity, unit) = match self.count {
            Count::Sum { quantity, unit, .. } => (quantity, unit),
            Count::Time { ended_ms, running_ms, .. } => (ended_ms + running_ms, "ms"),
        };
        CostItem {
            part: self.part,
            provider: self.provider.clone(),
            model: self.model.clone(),
            what: self.what.to_owned(),
            quantity,
            unit: unit.to_owned(),
            amount: self.amount(),
        }
    }
}

/// Of a caller's audio.
const MS_PER_AUDIO_TOKEN: u64 = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REALTIME: &str = "gpt-realtime-2.1";

    fn meter() -> Meter {
        Meter::new(UnixMs::parse_rfc3339("2026-11-21T12:00:00Z").expect("a moment"))
    }

    #[test]
    fn cached_tokens_are_part_of_the_input_and_cost_less() {
        let (book, mut meter) = (PriceBook::built_in(), meter());
        let tokens = Tokens {
            input_text: 119,
            input_audio: 13,
            cached_text: 64,
            cached_audio: 0,
            output_text: 30,
            output_audio: 91,
        };
        assert!(!meter.charge(&book, "openai", "openai", Charge::Response { model: REALTIME, tokens }));
        let cost = meter.cost(&book, 0);
        // (119-64) * 4 + 64 * 0.4 + 13 * 32 + 30 * 24 + 91 * 64 dollars for a million.
        let llm = 55 * 4_000 + 64 * 400 + 13 * 32_000 + 30 * 24_000;
        assert_eq!((cost.by.llm, cost.by.tts), (llm, 91 * 64_000));
        assert_eq!((cost.total, meter.total(0)), (llm + 91 * 64_000, llm + 91 * 64_000));
        assert_eq!((cost.currency.as_str(), cost.scale), ("USD", 9));
    }

    #[test]
    fn what_has_no_price_is_shown_as_such_and_told_once() {
        let (book, mut meter) = (PriceBook::built_in(), meter());
        let charge = Charge::Response { model: "m9", tokens: Tokens { input_text: 5, ..Tokens::default() } };
        assert!(meter.charge(&book, "o", "openai", charge));
        assert!(!meter.charge(&book, "o", "openai", charge), "it is known by now");
        let cost = meter.cost(&book, 0);
        assert_eq!((cost.total, cost.items[0].amount, cost.items[0].quantity), (0, None, 10));
    }

    #[test]
    fn the_time_of_sessions_is_added_up_session_by_session() {
        let (book, mut meter) = (PriceBook::built_in(), meter());
        let session = |billed_ms| Charge::Session { model: "v", billed_ms };
        for billed_ms in [30_000, 60_000] {
            meter.charge(&book, "u", "ultravox", session(billed_ms));
        }
        meter.new_session();
        meter.charge(&book, "u", "ultravox", session(90_000));
        let cost = meter.cost(&book, 0);
        assert_eq!((cost.by.llm, cost.items[0].quantity), (125_000_000, 150_000));
    }

    #[test]
    fn transcription_is_billed_as_the_service_says() {
        let (book, mut meter) = (PriceBook::built_in(), meter());
        let by_time =
            Charge::Transcription { model: "gpt-transcribe", tokens: Tokens::default(), audio_ms: 90_000 };
        meter.charge(&book, "o", "openai", by_time);
        let tokens = Tokens { input_audio: 1_000, output_text: 100, ..Tokens::default() };
        let by_tokens = Charge::Transcription { model: "gpt-4o-transcribe", tokens, audio_ms: 0 };
        meter.charge(&book, "o", "openai", by_tokens);
        assert_eq!(meter.cost(&book, 0).by.stt, 6_750_000 + 6_000_000 + 1_000_000);
        // 300 tokens of audio are half a minute.
        let tokens = Tokens { input_audio: 300, output_text: 9, ..Tokens::default() };
        let by_minute = Charge::Transcription { model: "gpt-transcribe", tokens, audio_ms: 0 };
        assert!(!meter.charge(&book, "o", "openai", by_minute));
        assert_eq!(meter.cost(&book, 0).by.stt, 6_750_000 + 7_000_000 + 2_250_000);
    }

    #[test]
    fn legs_cost_while_they_are_up() {
        let table =
            "currency = \"USD\"\n[[trunk]]\ntrunk = \"*\"\ndirection = \"outbound\"\nper_minute = \"0.60\"\n";
        let (book, mut meter) = (PriceBook::parse(table).expect("a table"), meter());
        meter.leg(&book, "a", "t", Direction::Outbound, "+1");
        meter.leg(&book, "b", "t", Direction::Outbound, "+1");
        meter.leg(&book, "in", "t", Direction::Inbound, "+1");
        assert!(meter.is_empty() && !meter.is_running());
        meter.leg_up("a", 1_000);
        meter.leg_up("in", 1_000);
        meter.leg_down("b", 2_000);
        assert!(meter.is_running());
        meter.leg_down("a", 11_000);
        meter.leg_down("a", 50_000);
        let cost = meter.cost(&book, 60_000);
        assert_eq!(cost.by.trunk, 100_000_000, "ten seconds");
        let inbound = cost.items.iter().find(|item| item.what == "inbound").expect("shown");
        assert_eq!((inbound.amount, inbound.quantity), (None, 59_000));
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_its_parts_and_the_order_does_not_matter(
            all in proptest::collection::vec(
                (0u64..50_000, 0u64..50_000, 0u64..20_000, 0u64..20_000, 0u64..20_000, 0u64..20_000), 1..30),
        ) {
            let book = PriceBook::built_in();
            let count = |all: &[(u64, u64, u64, u64, u64, u64)]| {
                let mut meter = meter();
                for &(input_text, input_audio, cached_text, cached_audio, output_text, output_audio) in all {
                    let tokens =
                        Tokens { input_text, input_audio, cached_text, cached_audio, output_text, output_audio };
                    meter.charge(&book, "o", "openai", Charge::Response { model: REALTIME, tokens });
                }
                meter.cost(&book, 0)
            };
            let cost = count(&all);
            let priced: u64 = cost.items.iter().filter_map(|item| item.amount).sum();
            prop_assert_eq!(cost.total, priced);
            let exact: u64 = all.iter().map(|(text, audio, cached_text, cached_audio, out, voice)| {
                text.saturating_sub(*cached_text) * 4_000 + cached_text * 400
                    + audio.saturating_sub(*cached_audio) * 32_000 + cached_audio * 400
                    + out * 24_000 + voice * 64_000
            }).sum();
            prop_assert_eq!(cost.total, exact, "every price of a token is a whole number of billionths");
            let mut turned = all.clone();
            turned.reverse();
            prop_assert_eq!(count(&turned).total, cost.total);
        }
    }
}

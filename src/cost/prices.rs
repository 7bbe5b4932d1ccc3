//! Price tables: read from TOML, asked by provider, model or trunk, and by date.

use serde::Deserialize;

use crate::config::Money;
use crate::time::UnixMs;

/// Prices, dated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceBook {
    currency: String,
    tokens: Vec<Dated<TokenPrice>>,
    transcription: Vec<Dated<TranscriptionPrice>>,
    session: Vec<Dated<SessionPrice>>,
    trunk: Vec<Dated<TrunkPrice>>,
    tool: Vec<ToolPrice>,
}

/// Why a price table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// It is no such file.
    #[error("{0}; the built-in table (see the README's section on cost) shows what it may hold")]
    Unreadable(String),
    /// A date is none.
    #[error("\"{0}\" is no date; write one such as \"2026-11-21\"")]
    Date(String),
    /// The currency is none.
    #[error("the currency \"{0}\" is none; write three capital letters, such as \"USD\"")]
    Currency(String),
    /// An entry names no model.
    #[error("a price of the provider kind \"{0}\" names no models; add models = [\"*\"]")]
    NoModels(String),
    /// Two entries say different things about the same.
    #[error("{0} has two prices from the same day; remove one")]
    Twice(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Dated<T> {
    from: i64,
    price: T,
}

/// Of a model, per 1,000,000 tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenPrice {
    provider: String,
    models: Vec<String>,
    #[serde(default)]
    from: Option<String>,
    pub(super) text_in: Option<Money>,
    pub(super) text_cached: Option<Money>,
    pub(super) text_out: Option<Money>,
    pub(super) audio_in: Option<Money>,
    pub(super) audio_cached: Option<Money>,
    pub(super) audio_out: Option<Money>,
}

/// Of a model that writes down what callers say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TranscriptionPrice {
    provider: String,
    models: Vec<String>,
    #[serde(default)]
    from: Option<String>,
    pub(super) per_minute: Option<Money>,
    pub(super) text_in: Option<Money>,
    pub(super) audio_in: Option<Money>,
    pub(super) text_out: Option<Money>,
}

/// Of a service that bills time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionPrice {
    provider: String,
    models: Vec<String>,
    #[serde(default)]
    from: Option<String>,
    per_minute: Money,
    #[serde(default)]
    minimum_s: u32,
    #[serde(default = "one")]
    increment_s: u32,
}

/// Of a carrier's minutes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrunkPrice {
    trunk: String,
    direction: crate::event::Direction,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    from: Option<String>,
    per_minute: Money,
    #[serde(default)]
    minimum_s: u32,
    #[serde(default = "one")]
    increment_s: u32,
    #[serde(default)]
    setup: Money,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolPrice {
    name: String,
    per_call: Money,
}

const fn one() -> u32 {
    1
}

/// What a stretch of time costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimePrice {
    per_minute: Money,
    minimum_s: u32,
    increment_s: u32,
    setup: Money,
}

impl TimePrice {
    /// In billionths, for `ms` milliseconds; nothing for none.
    pub(super) fn of(self, ms: u64) -> u64 {
        if ms == 0 {
            return 0;
        }
        let step = u64::from(self.increment_s.max(1)) * 1000;
        let billed = ms.max(u64::from(self.minimum_s) * 1000).div_ceil(step) * step;
        self.setup.nanos() + portion(billed, self.per_minute, MINUTE_MS)
    }
}

/// `quantity` at `price` for each `per`, in billionths, rounded to the nearest.
pub(super) fn portion(quantity: u64, price: Money, per: u64) -> u64 {
    let exact = u128::from(quantity) * u128::from(price.nanos());
    u64::try_from((exact + u128::from(per / 2)) / u128::from(per)).unwrap_or(u64::MAX)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    currency: String,
    #[serde(default)]
    tokens: Vec<TokenPrice>,
    #[serde(default)]
    transcription: Vec<TranscriptionPrice>,
    #[serde(default)]
    session: Vec<SessionPrice>,
    #[serde(default)]
    trunk: Vec<TrunkPrice>,
    #[serde(default)]
    tool: Vec<ToolPrice>,
}

impl PriceBook {
    /// The list prices this version was built with.
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("a test reads the built-in table")
    }

    /// Reads a table.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let file: File = toml::from_str(text).map_err(|error| PriceError::Unreadable(error.to_string()))?;
        let letters = file.currency.len() == 3 && file.currency.bytes().all(|b| b.is_ascii_uppercase());
        if !letters {
            return Err(PriceError::Currency(file.currency));
        }
        let book = Self {
            currency: file.currency,
            tokens: dated(file.tokens, |price| &price.from)?,
            transcription: dated(file.transcription, |price| &price.from)?,
            session: dated(file.session, |price| &price.from)?,
            trunk: dated(file.trunk, |price| &price.from)?,
            tool: file.tool,
        };
        book.check()?;
        Ok(book)
    }

    fn check(&self) -> Result<(), PriceError> {
        fn models<'a, T>(
            kind: &'a str,
            rows: &'a [Dated<T>],
            of: impl Fn(&'a T) -> (&'a str, &'a [String]),
        ) -> Result<Vec<(String, i64)>, PriceError> {
            let mut keys = Vec::new();
            for row in rows {
                let (provider, models) = of(&row.price);
                if models.is_empty() {
                    return Err(PriceError::NoModels(provider.to_owned()));
                }
                keys.extend(models.iter().map(|model| (format!("{kind} of {provider} {model}"), row.from)));
            }
            Ok(keys)
        }
        let mut keys = models("tokens", &self.tokens, |p| (&p.provider, &p.models))?;
        keys.extend(models("transcription", &self.transcription, |p| (&p.provider, &p.models))?);
        keys.extend(models("session", &self.session, |p| (&p.provider, &p.models))?);
        keys.extend(self.trunk.iter().map(|Dated { from, price }| {
            (format!("trunk {} {} {}", price.trunk, price.direction.as_str(), price.prefix), *from)
        }));
        keys.extend(self.tool.iter().map(|tool| (format!("tool {}", tool.name), 0)));
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(PriceError::Twice(pair[0].0.clone())),
            None => Ok(()),
        }
    }

    /// ISO 4217.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// Whether minutes of trunks are to be counted.
    pub fn prices_trunks(&self) -> bool {
        !self.trunk.is_empty()
    }

    pub(super) fn tokens(&self, kind: &str, model: &str, at: UnixMs) -> Option<&TokenPrice> {
        pick(&self.tokens, at, |price| fit(&price.provider, &price.models, kind, model))
    }

    pub(super) fn transcription(&self, kind: &str, model: &str, at: UnixMs) -> Option<&TranscriptionPrice> {
        pick(&self.transcription, at, |price| fit(&price.provider, &price.models, kind, model))
    }

    pub(super) fn session(&self, kind: &str, model: &str, at: UnixMs) -> Option<TimePrice> {
        let price = pick(&self.session, at, |price| fit(&price.provider, &price.models, kind, model))?;
        let SessionPrice { per_minute, minimum_s, increment_s, .. } = *price;
        Some(TimePrice { per_minute, minimum_s, increment_s, setup: Money::default() })
    }

    pub(super) fn trunk(
        &self,
        trunk: &str,
        direction: crate::event::Direction,
        number: &str,
        at: UnixMs,
    ) -> Option<(&str, TimePrice)> {
        let fits = |price: &TrunkPrice| {
            let named = price.trunk == trunk;
            let fits = (named || price.trunk == "*")
                && price.direction == direction
                && number.starts_with(price.prefix.as_str());
            fits.then_some((named, price.prefix.len()))
        };
        let price = pick(&self.trunk, at, fits)?;
        let &TrunkPrice { per_minute, minimum_s, increment_s, setup, .. } = price;
        Some((&price.prefix, TimePrice { per_minute, minimum_s, increment_s, setup }))
    }

    pub(super) fn tool(&self, name: &str) -> Option<Money> {
        self.tool.iter().find(|tool| tool.name == name).map(|tool| tool.per_call)
    }
}

/// The row that fits best, and of those the newest that is in force.
fn pick<T, F: Ord>(rows: &[Dated<T>], at: UnixMs, fits: impl Fn(&T) -> Option<F>) -> Option<&T> {
    let in_force = rows.iter().filter(|row| row.from <= at.get());
    let fitting = in_force.filter_map(|row| Some(((fits(&row.price)?, row.from), &row.price)));
    fitting.max_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, price)| price)
}

/// How well a model fits: an exact name best, then the longest pattern.
fn fit(provider: &str, patterns: &[String], kind: &str, model: &str) -> Option<usize> {
    let best = patterns.iter().filter_map(|pattern| match pattern.strip_suffix('*') {
        Some(head) => model.starts_with(head).then_some(head.len()),
        None => (pattern == model).then_some(usize::MAX),
    });
    best.max().filter(|_| provider == kind)
}

fn dated<T>(rows: Vec<T>, from: impl Fn(&T) -> &Option<String>) -> Result<Vec<Dated<T>>, PriceError> {
    let dated = rows.into_iter().map(|price| {
        let from = match from(&price) {
            Some(date) => UnixMs::parse_rfc3339(&format!("{date}T00:00:00Z"))
                .map_err(|_| PriceError::Date(date.clone()))?
                .get(),
            None => i64::MIN,
        };
        Ok(Dated { from, price })
    });
    dated.collect()
}

/// The built-in table.
const BUILT_IN: &str = include_str!("prices.toml");
/// Prices of tokens are for so many.
pub(super) const MILLION: u64 = 1_000_000;
/// Prices of time are for so many milliseconds.
pub(super) const MINUTE_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Direction;

    fn at(date: &str) -> UnixMs {
        UnixMs::parse_rfc3339(&format!("{date}T12:00:00Z")).expect("a date")
    }

    #[test]
    fn the_built_in_table_knows_the_services_models() {
        let book = PriceBook::built_in();
        let price = book.tokens("openai", "gpt-realtime-2.1", at("2026-11-21")).expect("a price");
        assert_eq!(price.audio_out, Some(Money::from_nanos(64_000_000_000)));
        let mini = book.tokens("openai", "gpt-realtime-2.1-mini", at("2026-11-21")).expect("a price");
        assert_eq!(mini.text_in, Some(Money::from_nanos(600_000_000)));
        let snapshot = book.tokens("openai", "gpt-realtime-2.1-mini-2026-05-01", at("2026-11-21"));
        assert_eq!(snapshot, Some(mini), "a dated snapshot costs what its model does");
        assert!(book.transcription("openai", "gpt-transcribe", at("2026-11-21")).is_some());
        assert!(book.session("ultravox", "whatever", at("2026-11-21")).is_some());
        assert_eq!(book.tokens("openai", "gpt-realtime-9", at("2026-11-21")), None, "unknown: no price");
        assert_eq!(book.tokens("openai", "gpt-realtime-2.1", at("2024-01-01")), None, "not yet in force");
        assert!(!book.prices_trunks());
    }

    #[test]
    fn the_newest_price_in_force_is_taken_and_the_best_pattern_first() {
        let book = PriceBook::parse(
            "currency = \"EUR\"\n\
             [[session]]\nprovider = \"u\"\nmodels = [\"*\"]\nper_minute = \"9\"\nfrom = \"2026-06-01\"\n\
             [[session]]\nprovider = \"u\"\nmodels = [\"m*\"]\nper_minute = \"1\"\n\
             [[session]]\nprovider = \"u\"\nmodels = [\"m*\"]\nper_minute = \"2\"\nfrom = \"2026-03-01\"\n",
        )
        .expect("a table");
        let per_minute =
            |model, date| book.session("u", model, at(date)).map(|p| p.of(60_000) / 1_000_000_000);
        assert_eq!(per_minute("m1", "2026-02-28"), Some(1));
        assert_eq!(per_minute("m1", "2026-03-01"), Some(2));
        assert_eq!(per_minute("m1", "2026-07-01"), Some(2), "the pattern that says more");
        assert_eq!(per_minute("x", "2026-07-01"), Some(9));
        assert_eq!(per_minute("x", "2026-05-01"), None);
    }

    #[test]
    fn trunk_minutes_go_by_the_longest_prefix_and_are_rounded_up() {
        let book = PriceBook::parse(
            "currency = \"USD\"\n\
             [[trunk]]\ntrunk = \"*\"\ndirection = \"outbound\"\nprefix = \"+49\"\nper_minute = \"0.60\"\n\
             [[trunk]]\ntrunk = \"*\"\ndirection = \"outbound\"\nprefix = \"+4915\"\nper_minute = \"1.20\"\n\
             minimum_s = 60\nincrement_s = 60\nsetup = \"0.10\"\n\
             [[trunk]]\ntrunk = \"own\"\ndirection = \"outbound\"\nper_minute = \"0\"\n",
        )
        .expect("a table");
        let price = |trunk, number, ms| {
            let price = book.trunk(trunk, Direction::Outbound, number, at("2026-11-21"));
            price.map(|(_, price)| price.of(ms))
        };
        assert_eq!(price("t", "+4930123", 1_500), Some(20_000_000), "two seconds");
        assert_eq!(price("t", "+4915123", 1_500), Some(1_300_000_000), "a minute and the setup");
        assert_eq!(price("t", "+4915123", 60_001), Some(2_500_000_000));
        assert_eq!(price("t", "+4915123", 0), Some(0), "never answered");
        assert_eq!(price("own", "+4915123", 60_000), Some(0), "the trunk that is named");
        assert_eq!(price("t", "+1555", 1_500), None);
        assert!(book.trunk("t", Direction::Inbound, "+49", at("2026-11-21")).is_none());
    }

    #[test]
    fn a_table_that_is_wrong_says_why() {
        let wrong = |text: &str| PriceBook::parse(text).expect_err(text).to_string();
        assert!(wrong("currency = \"$\"").contains("three capital letters"));
        assert!(wrong("currency = \"USD\"\n[[tokns]]").contains("tokns"));
        let row = "[[session]]\nprovider = \"u\"\nmodels = [\"*\"]\n";
        assert!(wrong(&format!("currency = \"USD\"\n{row}per_minute = \"a\"")).contains("amount of money"));
        assert!(wrong(&format!("currency = \"USD\"\n{row}per_minute = 0.05")).contains("string"));
        let date = "per_minute = \"1\"\nfrom = \"yesterday\"\n";
        assert!(wrong(&format!("currency = \"USD\"\n{row}{date}")).contains("2026-11-21"));
        let twice = format!("currency = \"USD\"\n{row}per_minute = \"1\"\n{row}per_minute = \"2\"\n");
        assert!(wrong(&twice).contains("two prices"));
    }
}

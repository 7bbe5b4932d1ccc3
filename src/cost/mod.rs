//! What calls cost: dated price tables, the meter of a call, and the budgets of days.
//!
//! [`PriceBook`] is what a file says; a [`Meter`] counts what one call uses and prices it with what was in force
//! when the call began; an [`Account`] holds the meter of a call against its limits and those of its day, which
//! all calls share through [`Costs`]. Money is whole billionths ([`crate::config::Money`]), never a float. What has
//! no price is shown as unpriced, never as free.
//!
//! Pure: whoever counts says what time it is.

mod account;
mod budget;
mod meter;
mod prices;

use serde::{Deserialize, Serialize};

pub use account::{Account, Crossing};
pub use budget::{Alarm, Costs, Rules, start_of_day};
pub use meter::{Charge, Meter};
pub use prices::{PriceBook, PriceError};

/// Tokens, missing ones as 0. Cached tokens are a subset of the input tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each name says its tokens")]
pub struct Tokens {
    pub input_text: u64,
    pub input_audio: u64,
    pub cached_text: u64,
    pub cached_audio: u64,
    pub output_text: u64,
    pub output_audio: u64,
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.input_text += other.input_text;
        self.input_audio += other.input_audio;
        self.cached_text += other.cached_text;
        self.cached_audio += other.cached_audio;
        self.output_text += other.output_text;
        self.output_audio += other.output_audio;
    }
}

//! Amounts of money, written as decimal text and kept as whole billionths: prices of tokens are small, and floats
//! do not add up.

use std::fmt;
use std::str::FromStr;

use super::values::{ValueError, text_value};

/// An amount in billionths (10⁻⁹) of the price table's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(u64);

/// Decimal places of [`Money`].
pub const MONEY_SCALE: u8 = 9;
/// Of one unit of the currency.
const BILLION: u64 = 1_000_000_000;

impl Money {
    /// So many billionths.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// In billionths.
    pub const fn nanos(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Money {
    /// With two to nine decimal places: `2.50`, `0.000476`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % BILLION);
        let shown = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{}.{}", self.0 / BILLION, &fraction[..shown])
    }
}

impl FromStr for Money {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::new(
                format!("\"{text}\" is no amount of money"),
                "write digits with a point and at most nine decimal places, such as \"2.50\"",
            )
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > usize::from(MONEY_SCALE) {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
        let nanos = whole.checked_mul(BILLION).and_then(|nanos| nanos.checked_add(fraction));
        nanos.filter(|nanos| *nanos <= MOST).map(Self).ok_or_else(wrong)
    }
}

text_value!(Money, "money");

/// What the database's integers hold, and what JSON's numbers hold exactly.
const MOST: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_printed_exactly() {
        for (text, nanos, shown) in [
            ("2.50", 2_500_000_000, "2.50"),
            ("2.5", 2_500_000_000, "2.50"),
            ("4", 4_000_000_000, "4.00"),
            ("0.000000001", 1, "0.000000001"),
            ("0.017", 17_000_000, "0.017"),
            ("0", 0, "0.00"),
        ] {
            let money: Money = text.parse().expect(text);
            assert_eq!((money.nanos(), money.to_string().as_str()), (nanos, shown), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_a_fix() {
        for text in ["", ".", "-1", "1,5", "1.", ".5", "1e3", "0.0000000001", "99999999999999999999", "$2"] {
            let error = text.parse::<Money>().expect_err(text);
            assert!(error.fix.contains("such as"), "{error}");
        }
    }
}

//! Phone numbers: E.164 out of what is dialled or sent, and back into what a trunk wants.

use crate::sip::message::StatusCode;
use crate::sip::profile::NumberFormat;

/// The number plan of a trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberPolicy {
    /// Country code of national numbers, such as `1` or `49`. Absent: national numbers cannot be told.
    pub country: Option<String>,
    /// What is dialled before an international number: `011` or `00`. Empty: nothing.
    pub international: String,
    /// What is dialled before a national number: `1` or `0`. Empty: nothing.
    pub national: String,
    /// How numbers are written to the trunk. Absent: as the profile says.
    pub format: Option<NumberFormat>,
    /// Dials emergency numbers.
    pub emergency: bool,
    /// What may not be dialled, besides premium-rate numbers and (see `emergency`) emergency numbers: with `+` the beginning of an E.164 number, without it a whole short number.
    pub blocked: Vec<String>,
    /// What alone may be dialled, written as in `blocked`. Empty: everything.
    pub allowed: Vec<String>,
}

/// Why a call cannot be made as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// The trunk wants E.164 and this cannot be made into it.
    #[error(
        "the number cannot be written in E.164; dial it as +<country><number>, or set the trunk's `country`"
    )]
    NotANumber,
    /// An emergency number on a trunk that dials none.
    #[error(
        "{0} is an emergency number, and this trunk dials none; if it is an extension there, set the trunk's \
         `emergency_calls = true`"
    )]
    Emergency(&'static str),
    /// Costs the caller more than calls do.
    #[error(
        "numbers that begin with {0} are premium rate and blocked; name one in the trunk's `allowed_prefixes` to dial it"
    )]
    Premium(&'static str),
    /// The number is blocked on the trunk.
    #[error("the number is blocked on this trunk; see its `blocked_prefixes`")]
    Blocked,
    /// The number is not among those the trunk may dial.
    #[error("the number is not among the trunk's `allowed_prefixes`")]
    NotAllowed,
    /// There is no host to send to.
    #[error("the trunk has neither `domain` nor `peers`; add one")]
    NoHost,
    /// A header that was asked for may not be sent.
    #[error("the header `{0}` may not be set; use an X- header without control characters")]
    Header(String),
}

impl NumberError {
    /// The status a caller is refused with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotANumber => StatusCode::ADDRESS_INCOMPLETE,
            Self::Emergency(_) | Self::Premium(_) | Self::Blocked | Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::NoHost | Self::Header(_) => StatusCode::SERVER_INTERNAL_ERROR,
        }
    }
}

impl Default for NumberPolicy {
    fn default() -> Self {
        Self {
            country: None,
            international: "00".to_owned(),
            national: String::new(),
            format: None,
            emergency: false,
            blocked: Vec::new(),
            allowed: Vec::new(),
        }
    }
}

impl NumberPolicy {
    /// The plan of a country by its code, digits without `+`: `011` and `1` for North America, `00` and `0`
    /// elsewhere. Countries that dial otherwise set the fields themselves.
    pub fn of_country(country: &str) -> Self {
        let (international, national) = if country == "1" { ("011", "1") } else { ("00", "0") };
        Self {
            country: Some(country.to_owned()),
            international: international.to_owned(),
            national: national.to_owned(),
            ..Self::default()
        }
    }

    /// Whether this may be dialled; `number` is its E.164 form where there is one.
    pub(super) fn check(&self, dialled: &str, number: Option<&str>) -> Result<(), NumberError> {
        let named = |rules: &[String]| {
            rules.iter().any(|rule| match rule.starts_with('+') {
                true => number.is_some_and(|number| number.starts_with(rule.as_str())),
                false => dialled == rule,
            })
        };
        if named(&self.blocked) {
            return Err(NumberError::Blocked);
        }
        // Whoever allows exactly this knows what it is.
        let wished = |rule: &str| self.allowed.iter().any(|allowed| allowed.starts_with(rule));
        if let Some(number) = EMERGENCY.iter().find(|number| **number == dialled)
            && !self.emergency
            && !self.allowed.iter().any(|allowed| allowed == dialled)
        {
            return Err(NumberError::Emergency(number));
        }
        let costs = |rule: &&&str| number.is_some_and(|number| number.starts_with(**rule)) && !wished(rule);
        if let Some(rule) = PREMIUM.iter().find(costs) {
            return Err(NumberError::Premium(rule));
        }
        if !self.allowed.is_empty() && !named(&self.allowed) {
            return Err(NumberError::NotAllowed);
        }
        Ok(())
    }
}

/// The number in E.164, with `+`; `None` when the plan does not tell, as for an extension or a name.
///
/// Takes what is dialled (`0044 20…`, `(555) 010-0100`), a user part with parameters of number portability
/// (`+1555…;npdi;rn=…`) and the text of a `tel:` URI.
pub fn e164(dialled: &str, policy: &NumberPolicy) -> Option<String> {
    let digits = bare(dialled)?;
    if let Some(international) = digits.strip_prefix('+') {
        return global(international);
    }
    let prefixed = Some(policy.international.as_str()).filter(|prefix| !prefix.is_empty());
    if let Some(international) = prefixed.and_then(|prefix| digits.strip_prefix(prefix)) {
        return global(international);
    }
    if let Some(national) = policy.country.as_deref().and_then(|country| national(&digits, country, policy)) {
        return global(&national);
    }
    if policy.format == Some(NumberFormat::E164Plain) { global(&digits) } else { None }
}

/// The full number of a national one, without `+`.
fn national(digits: &str, country: &str, policy: &NumberPolicy) -> Option<String> {
    let full = |rest: &str| (rest.len() >= NATIONAL_DIGITS_MIN).then(|| format!("{country}{rest}"));
    if country == "1" {
        // The trunk prefix of North America is its country code, and its numbers have ten digits.
        let rest = if digits.len() == 11 { digits.strip_prefix('1')? } else { digits };
        return (rest.len() == 10).then(|| format!("1{rest}"));
    }
    let prefixed = !policy.national.is_empty();
    if let Some(rest) = digits.strip_prefix(policy.national.as_str()).filter(|_| prefixed) {
        return full(rest);
    }
    match policy.format {
        Some(NumberFormat::National) => full(digits),
        _ => None,
    }
}

/// An E.164 number as a trunk wants it. One of another country is written internationally in the national format.
pub fn write(e164: &str, format: NumberFormat, policy: &NumberPolicy) -> String {
    let digits = e164.strip_prefix('+').unwrap_or(e164);
    match format {
        NumberFormat::AsDialled | NumberFormat::E164 => format!("+{digits}"),
        NumberFormat::E164Plain => digits.to_owned(),
        NumberFormat::National => {
            match policy.country.as_deref().and_then(|country| digits.strip_prefix(country)) {
                Some(national) => format!("{}{national}", policy.national),
                None => format!("{}{digits}", policy.international),
            }
        }
    }
}

/// Digits with at most a leading `+`, out of a number as people and gateways write it.
fn bare(text: &str) -> Option<String> {
    let text = text.strip_prefix("tel:").unwrap_or(text);
    let text = text.split(';').next().unwrap_or_default();
    let digits: String = text.chars().filter(|c| !"-.() ".contains(*c)).collect();
    let rest = digits.strip_prefix('+').unwrap_or(&digits);
    (!rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

fn global(digits: &str) -> Option<String> {
    let fits = (E164_DIGITS_MIN..=E164_DIGITS_MAX).contains(&digits.len()) && !digits.starts_with('0');
    fits.then(|| format!("+{digits}"))
}

/// Whether this can stand as a user: a number, an extension or a name, without anything that reads otherwise.
pub(super) fn is_user(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "+-_.*#".contains(c);
    !text.is_empty() && text.len() <= USER_OCTETS_MAX && text.chars().all(fits)
}

/// Emergency numbers of many countries. Compared as a whole, since +911 is India.
const EMERGENCY: &[&str] =
    &["000", "110", "111", "112", "113", "115", "117", "118", "119", "122", "911", "933", "995", "999"];
/// Ranges whose calls cost the caller more than calls do: premium rate of North America and Britain, and the
/// international one.
const PREMIUM: &[&str] = &["+1900", "+449", "+979"];
/// Niue has 7 digits with its country code.
const E164_DIGITS_MIN: usize = 7;
/// ITU-T E.164 section 6.
const E164_DIGITS_MAX: usize = 15;
const NATIONAL_DIGITS_MIN: usize = 4;
const USER_OCTETS_MAX: usize = 128;

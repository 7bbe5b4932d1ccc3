//! Who sent a call on before it came here: `Diversion` (RFC 5806) and `History-Info` (RFC 7044).

use super::numbers::{NumberPolicy, e164};
use crate::sip::header::name_addr::NameAddr;
use crate::sip::headers::{HeaderName, Headers};
use crate::sip::uri::decode;

/// One party that sent the call on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diverted {
    /// Its number or user, in E.164 where the plan tells; `None` when it is withheld.
    pub number: Option<String>,
    /// Its display name.
    pub name: Option<String>,
    /// Why: `unconditional`, `user-busy`, `no-answer` and so on.
    pub reason: Option<String>,
    /// How often it did.
    pub counter: Option<u32>,
    /// How often it may be done in all.
    pub limit: Option<u32>,
    /// Whether the number is not to be shown (`privacy=full`).
    pub private: bool,
}

/// The diversions of an INVITE, the last first: the rows of `Diversion`, or else those of `History-Info` that tell
/// of a retargeting. Rows that cannot be read are passed over.
pub(super) fn diversions(headers: &Headers, policy: &NumberPolicy) -> Vec<Diverted> {
    let rows = |name| headers.values(name).take(ROWS_MAX).filter_map(|value| NameAddr::parse(value).ok());
    let told: Vec<Diverted> = rows(HeaderName::Diversion).map(|row| of_diversion(&row, policy)).collect();
    if !told.is_empty() {
        return told;
    }
    // Each entry names a target; it was left for the reason that the entry's URI carries.
    let mut history: Vec<Diverted> =
        rows(HeaderName::HistoryInfo).filter_map(|row| of_history(&row, policy)).collect();
    history.reverse();
    history
}

fn of_diversion(row: &NameAddr, policy: &NumberPolicy) -> Diverted {
    let text = |name: &str| row.params.get_text(name).map(|value| clean(&value));
    let number = |name: &str| text(name).and_then(|value| value.parse().ok());
    let private = text("privacy").is_some_and(|privacy| !privacy.eq_ignore_ascii_case("off"));
    Diverted {
        name: row.display_name().map(|name| clean(&name)).filter(|name| !name.is_empty()),
        reason: text("reason").filter(|reason| !reason.is_empty()),
        counter: number("counter"),
        limit: number("limit"),
        private,
        number: number_of(row, policy),
    }
}

/// RFC 7044 section 5: the reason stands escaped in the URI of the target that was left.
fn of_history(row: &NameAddr, policy: &NumberPolicy) -> Option<Diverted> {
    let header = |name: &str| {
        let mut headers = row.uri.headers();
        let (_, value) = headers.find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(&decode(value)).into_owned())
    };
    let reason = header("Reason")?;
    let reason = reason.split(';').skip(1).find_map(|param| param.trim().strip_prefix("cause="));
    let private = header("Privacy").is_some_and(|privacy| !privacy.eq_ignore_ascii_case("none"));
    Some(Diverted {
        name: row.display_name().map(|name| clean(&name)).filter(|name| !name.is_empty()),
        reason: Some(history_reason(reason?).to_owned()),
        private,
        number: number_of(row, policy),
        ..Diverted::default()
    })
}

/// The causes of RFC 4458 in the words of RFC 5806.
fn history_reason(cause: &str) -> &'static str {
    match cause.trim() {
        "302" => "unconditional",
        "486" => "user-busy",
        "408" => "no-answer",
        "480" => "deflection",
        "503" => "unavailable",
        _ => "unknown",
    }
}

fn number_of(row: &NameAddr, policy: &NumberPolicy) -> Option<String> {
    let user =
        row.uri.dialled().filter(|user| !user.is_empty() && !user.eq_ignore_ascii_case("anonymous"))?;
    Some(e164(&user, policy).unwrap_or_else(|| clean(&user)))
}

fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}

const ROWS_MAX: usize = 16;
const TEXT_CHARS_MAX: usize = 128;

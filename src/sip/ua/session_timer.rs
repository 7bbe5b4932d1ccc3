//! Session timers: noticing that the other end is gone though nobody said BYE (RFC 4028).

use std::time::{Duration, Instant};

use crate::sip::header::params::Params;
use crate::sip::headers::{HeaderName, HeaderValue, Headers};

/// What a request or response says about the session's interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionExpires {
    pub(crate) interval: Duration,
    pub(crate) refresher: Option<Refresher>,
}

/// Who refreshes: the client or the server of the request that carried the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refresher {
    Uac,
    Uas,
}

/// A running session timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionTimer {
    /// When we refresh, if that is our part.
    pub(crate) refresh_at: Option<Instant>,
    /// When the session counts as dead.
    pub(crate) expires_at: Instant,
    interval: Duration,
    ours: bool,
}

impl SessionExpires {
    /// What the headers say; a broken value is none.
    pub(crate) fn read(headers: &Headers) -> Option<Self> {
        let seconds = headers.number(HeaderName::SessionExpires).ok()??;
        let value = headers.get(HeaderName::SessionExpires)?;
        let params = value.iter().position(|b| *b == b';').map_or(&value[..0], |at| &value[at..]);
        let refresher = match Params::parse(params).ok()?.get_str("refresher") {
            Some(who) if who.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
            Some(who) if who.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
            Some(_) | None => None,
        };
        Some(Self { interval: Duration::from_secs(u64::from(seconds.min(INTERVAL_MAX_S))), refresher })
    }

    /// What the answering side grants (section 9, table 2): the refresher asked for, else the client if it knows
    /// timers, else ourselves.
    pub(crate) fn granted(self, client_knows_timers: bool) -> Self {
        let fallback = if client_knows_timers { Refresher::Uac } else { Refresher::Uas };
        Self { refresher: Some(self.refresher.unwrap_or(fallback)), ..self }
    }

    /// The header's value.
    pub(crate) fn to_value(self) -> HeaderValue {
        let who = match self.refresher {
            Some(Refresher::Uac) => ";refresher=uac",
            Some(Refresher::Uas) => ";refresher=uas",
            None => "",
        };
        HeaderValue::cleaned(format!("{}{who}", self.interval.as_secs()))
    }
}

impl SessionTimer {
    /// Starts with an answer sent or received. `ours`: refreshing is our part.
    pub(crate) fn start(now: Instant, interval: Duration, ours: bool) -> Self {
        // Section 10: BYE before the end, so that it is still answered.
        let margin = (interval / 3).min(Duration::from_secs(32));
        Self {
            refresh_at: ours.then(|| now + interval / 2),
            expires_at: now + interval - margin,
            interval,
            ours,
        }
    }

    /// Whether refreshing is our part.
    pub(crate) fn is_ours(&self) -> bool {
        self.ours
    }

    pub(crate) fn next_timeout(&self) -> Instant {
        self.refresh_at.map_or(self.expires_at, |at| at.min(self.expires_at))
    }

    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// Asks for at least `min` from the next refresh on. Returns whether that is more than before.
    pub(crate) fn lengthen(&mut self, min: Duration) -> bool {
        let longer = min > self.interval;
        self.interval = self.interval.max(min);
        longer
    }
}

/// RFC 4028 section 4.
pub(super) const MIN_SE: Duration = Duration::from_secs(90);
/// A day; beyond it a timer serves nobody, and deadlines must not overflow.
pub(super) const INTERVAL_MAX_S: u32 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &'static str) -> Option<SessionExpires> {
        let mut headers = Headers::new();
        headers.push(HeaderName::SessionExpires, HeaderValue::from_static(value));
        SessionExpires::read(&headers)
    }

    #[test]
    fn interval_and_refresher_are_read_and_written() {
        let expires = read("1800;refresher=UAC").expect("it is well formed");
        assert_eq!(expires.refresher, Some(Refresher::Uac));
        assert_eq!(expires.to_value(), HeaderValue::from_static("1800;refresher=uac"));
        assert_eq!(read("90 ; refresher=uas").and_then(|e| e.refresher), Some(Refresher::Uas));
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn the_refresher_is_whom_the_client_named_or_the_client_itself() {
        let open = read("1800").expect("it is well formed");
        assert_eq!(open.granted(true).refresher, Some(Refresher::Uac));
        assert_eq!(open.granted(false).refresher, Some(Refresher::Uas));
        let named = read("1800;refresher=uas").expect("it is well formed");
        assert_eq!(named.granted(true).refresher, Some(Refresher::Uas));
    }

    #[test]
    fn the_refresher_acts_at_half_time_and_both_give_up_before_the_end() {
        let now = Instant::now();
        let seconds = |s| Duration::from_secs(s);
        let ours = SessionTimer::start(now, seconds(1_800), true);
        assert_eq!(ours.next_timeout(), now + seconds(900));
        let theirs = SessionTimer::start(now, seconds(90), false);
        assert_eq!(theirs.next_timeout(), now + seconds(60));
    }
}

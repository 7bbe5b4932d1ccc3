//! Keys pressed towards the peer of a leg.

use std::time::Duration;

use super::SipLeg;
use crate::rtp::ItemKey;
use crate::sip::profile::DtmfMethod;
use crate::sip::ua::LegCommand;

impl SipLeg {
    /// Presses keys towards the peer in its own way; RFC 4733 events that were not negotiated, and tones without
    /// media, become INFO.
    pub fn send_dtmf(&mut self, digits: &str) {
        let method = self.settings.dtmf;
        let sent = self.media.as_mut().is_some_and(|media| match method {
            DtmfMethod::TelephoneEvent => media.stream().send_dtmf(digits, KEY_PRESS).is_ok(),
            DtmfMethod::Inband => {
                // A name of its own each time: what was cleared once is not played again.
                self.keys += 1;
                let item = ItemKey::from(format!("{KEYS}{}", self.keys).as_str());
                media.stream().send_dtmf_tones(&item, digits, KEY_PRESS).is_ok()
            }
            DtmfMethod::Info => false,
        });
        if !sent {
            self.send_dtmf_by_info(digits);
        }
    }

    /// Presses keys towards the peer as INFO requests.
    pub fn send_dtmf_by_info(&self, digits: &str) {
        for digit in digits.chars() {
            self.command(LegCommand::SendDtmf { digit, duration_ms: KEY_PRESS.as_millis() as u32 });
        }
    }
}

/// Whether an item is one of tones.
pub(super) fn is_tone(item: &ItemKey) -> bool {
    item.0.starts_with(KEYS)
}

/// How items of tones are named.
const KEYS: &str = "keys-";
/// How long each key of [`SipLeg::send_dtmf`] is pressed.
const KEY_PRESS: Duration = Duration::from_millis(120);

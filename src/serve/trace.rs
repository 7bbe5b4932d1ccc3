//! The tap on signalling as `[sip.trace]` wants it.

use anyhow::Context as _;

use crate::config::Config;
use crate::sip::tap::{HepTarget, Recorder, RecorderConfig};
use crate::sip::trace::TraceLimits;

/// The recorder of signalling; `None` when nothing is kept and nobody gets a copy.
pub(super) fn recorder(config: &Config) -> anyhow::Result<Option<Recorder>> {
    let trace = &config.sip.trace;
    if !trace.keep && trace.hep.is_none() {
        return Ok(None);
    }
    let limits = TraceLimits {
        calls: trace.calls as usize,
        bytes_per_call: trace.bytes_per_call as usize,
        ..TraceLimits::default()
    };
    let hep = trace.hep.as_ref().map(|hep| HepTarget {
        address: hep.target,
        capture_id: hep.capture_id,
        password: hep.password.clone(),
    });
    let config = RecorderConfig { keep: trace.keep.then_some(limits), strangers: trace.strangers, hep };
    let recorder = Recorder::start(config);
    recorder
        .map(Some)
        .context("opening the socket towards sip.trace.hep.target; check that the address can be reached")
}

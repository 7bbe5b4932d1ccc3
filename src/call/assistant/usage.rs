//! What the conversation costs.

use super::talk::Talk;
use crate::call::Call;
use crate::provider::Usage;

impl Call {
    /// The service has done something that it charges for.
    pub(super) fn used(&mut self, _talk: &mut Talk, usage: &Usage) {
        tracing::trace!(?usage, "used");
    }
}

//! Who calls whom, from the places the trunk's profile trusts.

use crate::sip::identity::{IncomingIdentity, incoming};
use crate::sip::message::Request;
use crate::sip::trunk::Trunk;

/// Who calls whom in an INVITE of this trunk.
pub(super) fn read(request: &Request, trunk: &Trunk) -> IncomingIdentity {
    incoming(request, trunk)
}

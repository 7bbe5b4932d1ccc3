//! The headers we have a name for, found in any case or compact form by one look into a table.

use std::fmt;

macro_rules! names {
    ($($variant:ident $text:literal $compact:literal $kind:ident;)*) => {
        /// A header we have a name for. Unknown ones are looked up by text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum HeaderName {
            $(
                #[doc = concat!("`", $text, "`")]
                $variant,
            )*
        }

        impl HeaderName {
            const ALL: &[(Self, &str, &str, bool)] = &[
                $((Self::$variant, $text, $compact, is_list!($kind)),)*
            ];

            /// The name as we write it.
            pub const fn as_str(self) -> &'static str {
                Self::ALL[self as usize].1
            }

            /// Whether one row may hold several values between commas (RFC 3261 section 7.3.1).
            pub const fn is_list(self) -> bool {
                Self::ALL[self as usize].3
            }
        }
    };
}

macro_rules! is_list {
    (list) => {
        true
    };
    (one) => {
        false
    };
}

names! {
    Accept "Accept" "" list;
    AcceptContact "Accept-Contact" "a" list;
    AcceptEncoding "Accept-Encoding" "" list;
    AcceptLanguage "Accept-Language" "" list;
    AlertInfo "Alert-Info" "" list;
    Allow "Allow" "" list;
    AllowEvents "Allow-Events" "u" list;
    AuthenticationInfo "Authentication-Info" "" one;
    Authorization "Authorization" "" one;
    CallId "Call-ID" "i" one;
    CallInfo "Call-Info" "" list;
    Contact "Contact" "m" list;
    ContentDisposition "Content-Disposition" "" one;
    ContentEncoding "Content-Encoding" "e" list;
    ContentLanguage "Content-Language" "" list;
    ContentLength "Content-Length" "l" one;
    ContentType "Content-Type" "c" one;
    CSeq "CSeq" "" one;
    Date "Date" "" one;
    Diversion "Diversion" "" list;
    ErrorInfo "Error-Info" "" list;
    Event "Event" "o" one;
    Expires "Expires" "" one;
    From "From" "f" one;
    HistoryInfo "History-Info" "" list;
    Identity "Identity" "y" one;
    InReplyTo "In-Reply-To" "" list;
    InfoPackage "Info-Package" "" one;
    MaxForwards "Max-Forwards" "" one;
    MimeVersion "MIME-Version" "" one;
    MinExpires "Min-Expires" "" one;
    MinSe "Min-SE" "" one;
    Organization "Organization" "" one;
    PAssertedIdentity "P-Asserted-Identity" "" list;
    PEarlyMedia "P-Early-Media" "" list;
    PPreferredIdentity "P-Preferred-Identity" "" list;
    Path "Path" "" list;
    Priority "Priority" "" one;
    Privacy "Privacy" "" one;
    ProxyAuthenticate "Proxy-Authenticate" "" one;
    ProxyAuthorization "Proxy-Authorization" "" one;
    ProxyRequire "Proxy-Require" "" list;
    RAck "RAck" "" one;
    Reason "Reason" "" list;
    RecordRoute "Record-Route" "" list;
    RecvInfo "Recv-Info" "" list;
    ReferSub "Refer-Sub" "" one;
    ReferTo "Refer-To" "r" one;
    ReferredBy "Referred-By" "b" one;
    RejectContact "Reject-Contact" "j" list;
    RemotePartyId "Remote-Party-ID" "" list;
    Replaces "Replaces" "" one;
    ReplyTo "Reply-To" "" one;
    RequestDisposition "Request-Disposition" "d" list;
    Require "Require" "" list;
    RetryAfter "Retry-After" "" one;
    Route "Route" "" list;
    RSeq "RSeq" "" one;
    Server "Server" "" one;
    ServiceRoute "Service-Route" "" list;
    SessionExpires "Session-Expires" "x" one;
    SessionId "Session-ID" "" one;
    SipEtag "SIP-ETag" "" one;
    SipIfMatch "SIP-If-Match" "" one;
    Subject "Subject" "s" one;
    SubscriptionState "Subscription-State" "" one;
    Supported "Supported" "k" list;
    Timestamp "Timestamp" "" one;
    To "To" "t" one;
    Unsupported "Unsupported" "" list;
    UserAgent "User-Agent" "" one;
    UserToUser "User-to-User" "" list;
    Via "Via" "v" list;
    Warning "Warning" "" list;
    WwwAuthenticate "WWW-Authenticate" "" one;
}

impl HeaderName {
    /// The known header with this name, in any case or compact form.
    pub fn lookup(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_NAME_BYTES {
            return None;
        }
        let mut slot = hash(text);
        while let Some((name, candidate)) = &BY_HASH[slot] {
            let candidate = candidate.as_bytes();
            if candidate == text || candidate.eq_ignore_ascii_case(text) {
                return Some(*name);
            }
            slot = (slot + 1) % SLOTS;
        }
        None
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A few octets tell names apart. The factors were searched for so that no two names we know share a slot;
/// one that is added and does goes to the next slot.
const fn hash(text: &[u8]) -> usize {
    let length = text.len();
    let (first, middle, last) = (text[0] | 32, text[length / 2] | 32, text[length - 1] | 32);
    let mix = (first as usize) * 124 + (middle as usize) * 428 + (last as usize) * 212 + length * 145;
    mix % SLOTS
}

const fn build_index() -> [Option<(HeaderName, &'static str)>; SLOTS] {
    let mut slots = [None; SLOTS];
    let count = HeaderName::ALL.len();
    let mut entry = 0;
    while entry < 2 * count {
        let (name, full, compact, _) = HeaderName::ALL[entry % count];
        let text = if entry < count { full } else { compact };
        if !text.is_empty() {
            let mut slot = hash(text.as_bytes());
            while slots[slot].is_some() {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = Some((name, text));
        }
        entry += 1;
    }
    slots
}

const SLOTS: usize = 512;
static BY_HASH: [Option<(HeaderName, &str)>; SLOTS] = build_index();
const MAX_NAME_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_compact_form() {
        for (name, full, compact, _) in HeaderName::ALL {
            for text in
                [full.to_string(), full.to_ascii_uppercase(), full.to_ascii_lowercase(), compact.to_string()]
            {
                if !text.is_empty() {
                    assert_eq!(HeaderName::lookup(text.as_bytes()), Some(*name), "{text}");
                }
            }
        }
        assert_eq!(HeaderName::lookup(b"C%6Fntact"), None);
        assert_eq!(HeaderName::lookup(b"X-Twilio-CallSid"), None);
    }
}

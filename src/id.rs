//! Ids: one type per thing, so that a leg can never be passed where a call is meant.
//!
//! An id is a 48-bit Unix time in milliseconds followed by 80 random bits, printed as a prefix and
//! 26 Crockford base-32 digits (`call_01JD3Q…`). Ids of one kind therefore sort by creation, as text
//! and as numbers, and are safe in URLs, file names and SQL.

use std::fmt;

/// Text that is no id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind} id; expected `{kind}_` and 26 letters or digits")]
pub struct IdError {
    kind: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The id made of a creation time (Unix milliseconds, 48 bits used) and 80 random bits.
            pub const fn from_parts(unix_ms: u64, random: u128) -> Self {
                Self(((unix_ms as u128 & 0xffff_ffff_ffff) << 80) | (random & RANDOM_MASK))
            }

            /// A new id, from the system clock and the process's random generator.
            pub fn fresh() -> Self {
                Self::from_parts(crate::time::UnixMs::now().get() as u64, rand::random())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!($prefix, "_"))?;
                write_base32(f, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(read_base32)
                    .map(Self)
                    .ok_or_else(|| IdError { kind: $prefix, text: text.chars().take(64).collect() })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// One conversation, from the first INVITE to the last BYE.
    CallId, "call"
);
id!(
    /// One party's attachment to a call.
    LegId, "leg"
);
id!(
    /// One stored event of a call.
    EventId, "evt"
);
id!(
    /// One line of a transcript.
    LineId, "line"
);
id!(
    /// A tenant.
    OrganizationId, "org"
);
id!(
    /// Someone with a login.
    UserId, "user"
);
id!(
    /// An AI persona.
    AssistantId, "asst"
);
id!(
    /// A phone number bound to a flow.
    NumberId, "num"
);
id!(
    /// A phone that registers with us.
    PhoneId, "phone"
);
id!(
    /// A tool that an organization has declared.
    ToolId, "tool"
);
id!(
    /// An API key of a provider, kept in the store.
    ProviderKeyId, "pkey"
);
id!(
    /// An API token.
    TokenId, "tok"
);
id!(
    /// One HTTP request, as returned in `Request-Id`.
    RequestId, "req"
);

const RANDOM_MASK: u128 = (1 << 80) - 1;
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

fn write_base32(f: &mut fmt::Formatter<'_>, value: u128) -> fmt::Result {
    let mut text = [0u8; 26];
    for (place, digit) in text.iter_mut().rev().enumerate() {
        *digit = DIGITS[(value >> (5 * place)) as usize & 31];
    }
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn read_base32(text: &str) -> Option<u128> {
    if text.len() != 26 || text.as_bytes()[0] > b'7' {
        return None;
    }
    text.bytes().try_fold(0u128, |value, byte| {
        let digit = DIGITS.iter().position(|d| *d == byte.to_ascii_uppercase())?;
        Some(value << 5 | digit as u128)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_being_printed_and_read() {
        for random in [0, 1, RANDOM_MASK, 0x1234_5678_9abc_def0_1234] {
            let id = CallId::from_parts(1_790_000_000_123, random);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn ids_sort_by_creation_as_text() {
        let (early, late) = (CallId::from_parts(1_000, RANDOM_MASK), CallId::from_parts(1_001, 0));
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let leg = LegId::from_parts(5, 5).to_string();
        assert!(leg.parse::<CallId>().is_err());
        assert!("call_".parse::<CallId>().is_err());
        assert!("call_ZZZZZZZZZZZZZZZZZZZZZZZZZZ".parse::<CallId>().is_err());
    }
}

//! The names that PBXs give to calls: UUIDs (RFC 9562), which whoever knows them may use.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use rand::rngs::StdRng;

/// 16 bytes in network order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// An unguessable one: version 4, 122 random bits.
    pub fn random(rng: &mut StdRng) -> Self {
        let mut bytes: [u8; 16] = rng.random();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a UUID: 32 hexadecimal digits as 8-4-4-4-12")]
pub struct NoUuid;

impl FromStr for Uuid {
    type Err = NoUuid;

    /// Reads what Asterisk takes for one: 8-4-4-4-12 hexadecimal digits, large or small.
    fn from_str(text: &str) -> Result<Self, NoUuid> {
        let text = text.as_bytes();
        let dashed = text.len() == 36 && [8, 13, 18, 23].iter().all(|&at| text[at] == b'-');
        if !dashed {
            return Err(NoUuid);
        }
        let mut bytes = [0; 16];
        let mut digits = text.iter().enumerate().filter(|(at, _)| ![8, 13, 18, 23].contains(at));
        for byte in &mut bytes {
            for _ in 0..2 {
                let digit = digits.next().and_then(|(_, &digit)| char::from(digit).to_digit(16));
                *byte = *byte << 4 | digit.ok_or(NoUuid)? as u8;
            }
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_uuid_is_written_and_read_as_asterisk_does() {
        let text = "40325ec2-5efd-4bd3-805f-53576e581d13";
        let uuid: Uuid = text.parse().expect("valid");
        assert_eq!(uuid.0[..4], [0x40, 0x32, 0x5e, 0xc2]);
        assert_eq!(uuid.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(uuid));
        for wrong in ["", "40325ec25efd4bd3805f53576e581d13", "40325ec2-5efd-4bd3-805f-53576e581d1g"] {
            assert_eq!(wrong.parse::<Uuid>(), Err(NoUuid), "{wrong}");
        }
        assert_eq!("40325ec2+5efd-4bd3-805f-53576e581d13".parse::<Uuid>(), Err(NoUuid));
    }

    #[test]
    fn random_ones_are_of_version_4() {
        let mut rng = StdRng::seed_from_u64(7);
        let text = Uuid::random(&mut rng).to_string();
        assert_eq!(&text[14..15], "4");
        assert!("89ab".contains(&text[19..20]), "{text}");
        assert_ne!(text, Uuid::random(&mut rng).to_string());
    }
}

//! What a certificate says of itself: the names it is for and how long it holds (RFC 5280 section 4.1).
//!
//! Reads just that. Whether a certificate is to be believed is decided elsewhere; what comes out of here may come
//! from anybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chrono::NaiveDate;

/// Names and times of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `dNSName` of the subject alternative names, in lower case.
    pub names: Vec<String>,
    /// Domains of `sip:` URIs without a user among the subject alternative names, in lower case (RFC 5922 section 7.1).
    pub sip_domains: Vec<String>,
    /// `iPAddress` of the subject alternative names.
    pub addresses: Vec<IpAddr>,
    /// Seconds since 1970 from which it holds.
    pub not_before: i64,
    /// Seconds since 1970 up to which it holds.
    pub not_after: i64,
}

impl Facts {
    /// Reads a certificate in DER; `None` when it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut certificate = Der(der).enter(SEQUENCE)?;
        let mut body = certificate.enter(SEQUENCE)?;
        if body.next_is(VERSION) {
            body.take()?;
        }
        // Serial number, algorithm, issuer.
        for _ in 0..3 {
            body.take()?;
        }
        let mut validity = body.enter(SEQUENCE)?;
        let mut facts = Self {
            not_before: moment(validity.take()?)?,
            not_after: moment(validity.take()?)?,
            ..Self::default()
        };
        while let Some((tag, inside)) = body.take() {
            if tag == EXTENSIONS {
                facts.extensions(inside)?;
            }
        }
        Some(facts)
    }

    fn extensions(&mut self, inside: &[u8]) -> Option<()> {
        let mut list = Der(inside).enter(SEQUENCE)?;
        while let Some((_, extension)) = list.take() {
            let mut extension = Der(extension);
            let (_, id) = extension.take()?;
            let mut value = None;
            while let Some((tag, inside)) = extension.take() {
                value = (tag == OCTETS).then_some(inside).or(value);
            }
            if id == ALTERNATIVE_NAMES {
                self.names_of(value?)?;
            }
        }
        Some(())
    }

    fn names_of(&mut self, value: &[u8]) -> Option<()> {
        let mut names = Der(value).enter(SEQUENCE)?;
        while let Some((tag, octets)) = names.take() {
            let text = || std::str::from_utf8(octets).ok().map(str::to_ascii_lowercase);
            match (tag, octets.len()) {
                (DNS_NAME, _) => self.names.extend(text()),
                (URI, _) => self.sip_domains.extend(text().as_deref().and_then(sip_domain)),
                (ADDRESS, 4) => {
                    let octets = <[u8; 4]>::try_from(octets).ok()?;
                    self.addresses.push(Ipv4Addr::from(octets).into());
                }
                (ADDRESS, 16) => {
                    let octets = <[u8; 16]>::try_from(octets).ok()?;
                    self.addresses.push(Ipv6Addr::from(octets).into());
                }
                _ => {}
            }
        }
        Some(())
    }

    /// Whether it is for this host name, by a name, a name with `*` for the first label, or a SIP domain.
    pub fn is_for(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let rest = name.split_once('.').map(|(_, rest)| rest);
        let fits = |known: &String| *known == name || (known.strip_prefix("*.") == rest && rest.is_some());
        self.names.iter().any(fits) || self.sip_domains.contains(&name)
    }
}

/// The domain of `sip:example.com`; one with a user names a person, not a server (RFC 5922 section 7.1).
fn sip_domain(uri: &str) -> Option<String> {
    let rest = uri.strip_prefix("sip:")?;
    let domain = rest.split([';', '?', ':']).next()?;
    (!domain.is_empty() && !rest.contains('@')).then(|| domain.to_owned())
}

/// Values that follow one another.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag and what is inside.
    fn take(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
            }
            _ => return None,
        };
        let (inside, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, inside))
    }

    fn next_is(&self, tag: u8) -> bool {
        self.0.first() == Some(&tag)
    }

    fn enter(&mut self, tag: u8) -> Option<Self> {
        self.take().filter(|(found, _)| *found == tag).map(|(_, inside)| Self(inside))
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 section 4.1.2.5).
fn moment((tag, text): (u8, &[u8])) -> Option<i64> {
    let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i32 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<u32>().ok();
    let date = NaiveDate::from_ymd_opt(year, part(0)?, part(2)?)?;
    Some(date.and_hms_opt(part(4)?, part(6)?, part(8)?)?.and_utc().timestamp())
}

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    fn fixture(text: &str) -> Vec<u8> {
        CertificateDer::from_pem_slice(text.as_bytes()).expect("a certificate").to_vec()
    }

    #[test]
    fn names_and_times_are_read() {
        let der = fixture(include_str!("../../tests/tls/named.pem"));
        let facts = Facts::read(&der).expect("a certificate");
        assert_eq!(facts.names, ["sip.example.test"]);
        assert_eq!(facts.addresses, [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(facts.not_after - facts.not_before, 36_500 * 86_400);
        assert!(facts.is_for("SIP.example.test.") && !facts.is_for("example.test"));
        let der = fixture(include_str!("../../tests/tls/domain.pem"));
        let facts = Facts::read(&der).expect("a certificate");
        assert_eq!(facts.sip_domains, ["sip.example.test"], "a URI with a user names no server");
        assert!(facts.names.is_empty() && facts.is_for("sip.example.test"));
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let facts = Facts { names: vec!["*.example.com".into()], ..Facts::default() };
        assert!(facts.is_for("sip.example.com"));
        assert!(!facts.is_for("a.sip.example.com") && !facts.is_for("example.com") && !facts.is_for("com"));
    }

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(moment((UTC_TIME, b"700101000001Z")), Some(1));
        assert_eq!(moment((GENERALIZED_TIME, b"20300102030405Z")), Some(1_893_553_445));
        for wrong in [&b"7001010000Z"[..], b"701301000000Z", b"", b"\xff\xff"] {
            assert_eq!(moment((UTC_TIME, wrong)), None);
        }
    }

    #[test]
    fn a_certificate_that_is_cut_short_or_spoilt_is_no_panic() {
        let der = fixture(include_str!("../../tests/tls/domain.pem"));
        for length in 0..der.len() {
            let _cut = Facts::read(&der[..length]);
            let mut spoilt = der.clone();
            spoilt[length] ^= 0xff;
            let _spoilt = Facts::read(&spoilt);
        }
    }
}

//! One direction's cipher and authentication with session keys derived from a master key.

use aes::{Aes128, Aes256};
use ctr::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use ctr::{CtrCore, flavors::Ctr128BE};
use ring::{aead, hmac};
use subtle::ConstantTimeEq;

use super::keys::{MasterKey, Suite, wipe};
use super::{SrtpError, tail};

/// What the two halves of a session derive their keys with (RFC 3711 section 4.3.2): encryption,
/// authentication and salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Rtp,
    Rtcp,
}

impl Half {
    const fn labels(self) -> [u8; 3] {
        match self {
            Self::Rtp => [0, 1, 2],
            Self::Rtcp => [3, 4, 5],
        }
    }

    /// RTCP has tags of 80 bits even where RTP has 32 (RFC 4568 section 6.2.2).
    const fn tag_len(self, suite: Suite) -> usize {
        match self {
            Self::Rtcp if !suite.is_aead() => 10,
            Self::Rtp | Self::Rtcp => suite.tag_len(),
        }
    }
}

/// Encrypts and authenticates; its keys are those of one [`Half`].
pub(super) enum Transform {
    /// AES in counter mode and HMAC-SHA1 (RFC 3711, RFC 6188).
    Counter { aes: Aes, salt: [u8; 14], auth: hmac::Key, tag: usize },
    /// AES in Galois counter mode (RFC 7714).
    Galois { key: Box<aead::LessSafeKey>, salt: [u8; 12] },
}

/// What a packet is and where its parts are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) ssrc: u32,
    /// 48 bits of RTP, 31 of RTCP.
    pub(super) index: u64,
    /// Octets that stay in the clear.
    pub(super) head: usize,
}

impl Transform {
    pub(super) fn new(suite: Suite, master: &MasterKey, half: Half) -> Result<Self, SrtpError> {
        if !master.fits(suite) {
            return Err(SrtpError::Keys);
        }
        let [encryption, authentication, salting] = half.labels();
        let derivation = Aes::new(master.key())?;
        let mut master_salt = [0; 14];
        master_salt[..master.salt().len()].copy_from_slice(master.salt());
        let mut key = [0; 32];
        derivation.derive(&master_salt, encryption, &mut key[..suite.key_len()]);
        let mut salt = [0; 14];
        derivation.derive(&master_salt, salting, &mut salt[..suite.salt_len()]);
        let made = if suite.is_aead() {
            let (salt, _) = salt.split_first_chunk::<12>().ok_or(SrtpError::Keys)?;
            Self::galois(&key[..suite.key_len()], *salt)
        } else {
            let mut auth = [0; 20];
            derivation.derive(&master_salt, authentication, &mut auth);
            let made = Self::counter(&key[..suite.key_len()], salt, &auth, half.tag_len(suite));
            wipe(&mut auth);
            made
        };
        wipe(&mut key);
        made
    }

    pub(super) fn counter(
        key: &[u8],
        salt: [u8; 14],
        auth: &[u8; 20],
        tag: usize,
    ) -> Result<Self, SrtpError> {
        let auth = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, auth);
        Ok(Self::Counter { aes: Aes::new(key)?, salt, auth, tag })
    }

    pub(super) fn galois(key: &[u8], salt: [u8; 12]) -> Result<Self, SrtpError> {
        let algorithm = if key.len() == 16 { &aead::AES_128_GCM } else { &aead::AES_256_GCM };
        let key = aead::UnboundKey::new(algorithm, key).map_err(|_| SrtpError::Keys)?;
        Ok(Self::Galois { key: Box::new(aead::LessSafeKey::new(key)), salt })
    }

    pub(super) fn tag_len(&self) -> usize {
        match self {
            Self::Counter { tag, .. } => *tag,
            Self::Galois { .. } => 16,
        }
    }

    /// Encrypts what follows the head and appends the tag. `trailer` is what is authenticated beyond the
    /// packet: the rollover counter of RTP, the index of RTCP; only the latter is `sent`.
    pub(super) fn seal(&self, place: Place, trailer: [u8; 4], sent: bool, packet: &mut Vec<u8>) {
        match self {
            Self::Counter { aes, salt, auth, tag } => {
                aes.keystream(counter_iv(salt, place), tail(packet, place.head));
                let mut context = hmac::Context::with_key(auth);
                context.update(packet);
                context.update(&trailer);
                if sent {
                    packet.extend_from_slice(&trailer);
                }
                packet.extend_from_slice(&context.sign().as_ref()[..*tag]);
            }
            Self::Galois { key, salt } => {
                let mut known = [0; MAX_KNOWN];
                let length = known_octets(&mut known, packet, place.head, trailer, sent);
                let aad = aead::Aad::from(&known[..length]);
                let nonce = galois_nonce(salt, place);
                match key.seal_in_place_separate_tag(nonce, aad, tail(packet, place.head)) {
                    Ok(tag) => packet.extend_from_slice(tag.as_ref()),
                    // Only a packet of gigabytes fails; nothing leaves in the clear.
                    Err(_) => packet.clear(),
                }
                if sent {
                    packet.extend_from_slice(&trailer);
                }
            }
        }
    }

    /// Checks the tag of `packet` (head, body and, last, the tag) and decrypts the body in place. On an error
    /// the packet is unchanged in counter mode.
    pub(super) fn open(
        &self,
        place: Place,
        trailer: [u8; 4],
        is_rtcp: bool,
        packet: &mut [u8],
        tag: &[u8],
    ) -> Result<(), SrtpError> {
        match self {
            Self::Counter { aes, salt, auth, tag: length } => {
                let mut context = hmac::Context::with_key(auth);
                context.update(packet);
                context.update(&trailer);
                let expected = context.sign();
                if !bool::from(expected.as_ref()[..*length].ct_eq(tag)) {
                    return Err(SrtpError::Authentication);
                }
                aes.keystream(counter_iv(salt, place), tail(packet, place.head));
                Ok(())
            }
            Self::Galois { key, salt } => {
                let mut known = [0; MAX_KNOWN];
                let length = known_octets(&mut known, packet, place.head, trailer, is_rtcp);
                let aad = aead::Aad::from(&known[..length]);
                let body = packet.get_mut(place.head..).unwrap_or_default();
                // The tag stands behind the body; ring wants it there.
                key.open_in_place(galois_nonce(salt, place), aad, body)
                    .map(|_| ())
                    .map_err(|_| SrtpError::Authentication)
            }
        }
    }

    pub(super) fn is_aead(&self) -> bool {
        matches!(self, Self::Galois { .. })
    }
}

/// A block cipher with its round keys.
pub(super) enum Aes {
    Short(Box<Aes128>),
    Long(Box<Aes256>),
}

impl Aes {
    pub(super) fn new(key: &[u8]) -> Result<Self, SrtpError> {
        match key.len() {
            16 => Aes128::new_from_slice(key).map(|aes| Self::Short(Box::new(aes))),
            _ => Aes256::new_from_slice(key).map(|aes| Self::Long(Box::new(aes))),
        }
        .map_err(|_| SrtpError::Keys)
    }

    /// XORs `data` with the key stream that begins at `iv`.
    pub(super) fn keystream(&self, iv: [u8; 16], data: &mut [u8]) {
        match self {
            Self::Short(aes) => apply(aes.as_ref(), iv, data),
            Self::Long(aes) => apply(aes.as_ref(), iv, data),
        }
    }

    /// The pseudo-random function of RFC 3711 section 4.3.3, key derivation rate 0.
    pub(super) fn derive(&self, master_salt: &[u8; 14], label: u8, out: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(master_salt);
        iv[7] ^= label;
        out.fill(0);
        self.keystream(iv, out);
    }
}

fn apply<C>(aes: &C, iv: [u8; 16], data: &mut [u8])
where
    C: BlockCipherEncrypt<BlockSize = ctr::cipher::consts::U16>,
{
    let core = CtrCore::<&C, Ctr128BE>::inner_iv_init(aes, &iv.into());
    // A packet is far from the 2^64 blocks at which this fails.
    let _never = StreamCipherCoreWrapper::from_core(core).try_apply_keystream(data);
}

/// RFC 3711 section 4.1.1: salt, source and index in one block, the lowest 16 bits count.
fn counter_iv(salt: &[u8; 14], place: Place) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    mix(&mut iv[4..14], place);
    iv
}

/// RFC 7714 sections 8.1 and 9.1.
fn galois_nonce(salt: &[u8; 12], place: Place) -> aead::Nonce {
    let mut nonce = *salt;
    mix(&mut nonce[2..12], place);
    aead::Nonce::assume_unique_for_key(nonce)
}

/// XORs source (32 bits) and index (48 bits) into ten octets.
fn mix(octets: &mut [u8], place: Place) {
    let index = place.index.to_be_bytes();
    let source = place.ssrc.to_be_bytes();
    for (octet, with) in octets.iter_mut().zip(source.iter().chain(&index[2..])) {
        *octet ^= with;
    }
}

/// What Galois mode authenticates without encrypting: the head and, for RTCP, the index.
fn known_octets(
    known: &mut [u8; MAX_KNOWN],
    packet: &[u8],
    head: usize,
    trailer: [u8; 4],
    is_rtcp: bool,
) -> usize {
    let head = head.min(packet.len()).min(MAX_KNOWN - trailer.len());
    known[..head].copy_from_slice(&packet[..head]);
    if !is_rtcp {
        return head;
    }
    known[head..head + trailer.len()].copy_from_slice(&trailer);
    head + trailer.len()
}

/// An RTP header with every contributing source is 72 octets; longer extensions than this are refused.
pub(super) const MAX_KNOWN: usize = 512;

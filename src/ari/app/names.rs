//! What channels and bridges of ours are called: so that what is left over from a crash is recognized.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::id::LegId;

/// What a name of ours stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A channel that calls somebody.
    Out,
    /// A channel that listens to another.
    Snoop,
    /// A channel that carries audio to us.
    Media,
    /// The bridge of a caller and their audio.
    Bridge,
}

impl Kind {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Out, "out"), (Self::Snoop, "snoop"), (Self::Media, "media"), (Self::Bridge, "bridge")];

    fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Snoop => "snoop",
            Self::Media => "media",
            Self::Bridge => "bridge",
        }
    }
}

/// Makes and reads names: `tandem-<node>-<application>-<digest>-<kind>-<leg>-<count>`. The digest tells apart nodes and
/// applications that are written alike: whoever shares the PBX must not take our things for what a crash of theirs
/// left behind.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// The names of a node in an application.
    pub fn new(node: &str, application: &str) -> Self {
        let plain = |text: &str| -> String {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
            text.chars().take(LONGEST).map(plain).collect()
        };
        let mut digest = Sha256::new();
        // Neither can be so long that the length does not fit.
        digest.update((node.len() as u64).to_be_bytes());
        digest.update(node);
        digest.update(application);
        let mut prefix = format!("tandem-{}-{}-", plain(node), plain(application));
        for byte in digest.finalize().iter().take(DIGEST) {
            // Writing into a string does not fail.
            let _fits = write!(prefix, "{byte:02x}");
        }
        prefix.push('-');
        Self { prefix }
    }

    /// The `count`-th thing of that kind that a leg has.
    pub fn of(&self, kind: Kind, leg: LegId, count: u32) -> String {
        format!("{}{}-{leg}-{count}", self.prefix, kind.as_str())
    }

    /// Whose it is; `None` for what is not of this node.
    pub fn read(&self, name: &str) -> Option<(Kind, LegId)> {
        let (kind, rest) = name.strip_prefix(&self.prefix)?.split_once('-')?;
        let kind = Kind::ALL.iter().find(|known| known.1 == kind)?.0;
        let (leg, count) = rest.rsplit_once('-')?;
        count.parse::<u32>().ok()?;
        Some((kind, leg.parse().ok()?))
    }
}

/// A name of Asterisk's has at most 149 octets: the node and the application are shown so far.
const LONGEST: usize = 24;
/// Octets of the digest.
const DIGEST: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_by_their_own_node_and_application_only() {
        let leg = LegId::from_parts(1, 2);
        let (long, longer) = ("n".repeat(70), "n".repeat(71));
        let all = [
            Names::new("edge", "tandem"),
            Names::new("edge", "tandem-2"),
            Names::new("edge-tandem", "2"),
            Names::new("edge.1", "tandem"),
            Names::new("edge-1", "tandem"),
            Names::new("edgeten", "dem"),
            Names::new("edget", "endem"),
            Names::new(&long, "tandem"),
            Names::new(&longer, "tandem"),
        ];
        for (kind, _) in Kind::ALL {
            for (at, names) in all.iter().enumerate() {
                let name = names.of(kind, leg, u32::MAX);
                assert!(name.len() < 150, "{name}");
                for (other, reader) in all.iter().enumerate() {
                    let read = (at == other).then_some((kind, leg));
                    assert_eq!(reader.read(&name), read, "{name}");
                }
            }
        }
        let edge = &all[0];
        for foreign in ["1760000000.7", "tandem-edge-media-x", "tandem-edge-media-leg_1-1", ""] {
            assert_eq!(edge.read(foreign), None, "{foreign}");
        }
    }
}

//! What channels and bridges of ours are called: so that what is left over from a crash is recognized.

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

/// Makes and reads names: `tandem-<node>-<kind>-<leg>-<count>`.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// The names of a node.
    pub fn new(node: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let node: String = node.chars().take(NODE_LONGEST).map(plain).collect();
        Self { prefix: format!("tandem-{node}-") }
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

/// A name of Asterisk's has at most 149 octets.
const NODE_LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_by_their_own_node_only() {
        let leg = LegId::from_parts(1, 2);
        let (edge, edge_1) = (Names::new("edge"), Names::new("edge.1"));
        for (kind, _) in Kind::ALL {
            let name = edge_1.of(kind, leg, 3);
            assert_eq!(edge_1.read(&name), Some((kind, leg)), "{name}");
            assert_eq!(edge.read(&name), None, "{name}");
        }
        for foreign in ["1760000000.7", "tandem-edge-media-x", "tandem-edge-media-leg_1-1", ""] {
            assert_eq!(edge.read(foreign), None, "{foreign}");
        }
    }
}

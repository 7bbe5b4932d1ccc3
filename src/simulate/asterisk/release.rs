//! Which Asterisk it is. What changed on the wire changed in all branches at once; a release is named here after
//! the first ones that have something.

use std::fmt;
use std::str::FromStr;

/// A step of Asterisk's history, as a media server meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// 18.0 to 20.13, 21.8, 22.3.
    Early,
    /// 20.14, 21.9, 22.4: keys as frames, a hang-up that is no error, two seconds of patience.
    Keys,
    /// 20.15, 21.10, 22.5: no delayed writes, a payload may come in pieces.
    Pieces,
    /// 20.17, 21.12, 22.7, 23.1: a kind for each rate; the header is waited for, but read wrongly in pieces.
    Rates,
    /// 20.19, 22.9, 23.3: a header may come in pieces.
    Headers,
}

impl Release {
    /// Digits reach an AudioSocket.
    pub fn has_keys(self) -> bool {
        self >= Self::Keys
    }

    /// Each rate has a kind of its own; before, everything is kind 0x10.
    pub fn has_rates(self) -> bool {
        self >= Self::Rates
    }

    /// A hang-up by the server lets the dialplan go on.
    pub fn ends_well(self) -> bool {
        self >= Self::Keys
    }
}

impl FromStr for Release {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "give a release such as 20.13, 22.4, 22.5, 22.7, 22.9 or 23.4.1".to_owned();
        let mut numbers = text.split('.').map(|number| number.parse::<u32>().map_err(|_| wrong()));
        let major = numbers.next().ok_or_else(wrong)??;
        let minor = numbers.next().unwrap_or(Ok(0))?;
        // The first minor release of each branch that has the step.
        let steps: [Option<u32>; 4] = match major {
            18 | 19 => [None; 4],
            20 => [Some(14), Some(15), Some(17), Some(19)],
            21 => [Some(9), Some(10), Some(12), None],
            22 => [Some(4), Some(5), Some(7), Some(9)],
            23 => [Some(0), Some(0), Some(1), Some(3)],
            24.. => [Some(0); 4],
            _ => return Err(wrong()),
        };
        let reached = steps.iter().filter(|first| first.is_some_and(|first| minor >= first)).count();
        Ok([Self::Early, Self::Keys, Self::Pieces, Self::Rates, Self::Headers][reached])
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Early => "20.13",
            Self::Keys => "22.4",
            Self::Pieces => "22.5",
            Self::Rates => "22.7",
            Self::Headers => "23.4",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_printed() {
        use Release::*;
        for (text, release) in [
            ("18.26.4", Early),
            ("20.13", Early),
            ("21.9", Keys),
            ("22.5.2", Pieces),
            ("22.7", Rates),
            ("21.12", Rates),
            ("23.4.1", Headers),
            ("24", Headers),
        ] {
            assert_eq!(text.parse(), Ok(release), "{text}");
            assert_eq!(release.to_string().parse(), Ok(release), "{text}");
        }
        assert!("16.2".parse::<Release>().is_err() && "new".parse::<Release>().is_err());
    }
}

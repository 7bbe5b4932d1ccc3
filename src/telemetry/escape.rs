//! Text from the wire, made safe for a log line or a terminal.

use std::fmt;

/// Bytes from the wire: printable ASCII as it stands, everything else escaped, cut at [`Wire::MAX`] bytes.
/// Nothing a peer sends can forge a log line or drive a terminal.
#[derive(Clone, Copy)]
pub struct Wire<'a>(pub &'a [u8]);

impl Wire<'_> {
    /// Bytes shown; of longer texts the length follows.
    pub const MAX: usize = 200;
}

impl<'a> From<&'a str> for Wire<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl fmt::Display for Wire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(Self::MAX)];
        write!(f, "{}", shown.escape_ascii())?;
        if shown.len() < self.0.len() {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Wire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text for a terminal: letters of every language as they stand, control characters as `·`.
pub fn for_terminal(text: &str) -> String {
    let unsafe_char = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if unsafe_char(c) { '·' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_and_escapes_cannot_get_out() {
        assert_eq!(Wire(b"a\r\nb\x1b[31m\xff\"").to_string(), r#"a\r\nb\x1b[31m\xff\""#);
        assert_eq!(for_terminal("né\x1b[2J\u{202e}x"), "né·[2J·x");
    }

    #[test]
    fn long_texts_are_cut_and_say_so() {
        let text = Wire(&[b'x'; 500]).to_string();
        assert!(text.ends_with("x… (500 bytes)") && text.len() < 230);
    }
}

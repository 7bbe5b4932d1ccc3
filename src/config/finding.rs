//! What is wrong with a file of ours, where, and what to do about it.

use std::fmt;

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Tandem starts, but not everything that was written takes effect.
    Warning,
    /// Tandem does not start.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Place {
    /// Nobody set it.
    #[default]
    Default,
    /// A file; line and column count from 1, the column in characters.
    File {
        /// As given on the command line or found.
        file: String,
        /// From 1.
        line: u32,
        /// From 1, in characters.
        column: u32,
    },
    /// An environment variable.
    Variable(String),
    /// A command-line option, such as `--set http.listen`.
    Option(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Option(name) => write!(f, "option {name}"),
        }
    }
}

/// One problem of a configuration or resources file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The file, where the value came from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in the line, from 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The environment variable or command-line option, where the value came from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Path of the key, such as `sip.tls.certificate` or `trunk[0].profile`.
    pub key: String,
    /// What is wrong. Never quotes a secret.
    pub message: String,
    /// What to do.
    pub fix: String,
}

impl Finding {
    /// A finding that keeps Tandem from starting.
    pub fn error(
        place: &Place,
        key: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Error, place, key.into(), message.into(), fix.into())
    }

    /// A finding that Tandem starts in spite of.
    pub fn warning(
        place: &Place,
        key: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Warning, place, key.into(), message.into(), fix.into())
    }

    fn new(severity: Severity, place: &Place, key: String, message: String, fix: String) -> Self {
        let (file, line, column, source) = match place {
            Place::Default => (None, None, None, None),
            Place::File { file, line, column } => (Some(file.clone()), Some(*line), Some(*column), None),
            Place::Variable(_) | Place::Option(_) => (None, None, None, Some(place.to_string())),
        };
        Self { severity, file, line, column, source, key, message, fix }
    }

    /// Whether it keeps Tandem from starting.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    /// `tandem.toml:3:1: error: sip.lisen: unknown key` and, on a line of its own, the fix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line, self.column, &self.source) {
            (Some(file), Some(line), Some(column), _) => write!(f, "{file}:{line}:{column}: ")?,
            (Some(file), ..) => write!(f, "{file}: ")?,
            (None, _, _, Some(source)) => write!(f, "{source}: ")?,
            (None, ..) => {}
        }
        write!(f, "{}: ", self.severity)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.message)?;
        if !self.fix.is_empty() {
            write!(f, "\n  fix: {}", self.fix)?;
        }
        Ok(())
    }
}

/// Findings in the order a reader meets them: by file position, then what has none.
pub(super) fn sort(findings: &mut Vec<Finding>) {
    findings.sort_by(|a, b| {
        let position = |f: &Finding| (f.file.is_none(), f.line, f.column, f.key.clone());
        position(a).cmp(&position(b))
    });
    findings.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_prints_as_an_editor_can_follow_it() {
        let place = Place::File { file: "tandem.toml".into(), line: 3, column: 7 };
        let finding = Finding::error(&place, "sip.lisen", "unknown key", "did you mean `listen`?");
        assert_eq!(
            finding.to_string(),
            "tandem.toml:3:7: error: sip.lisen: unknown key\n  fix: did you mean `listen`?"
        );
    }

    #[test]
    fn a_finding_about_a_variable_names_the_variable() {
        let place = Place::Variable("TANDEM__SIP__LISEN".into());
        let finding = Finding::warning(&place, "", "names no key", "");
        assert_eq!(finding.to_string(), "environment variable TANDEM__SIP__LISEN: warning: names no key");
    }
}

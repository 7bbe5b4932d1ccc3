//! How a command fails: what, why, what to do next, and the exit code a script can rely on.

use std::process::ExitCode;

use serde_json::{Value, json};

/// Exit codes, part of the public contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Something went wrong.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// What was asked for does not exist.
    NotFound = 3,
    /// Not logged in, or not permitted.
    NotAllowed = 4,
    /// The state does not permit it.
    Conflict = 5,
    /// The server cannot be reached or did not answer in time.
    Unreachable = 6,
    /// A check found problems.
    Problems = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, Clone)]
pub struct Failure {
    exit: Exit,
    /// What happened.
    message: String,
    /// The next command or step; may be empty.
    fix: String,
    /// The server's own problem document, passed on with `--json`.
    problem: Option<Value>,
    /// Already told, or not worth telling (a closed pipe).
    silent: bool,
}

impl Failure {
    /// A failure with a next step.
    pub fn new(exit: Exit, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { exit, message: message.into(), fix: fix.into(), problem: None, silent: false }
    }

    /// Ends with a code after everything has been said on standard output.
    pub fn told(exit: Exit) -> Self {
        Self { silent: true, ..Self::new(exit, "", "") }
    }

    /// The failure in a problem document of the server.
    pub fn from_problem(status: u16, problem: Value) -> Self {
        let exit = match status {
            401 | 403 => Exit::NotAllowed,
            404 | 410 => Exit::NotFound,
            409 | 412 => Exit::Conflict,
            408 | 502..=504 => Exit::Unreachable,
            _ => Exit::Failure,
        };
        let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
        let title = if text("title").is_empty() { format!("HTTP status {status}") } else { text("title") };
        let mut message = match text("detail") {
            detail if detail.is_empty() => title,
            detail => format!("{title}: {detail}"),
        };
        for error in problem["errors"].as_array().into_iter().flatten() {
            let part = |key: &str| error[key].as_str().unwrap_or_default();
            message.push_str(&format!("\n  {}: {}", part("pointer"), part("message")));
        }
        let fix = match exit {
            Exit::NotAllowed => "set TANDEM_TOKEN to a token made with `tandem token create`",
            _ => "",
        };
        let problem = problem.is_object().then_some(problem);
        Self { exit, message, fix: fix.to_owned(), problem, silent: false }
    }

    /// The code to end with.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let fix = if self.fix.is_empty() { String::new() } else { format!("\n  fix: {}", self.fix) };
        format!("error: {}{fix}", self.message)
    }

    /// An RFC 9457 problem document.
    pub fn to_json(&self) -> Value {
        if let Some(problem) = &self.problem {
            return problem.clone();
        }
        let (code, title, status) = match self.exit {
            Exit::Failure => ("failure", "The command failed", 500),
            Exit::Usage => ("usage", "The command line makes no sense", 400),
            Exit::NotFound => ("not_found", "Not found", 404),
            Exit::NotAllowed => ("forbidden", "Not allowed", 403),
            Exit::Conflict => ("conflict", "Not possible in this state", 409),
            Exit::Unreachable => ("unreachable", "The server cannot be reached", 503),
            Exit::Problems => ("problems", "The check found problems", 422),
        };
        let mut document = json!({
            "type": format!("/docs/errors#{code}"),
            "title": title,
            "status": status,
            "detail": self.message,
            "code": code,
        });
        if !self.fix.is_empty() {
            document["fix"] = self.fix.as_str().into();
        }
        document
    }

    /// Tells the user on standard error and gives the exit code.
    pub fn report(&self, json: bool) -> ExitCode {
        if !self.silent {
            let text = if json { self.to_json().to_string() } else { self.to_text() };
            super::output::to_stderr(&text);
        }
        self.exit.into()
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failure, format!("{error:#}"), "")
    }
}

impl From<crate::store::StoreError> for Failure {
    fn from(error: crate::store::StoreError) -> Self {
        let exit = match &error {
            crate::store::StoreError::NotFound { .. } => Exit::NotFound,
            crate::store::StoreError::Conflict { .. } => Exit::Conflict,
            _ => Exit::Failure,
        };
        Self::new(exit, crate::cli::output::chain(&error), "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_status_decides_the_exit_code() {
        for (status, exit) in [
            (401, Exit::NotAllowed),
            (404, Exit::NotFound),
            (409, Exit::Conflict),
            (422, Exit::Failure),
            (503, Exit::Unreachable),
        ] {
            assert_eq!(Failure::from_problem(status, Value::Null).exit(), exit, "{status}");
        }
    }

    #[test]
    fn all_errors_of_a_problem_are_told() {
        let problem = json!({"title": "The request is not valid", "detail": "Two things.",
            "errors": [{"pointer": "/a", "message": "is wrong"}, {"pointer": "/b", "message": "too"}]});
        let failure = Failure::from_problem(422, problem.clone());
        assert_eq!(
            failure.to_text(),
            "error: The request is not valid: Two things.\n  /a: is wrong\n  /b: too"
        );
        assert_eq!(failure.to_json(), problem);
    }
}

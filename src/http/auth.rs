//! Who asks: a token, or the owner of the server over its Unix socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dashmap::DashMap;

use super::Api;
use super::problem::Problem;
use crate::store::Role;
use crate::time::UnixMs;

/// Who a request comes from and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What they are.
    pub role: Role,
    /// The one organization they see; `None` sees all.
    pub organization: Option<String>,
    /// For the audit log: a token id, or `local`.
    pub name: String,
}

impl Caller {
    /// The person who runs the server, over its own socket.
    pub fn local() -> Self {
        Self { role: Role::Admin, organization: None, name: "local".to_owned() }
    }

    /// Whether a record of that organization is theirs to see.
    pub fn sees(&self, organization: Option<&str>) -> bool {
        self.organization.is_none() || self.organization.as_deref() == organization
    }

    /// Whether they may act on calls rather than only look.
    ///
    /// # Errors
    /// 403 for analysts.
    pub fn may_act(&self) -> Result<(), Problem> {
        match self.role {
            Role::Admin | Role::Manager | Role::Supervisor | Role::Agent => Ok(()),
            Role::Analyst => Err(Problem::forbidden("analysts may read, not act; ask for another role")),
        }
    }

    /// Whether they may change the installation.
    ///
    /// # Errors
    /// 403 for everyone but an administrator of the whole installation.
    pub fn may_administer(&self) -> Result<(), Problem> {
        if self.role == Role::Admin && self.organization.is_none() {
            Ok(())
        } else {
            Err(Problem::forbidden("this needs an administrator of the whole installation"))
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorized)
    }
}

/// Puts the [`Caller`] into the request; handlers that need one refuse requests without.
pub async fn identify(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    if request.extensions().get::<Caller>().is_none() {
        match caller_of(&api, request.headers(), request.uri().query()).await {
            Ok(Some(caller)) => drop(request.extensions_mut().insert(caller)),
            Ok(None) => {}
            Err(problem) => return problem.into_response(),
        }
    }
    next.run(request).await
}

async fn caller_of(api: &Api, headers: &HeaderMap, query: Option<&str>) -> Result<Option<Caller>, Problem> {
    if let Some(secret) = bearer(headers) {
        let found = api.store.verify_token(secret, UnixMs::now()).await.map_err(|error| {
            tracing::warn!(%error, "a token could not be checked");
            Problem::unavailable("tokens cannot be checked now: the store does not answer")
        })?;
        return found.map(Some).ok_or_else(Problem::unauthorized).map(|token| {
            token.map(|token| Caller {
                role: token.role,
                organization: token.organization,
                name: token.id.to_string(),
            })
        });
    }
    let ticket = query.into_iter().flat_map(|q| q.split('&')).find_map(|pair| pair.strip_prefix("ticket="));
    match ticket {
        Some(ticket) => {
            api.tickets.redeem(ticket, Instant::now()).map(Some).ok_or_else(Problem::unauthorized)
        }
        None => Ok(None),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// Single-use passes for WebSockets of clients that cannot set headers. They live 30 s.
#[derive(Debug, Default)]
pub struct Tickets(DashMap<String, (Caller, Instant)>);

impl Tickets {
    /// A ticket for `caller`; `None` when too many are outstanding.
    pub fn issue(&self, caller: Caller, now: Instant) -> Option<String> {
        self.0.retain(|_, (_, issued)| now.saturating_duration_since(*issued) < TICKET_LIFE);
        if self.0.len() >= OUTSTANDING {
            return None;
        }
        let ticket = format!("{:032x}", rand::random::<u128>());
        self.0.insert(ticket.clone(), (caller, now));
        Some(ticket)
    }

    fn redeem(&self, ticket: &str, now: Instant) -> Option<Caller> {
        let (_, (caller, issued)) = self.0.remove(ticket)?;
        (now.saturating_duration_since(issued) < TICKET_LIFE).then_some(caller)
    }
}

const TICKET_LIFE: Duration = Duration::from_secs(30);
/// Tickets that may wait to be used; beyond it the answer is 503.
const OUTSTANDING: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_for_thirty_seconds() {
        let tickets = Tickets::default();
        let now = Instant::now();
        let ticket = tickets.issue(Caller::local(), now).expect("the first ticket");
        assert_eq!(tickets.redeem(&ticket, now), Some(Caller::local()));
        assert_eq!(tickets.redeem(&ticket, now), None);
        let late = tickets.issue(Caller::local(), now).expect("the second ticket");
        assert_eq!(tickets.redeem(&late, now + TICKET_LIFE), None);
    }
}

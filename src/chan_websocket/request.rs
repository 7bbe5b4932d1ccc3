//! What a connection of Asterisk's asks for: the request of its handshake, judged.

use subtle::ConstantTimeEq;
use tokio_tungstenite::tungstenite::http::{HeaderMap, StatusCode, Uri};

use super::SUBPROTOCOL;

/// What a request must have.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The path, without a `/` at its end.
    pub path: String,
    /// What `Authorization` must say, whole; `None`: anything.
    pub authorization: Option<String>,
}

impl Rules {
    /// Requests below `path`, with these credentials if there are some.
    pub fn new(path: &str, credentials: Option<(&str, &str)>) -> Self {
        let authorization = credentials.map(|(user, password)| basic(user, password));
        Self { path: path.trim_end_matches('/').to_owned(), authorization }
    }
}

/// What follows the word `Basic` in `Authorization` (RFC 7617).
pub(super) fn basic(user: &str, password: &str) -> String {
    base64_simd::STANDARD.encode_to_string(format!("{user}:{password}").as_bytes())
}

/// What the dial string said, in the path and the query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whom the call is for: the path behind the configured one, or `to=`.
    pub called: Option<String>,
    /// Who calls: `from=`.
    pub caller: Option<String>,
    /// The key it was announced under: `id=`.
    pub key: Option<String>,
    /// The channel was dialled with `n`, and is to be answered when the flow does: `answer=manual`.
    pub answer_later: bool,
}

/// Why a request is refused. Its text goes back to Asterisk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another path.
    #[error("there is nothing here; check the uri in websocket_client.conf")]
    Path,
    /// Not the subprotocol.
    #[error("Sec-WebSocket-Protocol: media is needed; write protocols = media in websocket_client.conf")]
    Subprotocol,
    /// No credentials, or wrong ones.
    #[error("username and password are needed; check them in websocket_client.conf")]
    Credentials,
    /// A number, a key or a parameter that is none.
    #[error(
        "to, from and id are numbers, extensions or names of at most 128 letters, digits and - . _ + * # ~"
    )]
    Parameter,
}

impl Refusal {
    /// The status of the answer.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Subprotocol | Self::Parameter => StatusCode::BAD_REQUEST,
            Self::Credentials => StatusCode::UNAUTHORIZED,
        }
    }

    /// For the metric.
    pub const fn outcome(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Subprotocol => "subprotocol",
            Self::Credentials => "credentials",
            Self::Parameter => "parameter",
        }
    }
}

/// Judges a request.
///
/// # Errors
/// [`Refusal`].
pub fn judge(rules: &Rules, uri: &Uri, headers: &HeaderMap) -> Result<Wanted, Refusal> {
    // Who has no password learns nothing about paths.
    if let Some(expected) = &rules.authorization {
        let shown = headers.get("authorization").map(|value| value.as_bytes()).unwrap_or_default();
        let (scheme, shown) = shown.split_at_checked(BASIC.len()).unwrap_or_default();
        let right = bool::from(shown.trim_ascii().ct_eq(expected.as_bytes()));
        if !right || !scheme.eq_ignore_ascii_case(BASIC) {
            return Err(Refusal::Credentials);
        }
    }
    let rest = uri.path().strip_prefix(rules.path.as_str()).ok_or(Refusal::Path)?;
    let in_path = match rest.trim_end_matches('/').strip_prefix('/') {
        None if rest.trim_end_matches('/').is_empty() => None,
        None => return Err(Refusal::Path),
        Some(below) if below.contains('/') => return Err(Refusal::Path),
        Some(below) => Some(word(below)?),
    };
    let rows = headers.get_all("sec-websocket-protocol").iter().filter_map(|row| row.to_str().ok());
    let offered = rows.flat_map(|row| row.split(',')).any(|name| name.trim() == SUBPROTOCOL);
    if !offered {
        return Err(Refusal::Subprotocol);
    }
    let mut wanted = Wanted { called: in_path, ..Wanted::default() };
    for pair in uri.query().unwrap_or_default().split('&') {
        let Some((name, value)) = pair.split_once('=').filter(|(_, value)| !value.is_empty()) else {
            continue;
        };
        match name {
            "to" if wanted.called.is_none() => wanted.called = Some(word(value)?),
            "from" => wanted.caller = Some(word(value)?),
            "id" => wanted.key = Some(word(value)?),
            "answer" if value == "manual" => wanted.answer_later = true,
            _ => {}
        }
    }
    Ok(wanted)
}

/// A number, an extension or a key; `%2B` is `+`.
fn word(text: &str) -> Result<String, Refusal> {
    let mut bytes = text.bytes();
    let mut plain = String::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit =
                    || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or(Refusal::Parameter);
                u8::try_from(digit()? * 16 + digit()?).map_err(|_| Refusal::Parameter)?
            }
            other => other,
        };
        if !byte.is_ascii_alphanumeric() && !b"-._+*#~".contains(&byte) {
            return Err(Refusal::Parameter);
        }
        plain.push(char::from(byte));
    }
    if plain.is_empty() || plain.len() > WORD_LONGEST { Err(Refusal::Parameter) } else { Ok(plain) }
}

const BASIC: &[u8] = b"basic ";
const WORD_LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(rules: &Rules, uri: &str, headers: &[(&'static str, &str)]) -> Result<Wanted, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        judge(rules, &uri.parse().unwrap(), &map)
    }

    const MEDIA: (&str, &str) = ("sec-websocket-protocol", "media");

    #[test]
    fn path_and_query_say_who_calls_whom() {
        let rules = Rules::new("/media/", None);
        let plain = Wanted::default();
        let to = |called: &str| Wanted { called: Some(called.to_owned()), ..Wanted::default() };
        for (uri, wanted) in [
            ("/media", Ok(plain.clone())),
            ("/media/?x=1&to=", Ok(plain)),
            ("/media/100", Ok(to("100"))),
            ("/media/%2B15550100/", Ok(to("+15550100"))),
            ("/media?to=100", Ok(to("100"))),
            ("/media/100?to=200", Ok(to("100"))),
            (
                "/media?to=100&from=%2B4930123&id=4f2c&answer=manual",
                Ok(Wanted {
                    caller: Some("+4930123".into()),
                    key: Some("4f2c".into()),
                    answer_later: true,
                    ..to("100")
                }),
            ),
            ("/", Err(Refusal::Path)),
            ("/mediator", Err(Refusal::Path)),
            ("/media/1/2", Err(Refusal::Path)),
            ("/media/1%202", Err(Refusal::Parameter)),
            ("/media/%2", Err(Refusal::Parameter)),
            ("/media?from=%0d%0aX", Err(Refusal::Parameter)),
        ] {
            assert_eq!(ask(&rules, uri, &[MEDIA]), wanted, "{uri}");
        }
    }

    #[test]
    fn the_subprotocol_is_needed() {
        let rules = Rules::new("/media", None);
        assert_eq!(ask(&rules, "/media", &[]), Err(Refusal::Subprotocol));
        assert_eq!(ask(&rules, "/media", &[("sec-websocket-protocol", "sip")]), Err(Refusal::Subprotocol));
        assert!(ask(&rules, "/media", &[("sec-websocket-protocol", "ari, media")]).is_ok());
    }

    #[test]
    fn credentials_come_first() {
        let rules = Rules::new("/media", Some(("pbx1", "change-me")));
        let right = "Basic cGJ4MTpjaGFuZ2UtbWU=";
        for (shown, good) in [
            (right, true),
            ("basic cGJ4MTpjaGFuZ2UtbWU=", true),
            ("Basic cGJ4MTpjaGFuZ2UtbWX=", false),
            ("Basic cGJ4MTpjaGFuZ2UtbWU", false),
            ("Bearer cGJ4MTpjaGFuZ2UtbWU=", false),
            ("Basic", false),
            ("", false),
        ] {
            let answer = ask(&rules, "/media", &[MEDIA, ("authorization", shown)]);
            assert_eq!(answer.is_ok(), good, "{shown}");
        }
        assert_eq!(ask(&rules, "/elsewhere", &[MEDIA]), Err(Refusal::Credentials));
    }
}

//! The Asterisk that `asterisk_websocket.connect` names: whether calls that wait there can be fetched.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::Check;
use crate::chan_websocket::client::{ClientSettings, ConnectError, connect};
use crate::config::Config;
use crate::config::values::split_url;
use crate::pbx::Uuid;

/// The check; none without the key.
pub(super) async fn connection(config: &Config, offline: bool) -> Option<Check> {
    let settings = ClientSettings::of(config.asterisk_websocket.as_ref()?)?;
    let url = settings.url.clone();
    if offline && !split_url(&url).is_some_and(|url| url.is_loopback()) {
        return Some(Check::ok(ID, "not tried (--offline)"));
    }
    // A channel that nobody has: an Asterisk knows that it has none.
    let nobody = Uuid::random(&mut StdRng::from_rng(&mut rand::rng()));
    Some(match connect(&settings, &nobody.to_string()).await {
        Err(ConnectError::Unknown) | Ok(_) => Check::ok(ID, format!("{url} answers")),
        Err(ConnectError::Refused(401 | 403)) => Check::fail(
            ID,
            format!("{url} refuses the user or the password"),
            WHY,
            "Asterisk asks for none: correct connect_username and connect_password_env for the proxy in front of it",
        ),
        Err(problem) => Check::fail(
            ID,
            format!("{url}: {problem}"),
            WHY,
            "start Asterisk; set enabled, bindaddr and bindport in http.conf; correct asterisk_websocket.connect",
        ),
    })
}

const ID: &str = "asterisk_websocket";
const WHY: &str = "calls that wait as WebSocket/INCOMING are not fetched";

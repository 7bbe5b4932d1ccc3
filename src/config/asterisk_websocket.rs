//! `[asterisk_websocket]`: calls of an Asterisk whose audio comes over WebSocket (`chan_websocket`).

use std::net::SocketAddr;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::values::Network;

/// Calls of Asterisk's `WebSocket` channel, which it has since 20.16, 21.11, 22.6 and 23.0. Asterisk connects to `listen` for each call
/// it dials as `WebSocket/NAME`, where NAME is a section of its `websocket_client.conf` with `protocols = media`; or
/// Tandem connects to `connect` for each call that waits there as `WebSocket/INCOMING`.
/// Nothing is encrypted here: across networks that are not yours, put a proxy that does TLS in front.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AsteriskWebsocket {
    /// Address and port that Asterisk connects to.
    #[schemars(with = "Option<String>", extend("format" = "socket-address"), example = &"127.0.0.1:9093")]
    pub listen: Option<SocketAddr>,
    /// Path of the URI in `websocket_client.conf`. With a number behind it, such as `/media/100`, it says whom a call is
    /// for; so does `to=100` in the query (`v(to=100)` in the dial string).
    #[schemars(extend("format" = "url-path"))]
    pub path: String,
    /// Who may connect: addresses and networks of PBXs. Others are closed at once.
    #[schemars(length(min = 1), example = ["127.0.0.0/8", "192.0.2.10"])]
    pub allow: Vec<Network>,
    /// User that Asterisk must show. Absent: none.
    #[schemars(example = &"pbx1")]
    pub username: Option<String>,
    /// Environment variable that holds the user's password; with `_FILE` added to its name, the path of a file that does.
    #[schemars(extend("format" = "variable-name"), example = &"ASTERISK_WEBSOCKET_PASSWORD")]
    pub password_env: Option<String>,
    /// Number or extension whose flow answers calls that say nothing. Absent: those are refused.
    #[schemars(extend("format" = "number"), example = &"100")]
    pub number: Option<String>,
    /// Media resource of Asterisk's web server, where calls wait that were dialled as `WebSocket/INCOMING`: Tandem
    /// connects to the one whose connection id `POST /api/v1/connections` names. Absent: to none.
    #[schemars(extend("format" = "media-url"), example = &"ws://127.0.0.1:8088/media")]
    pub connect: Option<String>,
    /// User to show there, for a proxy in front of Asterisk, which asks for none itself.
    #[schemars(example = &"tandem")]
    pub connect_username: Option<String>,
    /// Environment variable that holds that user's password; with `_FILE` added to its name, the path of a file that does.
    #[schemars(extend("format" = "variable-name"), example = &"ASTERISK_CONNECT_PASSWORD")]
    pub connect_password_env: Option<String>,
    /// What audio is taken to be until Asterisk has said it: its name for the format. Under load, audio comes first.
    #[schemars(example = &"slin16")]
    pub format: String,
    /// Most connections at a time; more are refused. 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_calls: u32,
    /// The password, from `password_env`.
    #[serde(skip)]
    pub password: Option<SecretString>,
    /// The password, from `connect_password_env`.
    #[serde(skip)]
    pub connect_password: Option<SecretString>,
}

impl Default for AsteriskWebsocket {
    fn default() -> Self {
        Self {
            listen: None,
            path: "/media".into(),
            allow: ["127.0.0.0/8", "::1"].iter().filter_map(|network| network.parse().ok()).collect(),
            username: None,
            password_env: None,
            number: None,
            connect: None,
            connect_username: None,
            connect_password_env: None,
            format: "slin16".into(),
            max_calls: 1_000,
            password: None,
            connect_password: None,
        }
    }
}

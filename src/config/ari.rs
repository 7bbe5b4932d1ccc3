//! `[ari]`: channels of an Asterisk, controlled through its REST interface.

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Calls that an Asterisk sends into a Stasis application, and calls made through it. The section opens the door.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ari {
    /// Base URL of the interface.
    #[schemars(extend("format" = "http-url"), example = &"http://127.0.0.1:8088/ari")]
    pub url: String,
    /// User of `ari.conf`.
    #[schemars(example = &"tandem")]
    pub username: String,
    /// Environment variable that holds the password; with `_FILE` added to its name, the path of a file that does.
    #[schemars(extend("format" = "variable-name"), example = &"ARI_PASSWORD")]
    pub password_env: String,
    /// Stasis application that calls are sent to. `Stasis(tandem)` calls the extension it stands in;
    /// `Stasis(tandem,called=200)` calls 200.
    #[schemars(extend("format" = "name"), example = &"tandem")]
    pub application: String,
    /// How audio travels: `audiosocket`, `rtp` or `websocket`. Absent: `audiosocket` when that section is there, else
    /// `rtp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"audiosocket")]
    pub medium: Option<AriMedium>,
    /// Codec of that audio, under Asterisk's name: `slin`, `slin12`, `slin16`, `slin24`, `slin32`, `slin44`, `slin48`;
    /// with `websocket` also `ulaw`, `alaw`, `g722`; with `rtp` only `g722`, `slin`, `ulaw`, `alaw`, for Asterisk takes
    /// no RTP in the others. Absent: `slin16`, with `rtp` `g722`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"slin24")]
    pub media_format: Option<String>,
    /// Host, or host and port, where Asterisk reaches us for audio. Absent: where `audiosocket` listens, or
    /// `sip.advertise`; and this machine when the interface is on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"192.0.2.20")]
    pub media_host: Option<String>,
    /// What becomes of callers who are in the application when Tandem starts: `adopt` answers them again, `continue`
    /// lets them go on in the dialplan, `hangup` ends them.
    #[serde(default)]
    pub orphans: AriOrphans,
    /// Endpoint of outgoing calls over the trunk `ari`; `{number}` is replaced. Absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"PJSIP/{number}@carrier")]
    pub dial: Option<String>,
    /// Context of the dialplan whose extensions are the names of queues, for transfers to `queue:`.
    #[serde(default = "queue_context")]
    #[schemars(extend("format" = "name"))]
    pub queue_context: String,
    /// The password, from `password_env`.
    #[serde(skip)]
    pub password: Option<SecretString>,
}

impl Ari {
    /// How audio travels, given whether there is an AudioSocket door.
    pub fn medium(&self, audiosocket: bool) -> AriMedium {
        self.medium.unwrap_or(if audiosocket { AriMedium::Audiosocket } else { AriMedium::Rtp })
    }

    /// How it is coded over that medium, under Asterisk's name.
    pub fn format(&self, medium: AriMedium) -> &str {
        let default = if medium == AriMedium::Rtp { "g722" } else { "slin16" };
        self.media_format.as_deref().unwrap_or(default)
    }
}

/// How audio travels between Asterisk and us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum AriMedium {
    /// Asterisk connects to `[audiosocket]`.
    Audiosocket,
    /// RTP, without signalling of its own.
    Rtp,
    /// We connect to Asterisk's `/media`.
    Websocket,
}

/// What becomes of callers who are there before us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum AriOrphans {
    /// Their flow answers them again.
    #[default]
    Adopt,
    /// They go on in the dialplan.
    Continue,
    /// They are hung up on.
    Hangup,
}

fn queue_context() -> String {
    "tandem-queues".to_owned()
}

//! Which trunk a message belongs to, by its source address; the first gate of signalling.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use secrecy::SecretString;

use super::profile::Profile;

/// A connection to a carrier or PBX, as signalling needs it.
#[derive(Debug, Clone)]
pub struct Trunk {
    /// Unique name, as in logs, metrics and call records.
    pub name: String,
    /// The peer's habits.
    pub profile: Arc<Profile>,
    /// Inbound signalling sources; empty: those of the profile.
    pub allow: Vec<IpNet>,
    /// Sources of media besides the SDP's address and the signalling address; empty: those of the profile.
    pub media_networks: Vec<IpNet>,
    /// Answers outbound challenges; with `inbound_auth` also asked of the peer.
    pub username: Option<String>,
    /// The password that belongs to `username`.
    pub password: Option<SecretString>,
    /// Asks the peer for credentials besides its address.
    pub inbound_auth: bool,
    /// Most calls at a time over this trunk; 0: no limit of its own.
    pub max_calls: usize,
}

impl Trunk {
    /// A trunk that takes its networks from the profile and asks for no credentials.
    pub fn new(name: impl Into<String>, profile: Arc<Profile>) -> Self {
        Self {
            name: name.into(),
            profile,
            allow: Vec::new(),
            media_networks: Vec::new(),
            username: None,
            password: None,
            inbound_auth: false,
            max_calls: 0,
        }
    }

    /// Signalling sources: the trunk's own, or else the profile's.
    pub fn allowed_networks(&self) -> &[IpNet] {
        if self.allow.is_empty() { &self.profile.allow } else { &self.allow }
    }

    /// Media sources: the trunk's own, or else the profile's.
    pub fn allowed_media_networks(&self) -> &[IpNet] {
        if self.media_networks.is_empty() { &self.profile.media_networks } else { &self.media_networks }
    }
}

/// All trunks, looked up by source address: the longest matching prefix wins, then the order of configuration.
#[derive(Debug, Clone, Default)]
pub struct Trunks {
    trunks: Vec<Arc<Trunk>>,
    /// Longest prefix first.
    sources: Vec<(IpNet, usize)>,
}

impl Trunks {
    /// The table of these trunks.
    pub fn new(trunks: impl IntoIterator<Item = Trunk>) -> Self {
        let trunks: Vec<Arc<Trunk>> = trunks.into_iter().map(Arc::new).collect();
        let mut sources: Vec<(IpNet, usize)> = trunks
            .iter()
            .enumerate()
            .flat_map(|(index, trunk)| trunk.allowed_networks().iter().map(move |net| (*net, index)))
            .collect();
        sources.sort_by_key(|(net, index)| (std::cmp::Reverse(net.prefix_len()), *index));
        Self { trunks, sources }
    }

    /// The trunk this address may speak for.
    pub fn admit(&self, source: IpAddr) -> Option<&Arc<Trunk>> {
        let source = source.to_canonical();
        self.sources.iter().find(|(net, _)| net.contains(&source)).map(|(_, index)| &self.trunks[*index])
    }

    /// The trunk of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Trunk>> {
        self.trunks.iter().find(|trunk| trunk.name == name)
    }

    /// All trunks, in the order of configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Trunk>> {
        self.trunks.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trunk(name: &str, allow: &[&str]) -> Trunk {
        let mut trunk = Trunk::new(name, Arc::new(Profile::default()));
        trunk.allow = allow.iter().map(|net| net.parse().expect("a network")).collect();
        trunk
    }

    fn admitted<'a>(trunks: &'a Trunks, source: &str) -> Option<&'a str> {
        trunks.admit(source.parse().expect("an address")).map(|t| t.name.as_str())
    }

    #[test]
    fn the_longest_matching_prefix_decides() {
        let trunks =
            Trunks::new([trunk("wide", &["10.0.0.0/8"]), trunk("narrow", &["10.1.0.0/16", "2001:db8::/32"])]);
        assert_eq!(admitted(&trunks, "10.1.2.3"), Some("narrow"));
        assert_eq!(admitted(&trunks, "10.2.2.3"), Some("wide"));
        assert_eq!(admitted(&trunks, "2001:db8::1"), Some("narrow"));
        assert_eq!(admitted(&trunks, "192.0.2.1"), None);
    }

    #[test]
    fn an_address_mapped_into_ipv6_is_the_ipv4_address() {
        let trunks = Trunks::new([trunk("a", &["192.0.2.0/24"])]);
        assert_eq!(admitted(&trunks, "::ffff:192.0.2.7"), Some("a"));
    }

    #[test]
    fn a_trunk_without_a_list_takes_the_profiles() {
        let twilio = Trunk::new("carrier", Profile::builtin("twilio").expect("twilio ships"));
        let trunks = Trunks::new([twilio]);
        assert_eq!(admitted(&trunks, "54.172.60.2"), Some("carrier"));
        assert_eq!(admitted(&trunks, "54.172.60.9"), None);
    }
}

//! All tools of this installation: built in, declared by organizations, offered by MCP servers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tracing::warn;

use super::builtin::{self, BuiltIn, Need};
use super::mcp::Servers;
use super::toolbox::Toolbox;
use super::webhook::Webhooks;
use super::{Context, Definition, Origin, Tool};
use crate::store;

/// The tools, shared by all calls.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    built_in: Vec<BuiltIn>,
    webhooks: Webhooks,
    /// By organization and name.
    declared: watch::Sender<Arc<Declared>>,
    servers: Servers,
}

/// What organizations have declared.
#[derive(Default)]
struct Declared {
    tools: BTreeMap<(String, String), Arc<Tool>>,
    /// What cannot be used, and why.
    broken: Vec<Listed>,
}

/// The tools an assistant wants, and what its call has.
#[derive(Debug, Default)]
pub struct Wish<'a> {
    /// As in its resource: names, or the beginning of names and `*`.
    pub names: &'a [String],
    /// Where it may move calls to, by name.
    pub destinations: BTreeMap<String, String>,
    /// Whose call it is.
    pub context: Context,
    /// The call can be given music.
    pub hold_music: bool,
    /// The call is recorded.
    pub recorded: bool,
}

/// A tool as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// When and how a model should use it.
    pub description: String,
    /// `built_in`, `webhook` or `mcp`.
    pub origin: &'static str,
    /// Whose it is; absent: everybody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The MCP server that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Whether assistants can have it now.
    pub available: bool,
    /// What it needs, or waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// How long it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<f32>,
    /// Said while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speak: Option<String>,
    /// Given up when the caller speaks.
    pub cancel_on_barge_in: bool,
    /// JSON Schema of its arguments.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub parameters: Value,
}

impl Registry {
    /// The built-in tools and those of MCP servers.
    pub fn new(webhooks: Webhooks, servers: Servers) -> Self {
        let declared = watch::Sender::new(Arc::default());
        Self(Arc::new(Inner { built_in: builtin::all(), webhooks, declared, servers }))
    }

    /// The tools that organizations have declared, in place of those they had. One that cannot be used is left out,
    /// and the log says why.
    pub fn declare(&self, stored: &[store::Tool]) {
        let mut declared = Declared::default();
        for stored in stored {
            match self.0.webhooks.tool(stored) {
                Ok(tool) => {
                    declared.tools.insert((stored.organization.clone(), stored.name.clone()), Arc::new(tool));
                }
                Err(cause) => {
                    warn!(
                        organization = stored.organization,
                        tool = stored.name,
                        cause,
                        "a tool cannot be used"
                    );
                    declared.broken.push(Listed {
                        description: stored.description.clone(),
                        origin: "webhook",
                        organization: Some(stored.organization.clone()),
                        needs: Some(cause),
                        ..waiting(&stored.name, "")
                    });
                }
            }
        }
        self.0.declared.send_replace(Arc::new(declared));
    }

    /// What an assistant can have of what it wants on its call, and the names that lead to nothing.
    pub fn toolbox(&self, wish: Wish<'_>) -> (Toolbox, Vec<String>) {
        let organization = wish.context.organization.as_deref();
        let mut tools = Vec::new();
        let mut unknown = Vec::new();
        for name in wish.names {
            let before = tools.len();
            match name.strip_suffix('*') {
                Some(beginning) => tools.extend(
                    self.offered(organization).filter(|tool| tool.definition.name.starts_with(beginning)),
                ),
                None => match self.0.built_in.iter().find(|tool| tool.tool.definition.name == *name) {
                    // One that cannot work on this call is not unknown; it is just not shown.
                    Some(built_in) if !fits(built_in.need, &wish) => continue,
                    Some(built_in) if built_in.need == Need::Destinations => {
                        tools.extend(builtin::transfer(&wish.destinations));
                    }
                    Some(built_in) => tools.push(Arc::clone(&built_in.tool)),
                    None => {
                        tools.extend(self.offered(organization).find(|tool| tool.definition.name == *name))
                    }
                },
            }
            if tools.len() == before {
                unknown.push(name.clone());
            }
        }
        (Toolbox::new(tools, Arc::new(wish.destinations), Arc::new(wish.context)), unknown)
    }

    /// The tool of that name that `organization` has.
    pub fn find(&self, organization: Option<&str>, name: &str) -> Option<Arc<Tool>> {
        let built_in = self.0.built_in.iter().find(|tool| tool.tool.definition.name == name);
        built_in
            .map(|built_in| Arc::clone(&built_in.tool))
            .or_else(|| self.offered(organization).find(|tool| tool.definition.name == name))
    }

    /// The names assistants of anybody may have.
    pub fn names(&self) -> Vec<String> {
        let built_in = self.0.built_in.iter().map(|tool| tool.tool.definition.name.clone());
        let servers =
            self.0.servers.all().flat_map(|server| server.tools().iter().map(name).collect::<Vec<_>>());
        let mut names: Vec<String> = built_in.chain(servers).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Everything `organization` (`None`: anybody) can see; those that wait for a subsystem, too.
    pub fn list(&self, organization: Option<&str>) -> Vec<Listed> {
        let mut list: Vec<Listed> = self.0.built_in.iter().map(listed_built_in).collect();
        list.extend(builtin::WAITING.iter().map(|(name, subsystem)| waiting(name, subsystem.as_str())));
        let declared = self.0.declared.borrow().clone();
        let own = declared.tools.iter();
        let own = own.filter(|((owner, _), _)| organization.is_none_or(|wanted| wanted == owner));
        let broken = declared.broken.iter();
        let broken = broken
            .filter(|tool| organization.is_none_or(|wanted| tool.organization.as_deref() == Some(wanted)));
        list.extend(broken.cloned());
        list.extend(own.map(|(_, tool)| listed(&tool.definition)));
        for server in
            self.0.servers.all().filter(|server| organization.is_none_or(|name| server.serves(Some(name))))
        {
            list.extend(server.tools().iter().map(|tool| listed(&tool.definition)));
        }
        list.sort_by(|a, b| (&a.name, &a.organization).cmp(&(&b.name, &b.organization)));
        list
    }

    /// The MCP servers.
    pub fn servers(&self) -> &Servers {
        &self.0.servers
    }

    /// What is not built in.
    fn offered(&self, organization: Option<&str>) -> impl Iterator<Item = Arc<Tool>> {
        let declared = self.0.declared.borrow().clone();
        let own: Vec<_> = declared
            .tools
            .iter()
            .filter(|((owner, _), _)| Some(owner.as_str()) == organization)
            .map(|(_, tool)| Arc::clone(tool))
            .collect();
        let servers = self.0.servers.all().filter(|server| server.serves(organization));
        let of_servers: Vec<_> = servers.flat_map(|server| server.tools().to_vec()).collect();
        own.into_iter().chain(of_servers)
    }
}

fn fits(need: Need, wish: &Wish<'_>) -> bool {
    match need {
        Need::Nothing => true,
        Need::Destinations => !wish.destinations.is_empty(),
        Need::HoldMusic => wish.hold_music,
        Need::Recording => wish.recorded,
    }
}

fn name(tool: &Arc<Tool>) -> String {
    tool.definition.name.clone()
}

fn listed_built_in(built_in: &BuiltIn) -> Listed {
    let needs = match built_in.need {
        Need::Nothing => None,
        Need::Destinations => Some("`transfer_to` of the assistant"),
        Need::HoldMusic => Some("media.hold_music"),
        Need::Recording => Some("a call that is recorded"),
    };
    Listed { needs: needs.map(str::to_owned), timeout_s: None, ..listed(&built_in.tool.definition) }
}

fn listed(definition: &Definition) -> Listed {
    let (origin, organization, server) = match &definition.origin {
        Origin::BuiltIn => ("built_in", None, None),
        Origin::Webhook { organization } => ("webhook", Some(organization.clone()), None),
        Origin::Mcp { server } => ("mcp", None, Some(server.clone())),
    };
    Listed {
        name: definition.name.clone(),
        description: definition.description.clone(),
        origin,
        organization,
        server,
        available: true,
        needs: None,
        timeout_s: Some(definition.timeout.as_secs_f32()),
        speak: definition.speak.clone(),
        cancel_on_barge_in: definition.cancel_on_barge_in,
        parameters: definition.parameters.clone(),
    }
}

fn waiting(name: &str, subsystem: &str) -> Listed {
    Listed {
        name: name.to_owned(),
        description: String::new(),
        origin: "built_in",
        organization: None,
        server: None,
        available: false,
        needs: Some(format!("waits for: {subsystem}")),
        timeout_s: None,
        speak: None,
        cancel_on_barge_in: false,
        parameters: Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::guard::Guard;

    #[test]
    fn a_model_is_shown_only_what_can_work_on_its_call() {
        let registry = registry();
        let names: Vec<String> =
            ["end_call", "transfer_call", "hold", "pause_recording", "send_sms"].map(str::to_owned).to_vec();
        let shown = |wish| {
            let (toolbox, unknown) = registry.toolbox(wish);
            let names: Vec<String> = toolbox.specs().iter().map(|spec| spec.name.clone()).collect();
            (names.join(" "), unknown.join(" "))
        };
        assert_eq!(
            shown(Wish { names: &names, ..Wish::default() }),
            ("end_call".to_owned(), "send_sms".to_owned())
        );
        let destinations = BTreeMap::from([("sales".to_owned(), "100".to_owned())]);
        let rich = Wish { names: &names, destinations, hold_music: true, recorded: true, ..Wish::default() };
        assert_eq!(shown(rich).0, "end_call transfer_call hold pause_recording");
    }

    #[test]
    fn an_organization_has_its_own_tools_and_nobody_elses() {
        let registry = registry();
        let tool = |organization: &str, name: &str| store::Tool {
            organization: organization.to_owned(),
            name: name.to_owned(),
            description: "x".to_owned(),
            parameters: json!({"type": "object"}),
            url: "https://example.com/".to_owned(),
            ..store::Tool::default()
        };
        registry.declare(&[tool("acme", "crm_find"), tool("acme", "crm_note"), tool("other", "crm_wipe")]);
        let context = |organization: &str| Context {
            organization: Some(organization.to_owned()),
            ..Context::default()
        };
        let names = ["crm_*".to_owned()];
        let (toolbox, _) =
            registry.toolbox(Wish { names: &names, context: context("acme"), ..Wish::default() });
        let shown: Vec<_> = toolbox.specs().iter().map(|spec| spec.name.clone()).collect();
        assert_eq!(shown, ["crm_find", "crm_note"]);
        assert!(registry.find(Some("acme"), "crm_wipe").is_none());
        let (_, unknown) =
            registry.toolbox(Wish { names: &names, context: context("third"), ..Wish::default() });
        assert_eq!(unknown, ["crm_*"]);
    }

    fn registry() -> Registry {
        Registry::new(Webhooks::new(Guard::default()).unwrap(), Servers::default())
    }
}

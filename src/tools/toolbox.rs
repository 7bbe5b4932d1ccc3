//! The tools of one assistant on one call: what the model is shown, and what a call of it asks for.
//!
//! Pure: arguments come in as the model's text, a [`Job`] comes out, or a [`Refusal`] whose words let the model
//! recover.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::action::Action;
use super::{Context, Handler, Remote, Tool, mask, schema};
use crate::provider::ToolSpec;

/// What a model may call.
#[derive(Clone, Default)]
pub struct Toolbox {
    tools: Arc<[Arc<Tool>]>,
    specs: Arc<[ToolSpec]>,
    destinations: Arc<BTreeMap<String, String>>,
    context: Arc<Context>,
}

/// A tool call that can be run.
pub struct Job {
    /// What is to be done.
    pub work: Work,
    /// As checked.
    pub arguments: Value,
    /// As the record may show them.
    pub shown: Value,
    /// How long it may take.
    pub timeout: Duration,
    /// Said while it runs.
    pub speak: Option<String>,
    /// Given up when the caller speaks.
    pub cancel_on_barge_in: bool,
}

/// Who does it.
pub enum Work {
    /// The call.
    Act(Action),
    /// Somebody else.
    Remote(Arc<dyn Remote>),
}

/// Why a tool call is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the model is told: JSON.
    pub output: String,
    /// What the record may show of the arguments.
    pub shown: Value,
}

impl Toolbox {
    /// A box with these tools. Where two have a name, the first is taken.
    pub fn new(
        tools: Vec<Arc<Tool>>,
        destinations: Arc<BTreeMap<String, String>>,
        context: Arc<Context>,
    ) -> Self {
        let mut kept: Vec<Arc<Tool>> = Vec::with_capacity(tools.len());
        for tool in tools {
            let known = kept.iter().any(|other| other.definition.name == tool.definition.name);
            if !known && kept.len() < TOOLS_MOST {
                kept.push(tool);
            }
        }
        let specs = kept.iter().map(|tool| tool.spec()).collect();
        Self { tools: kept.into(), specs, destinations, context }
    }

    /// As shown to the model.
    pub fn specs(&self) -> Arc<[ToolSpec]> {
        Arc::clone(&self.specs)
    }

    /// Whether this tool is there.
    pub fn has(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool.definition.name == name)
    }

    /// Whose call it is.
    pub fn context(&self) -> Arc<Context> {
        Arc::clone(&self.context)
    }

    /// What a destination of the assistant stands for.
    pub fn destination(&self, name: &str) -> Option<&str> {
        self.destinations.get(name).map(String::as_str)
    }

    /// What a call of `name` with `arguments` asks for.
    ///
    /// # Errors
    /// [`Refusal`] for a tool this assistant does not have, or arguments that do not fit its schema.
    pub fn interpret(&self, name: &str, arguments: &str) -> Result<Job, Refusal> {
        let Some(tool) = self.tools.iter().find(|tool| tool.definition.name == name) else {
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            let known: Vec<&str> = self.specs.iter().map(|spec| spec.name.as_str()).collect();
            let message = format!("there is no tool named `{name}`");
            let output = json!({"error": message, "available": known}).to_string();
            return Err(Refusal { output, shown: json!({}) });
        };
        interpret(tool, arguments)
    }
}

/// What a call of this tool asks for.
///
/// # Errors
/// [`Refusal`] for arguments that do not fit its schema.
pub fn interpret(tool: &Tool, arguments: &str) -> Result<Job, Refusal> {
    let definition = &tool.definition;
    let refused = |message: String, problems: &[String], shown| {
        Err(Refusal { output: schema::refusal(&message, problems), shown })
    };
    let arguments = match schema::parse(arguments) {
        Ok(arguments) => arguments,
        Err(cause) => return refused(format!("`{}` was not run: {cause}", definition.name), &[], json!({})),
    };
    let shown = mask::masked(&definition.parameters, &arguments);
    let problems = tool.schema.problems(&arguments);
    if !problems.is_empty() {
        let message = format!(
            "`{}` was not run: its arguments do not fit; call it again with better ones",
            definition.name
        );
        return refused(message, &problems, mask::masked_misfit(&definition.parameters, &arguments));
    }
    let work = match &tool.handler {
        Handler::Call(act) => match act(&arguments) {
            Ok(action) => Work::Act(action),
            Err(cause) => return refused(format!("`{}` was not run", definition.name), &[cause], shown),
        },
        Handler::Remote(remote) => Work::Remote(Arc::clone(remote)),
    };
    Ok(Job {
        work,
        arguments,
        shown,
        timeout: definition.timeout,
        speak: definition.speak.clone(),
        cancel_on_barge_in: definition.cancel_on_barge_in,
    })
}

/// Tools that services take.
const TOOLS_MOST: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::builtin;

    #[test]
    fn what_fits_comes_out_as_an_action_and_its_secrets_masked() {
        let job = toolbox().interpret("send_dtmf", r#"{"digits":"12a#"}"#).ok().unwrap();
        assert!(matches!(job.work, Work::Act(Action::SendDtmf { digits }) if digits == "12A#"));
        assert_eq!(job.shown, json!({"digits": "****"}));
        assert!(matches!(
            toolbox().interpret("end_call", "").ok().unwrap().work,
            Work::Act(Action::EndCall { reason }) if reason == "the conversation is over"
        ));
    }

    #[test]
    fn a_model_is_told_what_to_mend() {
        for (bad, word) in [
            (r#"{"digits":""}"#, "`digits`"),
            (r#"{"digits":"12x"}"#, "`digits`"),
            (r#"{"digits":7}"#, "string"),
            ("{}", "digits"),
            ("not json", "not JSON"),
            ("[1]", "object"),
            (r#"{"digits":"1","x":2}"#, "x"),
        ] {
            let refusal = toolbox().interpret("send_dtmf", bad).err().unwrap();
            assert!(refusal.output.contains(word), "{bad}: {}", refusal.output);
        }
    }

    #[test]
    fn an_unknown_tool_is_refused_in_words_that_name_the_known_ones() {
        let refusal = toolbox().interpret("fly\u{1b}", "{}").err().unwrap();
        let told: Value = serde_json::from_str(&refusal.output).unwrap();
        assert_eq!(told["error"], "there is no tool named `fly`");
        assert!(told["available"].as_array().unwrap().contains(&"end_call".into()));
    }

    fn toolbox() -> Toolbox {
        let tools = builtin::all().into_iter().map(|tool| tool.tool).collect();
        Toolbox::new(tools, Arc::default(), Arc::default())
    }
}

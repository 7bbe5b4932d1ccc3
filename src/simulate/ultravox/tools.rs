//! `selectedTools`: what the model of a call can call.

use std::time::Duration;

use serde_json::Value;

use super::create::duration;
use crate::simulate::error::ApiError;
use crate::simulate::fields::Fields;

/// One tool of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// As the model calls it.
    pub name: String,
    /// How long the client may take.
    pub timeout: Duration,
    /// Who runs it.
    pub by: Runner,
}

/// Who runs a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// The client of the media socket.
    Client,
    /// The service itself, such as `hangUp`.
    Service,
    /// A web server, or the other end of a data connection.
    Elsewhere,
}

/// Reads `selectedTools`, here and in a new stage.
pub fn read_tools(fields: &mut Fields<'_>) -> Result<Vec<Tool>, ApiError> {
    let mut tools: Vec<Tool> = Vec::new();
    for (path, value) in fields.array("selectedTools")?.unwrap_or_default() {
        let mut selected = Fields::of(value, path.clone())?;
        let tool = read_tool(&mut selected, &path)?;
        selected.finish()?;
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(ApiError::invalid(&path, "another tool has the same model tool name."));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn read_tool(selected: &mut Fields<'_>, path: &str) -> Result<Tool, ApiError> {
    let id = selected.nullable_string("toolId")?;
    let named = selected.nullable_string("toolName")?;
    let temporary = selected.object("temporaryTool")?;
    let renamed = selected.nullable_string("nameOverride")?.map(str::to_owned);
    selected.nullable_string("descriptionOverride")?;
    selected.object("authTokens")?;
    selected.object("parameterOverrides")?;
    if usize::from(id.is_some()) + usize::from(named.is_some()) + usize::from(temporary.is_some()) != 1 {
        return Err(ApiError::invalid(path, "exactly one of toolId, toolName and temporaryTool is wanted."));
    }
    let mut tool = match (named, temporary) {
        (_, Some(temporary)) => read_temporary(temporary)?,
        (Some(name), _) if BUILT_IN.contains(&name) => {
            Tool { name: name.to_owned(), timeout: DEFAULT_TIMEOUT, by: Runner::Service }
        }
        _ => return Err(ApiError::invalid(path, "no such tool on this account.")),
    };
    if let Some(name) = renamed {
        check_name(&selected.path_of("nameOverride"), &name)?;
        tool.name = name;
    }
    Ok(tool)
}

fn read_temporary(mut tool: Fields<'_>) -> Result<Tool, ApiError> {
    let name = tool.required_string("modelToolName")?.to_owned();
    check_name(&tool.path_of("modelToolName"), &name)?;
    tool.required_string("description")?;
    let by = read_runner(&mut tool)?;
    read_parameters(&mut tool, by)?;
    let timeout = duration(&mut tool, "timeout")?.unwrap_or(DEFAULT_TIMEOUT);
    if timeout > LONGEST_TIMEOUT {
        return Err(ApiError::invalid(&tool.path_of("timeout"), "at most 40s."));
    }
    tool.boolean("precomputable")?;
    tool.object("requirements")?;
    tool.object("staticResponse")?;
    let reactions = ["SPEAKS", "LISTENS", "SPEAKS_ONCE"].map(|name| format!("AGENT_REACTION_{name}"));
    let reactions: Vec<&str> = reactions.iter().map(String::as_str).collect();
    tool.one_of("defaultReaction", &reactions)?;
    tool.finish()?;
    Ok(Tool { name, timeout, by })
}

fn read_runner(tool: &mut Fields<'_>) -> Result<Runner, ApiError> {
    let http = tool.object("http")?;
    let client = tool.object("client")?;
    let data_connection = tool.object("dataConnection")?;
    let by = match (http, client, data_connection) {
        (None, Some(client), None) => {
            client.finish()?;
            Runner::Client
        }
        (Some(mut http), None, None) => {
            http.required_string("baseUrlPattern")?;
            http.required_string("httpMethod")?;
            http.finish()?;
            Runner::Elsewhere
        }
        (None, None, Some(connection)) => {
            connection.finish()?;
            Runner::Elsewhere
        }
        _ => {
            let why = "exactly one of http, client and dataConnection is wanted.";
            return Err(ApiError::invalid(&tool.path_of("client"), why));
        }
    };
    Ok(by)
}

fn read_parameters(tool: &mut Fields<'_>, by: Runner) -> Result<(), ApiError> {
    for (path, value) in tool.array("dynamicParameters")?.unwrap_or_default() {
        let mut parameter = Fields::of(value, path)?;
        read_place(&mut parameter, by)?;
        if parameter.object("schema")?.is_none() {
            return Err(ApiError::missing(&parameter.path_of("schema")));
        }
        parameter.boolean("required")?;
        parameter.finish()?;
    }
    for (path, value) in tool.array("staticParameters")?.unwrap_or_default() {
        let mut parameter = Fields::of(value, path)?;
        read_place(&mut parameter, by)?;
        if parameter.value("value").is_none_or(Value::is_null) {
            return Err(ApiError::missing(&parameter.path_of("value")));
        }
        parameter.finish()?;
    }
    for (path, value) in tool.array("automaticParameters")?.unwrap_or_default() {
        let mut parameter = Fields::of(value, path)?;
        read_place(&mut parameter, by)?;
        parameter.required_one_of("knownValue", &KNOWN_VALUES)?;
        parameter.finish()?;
    }
    Ok(())
}

fn read_place(parameter: &mut Fields<'_>, by: Runner) -> Result<(), ApiError> {
    if parameter.required_string("name")?.is_empty() {
        return Err(ApiError::invalid(&parameter.path_of("name"), "it is empty."));
    }
    let location = parameter.required_one_of("location", &LOCATIONS)?;
    if by == Runner::Client && location != "PARAMETER_LOCATION_BODY" {
        let why = "client tools take PARAMETER_LOCATION_BODY only.";
        return Err(ApiError::invalid(&parameter.path_of("location"), why));
    }
    Ok(())
}

fn check_name(path: &str, name: &str) -> Result<(), ApiError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(ApiError::invalid(path, "1 to 64 of a-z, A-Z, 0-9, _ and - are wanted."))
}

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(2_500);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(40);
const BUILT_IN: [&str; 6] =
    ["hangUp", "queryCorpus", "playDtmfSounds", "leaveVoicemail", "coldTransfer", "warmTransfer"];
const LOCATIONS: [&str; 4] = [
    "PARAMETER_LOCATION_BODY",
    "PARAMETER_LOCATION_QUERY",
    "PARAMETER_LOCATION_PATH",
    "PARAMETER_LOCATION_HEADER",
];
const KNOWN_VALUES: [&str; 6] = [
    "KNOWN_PARAM_CALL_ID",
    "KNOWN_PARAM_CONVERSATION_HISTORY",
    "KNOWN_PARAM_OUTPUT_SAMPLE_RATE",
    "KNOWN_PARAM_CALL_STATE",
    "KNOWN_PARAM_CALL_STAGE_ID",
    "KNOWN_PARAM_CALL_METADATA",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(tool: Value) -> Result<Vec<Tool>, ApiError> {
        let body = json!({"selectedTools": [tool]});
        read_tools(&mut Fields::of(&body, "").unwrap())
    }

    #[test]
    fn a_tool_has_one_runner_and_fitting_parameters() {
        let tool = |change: &str, value: Value| {
            let mut tool = json!({"modelToolName": "t", "description": "d", "client": {}});
            tool[change] = value;
            read(json!({"temporaryTool": tool})).map_err(|error| error.param.unwrap_or_default())
        };
        assert_eq!(tool("description", json!("d")).unwrap()[0].timeout, DEFAULT_TIMEOUT);
        let at = "selectedTools[0].temporaryTool";
        assert_eq!(tool("timeout", json!("41s")).unwrap_err(), format!("{at}.timeout"));
        assert_eq!(tool("modelToolName", json!("a b")).unwrap_err(), format!("{at}.modelToolName"));
        assert_eq!(tool("dataConnection", json!({})).unwrap_err(), format!("{at}.client"));
        let query = json!([{"name": "x", "location": "PARAMETER_LOCATION_QUERY", "schema": {}}]);
        let wrong = format!("{at}.dynamicParameters[0].location");
        assert_eq!(tool("dynamicParameters", query).unwrap_err(), wrong);
        assert_eq!(read(json!({"toolName": "hangUp"})).unwrap()[0].by, Runner::Service);
        assert!(read(json!({"toolName": "hangUp", "toolId": "x"})).is_err());
    }
}

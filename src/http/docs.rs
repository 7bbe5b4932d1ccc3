//! The API's own documentation: OpenAPI for machines, a page for people, both from one list.

use axum::Json;
use axum::response::Html;
use serde_json::{Map, Value, json};

/// One operation of the API.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: &'static [(&'static str, &'static str)],
    body: Option<&'static str>,
    statuses: &'static [(u16, &'static str)],
    open: bool,
}

const OPERATIONS: &[Operation] = &[
    Operation {
        method: "get",
        path: "/health",
        summary: "The process runs and answers.",
        query: &[],
        body: None,
        statuses: &[(200, "Alive")],
        open: true,
    },
    Operation {
        method: "get",
        path: "/ready",
        summary: "Whether calls can be taken: store, SIP sockets, a usable provider, not draining.",
        query: &[],
        body: None,
        statuses: &[(200, "Ready"), (503, "Not ready, with every reason")],
        open: true,
    },
    Operation {
        method: "post",
        path: "/hooks/ultravox/{provider}",
        summary: "Takes the webhooks of an Ultravox agent that is called by SIP; they are signed.",
        query: &[],
        body: None,
        statuses: &[
            (204, "Taken"),
            (400, "No event of a call"),
            (401, "Not signed, or too old"),
            (404, "No such provider"),
        ],
        open: true,
    },
    Operation {
        method: "get",
        path: "/metrics",
        summary: "Counters, gauges and histograms as Prometheus text.",
        query: &[],
        body: None,
        statuses: &[(200, "Prometheus text")],
        open: true,
    },
    Operation {
        method: "get",
        path: "/api/v1/calls",
        summary: "Calls, latest first.",
        query: &[
            ("limit", "1 to 200, default 50"),
            ("after", "cursor from `next_cursor`"),
            ("from", "calling number"),
            ("to", "called number"),
            ("organization", "owner"),
            ("assistant", "assistant"),
            ("outcome", "disposition"),
            ("since", "RFC 3339"),
            ("until", "RFC 3339"),
            ("live", "true or false"),
        ],
        body: None,
        statuses: &[(200, "A page: data, has_more, next_cursor"), (401, "No token"), (422, "Bad parameters")],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/calls",
        summary: "Starts a call; needs an Idempotency-Key header, new for each call. An assistant, or the flow of a \
                  number of yours, runs once somebody answers.",
        query: &[],
        body: Some(
            r#"{"to": "+15550123", "assistant": "reception", "organization": "acme", "from": "+15550100", "timeout_s": 30}"#,
        ),
        statuses: &[
            (202, "The id; nothing is dialled yet"),
            (400, "No Idempotency-Key"),
            (403, "Read only"),
            (409, "The key came with another body"),
            (422, "All that is wrong"),
            (503, "No room for the call"),
        ],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/calls/{id}/transfer",
        summary: "Moves a call: somebody else takes the place of the callee or the assistant once they answer; a number of the organization runs its flow; dialplan:EXTEN@CONTEXT and queue:NAME send a caller on a channel of the PBX there.",
        query: &[],
        body: Some(r#"{"to": "+15550123", "trunk": "optional"}"#),
        statuses: &[
            (202, "It is tried; call.transfer events say how it ends"),
            (403, "Read only"),
            (404, "No such call"),
            (409, "It has ended, is not answered, or is being transferred already"),
            (422, "No target"),
        ],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/announcements",
        summary: "Announces a call that will come by AudioSocket or an Asterisk WebSocket with a key of its own.",
        query: &[],
        body: Some(r#"{"to": "100", "from": "+15550123", "ttl_s": 60}"#),
        statuses: &[
            (201, "The key: a UUID that is good once"),
            (403, "Read only"),
            (409, "The key given is in use"),
            (422, "All that is wrong"),
            (503, "The organization has announced too many that have not come"),
        ],
        open: false,
    },
    Operation {
        method: "delete",
        path: "/api/v1/announcements/{key}",
        summary: "Takes an announcement back.",
        query: &[],
        body: None,
        statuses: &[(204, "Done"), (403, "Read only"), (404, "Not expected, or another organization's")],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/calls/{id}/hold",
        summary: "Puts the parties of a bridged call on hold, or takes them back.",
        query: &[],
        body: Some(r#"{"on": true}"#),
        statuses: &[
            (202, "Done"),
            (403, "Read only"),
            (404, "No such call"),
            (409, "It has ended, or is not joined with another party"),
        ],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/calls/{id}/dtmf",
        summary: "Presses keys towards the party; of a bridged call, the callee.",
        query: &[],
        body: Some(r#"{"digits": "123#"}"#),
        statuses: &[
            (202, "Told"),
            (403, "Read only"),
            (404, "No such call"),
            (409, "It has ended"),
            (422, "No keys"),
        ],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/calls/{id}",
        summary: "One call's record.",
        query: &[],
        body: None,
        statuses: &[(200, "The record"), (401, "No token"), (404, "No such call")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/calls/{id}/transcript",
        summary: "What was said, what of it was heard, and where another provider went on.",
        query: &[("format", "json, text or vtt")],
        body: None,
        statuses: &[(200, "The lines"), (401, "No token"), (404, "No such call")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/calls/{id}/cost",
        summary: "What a call has cost so far. Amounts are whole numbers of 10^-scale units of the currency; `amount` null: it has no price.",
        query: &[],
        body: None,
        statuses: &[(200, "The sum and each thing used"), (401, "No token"), (404, "No such call")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/costs",
        summary: "Sums over the calls that began within a time. `unpriced_calls` have used something without a price.",
        query: &[
            ("from", "RFC 3339; default: the beginning of today, UTC"),
            ("to", "RFC 3339; default: now"),
            ("by", "organization, assistant, day, provider or model; default day"),
            ("organization", "owner"),
        ],
        body: None,
        statuses: &[(200, "The sums"), (401, "No token"), (422, "Bad parameters")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/calls/{id}/events",
        summary: "Durable events of a call after a number, in order.",
        query: &[("since", "number of the last event known"), ("limit", "1 to 200, default 50")],
        body: None,
        statuses: &[(200, "A page"), (401, "No token"), (404, "No such call")],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/calls/{id}/end",
        summary: "Ends a live call.",
        query: &[],
        body: Some(r#"{"reason": "text, optional"}"#),
        statuses: &[(202, "Told"), (403, "Read only"), (404, "No such call"), (409, "It has ended")],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/calls/{id}/say",
        summary: "Lets the assistant of a live call say these words.",
        query: &[],
        body: Some(r#"{"text": "1 to 2000 characters"}"#),
        statuses: &[(202, "Told"), (403, "Read only"), (404, "No such call"), (409, "It has ended")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/calls/{id}/trace",
        summary: "The call's SIP messages by time, secrets masked, and what became of its media.",
        query: &[],
        body: None,
        statuses: &[(200, "Messages and media"), (404, "No such call")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/calls/{id}/pcap",
        summary: "The call's SIP messages as a capture file (pcap, raw IP).",
        query: &[],
        body: None,
        statuses: &[(200, "The file"), (404, "No such call, or none of its messages is kept")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/events",
        summary: "The live feed: a WebSocket, sub-protocol tandem.console.v1; topics wall, call:{id}, system.",
        query: &[("ticket", "single-use ticket, instead of a token")],
        body: None,
        statuses: &[(101, "Upgraded"), (401, "No token"), (403, "Another origin")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/ari",
        summary: "Whether the PBX behind [ari] is connected, its release, and how many legs it has.",
        query: &[],
        body: None,
        statuses: &[
            (200, "The state"),
            (401, "No token"),
            (403, "A token of one organization"),
            (409, "No [ari] is configured"),
        ],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/ari/channels",
        summary: "All channels of the PBX, and which of them are legs of calls here.",
        query: &[],
        body: None,
        statuses: &[
            (200, "Channels"),
            (401, "No token"),
            (403, "A token of one organization"),
            (409, "No [ari] is configured"),
            (503, "The PBX does not answer"),
        ],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/ari/channels/{id}/listen",
        summary: "Lets the flow of a number hear what is said on a channel of the PBX, both ways; nobody there hears it.",
        query: &[],
        body: Some(r#"{"to": "200"}"#),
        statuses: &[
            (202, "The leg; it becomes a call of its own"),
            (401, "No token"),
            (403, "Administrators only"),
            (404, "No such channel"),
            (409, "No [ari] is configured"),
            (422, "Nobody to hear it"),
            (502, "The PBX refused"),
            (503, "The PBX does not answer"),
        ],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/trunks",
        summary: "State, targets and registrations of every trunk.",
        query: &[],
        body: None,
        statuses: &[(200, "Trunks"), (401, "No token"), (403, "A token of one organization")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/trunks/{name}",
        summary: "State, targets and registrations of one trunk.",
        query: &[],
        body: None,
        statuses: &[(200, "The trunk"), (401, "No token"), (403, "Not permitted"), (404, "Unknown trunk")],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/trunks/{name}/test",
        summary: "Look the trunk's names up, ask its targets by OPTIONS, register anew; up to 25 s.",
        query: &[],
        body: None,
        statuses: &[(200, "Each step"), (401, "No token"), (403, "Not permitted"), (404, "Unknown trunk")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/providers",
        summary: "The AI providers with the state of their circuit breakers and keys.",
        query: &[],
        body: None,
        statuses: &[(200, "All providers"), (401, "No token"), (403, "Not permitted")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/providers/{name}",
        summary: "One provider: whether it can be used, and why not.",
        query: &[],
        body: None,
        statuses: &[
            (200, "The provider"),
            (401, "No token"),
            (403, "Not permitted"),
            (404, "Unknown provider"),
        ],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/providers/{name}/check",
        summary: "Opens a session and closes it again; a success also closes a breaker that is half open.",
        query: &[],
        body: None,
        statuses: &[
            (200, "Whether it opened, how long it took, or why not"),
            (401, "No token"),
            (403, "Not permitted"),
            (404, "Unknown provider"),
        ],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/providers/{name}/reset",
        summary: "Closes the circuit breaker and ends the rest of every key.",
        query: &[],
        body: None,
        statuses: &[
            (200, "The provider"),
            (401, "No token"),
            (403, "Not permitted"),
            (404, "Unknown provider"),
        ],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/providers/{name}/keys",
        summary: "The provider's API keys by their fingerprints. A token of one organization sees its own.",
        query: &[],
        body: None,
        statuses: &[(200, "The keys"), (401, "No token"), (403, "Not permitted"), (404, "Unknown provider")],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/providers/{name}/keys",
        summary: "Keeps an API key, sealed, and uses it from here on: for one organization, or for all that have \
                  none of their own.",
        query: &[],
        body: Some(r#"{"key": "sk-...", "organization": "acme"}"#),
        statuses: &[
            (201, "Its id and fingerprint"),
            (400, "Not of this shape"),
            (401, "No token"),
            (403, "Not permitted"),
            (404, "Unknown provider or organization"),
            (409, "No master key, or the key is there already"),
            (422, "This is no key"),
        ],
        open: false,
    },
    Operation {
        method: "delete",
        path: "/api/v1/providers/{name}/keys/{id}",
        summary: "Removes a kept API key; no new session uses it.",
        query: &[],
        body: None,
        statuses: &[(204, "Removed"), (401, "No token"), (403, "Not permitted"), (404, "Unknown key")],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/provider-keys/rotate",
        summary: "Seals every kept API key anew under the present master key.",
        query: &[],
        body: None,
        statuses: &[
            (200, "How many, and which do not open"),
            (401, "No token"),
            (403, "Not permitted"),
            (409, "No master key"),
        ],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/ws-tickets",
        summary: "A single-use pass of 30 s for the live feed.",
        query: &[],
        body: None,
        statuses: &[(201, "The ticket"), (401, "No token")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/me",
        summary: "What this token is.",
        query: &[],
        body: None,
        statuses: &[(200, "Name, role, organization"), (401, "No token")],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/apply",
        summary: "Declares resources (TOML as for `tandem apply`); idempotent, all or nothing.",
        query: &[],
        body: Some("resources.toml"),
        statuses: &[(200, "What changed"), (403, "Administrators only"), (422, "All that is wrong")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/organizations",
        summary: "Organizations.",
        query: &[],
        body: None,
        statuses: &[(200, "The list"), (401, "No token")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/assistants",
        summary: "Assistants.",
        query: &[],
        body: None,
        statuses: &[(200, "The list"), (401, "No token")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/numbers",
        summary: "Numbers and their flows.",
        query: &[],
        body: None,
        statuses: &[(200, "The list"), (401, "No token")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/phones",
        summary: "Phones, and where they are registered.",
        query: &[],
        body: None,
        statuses: &[(200, "The list"), (401, "No token")],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/phones",
        summary: "Makes a phone, or changes the one of this user. Of its password only hashes are kept. `trunks`: those it may call out over, default none.",
        query: &[],
        body: Some(
            r#"{"organization": "acme", "user": "101", "password": "...", "number": "+15550142", "trunks": []}"#,
        ),
        statuses: &[
            (200, "Changed, or so already"),
            (201, "New"),
            (403, "Not an administrator"),
            (404, "No such organization"),
            (409, "Another organization's user"),
            (422, "Some fields are wrong"),
        ],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/phones/{user}",
        summary: "One phone, and where it is registered.",
        query: &[],
        body: None,
        statuses: &[(200, "The phone"), (404, "No such phone")],
        open: false,
    },
    Operation {
        method: "delete",
        path: "/api/v1/phones/{user}",
        summary: "Removes a phone and its registrations; calls go on.",
        query: &[],
        body: None,
        statuses: &[(204, "Removed"), (403, "Not an administrator"), (404, "No such phone")],
        open: false,
    },
    Operation {
        method: "get",
        path: "/api/v1/tools",
        summary: "What assistants can do: built in, of organizations, of MCP servers.",
        query: &[
            ("all", "true: also those that wait for a part of Tandem that is not there yet"),
            ("organization", "only those its assistants can use"),
        ],
        body: None,
        statuses: &[(200, "The list, and the MCP servers"), (401, "No token")],
        open: false,
    },
    Operation {
        method: "post",
        path: "/api/v1/tools/{name}/test",
        summary: "Checks arguments, and runs a webhook or an MCP tool with them as a model would. What runs needs an \
                  Idempotency-Key header; the tool is told it, so that a repeated trial does nothing twice.",
        query: &[],
        body: Some(r#"{"organization": "acme", "arguments": {"order": "8841"}}"#),
        statuses: &[
            (200, "What came of it: valid, ran, ok, outcome, ms, output"),
            (400, "No Idempotency-Key for a tool that runs"),
            (403, "Read only"),
            (404, "No such tool"),
        ],
        open: false,
    },
    Operation {
        method: "delete",
        path: "/api/v1/tools/{name}",
        summary: "Removes a tool of an organization; calls that have it keep it.",
        query: &[("organization", "whose it is")],
        body: None,
        statuses: &[
            (204, "Removed"),
            (403, "Not an administrator"),
            (404, "No such tool"),
            (422, "No organization"),
        ],
        open: false,
    },
];

const ERRORS: &[(&str, &str)] = &[
    ("bad_request", "The body or a parameter is not what it should be; the detail says how it must look."),
    ("unauthorized", "No valid token. `tandem token create --role admin` makes one."),
    ("forbidden", "The token's role or organization does not allow this."),
    ("not_found", "There is no such path or record, or none this token may see."),
    ("method_not_allowed", "The path exists, but not with this method."),
    ("conflict", "Not possible in this state, such as a command to a call that has ended."),
    ("invalid", "Some fields are wrong; `errors` lists all of them."),
    ("too_large", "The body is larger than this server takes."),
    ("unavailable", "The store or the call does not answer now. Try again."),
];

/// `GET /api/v1/openapi.json`.
pub async fn openapi() -> Json<Value> {
    Json(document())
}

/// `GET /docs`.
pub async fn page() -> Html<String> {
    let rows = OPERATIONS.iter().map(|op| {
        let query = op.query.iter().map(|(name, what)| format!("<li><code>{name}</code>: {what}</li>"));
        let query = query.collect::<String>();
        let body = op.body.map(|body| format!("<p>Body: <code>{body}</code></p>")).unwrap_or_default();
        let statuses = op.statuses.iter().map(|(status, what)| format!("<li>{status}: {what}</li>"));
        format!(
            "<section><h2><code>{} {}</code></h2><p>{}</p>{body}<ul>{query}</ul><ul>{}</ul></section>",
            op.method.to_uppercase(),
            op.path,
            op.summary,
            statuses.collect::<String>()
        )
    });
    html("Tandem API", &rows.collect::<String>())
}

/// `GET /docs/errors`: what the `type` of a problem document links to.
pub async fn errors() -> Html<String> {
    let rows = ERRORS.iter().map(|(code, what)| format!("<dt id=\"{code}\">{code}</dt><dd>{what}</dd>"));
    html("Tandem API: errors", &format!("<dl>{}</dl>", rows.collect::<String>()))
}

fn html(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <h1>{title}</h1><p>Machine-readable: <a href=\"/api/v1/openapi.json\">OpenAPI 3.1</a> · \
         <a href=\"/docs/errors\">errors</a></p>{body}</html>"
    ))
}

fn document() -> Value {
    let mut paths = Map::new();
    for op in OPERATIONS {
        let entry = paths.entry(op.path).or_insert_with(|| json!({}));
        entry[op.method] = operation(op);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Tandem", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "code"],
                "properties": {
                    "type": {"type": "string"}, "title": {"type": "string"},
                    "status": {"type": "integer"}, "detail": {"type": "string"},
                    "code": {"enum": ERRORS.iter().map(|(code, _)| *code).collect::<Vec<_>>()},
                    "request_id": {"type": "string"}, "retryable": {"type": "boolean"},
                    "errors": {"type": "array"}
                }
            }}
        },
    })
}

fn operation(op: &Operation) -> Value {
    let names = op.path.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    let in_path = names
        .map(|(name, _)| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = op.query.iter().map(
        |(name, what)| json!({"name": name, "in": "query", "description": what, "schema": {"type": "string"}}),
    );
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let responses: Map<String, Value> = op
        .statuses
        .iter()
        .map(|(status, what)| {
            let problem =
                json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
            let mut response = json!({"description": what});
            if *status >= 400 && !op.open {
                response["content"] = problem;
            }
            (status.to_string(), response)
        })
        .collect();
    let mut document = json!({"summary": op.summary, "parameters": parameters, "responses": responses});
    if !op.open {
        document["security"] = json!([{"token": []}]);
    }
    if let Some(body) = op.body {
        let kind = if body.starts_with('{') { "application/json" } else { "application/toml" };
        document["requestBody"] = json!({"content": {kind: {"schema": {}, "example": body}}});
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_in_the_document_with_its_answers() {
        let document = document();
        for op in OPERATIONS {
            let entry = &document["paths"][op.path][op.method];
            assert_eq!(entry["responses"].as_object().map(Map::len), Some(op.statuses.len()), "{}", op.path);
            assert_eq!(entry.get("security").is_some(), !op.open, "{}", op.path);
        }
    }
}

//! The API's own documentation: OpenAPI for machines, a page for people, both from one list.

use axum::Json;
use axum::response::Html;
use serde_json::{Map, Value, json};

mod operations;

use operations::{OPERATIONS, Operation};

const ERRORS: &[(&str, &str)] = &[
    ("bad_request", "The body or a parameter is not what it should be; the detail says how it must look."),
    ("unauthorized", "No valid token. `tandem token create --role admin` makes one."),
    ("forbidden", "The token's role or organization does not allow this."),
    ("not_found", "There is no such path or record, or none this token may see."),
    ("method_not_allowed", "The path exists, but not with this method."),
    ("conflict", "Not possible in this state, such as a command to a call that has ended."),
    ("invalid", "Some fields are wrong; `errors` lists all of them."),
    ("too_large", "The body is larger than this server takes."),
    ("pbx_refused", "The PBX refuses, cannot be reached or does not answer; the detail says which."),
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

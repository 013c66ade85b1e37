//! The OpenAPI document (version 3.1), made of the list of calls and of the types that answer them.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::fields::KEY;
use super::routes::{PREFIXES, ROUTES, Refused, Route};
use crate::policy::Diagnostic;
use crate::settings::Role;

/// Where schemas are in the document.
const SCHEMAS: &str = "/components/schemas";

/// The document, the same for every run of one version.
pub fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| settings.definitions_path = SCHEMAS.into())
        .into_generator();
    let mut paths = Map::new();
    for (nth, prefix) in PREFIXES.into_iter().enumerate() {
        for route in ROUTES {
            let call = operation(route, nth, &mut generator);
            paths.insert(format!("{prefix}/{}", route.name), json!({ "post": call }));
        }
    }
    let own = json!({ "description": "This document.", "content": content(&json!({ "type": "object" })) });
    let get = json!({ "operationId": "openapi", "summary": "This document.", "security": [],
                      "responses": { "200": own } });
    paths.insert("/openapi.json".to_owned(), json!({ "get": get }));
    let text = json!({ "text/plain": { "schema": { "type": "string" } } });
    let told = json!({ "description": "Prometheus' text format.", "content": text });
    let missing = json!({ "description": "`api.metrics` is not set.", "content": content(&json!({ "$ref": format!("#{SCHEMAS}/Refusal") })) });
    let about = "Counters for Prometheus, without a key; only if the settings say so.";
    let get = json!({ "operationId": "metrics", "summary": about, "security": [],
                      "responses": { "200": told, "404": missing } });
    paths.insert(super::call::METRICS.to_owned(), json!({ "get": get }));

    let refused = json!({ "allOf": [generator.subschema_for::<Diagnostic>()] });
    let mut schemas = policy_schemas();
    schemas.extend(generator.take_definitions(true));
    schemas.insert("Refusal".to_owned(), refusal(&refused));
    schemas.sort_keys();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Clawgress",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0" },
            "description": "The REST API of the egress gateway. Every answer has one envelope: `success`, `data`, `error`. \
                            The key stands in the body (`key`) or in an `Authorization: Bearer` header.",
        },
        "security": [{ "bearer": [] }, {}],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas,
        },
    })
}

fn operation(route: &Route, nth: usize, generator: &mut SchemaGenerator) -> Value {
    let mut properties = Map::new();
    properties.insert(
        KEY.to_owned(),
        json!({ "type": "string", "description": "The key. Not needed with an Authorization header." }),
    );
    for field in route.fields {
        let mut schema = field.kind.schema();
        schema["description"] = field.about.into();
        properties.insert(field.name.to_owned(), schema);
    }
    let required: Vec<&str> = route.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut body = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        body["required"] = required.into();
    }
    let done = json!({
        "type": "object",
        "required": ["success", "data", "error"],
        "properties": { "success": { "const": true }, "data": (route.data)(generator), "error": { "type": "null" } },
    });
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({ "description": "Done.", "content": content(&done) }));
    for (status, when) in statuses(route) {
        let schema = json!({ "$ref": format!("#{SCHEMAS}/Refusal") });
        responses.insert(status.to_owned(), json!({ "description": when, "content": content(&schema) }));
    }
    // Operation ids are unique, and the same path under the other prefix is the same call.
    let id = if nth == 0 { route.name.to_owned() } else { format!("{}_{nth}", route.name) };
    json!({
        "operationId": id,
        "summary": route.about,
        "requestBody": { "required": true, "content": content(&body) },
        "responses": responses,
    })
}

/// What can be answered besides 200, in ascending order.
fn statuses(route: &Route) -> Vec<(&'static str, &'static str)> {
    let has = |refused| route.refusals.contains(&refused);
    let all = [
        (true, "400", "Not JSON, a field that is wrong, or an invalid policy: nothing changed."),
        (true, "401", "The key is missing or not known."),
        (route.role == Role::Write, "403", "The key may read only."),
        (has(Refused::NotFound), "404", "There is no such revision."),
        (true, "408", "The body did not come in time."),
        (has(Refused::Conflict), "409", "It does not fit what is in force now: nothing changed."),
        (true, "413", "The body is over 16 MiB."),
        (true, "415", "The body is not declared as application/json."),
        (true, "429", "Too many wrong keys from this address, or too many large bodies at once; see Retry-After."),
        (has(Refused::Failed), "500", "The kernel or the disk refused; what was enforced is still enforced."),
    ];
    all.into_iter().filter(|(possible, ..)| *possible).map(|(_, status, when)| (status, when)).collect()
}

fn content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn refusal(mistake: &Value) -> Value {
    json!({
        "description": "It was not done.",
        "type": "object",
        "required": ["success", "data", "error"],
        "properties": {
            "success": { "const": false },
            "data": { "type": "null" },
            "error": { "type": "string", "description": "Why, one line." },
            "errors": { "type": "array", "items": mistake,
                        "description": "Every mistake of a policy or a body, each with its place." },
        },
    })
}

/// The policy's own schema, its definitions moved to where this document keeps such.
fn policy_schemas() -> Map<String, Value> {
    let mut schema = crate::policy::schema();
    move_references(&mut schema);
    let mut schemas = Map::new();
    if let Value::Object(fields) = &mut schema {
        fields.shift_remove("$schema");
        if let Some(Value::Object(definitions)) = fields.shift_remove("$defs") {
            schemas.extend(definitions.into_iter().map(|(name, schema)| (format!("Policy.{name}"), schema)));
        }
    }
    schemas.insert("Policy".to_owned(), schema);
    schemas
}

fn move_references(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/$defs/")
            {
                *target = format!("#{SCHEMAS}/Policy.{name}");
            }
            fields.values_mut().for_each(move_references);
        }
        Value::Array(list) => list.iter_mut().for_each(move_references),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references<'d>(value: &'d Value, found: &mut Vec<&'d str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for target in found {
            let pointer = target.strip_prefix('#').unwrap_or_else(|| panic!("{target} leads out of the document"));
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
    }

    #[test]
    fn nothing_points_to_what_readers_do_not_have() {
        assert!(!document().to_string().contains("SPEC"));
    }

    #[test]
    fn every_call_is_there_under_both_prefixes() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), 2 * ROUTES.len() + 2);
        for route in ROUTES {
            let [one, other] = PREFIXES.map(|prefix| &paths[&format!("{prefix}/{}", route.name)]["post"]);
            assert_eq!(one["requestBody"], other["requestBody"]);
            assert_ne!(one["operationId"], other["operationId"]);
        }
    }
}

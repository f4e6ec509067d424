// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The JSON schema of the file, for editors: from the same table as the reference.
//!
//! It allows what the reader allows, of which it cannot say everything: it knows nothing of ranges that overlap, for one.

use serde_json::{Map, Value, json};

use crate::keys::{Form, KeyDescription, Section};

/// What a section is called in the schema.
fn name(section: Section) -> &'static str {
    match section {
        Section::File => "file",
        Section::Cvm => "cvm",
        Section::Isolation => "isolation",
        Section::Grant => "grant",
        Section::Limits => "limits",
        Section::Net => "net",
        Section::Capfile => "capfile",
    }
}

fn reference_to(section: Section) -> Value {
    json!({ "$ref": format!("#/$defs/{}", name(section)) })
}

/// A scalar that is taken as the text that was written.
fn text() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

/// Something, or a list of such.
fn one_or_more(items: Value) -> Value {
    json!({ "anyOf": [items, { "type": "array", "items": items, "minItems": 1 }] })
}

/// A number, or a text that is one.
fn number(number: Value, text: &str) -> Value {
    json!({ "anyOf": [number, { "type": "string", "pattern": text }] })
}

fn form(form: Form) -> Value {
    match form {
        Form::Text => text(),
        Form::Words | Form::Patterns | Form::Texts => one_or_more(text()),
        Form::TextOr(section) => json!({ "anyOf": [text(), reference_to(section)] }),
        Form::Integer { min, max } => number(
            json!({ "type": "integer", "minimum": min, "maximum": max }),
            "^-?[0-9_]+$",
        ),
        Form::Hex => number(
            json!({ "type": "integer", "minimum": 0 }),
            "^(0[xX])?[0-9a-fA-F_]+$",
        ),
        Form::Bytes { min, max, multiple } => number(
            json!({ "type": "integer", "minimum": min, "maximum": max, "multipleOf": multiple }),
            "^([0-9_]+[KMGkmg]?|0[xX][0-9a-fA-F_]+)$",
        ),
        Form::Switch => json!({ "enum": [0, 1, false, true, "0", "1", "false", "true"] }),
        Form::OneOf(words) => json!({ "enum": words }),
        Form::List(section) => json!({ "type": "array", "items": reference_to(section) }),
        Form::Mapping(section) => reference_to(section),
    }
}

fn described(key: &KeyDescription) -> Value {
    let mut value = form(key.form);
    if let Some(object) = value.as_object_mut() {
        let text = format!("{} Value: {}.", key.meaning, key.value);
        object.insert("description".to_owned(), Value::String(text));
    }
    value
}

fn section(section: Section) -> Value {
    let properties: Map<String, Value> = section
        .keys()
        .map(|key| (key.name.to_owned(), described(key)))
        .collect();
    let required: Vec<&str> = section
        .keys()
        .filter(|key| key.required)
        .map(|key| key.name)
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The schema, as JSON.
pub fn schema() -> String {
    let definitions: Map<String, Value> = Section::ALL
        .into_iter()
        .map(|each| (name(each).to_owned(), section(each)))
        .collect();
    let schema = json!({
        "$comment": "SPDX-License-Identifier: Apache-2.0 OR MIT. Printed by `cargo run -p capstream-config --example schema`; a test compares it.",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The monitor's file",
        "$ref": "#/$defs/file",
        "$defs": definitions,
    });
    format!("{schema:#}\n")
}

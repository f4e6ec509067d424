// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A YAML document as a tree in which every key and value knows its line and scalars are the text that was written: whether `10`
//! is a name, a decimal or a hexadecimal number is up to the key.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::error::{ConfigError, Place};

/// How deep lists and mappings may be nested; no valid file needs more than half of it.
const MAX_DEPTH: usize = 16;

/// A value.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    Scalar(String),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// The key's line, counted from 1.
    pub(crate) line: usize,
    pub(crate) value: Node,
}

impl Value {
    /// What to call it in an error.
    pub(crate) fn describe(&self) -> String {
        match self {
            Value::Null => "empty".to_owned(),
            Value::Scalar(text) => format!("`{}`", text.escape_debug()),
            Value::List(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// A list or a mapping that is not complete.
enum Open {
    List(Vec<Node>),
    /// The entries, and the key whose value comes next.
    Mapping(Vec<Entry>, Option<(String, usize)>),
}

/// Reads the one document of a text.
pub(crate) fn parse(text: &str, file: &str) -> Result<Node, ConfigError> {
    let mut builder = Builder {
        file,
        open: Vec::new(),
        root: None,
        documents: 0,
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let mut message = error.info().to_owned();
            // Patterns of keys invite to it.
            if message.contains("alias") || message.contains("anchor") {
                message += "; write a text that begins with `*` or `&` in quotes";
            }
            builder.wrong(error.marker().line(), message)
        })?;
        builder.event(event, span)?;
    }
    Ok(builder.root.unwrap_or(Node {
        line: 1,
        value: Value::Null,
    }))
}

struct Builder<'a> {
    file: &'a str,
    /// The lists and mappings around the next event, with their lines.
    open: Vec<(Open, usize)>,
    root: Option<Node>,
    documents: usize,
}

impl Builder<'_> {
    fn wrong(&self, line: usize, message: String) -> ConfigError {
        ConfigError::Syntax {
            place: Place {
                file: self.file.to_owned(),
                line: line.max(1),
            },
            message,
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), ConfigError> {
        let line = span.start.line();
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.wrong(
                        line,
                        "a second document begins here; expected one document".to_owned(),
                    ));
                }
                Ok(())
            }
            Event::Alias(_) => Err(self.wrong(
                line,
                "an alias (`*`) is not understood here; write the value out, or in quotes when it begins with `*`".to_owned(),
            )),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => Err(self.wrong(
                line,
                "a tag (`!`) is not understood here; write the value without it".to_owned(),
            )),
            Event::Scalar(text, style, _, None) => {
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if style == ScalarStyle::Plain => {
                        Value::Null
                    }
                    _ => Value::Scalar(text.into_owned()),
                };
                self.place(Node { line, value })
            }
            Event::SequenceStart(_, None) => self.begin(Open::List(Vec::new()), line),
            Event::MappingStart(_, None) => self.begin(Open::Mapping(Vec::new(), None), line),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some((open, line)) = self.open.pop() else {
                    return Ok(());
                };
                let value = match open {
                    Open::List(nodes) => Value::List(nodes),
                    Open::Mapping(entries, _) => Value::Mapping(entries),
                };
                self.place(Node { line, value })
            }
        }
    }

    fn begin(&mut self, open: Open, line: usize) -> Result<(), ConfigError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.wrong(
                line,
                format!("lists and mappings are nested more than {MAX_DEPTH} deep"),
            ));
        }
        self.open.push((open, line));
        Ok(())
    }

    /// Puts a complete value where it belongs.
    fn place(&mut self, node: Node) -> Result<(), ConfigError> {
        let file = self.file;
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((Open::List(nodes), _)) => nodes.push(node),
            Some((Open::Mapping(entries, key), _)) => match key.take() {
                Some((key, line)) => entries.push(Entry {
                    key,
                    line,
                    value: node,
                }),
                None => {
                    let line = node.line;
                    let Value::Scalar(text) = node.value else {
                        let message =
                            format!("a key is {}; expected a word", node.value.describe());
                        return Err(self.wrong(line, message));
                    };
                    if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                        return Err(ConfigError::DuplicateKey {
                            place: Place {
                                file: file.to_owned(),
                                line,
                            },
                            first: first.line,
                            key: text,
                        });
                    }
                    *key = Some((text, line));
                }
            },
        }
        Ok(())
    }
}

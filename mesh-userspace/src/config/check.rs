//! The walk over a file: every mistake that can be seen without looking at another value.

use super::{
    field::{self, Step},
    later::Feature,
    report::{Place, Report},
    shape::{Field, Shape, shape},
    suggest,
    tree::{Entry, Kind, Node, Scalar, quote},
};
use std::collections::BTreeMap;

/// Reports every mistake of a file, and leaves in the tree what is right: a refused value is taken out of its mapping,
/// or marked in its list. So the rules that look at several values still find what they can.
pub(super) fn check(root: &mut Node<'_>, report: &mut Report) {
    let mut walk = Walk { report, steps: Vec::new() };
    if !walk.value(root, shape()) {
        root.kind = Kind::Map(Vec::new());
    }
}

struct Walk<'r> {
    report: &'r mut Report,
    steps: Vec<Step<'static>>,
}

impl Walk<'_> {
    /// Whether the value can be used.
    fn value(&mut self, node: &mut Node<'_>, shape: &'static Shape) -> bool {
        match (shape, &mut node.kind) {
            (_, Kind::Bad) => false,
            (Shape::Map(fields), Kind::Map(_)) => self.mapping(node, fields),
            (Shape::List(item), Kind::List(items)) => {
                for (index, node) in items.iter_mut().enumerate() {
                    self.steps.push(Step::Index(index));
                    if !self.value(node, item) {
                        node.kind = Kind::Bad;
                    }
                    self.steps.pop();
                }
                true
            }
            (Shape::Later(feature), _) => {
                self.feature(node, feature);
                false
            }
            _ => match judge(shape, node) {
                Ok(()) => true,
                Err((problem, remedy)) => {
                    self.mistake(node.at, problem, remedy);
                    false
                }
            },
        }
    }

    fn mapping(&mut self, node: &mut Node<'_>, fields: &'static BTreeMap<String, Field>) -> bool {
        let Kind::Map(entries) = &mut node.kind else { return false };
        let mut refused = Vec::new();
        entries.retain_mut(|entry| {
            let Some((name, field)) = fields.get_key_value(&*entry.key) else {
                self.unknown(entry, fields.keys().map(String::as_str));
                return false;
            };
            // `services:` with nothing after it is what is left when the last item of a list is commented out.
            if entry.value.is_null() && matches!(field.shape, Shape::Map(_) | Shape::List(_) | Shape::Later(_)) {
                return false;
            }
            self.steps.push(Step::Key(name));
            // A mistake in a feature is about the feature, which its key names.
            if matches!(field.shape, Shape::Later(_)) {
                entry.value.at = entry.at;
            }
            let usable = self.value(&mut entry.value, &field.shape);
            self.steps.pop();
            if !usable && field.required {
                refused.push(name);
            }
            usable
        });
        let mut complete = true;
        for (name, _) in fields.iter().filter(|(_, field)| field.required) {
            let written = entries.iter().any(|e| e.key == *name);
            complete &= written;
            if !written && !refused.contains(&name) {
                self.mistake(node.at, format!("the key {name} is missing"), None);
            }
        }
        complete
    }

    fn unknown(&mut self, entry: &Entry<'_>, known: impl Iterator<Item = &'static str>) {
        let known: Vec<&str> = known.collect();
        let remedy = match suggest::nearest(&entry.key, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => {
                let mut found = Vec::new();
                homes(&entry.key, shape(), "", &mut found);
                match found.as_slice() {
                    [] => format!("expected one of {}", known.join(", ")),
                    homes => format!("it belongs in {}", homes.join(" or ")),
                }
            }
        };
        let steps = self.steps.iter().copied().chain([Step::Key(&entry.key)]);
        self.report.mistake(entry.at, field::name(steps), "unknown field", Some(remedy));
    }

    fn feature(&mut self, node: &Node<'_>, feature: &'static Feature) {
        let asked = feature.asked(node);
        for (prefix, entry) in asked.unknown {
            let names = feature.names(&prefix);
            let depth = self.steps.len();
            // The keys of a feature are few and known, those around an unknown one too.
            self.steps.extend(feature.steps(&prefix));
            self.unknown(entry, names.into_iter());
            self.steps.truncate(depth);
        }
        if asked.no_mapping {
            let problem = format!("expected a mapping of {}, found {}", feature.names("").join(", "), node.describe());
            self.mistake(node.at, problem, Some("leave it out: it is not supported yet".to_owned()));
        } else if !asked.keys.is_empty() {
            let problem = match asked.keys.as_slice() {
                [""] => format!("not supported yet: {}", node.describe()),
                keys => format!("not supported yet: {}", keys.join(", ")),
            };
            let remedy = match feature.accepted(&asked.keys) {
                Some(accepted) => format!("leave it out, or write {accepted}"),
                None => "leave it out".to_owned(),
            };
            self.mistake(node.at, problem, Some(remedy));
        }
    }

    fn mistake(&mut self, at: Place, problem: impl Into<String>, remedy: Option<String>) {
        self.report.mistake(at, field::name(self.steps.iter().copied()), problem, remedy);
    }
}

/// Whether a value that is no mapping or list in the right place is right, or what is wrong and what to do.
fn judge(shape: &Shape, node: &Node<'_>) -> Result<(), (String, Option<String>)> {
    let scalar = node.scalar();
    match (shape, scalar) {
        (Shape::Bool, Some(Scalar::Bool(_))) => return Ok(()),
        (Shape::Integer { min, max } | Shape::WordOrInteger { min, max, .. }, Some(Scalar::Integer(number)))
            if (*min..=*max).contains(&number) =>
        {
            return Ok(());
        }
        (Shape::WordOrInteger { word, .. }, Some(Scalar::Text(text))) if text == word => return Ok(()),
        (Shape::Word { words, .. }, Some(Scalar::Text(text))) if words.iter().any(|w| w == text) => return Ok(()),
        (Shape::Word { later, .. }, Some(Scalar::Text(text))) if later.contains(&text) => {
            return Err((format!("{text} is not supported yet; expected {}", expectation(shape)), None));
        }
        (Shape::Text(kind), Some(Scalar::Text(text))) => {
            return (kind.check)(text).map_err(|complaint| {
                (format!("expected {}, found {}", complaint.expected, quote(text)), complaint.remedy)
            });
        }
        _ => {}
    }
    let problem = format!("expected {}, found {}", expectation(shape), node.describe());
    Err((problem, scalar.and_then(|scalar| remedy(shape, scalar))))
}

/// What a value of this shape is, in words that follow "expected".
fn expectation(shape: &Shape) -> String {
    match shape {
        Shape::Map(fields) if fields.len() <= 8 => format!("a mapping of {}", join(fields.keys())),
        Shape::Map(_) | Shape::Later(_) => "a mapping".to_owned(),
        Shape::List(_) => "a list".to_owned(),
        Shape::Word { words, .. } if words.len() == 1 => words.concat(),
        Shape::Word { words, .. } => format!("one of {}", join(words)),
        Shape::Text(kind) => kind.expected.to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Shape::WordOrInteger { word, min, max } => format!("{word} or a whole number from {min} to {max}"),
    }
}

/// What to do about a value of the wrong type.
fn remedy(shape: &Shape, found: Scalar<'_>) -> Option<String> {
    let remedy = match (shape, found) {
        (Shape::List(_) | Shape::Map(_), Scalar::Null) => return None,
        (_, Scalar::Null) => "leave the key out for the default".to_owned(),
        (Shape::List(item), Scalar::Text(text)) => match &**item {
            Shape::Text(_) => format!("write it as a list: [{}]", quote(text)),
            _ => return None,
        },
        (Shape::Map(fields), Scalar::Text(text)) => {
            let mut required = fields.iter().filter(|(_, field)| field.required);
            match (required.next(), required.next()) {
                (Some((name, _)), None) => format!("write {{ {name}: {} }}", quote(text)),
                _ => return None,
            }
        }
        (Shape::Bool, Scalar::Text(text)) => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" => "write true".to_owned(),
            "no" | "off" | "n" | "false" => "write false".to_owned(),
            _ => return None,
        },
        (Shape::Bool, Scalar::Integer(1)) => "write true".to_owned(),
        (Shape::Bool, Scalar::Integer(0)) => "write false".to_owned(),
        (Shape::Integer { .. } | Shape::WordOrInteger { .. }, Scalar::Text(text)) if text.parse::<u64>().is_ok() => {
            "leave the quotes out".to_owned()
        }
        (Shape::Text(kind), Scalar::Integer(number)) => match (kind.check)(&number.to_string()) {
            Ok(()) => format!("put it in quotes: \"{number}\""),
            Err(complaint) => return complaint.remedy,
        },
        (Shape::Text(_), Scalar::Bool(_) | Scalar::Float(_)) => "put text in quotes".to_owned(),
        (Shape::Word { words, .. }, Scalar::Text(text)) => {
            let near = suggest::nearest(text, words.iter().map(String::as_str))?;
            format!("did you mean {near}?")
        }
        _ => return None,
    };
    Some(remedy)
}

/// Where a key belongs that is not known where it stands.
fn homes(key: &str, shape: &Shape, path: &str, found: &mut Vec<String>) {
    match shape {
        Shape::List(item) => homes(key, item, &format!("{path}[]"), found),
        Shape::Map(fields) => {
            for (name, field) in fields {
                if name == key {
                    found.push(if path.is_empty() { "the top level".to_owned() } else { path.to_owned() });
                }
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                homes(key, &field.shape, &path, found);
            }
        }
        _ => {}
    }
}

fn join<'w>(words: impl IntoIterator<Item = &'w String>) -> String {
    words.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

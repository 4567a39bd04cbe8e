//! The walk over a file: every mistake that can be seen without looking at another value.

use super::{
    field::{self, Step},
    judge::{judge, list},
    report::{Place, Report},
    shape::{Field, Shape, shape},
    suggest,
    text::Kind as TextKind,
    tree::{Entry, Kind, Node, quote},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

/// Reports every mistake of a file, and leaves in the tree what is right: a refused value is taken out of its mapping,
/// or marked in its list. So the rules that look at several values still find what they can.
pub(super) fn check(root: &mut Node<'_>, report: &mut Report) {
    let mut walk = Walk { report, steps: Vec::new() };
    if !walk.value(root, shape(), false) {
        root.kind = Kind::Map(Vec::new());
    }
}

struct Walk<'r> {
    report: &'r mut Report,
    steps: Vec<Step<'static>>,
}

impl Walk<'_> {
    /// Whether the value can be used. `optional`: it could be left out.
    fn value(&mut self, node: &mut Node<'_>, shape: &'static Shape, optional: bool) -> bool {
        match (shape, &mut node.kind) {
            (_, Kind::Bad) => false,
            (Shape::Map(fields), Kind::Map(_)) => self.mapping(node, fields),
            (Shape::List(item), Kind::List(items)) => {
                for (index, node) in items.iter_mut().enumerate() {
                    self.steps.push(Step::Index(index));
                    if !self.value(node, item, false) {
                        node.kind = Kind::Bad;
                    }
                    self.steps.pop();
                }
                true
            }
            (Shape::Pairs { key, value }, Kind::Map(entries)) => {
                entries.retain(|entry| self.pair(entry, key, value));
                true
            }
            _ => match judge(shape, node, optional) {
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
                let known: Vec<_> = fields.keys().map(String::as_str).collect();
                self.unknown(entry, &known);
                return false;
            };
            // `services:` with nothing after it is what is left when the last item of a list is commented out.
            if entry.value.is_null() && matches!(field.shape, Shape::Map(_) | Shape::List(_) | Shape::Pairs { .. }) {
                return false;
            }
            self.steps.push(Step::Key(name));
            let usable = self.value(&mut entry.value, &field.shape, !field.required);
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

    /// Whether a pair of a name and a value, both the user's, can be used.
    fn pair(&mut self, entry: &Entry<'_>, key: &TextKind, value: &Shape) -> bool {
        if matches!(entry.value.kind, Kind::Bad) {
            return false;
        }
        let name = |steps: &[Step<'static>]| field::name(steps.iter().copied().chain([Step::Key(&entry.key)]));
        let named = (key.check)(&entry.key);
        if let Err(complaint) = &named {
            let problem = format!("expected {}, found {}", complaint.expected, quote(&entry.key));
            self.report.mistake(entry.at, name(&self.steps), problem, complaint.remedy.clone());
        }
        let judged = judge(value, &entry.value, false);
        if let Err((problem, remedy)) = &judged {
            self.report.mistake(entry.value.at, name(&self.steps), problem, remedy.clone());
        }
        named.is_ok() && judged.is_ok()
    }

    /// A key that is none of `known`.
    fn unknown(&mut self, entry: &Entry<'_>, known: &[&'static str]) {
        let remedy = if entry.key == "<<" {
            "merge keys are not supported: write the values out".to_owned()
        } else if let Some(near) = suggest::nearest(&entry.key, known.iter().copied()) {
            format!("did you mean {near}?")
        } else {
            match homes(&entry.key) {
                [] => format!("expected one of {}", list(known)),
                homes => format!("it belongs in {}", homes.join(" or ")),
            }
        };
        let steps = self.steps.iter().copied().chain([Step::Key(&entry.key)]);
        self.report.mistake(entry.at, field::name(steps), "unknown field", Some(remedy));
    }

    fn mistake(&mut self, at: Place, problem: impl Into<String>, remedy: Option<String>) {
        self.report.mistake(at, field::name(self.steps.iter().copied()), problem, remedy);
    }
}

/// Where a key belongs that is not known where it stands.
fn homes(key: &str) -> &'static [String] {
    static HOMES: LazyLock<HashMap<&str, Vec<String>>> = LazyLock::new(|| {
        let mut homes = HashMap::new();
        collect(shape(), "", &mut homes);
        homes
    });
    HOMES.get(key).map_or(&[], Vec::as_slice)
}

fn collect<'s>(shape: &'s Shape, path: &str, homes: &mut HashMap<&'s str, Vec<String>>) {
    match shape {
        Shape::List(item) => collect(item, &format!("{path}[]"), homes),
        Shape::Map(fields) => {
            for (name, field) in fields {
                let home = if path.is_empty() { "the top level" } else { path };
                homes.entry(name).or_default().push(home.to_owned());
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(&field.shape, &path, homes);
            }
        }
        _ => {}
    }
}

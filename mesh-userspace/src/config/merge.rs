//! Several files → one configuration: sections field by field, services by name, later files win.

use super::{
    field::{self, Step},
    report::{Place, Report},
    tree::{Entry, Kind, Node, Scalar},
};
use std::collections::{HashMap, hash_map};

/// All files as one. Every value still knows the file it came from.
#[derive(Debug)]
pub(super) struct Merged<'t> {
    /// The sections but `services`.
    pub(super) root: Node<'t>,
    pub(super) services: Vec<Service<'t>>,
}

/// One service with what every file says of it.
#[derive(Debug)]
pub(super) struct Service<'t> {
    pub(super) node: Node<'t>,
    /// The files that name it, each with the index it has there.
    origins: Vec<(u16, usize)>,
}

impl<'t> Merged<'t> {
    /// `files` in the order in which they apply, each walked already. The file `runtime` holds what operators changed in
    /// services of other files.
    pub(super) fn new(files: Vec<Node<'t>>, runtime: Option<usize>, report: &mut Report) -> Self {
        let mut root = Node::empty();
        let mut services: Vec<Service<'t>> = Vec::new();
        let mut by_name: HashMap<String, usize> = HashMap::new();
        for (number, mut file) in files.into_iter().enumerate() {
            let changes_only = Some(number) == runtime;
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            let listed = match file.take("services").map(|node| node.kind) {
                Some(Kind::List(items)) => items,
                _ => Vec::new(),
            };
            overlay(&mut root, file);
            for (index, node) in listed.into_iter().enumerate() {
                // A service without a usable name was refused.
                let Some((name, named)) = node.get("name").and_then(|n| Some((text(n)?, n.at))) else { continue };
                match by_name.entry(name.to_owned()) {
                    // A change to a service that is gone must not bring half of it back.
                    hash_map::Entry::Vacant(_) if changes_only && node.get("addresses").is_none() => {
                        let problem = format!("the service {name} stands in no other file: left out");
                        let field = field::name([Step::Key("services"), Step::Index(index), Step::Key("name")]);
                        report.warning(named, field, problem, None);
                    }
                    hash_map::Entry::Vacant(entry) => {
                        entry.insert(services.len());
                        services.push(Service { node, origins: vec![(number, index)] });
                    }
                    hash_map::Entry::Occupied(entry) => {
                        let service = &mut services[*entry.get()];
                        if let Some((_, first)) = service.origins.iter().find(|(file, _)| *file == number) {
                            let problem =
                                format!("the service {name} stands twice in this file, first as services[{first}]");
                            let field = field::name([Step::Key("services"), Step::Index(index), Step::Key("name")]);
                            report.mistake(named, field, problem, Some("make it one".to_owned()));
                        } else {
                            service.origins.push((number, index));
                            overlay(&mut service.node, node);
                        }
                    }
                }
            }
        }
        Self { root, services }
    }

    /// The place of a field of a section, and its name; the file as a whole if it is a default.
    pub(super) fn field(&self, path: &str) -> (Place, String) {
        self.written(path).unwrap_or_else(|| (Place::default(), path.to_owned()))
    }

    /// The place of a field of a section, and its name, if it is written.
    pub(super) fn written(&self, path: &str) -> Option<(Place, String)> {
        Some((at(&self.root, path)?.at, path.to_owned()))
    }
}

impl Service<'_> {
    /// The place of the service itself, and its name as a field.
    pub(super) fn itself(&self) -> (Place, String) {
        (self.node.at, self.name(self.node.at, []))
    }

    /// The place of a field of the service, dotted, and its name, if the service itself has it.
    pub(super) fn written(&self, path: &str) -> Option<(Place, String)> {
        let at = at(&self.node, path)?.at;
        Some((at, format!("{}.{path}", self.name(at, []))))
    }

    /// The place of item `index` of a list (counted without those that were refused), and its name as a field.
    pub(super) fn item(&self, list: &'static str, index: usize) -> (Place, String) {
        match self.node.get(list).and_then(|node| node.items().nth(index)) {
            Some((index, node)) => (node.at, self.name(node.at, [Step::Key(list), Step::Index(index)])),
            None => self.itself(),
        }
    }

    /// As [`Service::item`], but of a key of that item.
    pub(super) fn key(&self, list: &'static str, index: usize, key: &'static str) -> (Place, String) {
        let Some((index, item)) = self.node.get(list).and_then(|node| node.items().nth(index)) else {
            return self.itself();
        };
        let at = item.get(key).map_or(item.at, |node| node.at);
        (at, self.name(at, [Step::Key(list), Step::Index(index), Step::Key(key)]))
    }

    /// Whether `keys` within item `index` of a list are written.
    pub(super) fn has(&self, list: &'static str, index: usize, keys: &[Step<'_>]) -> bool {
        let item = self.node.get(list).and_then(|node| node.items().nth(index));
        item.is_some_and(|(_, item)| keys.iter().try_fold(item, |node, step| step_into(node, *step)).is_some())
    }

    /// The place of what stands at `keys` within item `index` of a list (or as near to it as is written), and its name.
    pub(super) fn within(&self, list: &'static str, index: usize, keys: &[Step<'_>]) -> (Place, String) {
        let Some((index, item)) = self.node.get(list).and_then(|node| node.items().nth(index)) else {
            return self.itself();
        };
        let mut node = item;
        for step in keys {
            match step_into(node, *step) {
                Some(inner) => node = inner,
                None => break,
            }
        }
        let service = self.origins.iter().find(|(file, _)| *file == node.at.file).map_or(0, |(_, index)| *index);
        let steps = [Step::Key("services"), Step::Index(service), Step::Key(list), Step::Index(index)];
        (node.at, field::name(steps.into_iter().chain(keys.iter().copied())))
    }

    fn name<const N: usize>(&self, at: Place, steps: [Step<'_>; N]) -> String {
        let index = self.origins.iter().find(|(file, _)| *file == at.file).map_or(0, |(_, index)| *index);
        field::name([Step::Key("services"), Step::Index(index)].into_iter().chain(steps))
    }
}

fn step_into<'n, 't>(node: &'n Node<'t>, step: Step<'_>) -> Option<&'n Node<'t>> {
    match step {
        Step::Key(key) => node.get(key),
        Step::Index(index) => node.items().nth(index).map(|(_, node)| node),
    }
}

/// What stands at a dotted path.
fn at<'n, 't>(node: &'n Node<'t>, path: &str) -> Option<&'n Node<'t>> {
    path.split('.').try_fold(node, |node, key| node.get(key))
}

/// Lays `over` over `base`: mappings key by key, anything else as a whole.
fn overlay<'t>(base: &mut Node<'t>, over: Node<'t>) {
    match (&mut base.kind, over.kind) {
        (Kind::Map(base), Kind::Map(over)) => {
            for Entry { key, at, value } in over {
                match base.iter_mut().find(|entry| entry.key == key) {
                    Some(entry) => overlay(&mut entry.value, value),
                    None => base.push(Entry { key, at, value }),
                }
            }
        }
        (_, kind) => *base = Node { at: over.at, kind },
    }
}

fn text<'n>(node: &'n Node<'_>) -> Option<&'n str> {
    match node.scalar()? {
        Scalar::Text(text) => Some(text),
        _ => None,
    }
}

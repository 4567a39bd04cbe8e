//! Text of a file → its tree. Iterative: depth costs no stack. What YAML can say and a configuration has no use for
//! (several documents, tags, keys that are not names) is refused here, once. Values that aliases name are copied to where
//! they are used.

use super::{
    field::{self, Step},
    report::{Place, Report},
    tree::{Entry, Kind, Node},
};
use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};
use std::{borrow::Cow, collections::HashMap};

/// No key of a configuration lies deeper than a dozen levels.
const DEPTH: usize = 64;

/// As many values aliases may copy in a file: a few lines of them can name billions.
const COPIED: usize = 1_000_000;

/// What to do about an IPv6 address that YAML takes for a list.
const IPV6: &str = "put an IPv6 address in quotes: \"[fd00::10]:80\"";

/// The tree of a file; none if it is empty, or cannot be read as YAML (which is then reported).
pub(super) fn parse<'t>(file: u16, text: &'t str, report: &mut Report) -> Option<Node<'t>> {
    let mut builder =
        Builder { file, report, stack: Vec::new(), root: None, documents: 0, anchors: HashMap::new(), copied: 0 };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                if !builder.take(event, span) {
                    return None;
                }
            }
            Err(error) => {
                builder.syntax_error(&error, text);
                return None;
            }
        }
    }
    builder.root
}

struct Builder<'t, 'r> {
    file: u16,
    report: &'r mut Report,
    stack: Vec<Open<'t>>,
    root: Option<Node<'t>>,
    documents: usize,
    /// What anchors stand at, by their numbers.
    anchors: HashMap<usize, Anchored<'t>>,
    /// How many values aliases copied.
    copied: usize,
}

/// A value that aliases may name.
struct Anchored<'t> {
    node: Node<'t>,
    /// How many values it is, and how deep they lie.
    size: (usize, usize),
}

/// A list or mapping whose end has not come yet.
struct Open<'t> {
    node: Node<'t>,
    /// In a mapping: the key whose value comes next.
    key: Option<Key<'t>>,
    /// Whether it had a key that was refused.
    spoiled: bool,
    /// The number of its anchor; 0: it has none.
    anchor: usize,
}

enum Key<'t> {
    Name(Cow<'t, str>, Place),
    /// A key that was refused: its value goes with it.
    Bad,
}

/// How many values a value is, and how many levels of lists and mappings.
fn size(node: &Node<'_>) -> (usize, usize) {
    let of = |inner: &mut dyn Iterator<Item = &Node<'_>>| {
        let (values, depth) = inner.map(size).fold((0, 0), |all, one| (all.0 + one.0, all.1.max(one.1)));
        (values + 1, depth + 1)
    };
    match &node.kind {
        Kind::List(items) => of(&mut items.iter()),
        Kind::Map(entries) => of(&mut entries.iter().map(|entry| &entry.value)),
        Kind::Scalar { .. } | Kind::Bad => (1, 0),
    }
}

impl<'t> Builder<'t, '_> {
    /// Takes the next event; false if there is no point in going on.
    fn take(&mut self, event: Event<'t>, span: Span) -> bool {
        let at = self.place(&span.start);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents == 2 {
                    let remedy = "put it into a file of its own in conf.d".to_owned();
                    self.refuse(at, "expected one YAML document a file, found a second one", Some(remedy));
                    return false;
                }
            }
            Event::Alias(anchor) => return self.copy(at, anchor),
            Event::UnresolvedAlias(_) => return self.copy(at, 0),
            Event::Scalar(text, style, anchor, tag) => {
                self.tagged(at, tag.is_some());
                let quoted = style != ScalarStyle::Plain;
                let node = Node { at, kind: Kind::Scalar { text, quoted } };
                self.anchor(anchor, &node);
                self.close(node);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tagged(at, tag.is_some());
                return self.open(Node { at, kind: Kind::List(Vec::new()) }, anchor);
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tagged(at, tag.is_some());
                return self.open(Node { at, kind: Kind::Map(Vec::new()) }, anchor);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.stack.pop() {
                    let mut node = open.node;
                    match &mut node.kind {
                        Kind::Map(entries) => {
                            self.refuse_duplicates(entries);
                            entries.shrink_to_fit();
                            // What is left of it is nothing to complain about a second time.
                            if open.spoiled && entries.is_empty() {
                                node.kind = Kind::Bad;
                            }
                        }
                        Kind::List(items) => items.shrink_to_fit(),
                        Kind::Scalar { .. } | Kind::Bad => {}
                    }
                    self.anchor(open.anchor, &node);
                    self.close(node);
                }
            }
            _ => {}
        }
        true
    }

    fn open(&mut self, node: Node<'t>, anchor: usize) -> bool {
        if self.stack.len() == DEPTH {
            return self.too_deep(node.at);
        }
        self.stack.push(Open { node, key: None, spoiled: false, anchor });
        true
    }

    fn too_deep(&mut self, at: Place) -> bool {
        self.refuse(at, format!("nested deeper than {DEPTH} levels"), None);
        false
    }

    /// Remembers what an anchor stands at.
    fn anchor(&mut self, anchor: usize, node: &Node<'t>) {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchored { size: size(node), node: node.clone() });
        }
    }

    /// Puts a copy of what an alias names in its place; false if there is no point in going on.
    fn copy(&mut self, at: Place, anchor: usize) -> bool {
        let Some(Anchored { node, size: (size, depth) }) = self.anchors.get(&anchor) else {
            let remedy = "name one that has ended before".to_owned();
            self.refuse(at, "this alias (*name) names nothing, or a value that it is in", Some(remedy));
            self.close(Node { at, kind: Kind::Bad });
            return true;
        };
        self.copied += size;
        if self.copied > COPIED {
            self.refuse(at, format!("aliases (*name) copy more than {COPIED} values"), None);
            return false;
        }
        if self.stack.len() + depth > DEPTH {
            return self.too_deep(at);
        }
        let node = node.clone();
        self.close(node);
        true
    }

    /// Puts a finished value where it belongs.
    fn close(&mut self, value: Node<'t>) {
        let Some(parent) = self.stack.last_mut() else {
            self.root = Some(value);
            return;
        };
        match &mut parent.node.kind {
            Kind::List(items) => items.push(value),
            Kind::Map(entries) => match parent.key.take() {
                Some(Key::Name(key, at)) => entries.push(Entry { key, at, value }),
                Some(Key::Bad) => parent.spoiled = true,
                None => match value.kind {
                    Kind::Scalar { text, .. } => parent.key = Some(Key::Name(text, value.at)),
                    kind => {
                        parent.key = Some(Key::Bad);
                        let value = Node { at: value.at, kind };
                        if !matches!(value.kind, Kind::Bad) {
                            let problem = format!("expected a name as key, found {}", value.describe());
                            let list = matches!(value.kind, Kind::List(_));
                            self.refuse(value.at, problem, list.then(|| IPV6.to_owned()));
                        }
                    }
                },
            },
            Kind::Scalar { .. } | Kind::Bad => {}
        }
    }

    /// Takes out the keys that stand for the second time. `entries` are those of the mapping that just ended.
    fn refuse_duplicates(&mut self, entries: &mut Vec<Entry<'t>>) {
        // Most mappings have few keys: comparing each with each then costs less than hashing.
        let twice: Vec<(usize, Place)> = if entries.len() <= 16 {
            let first = |i: usize| entries[..i].iter().find(|e| e.key == entries[i].key);
            (0..entries.len()).filter_map(|i| first(i).map(|e| (i, e.at))).collect()
        } else {
            let mut seen: HashMap<&str, Place> = HashMap::new();
            let mut twice = Vec::new();
            for (index, entry) in entries.iter().enumerate() {
                let first = *seen.entry(&entry.key).or_insert(entry.at);
                if first != entry.at {
                    twice.push((index, first));
                }
            }
            twice
        };
        for (index, first) in &twice {
            let entry = &entries[*index];
            let problem = format!("this key stands twice, first in line {}", first.line);
            self.report.mistake(entry.at, self.field(Some(&entry.key)), problem, Some("keep one of them".to_owned()));
        }
        let mut twice = twice.into_iter().map(|(index, _)| index).peekable();
        let mut index = 0..;
        entries.retain(|_| twice.next_if_eq(&index.next().unwrap_or(usize::MAX)).is_none());
    }

    /// The field whose value comes next, or a key of it.
    fn field(&self, key: Option<&str>) -> String {
        let steps = self.stack.iter().filter_map(|open| match (&open.node.kind, &open.key) {
            (Kind::List(items), _) => Some(Step::Index(items.len())),
            (_, Some(Key::Name(key, _))) => Some(Step::Key(key)),
            _ => None,
        });
        field::name(steps.chain(key.map(Step::Key)))
    }

    fn tagged(&mut self, at: Place, tagged: bool) {
        if tagged {
            self.refuse(at, "tags (!name) are not supported", Some("leave the tag out".to_owned()));
        }
    }

    fn syntax_error(&mut self, error: &ScanError, text: &str) {
        let at = self.place(error.marker());
        let line = text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or_default();
        let remedy = if line.trim_start_matches(' ').starts_with('\t') {
            Some("indent with spaces, not with tabs")
        } else if line.contains("]:") {
            Some(IPV6)
        } else {
            None
        };
        // What the parser was in when it stumbled is seldom the field with the mistake.
        self.report.mistake(at, String::new(), format!("not YAML: {}", error.info()), remedy.map(str::to_owned));
    }

    fn refuse(&mut self, at: Place, problem: impl Into<String>, remedy: Option<String>) {
        self.report.mistake(at, self.field(None), problem, remedy);
    }

    fn place(&self, marker: &Marker) -> Place {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { file: self.file, line: number(marker.line()), column: number(marker.col()).saturating_add(1) }
    }
}

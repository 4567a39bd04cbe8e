//! Changes of headers that a route makes.

use super::fields::Fields;
use crate::model::HeaderChanges;
use http::{HeaderName, HeaderValue};

/// Changes of headers, ready to be made: first what is removed, then what is set, then what is added.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdits {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, HeaderValue)]>,
    add: Box<[(HeaderName, HeaderValue)]>,
}

/// What is no header. The configuration was checked, so this is a mistake of another source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no header, or its value is none")]
pub struct NoHeader(pub String);

impl HeaderEdits {
    /// These changes.
    ///
    /// # Errors
    /// A name or a value is none of a header.
    pub fn new(changes: &HeaderChanges) -> Result<Self, NoHeader> {
        let name = |text: &String| HeaderName::from_bytes(text.as_bytes()).map_err(|_| NoHeader(text.clone()));
        let pair = |(text, value): &(String, String)| {
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| NoHeader(text.clone()))?;
            Ok((name(text)?, value))
        };
        Ok(Self {
            remove: changes.remove.iter().map(name).collect::<Result<_, _>>()?,
            set: changes.set.iter().map(pair).collect::<Result<_, NoHeader>>()?,
            add: changes.add.iter().map(pair).collect::<Result<_, NoHeader>>()?,
        })
    }

    /// Whether they change nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, headers: &mut Fields) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value);
        }
        for (name, value) in &self.add {
            headers.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fields::tests::both, *};

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn changed(before: &[(&'static str, &str)], changes: &HeaderChanges) -> Vec<(String, String)> {
        let [block, map] = both(before).map(|mut headers| {
            HeaderEdits::new(changes).unwrap().apply(&mut headers);
            let text = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap();
            let mut after: Vec<_> = headers.iter().map(|(name, value)| (text(name), text(value))).collect();
            after.sort();
            after
        });
        assert_eq!(block, map);
        map
    }

    #[test]
    fn every_value_of_what_is_removed_goes() {
        let changes = HeaderChanges { remove: vec!["x-a".into(), "x-none".into()], ..HeaderChanges::default() };
        assert_eq!(changed(&[("x-a", "1"), ("x-b", "2"), ("x-a", "3")], &changes), pairs(&[("x-b", "2")]));
    }

    #[test]
    fn what_is_set_stands_in_place_of_every_value() {
        let changes = HeaderChanges { set: pairs(&[("x-a", "new"), ("x-c", "c")]), ..HeaderChanges::default() };
        let after = changed(&[("x-a", "1"), ("x-b", "2"), ("x-a", "3")], &changes);
        assert_eq!(after, pairs(&[("x-a", "new"), ("x-b", "2"), ("x-c", "c")]));
    }

    #[test]
    fn what_is_added_stands_besides() {
        let changes = HeaderChanges { add: pairs(&[("x-a", "2"), ("x-a", "3")]), ..HeaderChanges::default() };
        assert_eq!(changed(&[("x-a", "1")], &changes), pairs(&[("x-a", "1"), ("x-a", "2"), ("x-a", "3")]));
    }

    #[test]
    fn removing_comes_first_and_adding_last() {
        let changes = HeaderChanges {
            remove: vec!["x-a".into()],
            set: pairs(&[("x-b", "set")]),
            add: pairs(&[("x-a", "added"), ("x-b", "added")]),
        };
        let after = changed(&[("x-a", "1"), ("x-b", "2")], &changes);
        assert_eq!(after, pairs(&[("x-a", "added"), ("x-b", "added"), ("x-b", "set")]));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for changes in [
            HeaderChanges { remove: vec!["a b".into()], ..HeaderChanges::default() },
            HeaderChanges { set: pairs(&[("", "1")]), ..HeaderChanges::default() },
            HeaderChanges { add: pairs(&[("x-a", "1\n2")]), ..HeaderChanges::default() },
        ] {
            assert!(HeaderEdits::new(&changes).is_err());
        }
        assert!(HeaderEdits::new(&HeaderChanges::default()).unwrap().is_empty());
    }
}

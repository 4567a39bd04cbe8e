//! Names of fields in messages: `services[0].endpoints[1].weight`.

use super::tree::quote;

/// One step from a value to a value in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'s> {
    Key(&'s str),
    Index(usize),
}

/// The name of the field at the end of `steps`.
pub(super) fn name<'s>(steps: impl IntoIterator<Item = Step<'s>>) -> String {
    let mut name = String::new();
    for step in steps {
        match step {
            Step::Index(index) => name.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !name.is_empty() {
                    name.push('.');
                }
                let plain = !key.is_empty()
                    && key.len() <= 64
                    && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-<".contains(&b));
                name.push_str(&if plain { key.to_owned() } else { quote(key) });
            }
        }
    }
    name
}

//! One value against its shape: is it right, and if not, what is wrong and what is to be done?

use super::{
    shape::Shape,
    suggest,
    tree::{Node, Scalar, quote},
};

/// Whether a value that is no mapping or list in the right place is right, or what is wrong and what to do.
/// `optional`: it could be left out.
pub(super) fn judge(shape: &Shape, node: &Node<'_>, optional: bool) -> Result<(), (String, Option<String>)> {
    let scalar = node.scalar();
    match (shape, scalar) {
        (Shape::Bool | Shape::WordOrBool { .. }, Some(Scalar::Bool(_))) => return Ok(()),
        (
            Shape::Integer { min, max } | Shape::WordOrInteger { min, max, .. } | Shape::TextOrInteger { min, max, .. },
            Some(Scalar::Integer(number)),
        ) if (*min..=*max).contains(&number) => {
            return Ok(());
        }
        (Shape::WordOrInteger { word, .. } | Shape::WordOrBool { word }, Some(Scalar::Text(text))) if text == word => {
            return Ok(());
        }
        (Shape::Word { words, .. }, Some(Scalar::Text(text))) if words.iter().any(|w| w == text) => return Ok(()),
        (Shape::Word { later, .. }, Some(Scalar::Text(text))) if later.contains(&text) => {
            return Err((format!("{text} is not supported yet; expected {}", expectation(shape)), None));
        }
        (Shape::Number { min, max }, Some(Scalar::Float(number))) if (*min..=*max).contains(&number) => return Ok(()),
        #[expect(clippy::cast_precision_loss, reason = "a number that is cut is far outside the range")]
        (Shape::Number { min, max }, Some(Scalar::Integer(number))) if (*min..=*max).contains(&(number as f64)) => {
            return Ok(());
        }
        (Shape::Text(kind) | Shape::TextOrInteger { kind, .. }, Some(Scalar::Text(text))) => {
            return (kind.check)(text).map_err(|complaint| {
                (format!("expected {}, found {}", complaint.expected, quote(text)), complaint.remedy)
            });
        }
        _ => {}
    }
    let problem = format!("expected {}, found {}", expectation(shape), node.describe());
    let remedy = match scalar {
        Some(Scalar::Null) if optional => Some("leave the key out for the default".to_owned()),
        Some(scalar) => remedy(shape, scalar),
        None => None,
    };
    Err((problem, remedy))
}

/// What a value of this shape is, in words that follow "expected".
fn expectation(shape: &Shape) -> String {
    match shape {
        Shape::Map(fields) => {
            let names: Vec<_> = fields.keys().map(String::as_str).collect();
            format!("a mapping of {}", list(&names))
        }
        Shape::List(_) => "a list".to_owned(),
        Shape::Pairs { .. } => "a mapping of names to texts".to_owned(),
        Shape::Word { words, .. } if words.len() == 1 => words.concat(),
        Shape::Word { words, .. } => format!("one of {}", words.join(", ")),
        Shape::Text(kind) | Shape::TextOrInteger { kind, .. } => kind.expected.to_owned(),
        Shape::Number { min, max } => format!("a number from {min} to {max}"),
        Shape::Bool => "true or false".to_owned(),
        Shape::WordOrBool { word } => format!("{word}, true or false"),
        Shape::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Shape::WordOrInteger { word, min, max } => format!("{word} or a whole number from {min} to {max}"),
    }
}

/// What to do about a value of the wrong type.
fn remedy(shape: &Shape, found: Scalar<'_>) -> Option<String> {
    let remedy = match (shape, found) {
        (Shape::List(_) | Shape::Map(_), Scalar::Text(text)) => format!("write {}", around(shape, text)?),
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
        (Shape::Number { .. }, Scalar::Text(text)) if text.parse::<f64>().is_ok() => "leave the quotes out".to_owned(),
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

/// How `text` could be written where a list or mapping is expected that may consist of it alone.
fn around(shape: &Shape, text: &str) -> Option<String> {
    match shape {
        Shape::Text(_) => Some(quote(text)),
        Shape::TextOrInteger { kind, .. } => (kind.check)(text).is_ok().then(|| text.to_owned()),
        Shape::List(item) => Some(format!("[{}]", around(item, text)?)),
        Shape::Map(fields) => {
            let mut required = fields.iter().filter(|(_, field)| field.required);
            match (required.next(), required.next()) {
                (Some((name, field)), None) => Some(format!("{{ {name}: {} }}", around(&field.shape, text)?)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Words in a row.
pub(super) fn list(words: &[&str]) -> String {
    words.join(", ")
}

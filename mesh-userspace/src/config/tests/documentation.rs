//! What `docs/configuration.md` says is so.

use super::*;

const PAGE: &str = include_str!("../../../../docs/configuration.md");

/// The keys of the shape that are no mapping and no list of mappings, dotted.
fn keys(shape: &shape::Shape, path: &str, later: bool, found: &mut Vec<String>) {
    match shape {
        shape::Shape::Map(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                keys(&field.shape, &path, later, found);
            }
        }
        shape::Shape::List(item) if matches!(**item, shape::Shape::Map(_)) => {
            keys(item, &format!("{path}[]"), later, found);
        }
        shape::Shape::Later(_) if later => found.push(path.to_owned()),
        shape::Shape::Later(_) => {}
        _ if !later => found.push(path.to_owned()),
        _ => {}
    }
}

#[test]
fn every_supported_key_has_a_row() {
    let mut supported = Vec::new();
    keys(shape::shape(), "", false, &mut supported);
    assert!(supported.len() > 100, "{supported:?}");
    for key in supported {
        assert!(PAGE.contains(&format!("\n| `{key}` |")), "{key}");
    }
}

#[test]
fn every_key_of_later_work_is_named() {
    let mut later = Vec::new();
    keys(shape::shape(), "", true, &mut later);
    let (_, section) = PAGE.split_once("## Not supported yet").unwrap();
    assert!(later.len() > 10, "{later:?}");
    for key in later {
        let key = key.trim_start_matches("defaults.").trim_start_matches("services[].");
        assert!(section.contains(&format!("`{key}`")), "{key}");
    }
    for (_, words) in later::words() {
        assert!(words.iter().all(|word| section.contains(word)), "{words:?}");
    }
}

#[test]
fn every_example_can_be_loaded() {
    let examples: Vec<&str> = PAGE.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 4);
    for example in examples {
        // An example within a list of the page is indented as a whole.
        check(example).unwrap_or_else(|errors| panic!("{errors}\n{example}"));
    }
}

#[test]
fn every_example_about_routes_can_be_loaded_without_a_warning() {
    let page = include_str!("../../../../docs/routing.md");
    let examples: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 4);
    for example in examples {
        let loaded = check(example).unwrap_or_else(|errors| panic!("{errors}\n{example}"));
        assert_eq!(loaded.warnings, [], "{example}");
    }
}

#[test]
fn the_defaults_of_the_page_are_those_of_the_daemon() {
    let config = serde_json::to_value(Config::default()).unwrap();
    for line in PAGE.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, key, default, ..] = cells.as_slice() else { continue };
        let Some(key) = key.strip_prefix('`').and_then(|k| k.strip_suffix('`')) else { continue };
        let pointer = format!("/{}", key.replace('.', "/"));
        let (Some(value), Some(text)) = (config.pointer(&pointer), default.split('`').nth(1)) else { continue };
        let expected = match value {
            serde_json::Value::String(text) if text.is_empty() => "\"\"".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Number(number) if key == "dataplane.mark" => format!("{:#x}", number.as_u64().unwrap()),
            value => value.to_string(),
        };
        assert!(text == expected || key == "node.name", "{key}: {text}, but {expected}");
    }
}

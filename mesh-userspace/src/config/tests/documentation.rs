//! What the documentation says about the configuration is so. Its tables of keys are generated (`cargo xtask docs`).

use super::*;
use std::{fs, path::Path};

const PAGE: &str = include_str!("../../../../docs/configuration.md");

#[test]
fn every_word_of_later_work_is_named() {
    let (_, section) = PAGE.split_once("## Not supported yet").unwrap();
    for (_, words) in later::words() {
        assert!(words.iter().all(|word| section.contains(word)), "{words:?}");
    }
}

/// All pages: name and text.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|e| e == "md"));
    pages.map(|path| (path.file_name().unwrap().display().to_string(), fs::read_to_string(path).unwrap())).collect()
}

/// Examples in YAML, but for those whose first line is a comment that says which other file they are.
fn examples(page: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        // An example within a list of the page is indented as a whole.
        let Some(indent) = line.strip_suffix("```yaml") else { continue };
        let example = lines.by_ref().map(|line| line.strip_prefix(indent).unwrap_or(line));
        let example: Vec<&str> = example.take_while(|line| *line != "```").collect();
        match example.first() {
            Some(first) if first.starts_with("# ") => {}
            // A manifest of Kubernetes.
            Some(first) if first.starts_with("apiVersion: ") => {}
            // What is to be put below the services of a file.
            Some(first) if first.starts_with("  - ") => examples.push(format!("services:\n{}\n", example.join("\n"))),
            _ => examples.push(example.join("\n")),
        }
    }
    examples
}

#[test]
fn every_example_can_be_loaded() {
    let mut count = 0;
    for (name, page) in pages() {
        for example in examples(&page) {
            check(&example).unwrap_or_else(|errors| panic!("{name}: {errors}\n{example}"));
            count += 1;
        }
    }
    assert!(count >= 16, "{count}");
}

#[test]
fn every_example_about_routes_can_be_loaded_without_a_warning() {
    let examples = examples(include_str!("../../../../docs/routing.md"));
    assert_eq!(examples.len(), 4);
    for example in examples {
        let loaded = check(&example).unwrap_or_else(|errors| panic!("{errors}\n{example}"));
        assert_eq!(loaded.warnings, [], "{example}");
    }
}

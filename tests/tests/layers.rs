//! Imports between the modules of the daemon go one way: as the table in `docs/architecture.md` says.
#![allow(clippy::panic, clippy::unwrap_used, reason = "in tests a broken expectation is a failure")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What each module may import of the others.
type Table = BTreeMap<String, BTreeSet<String>>;

/// The words between backticks.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The table of the page: `| module | answers | imports of ours |`.
fn allowed() -> Table {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, table) = page.split_once("| module | answers | imports of ours |\n").unwrap();
    let rows = table.lines().skip(1).map_while(|line| line.strip_prefix("| ")).map(|row| {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let [name, _, imports] = cells[..] else { panic!("three cells: {row}") };
        (named(name).next().unwrap().to_owned(), imports.to_owned())
    });
    let rows: BTreeMap<String, String> = rows.collect();
    let modules: BTreeSet<String> = rows.keys().cloned().collect();
    let of_ours = |text: &str| named(text).filter(|name| modules.contains(*name)).map(str::to_owned).collect();
    rows.into_iter()
        .map(|(module, imports)| {
            let mut allowed: BTreeSet<String> = match imports.strip_prefix("all but ") {
                Some(not) => &modules - &of_ours(not),
                None => of_ours(&imports),
            };
            allowed.remove(&module);
            (module, allowed)
        })
        .collect()
}

/// All files of Rust below a directory, tests aside.
fn files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_test = name == "tests" || name.ends_with("_tests");
        if path.is_dir() {
            if !is_test {
                files(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            into.push(path);
        }
    }
}

/// A file's text without comments, and without the tests at its end.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The first names of a path's rest: `b` of `b::c`, and `b` and `d` of `{b::{c, x}, d}`.
fn heads(rest: &str) -> Vec<&str> {
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        let rest = rest.trim_start();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        return vec![&rest[..end]];
    };
    let (mut depth, mut start, mut found) = (0_usize, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                found.extend(heads(&group[start..at]));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    // Behind a last comma there is none.
    found.retain(|head| !head.is_empty());
    found
}

/// The modules at the top that a file names: by `crate::`, or by as many `super::` as lead there.
fn imports(code: &str, depth: usize) -> BTreeSet<String> {
    let from_here = "super::".repeat(depth);
    let mut named = BTreeSet::new();
    for start in ["crate::", from_here.as_str()] {
        for (at, _) in code.match_indices(start) {
            // Part of another word, or of a path with one `super` more.
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                named.extend(heads(&code[at + start.len()..]).into_iter().map(str::to_owned));
            }
        }
    }
    named
}

#[test]
fn modules_import_what_the_architecture_says_and_all_of_that() {
    let allowed = allowed();
    let source = root().join("mesh-userspace/src");
    let modules: BTreeSet<String> = fs::read_to_string(source.join("lib.rs"))
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    assert_eq!(allowed.keys().cloned().collect::<BTreeSet<_>>(), modules, "modules of the table, and of the library");
    let mut all = Vec::new();
    files(&source, &mut all);
    let mut used = Table::new();
    for file in all {
        let path = file.strip_prefix(&source).unwrap();
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
        let module = parts[0].trim_end_matches(".rs");
        let Some(allowed) = allowed.get(module) else { continue };
        let depth = parts.len() - usize::from(path.file_name().unwrap() == "mod.rs");
        for import in imports(&code(&file), depth).intersection(&modules).filter(|import| *import != module) {
            assert!(allowed.contains(import), "{} imports {import}: docs/architecture.md says no", path.display());
            used.entry(module.to_owned()).or_default().insert(import.clone());
        }
    }
    for (module, allowed) in allowed.into_iter().filter(|(module, _)| module != "app") {
        assert_eq!(used.remove(&module).unwrap_or_default(), allowed, "what {module} imports, and what it may");
    }
}

#[test]
fn one_folder_knows_aya_and_decisions_know_no_runtime() {
    let source = root().join("mesh-userspace/src");
    let mut all = Vec::new();
    files(&source, &mut all);
    for file in all {
        let path = file.strip_prefix(&source).unwrap().to_str().unwrap();
        let code = code(&file);
        let names = |krate: &str| code.contains(&format!("use {krate}::")) || code.contains(&format!(" {krate}::"));
        if !path.starts_with("kernel/") {
            assert!(!names("aya"), "{path} names aya");
        }
        if ["model/", "policy/", "datapath/"].iter().any(|pure| path.starts_with(pure)) {
            assert!(!names("tokio") && !names("hyper"), "{path} names a runtime");
        }
    }
}

#[test]
fn imports_are_found_however_they_are_written() {
    let found = |code: &str, depth| imports(code, depth).into_iter().collect::<Vec<_>>();
    assert_eq!(
        found("use crate::{\n    api::{self, Time},\n    model,\n};\nlet x = crate::proxy::f();", 1),
        ["api", "model", "proxy"]
    );
    assert_eq!(found("use super::kernel::Tables;\nuse super::super::deeper;", 1), ["kernel", "super"]);
    assert_eq!(found("use super::super::kernel;\nuse super::sibling;", 2), ["kernel"]);
    assert_eq!(found("use mesh_crate::x; other::crate::y", 1), Vec::<String>::new());
}

//! What the documentation shows is so: its commands print what it says, its links lead somewhere.
#![allow(clippy::panic, clippy::unwrap_used, reason = "in tests a broken expectation is a failure")]

use mesh_common::reason::{Failure, Reason};
use mesh_tests::{skip, tour::Tour};
use mesh_userspace::proxy;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

#[test]
fn the_readme_prints_what_it_shows() {
    let tour = Tour::of(&read("README.md"));
    assert!(tour.len() >= 8, "{tour:?}");
    if let Err(reason) = tour.run() {
        skip!("{reason}");
    }
}

#[test]
fn getting_started_prints_what_it_shows() {
    let tour = Tour::of(&read("docs/getting-started.md"));
    assert!(tour.len() >= 25, "{tour:?}");
    if let Err(reason) = tour.run() {
        skip!("{reason}");
    }
}

/// All pages, by their path from the root.
fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    for directory in ["", "docs", "deploy"] {
        let Ok(entries) = fs::read_dir(root().join(directory)) else { continue };
        for path in
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md"))
        {
            let name = Path::new(directory).join(path.file_name().unwrap());
            pages.insert(name.display().to_string(), fs::read_to_string(&path).unwrap());
        }
    }
    pages
}

/// The lines of a page that are no part of a block of code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut within = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        within ^= fence;
        !within && !fence
    })
}

/// The names that can be linked to: those of headings, as GitHub makes them, and those that are written.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings =
        prose(page).filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let written = prose(page).flat_map(|line| line.split("<a id=\"").skip(1)).filter_map(|rest| rest.split('"').next());
    let mut anchors: BTreeSet<String> = written.map(str::to_owned).collect();
    for heading in headings {
        let kept = heading.trim().to_lowercase();
        let kept: String = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect();
        let anchor = kept.replace(' ', "-");
        let again = (1..).map(|n| format!("{anchor}-{n}")).find(|again| !anchors.contains(again));
        anchors.insert(if anchors.contains(&anchor) { again.unwrap_or_default() } else { anchor });
    }
    anchors
}

/// Where the links of a page lead to.
fn links(page: &str) -> Vec<String> {
    let lines = prose(page).flat_map(|line| line.split("](").skip(1));
    lines.filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

/// `docs/../README.md` → `README.md`.
fn normal(path: &Path) -> String {
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.iter().collect::<PathBuf>().display().to_string()
}

#[test]
fn every_link_leads_to_something() {
    let pages = pages();
    let mut dead = Vec::new();
    for (name, page) in &pages {
        for link in links(page).into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let directory = Path::new(name).parent().unwrap();
            let target = if file.is_empty() { name.clone() } else { normal(&directory.join(file)) };
            let leads = match (pages.get(&target), anchor) {
                (Some(page), Some(anchor)) => anchors(page).contains(anchor),
                (_, None) => root().join(&target).exists(),
                (None, Some(_)) => false,
            };
            if !leads {
                dead.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn the_index_names_every_page() {
    let index = links(&read("docs/README.md"));
    let pages = pages();
    let here = pages.keys().filter_map(|name| name.strip_prefix("docs/")).filter(|name| *name != "README.md");
    let left: Vec<&str> = here.filter(|name| !index.iter().any(|link| link == name)).collect();
    assert!(left.is_empty(), "docs/README.md does not name {}", left.join(", "));
}

/// The words of metrics, logs and `x-mesh-reason` that people look up.
#[test]
fn every_reason_is_explained() {
    let requests: Vec<&str> = proxy::Reason::ALL.iter().map(|reason| reason.word()).collect();
    // Those that are series of their own are explained there.
    let connects = Reason::ALL.into_iter().filter(|r| r.refuses() || r.passes()).map(Reason::word);
    let connects: Vec<&str> = connects.chain(Failure::ALL.map(Failure::word)).collect();
    let pages: [(&str, &[&str]); 4] = [
        ("docs/http.md", &requests),
        ("docs/troubleshooting.md", &requests),
        ("docs/metrics.md", &requests),
        ("docs/metrics.md", &connects),
    ];
    for (name, words) in pages {
        let page = read(name);
        let left: Vec<&&str> = words.iter().filter(|word| !page.contains(&format!("`{word}`"))).collect();
        assert!(left.is_empty(), "{name} does not explain {left:?}");
    }
}

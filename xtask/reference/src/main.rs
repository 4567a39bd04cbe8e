//! Writes the parts of `docs/` that only repeat what the code says: keys of the configuration, commands, metrics.
//!
//! A page has a part between `<!-- generated: KIND ARGUMENTS -->` and `<!-- end -->`. What stands there is replaced; the
//! rest of the page is written by hand and left alone. Apart from xtask, which has to be built first on a fresh machine,
//! and quickly: this needs the whole daemon.

mod command_line;
mod configuration;
mod metrics;
mod page;
mod table;

use clap::Parser;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Bring the generated parts of docs/ up to date
#[derive(Parser)]
struct Arguments {
    /// Write nothing; exit code 1 if a page is not up to date
    #[arg(long)]
    check: bool,
    /// Write manual pages into this directory, and leave docs/ alone
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "check")]
    man: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Arguments { check, man } = Arguments::parse();
    let done = match man {
        Some(directory) => write_manual_pages(&directory).map_err(|error| format!("{}: {error}", directory.display())),
        None => bring_up_to_date(&docs(), check),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// `mesh.1`, and one page for each command: `mesh-run.1`.
fn write_manual_pages(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(mesh_userspace::cli::definition(), directory)
}

/// Writes what has changed, or with `check` says that it has.
fn bring_up_to_date(docs: &Path, check: bool) -> Result<(), String> {
    let mut stale = Vec::new();
    for (name, written, right) in pages(docs)? {
        if written == right {
            continue;
        }
        if !check {
            fs::write(docs.join(&name), right).map_err(|error| format!("docs/{name}: {error}"))?;
            println!("docs/{name}: written");
            continue;
        }
        let differs = written.lines().zip(right.lines()).find(|(written, right)| written != right);
        let (first, should) = differs.unwrap_or(("the end", "more, or less"));
        stale.push(format!("docs/{name} says\n  {first}\nand the code\n  {should}"));
    }
    if stale.is_empty() {
        return Ok(());
    }
    Err(format!("{}\nrun `cargo xtask docs`", stale.join("\n")))
}

/// Every page with generated parts: its name, what it says, and what it should say.
fn pages(docs: &Path) -> Result<Vec<(String, String, String)>, String> {
    let configuration = configuration::Reference::new();
    let metrics = metrics::Reference::new()?;
    let mut pages = Vec::new();
    for name in ["configuration.md", "cli.md", "metrics.md"] {
        let written = fs::read_to_string(docs.join(name)).map_err(|error| format!("docs/{name}: {error}"))?;
        let right = page::filled(&written, |kind, arguments| match kind {
            "configuration" => configuration.part(arguments),
            "command-line" => command_line::part(arguments),
            "metrics" => metrics.part(arguments),
            _ => Err(format!("there is no {kind} to generate")),
        });
        pages.push((name.to_owned(), written, right.map_err(|reason| format!("docs/{name}: {reason}"))?));
    }
    configuration.nothing_left()?;
    metrics.nothing_left()?;
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_say_what_the_code_says() {
        if let Err(reason) = bring_up_to_date(&docs(), true) {
            panic!("{reason}");
        }
    }

    #[test]
    fn a_page_that_says_something_else_is_told_and_mended() {
        let copy = tempfile::tempdir().unwrap();
        for name in ["configuration.md", "cli.md", "metrics.md"] {
            fs::copy(docs().join(name), copy.path().join(name)).unwrap();
        }
        let page = copy.path().join("metrics.md");
        let right = fs::read_to_string(&page).unwrap();
        fs::write(&page, right.replace("| counter |", "| gauge |")).unwrap();
        let told = bring_up_to_date(copy.path(), true).unwrap_err();
        assert!(told.contains("docs/metrics.md says") && told.contains("cargo xtask docs"), "{told}");
        bring_up_to_date(copy.path(), false).unwrap();
        assert_eq!(fs::read_to_string(&page).unwrap(), right);
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let directory = tempfile::tempdir().unwrap();
        write_manual_pages(directory.path()).unwrap();
        for (name, about) in [("mesh.1", "mesh"), ("mesh-run.1", "SIGTERM"), ("mesh-endpoints-drain.1", "drain")] {
            let page = fs::read_to_string(directory.path().join(name)).unwrap();
            assert!(page.contains(".TH") && page.contains(about), "{name}: {page}");
        }
    }
}

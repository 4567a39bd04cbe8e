//! What is said about a configuration: mistakes and warnings, each with its place.

use crate::model;
use serde::Serialize;
use std::fmt;

/// One thing to say about a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file it stands in, as it was named.
    pub file: String,
    /// The line, from 1; 0 if it is about the whole file.
    pub line: u32,
    /// The column in characters, from 1; 0 if it is about the whole file.
    pub column: u32,
    /// The field, such as `services[0].endpoints[1].weight`; empty if it is about none.
    pub field: String,
    /// What is the matter: what was expected and what was found.
    pub problem: String,
    /// What to do about it, where that is not obvious.
    pub remedy: Option<String>,
    /// Which service lacks what, where it may get it from others than the files: then this does not hold any more.
    #[serde(skip)]
    pub lacks: Option<(String, Lack)>,
}

/// What a service may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// An address.
    Address,
    /// An endpoint.
    Endpoint,
    /// An endpoint for its IPv4 addresses.
    Ipv4Endpoint,
    /// An endpoint for its IPv6 addresses, which lead to such ones only.
    Ipv6Endpoint,
}

impl Lack {
    /// Whether this service lacks it.
    #[must_use]
    pub fn is_of(self, service: &model::Service) -> bool {
        match self {
            Self::Address => service.addresses.is_empty(),
            Self::Endpoint => service.endpoints.is_empty(),
            Self::Ipv4Endpoint => service.endpoints.iter().all(|e| e.address.is_ipv6()),
            Self::Ipv6Endpoint => service.endpoints.iter().all(|e| e.address.is_ipv4()),
        }
    }
}

impl fmt::Display for Finding {
    /// `mesh.yaml:12:7: services[0].endpoints[1].weight: expected a whole number from 0 to 65535, found 70000`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.problem)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Every mistake of a configuration, sorted by file and place. Shown one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Errors {
    mistakes: Vec<Finding>,
    omitted: usize,
}

impl Errors {
    /// The mistakes; at least one.
    #[must_use]
    pub fn mistakes(&self) -> &[Finding] {
        &self.mistakes
    }

    /// How many more there are than [`Errors::mistakes`] holds: a generated file can repeat one mistake a million times.
    #[must_use]
    pub const fn omitted(&self) -> usize {
        self.omitted
    }
}

impl Errors {
    pub(super) fn and(mut self, mistake: Finding) -> Self {
        self.mistakes.push(mistake);
        self
    }
}

impl From<Finding> for Errors {
    fn from(mistake: Finding) -> Self {
        Self { mistakes: vec![mistake], omitted: 0 }
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        match self.omitted {
            0 => Ok(()),
            n => write!(f, "\nand {n} more"),
        }
    }
}

/// A place in one of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Index of the file, in the order in which they are merged.
    pub(super) file: u16,
    /// From 1; 0 for the whole file.
    pub(super) line: u32,
    /// In characters, from 1.
    pub(super) column: u32,
}

/// How many mistakes, and how many warnings, are kept.
const KEPT: usize = 10_000;

/// Collects what there is to say while files are read and checked.
#[derive(Debug, Default)]
pub(super) struct Report {
    files: Vec<String>,
    mistakes: Kept,
    warnings: Kept,
}

#[derive(Debug, Default)]
struct Kept {
    findings: Vec<(Place, Finding)>,
    omitted: usize,
}

impl Report {
    pub(super) fn new(files: Vec<String>) -> Self {
        Self { files, ..Self::default() }
    }

    /// How a place is named in the text of another finding; its file only where that is another one.
    pub(super) fn name(&self, place: Place, from: Place) -> String {
        if place.file == from.file {
            format!("line {}", place.line)
        } else {
            format!("{}:{}:{}", self.file(place), place.line, place.column)
        }
    }

    pub(super) fn mistake(&mut self, at: Place, field: String, problem: impl Into<String>, remedy: Option<String>) {
        let finding = self.finding(at, field, problem.into(), remedy);
        self.mistakes.keep(at, finding);
    }

    pub(super) fn warning(&mut self, at: Place, field: String, problem: impl Into<String>, remedy: Option<String>) {
        let finding = self.finding(at, field, problem.into(), remedy);
        self.warnings.keep(at, finding);
    }

    /// Warns that a service lacks something.
    pub(super) fn lacks(
        &mut self,
        (at, field): (Place, String),
        service: &str,
        lack: Lack,
        problem: &str,
        remedy: &str,
    ) {
        let problem = format!("the service {service} {problem}");
        let finding = self.finding(at, field, problem, Some(remedy.to_owned()));
        self.warnings.keep(at, Finding { lacks: Some((service.to_owned(), lack)), ..finding });
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.mistakes.findings.is_empty()
    }

    /// The warnings, or the mistakes if there are any.
    pub(super) fn finish(self) -> Result<Vec<Finding>, Errors> {
        if self.is_clean() {
            return Ok(self.warnings.sorted());
        }
        let omitted = self.mistakes.omitted;
        Err(Errors { mistakes: self.mistakes.sorted(), omitted })
    }

    fn finding(&self, at: Place, field: String, problem: String, remedy: Option<String>) -> Finding {
        Finding {
            file: self.file(at).to_owned(),
            line: at.line,
            column: at.column,
            field,
            problem,
            remedy,
            lacks: None,
        }
    }

    fn file(&self, at: Place) -> &str {
        self.files.get(usize::from(at.file)).map_or("", String::as_str)
    }
}

impl Kept {
    fn keep(&mut self, at: Place, finding: Finding) {
        if self.findings.len() < KEPT {
            self.findings.push((at, finding));
        } else {
            self.omitted += 1;
        }
    }

    fn sorted(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|(place, _)| *place);
        self.findings.into_iter().map(|(_, finding)| finding).collect()
    }
}

//! Which files make up the configuration, and reading them.

use super::report::{Errors, Finding};
use std::{
    ffi::OsStr,
    fs, io,
    io::Read,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

/// The file that is read when none is named.
pub const DEFAULT_PATH: &str = "/etc/mesh/mesh.yaml";

/// The longest file: some 300,000 services. More belongs into several files, or into a registry.
const LONGEST: u64 = 64 << 20;

/// The most files. A place holds the number of its file in 16 bits.
const MOST: usize = 10_000;

/// The text of every file that makes up the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub(super) texts: Vec<(PathBuf, String)>,
    /// What was noticed while reading.
    pub(super) warnings: Vec<Finding>,
}

/// The main file and the directory beside it, which are what there is to watch for changes.
#[must_use]
pub fn places(named: Option<&Path>) -> (PathBuf, PathBuf) {
    let main = named.unwrap_or(Path::new(DEFAULT_PATH)).to_path_buf();
    let directory = main.parent().unwrap_or(Path::new("")).join("conf.d");
    (main, directory)
}

impl Files {
    /// Reads the file that was named, or the default one, and `conf.d/*.yaml` beside it in name order. A default file
    /// that does not exist is an empty one, with a warning.
    ///
    /// # Errors
    /// Every file that cannot be read, or is no text.
    pub fn read(named: Option<&Path>) -> Result<Self, Errors> {
        let (main, directory) = places(named);
        Self::read_from(&main, &directory, named.is_some())
    }

    pub(super) fn read_from(main: &Path, directory: &Path, named: bool) -> Result<Self, Errors> {
        let mut files = Self::default();
        let mut mistakes = Vec::new();
        match read(main, false) {
            Ok(text) => files.texts.push((main.to_path_buf(), text)),
            Err(Refusal::Missing) if !named => {
                let problem = "there is no such file: starting with the defaults and no services";
                files.warnings.push(whole(main, problem, Some("name another one with --config or MESH_CONFIG")));
                // Places in files count from the main one.
                files.texts.push((main.to_path_buf(), String::new()));
            }
            Err(refusal) => mistakes.push(refusal.finding(main)),
        }
        match list(directory) {
            Ok((paths, others)) => {
                for path in others {
                    files.warnings.push(whole(&path, "not read", Some("name it *.yaml")));
                }
                for path in paths {
                    match read(&path, true) {
                        Ok(text) => files.texts.push((path, text)),
                        Err(refusal) => mistakes.push(refusal.finding(&path)),
                    }
                }
            }
            Err(refusal) => mistakes.push(refusal.finding(directory)),
        }
        Errors::collected(mistakes).map_or(Ok(files), Err)
    }

    /// Files that were read elsewhere, in the order in which they apply.
    ///
    /// # Errors
    /// Every one that is no text.
    pub fn from_bytes(files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> Result<Self, Errors> {
        let mut texts = Vec::new();
        let mut mistakes = Vec::new();
        for (path, bytes) in files {
            match text(bytes) {
                Ok(text) => texts.push((path, text)),
                Err(refusal) => mistakes.push(refusal.finding(&path)),
            }
        }
        Errors::collected(mistakes).map_or(Ok(Self { texts, warnings: Vec::new() }), Err)
    }

    /// The paths, in the order in which they apply.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.texts.iter().map(|(path, _)| path.as_path())
    }
}

impl Errors {
    fn collected(mistakes: Vec<Finding>) -> Option<Self> {
        mistakes.into_iter().fold(None, |errors: Option<Self>, mistake| match errors {
            Some(errors) => Some(errors.and(mistake)),
            None => Some(mistake.into()),
        })
    }
}

/// Why a file could not be read.
enum Refusal {
    Missing,
    Io(io::Error),
    NoFile(&'static str),
    TooLong,
    TooMany(usize),
    Utf16,
    NoText { line: u32, column: u32 },
}

impl Refusal {
    fn finding(self, path: &Path) -> Finding {
        match self {
            Self::Missing => whole(path, "there is no such file", None),
            Self::Io(error) => {
                let remedy = match error.kind() {
                    io::ErrorKind::PermissionDenied => Some("the daemon's user must be able to read it"),
                    _ => None,
                };
                whole(path, &format!("cannot be read: {error}"), remedy)
            }
            Self::NoFile(what) => whole(path, &format!("expected a file, found {what}"), None),
            Self::TooLong => whole(
                path,
                &format!("expected at most {} MiB, found more", LONGEST >> 20),
                Some("divide it into several files in conf.d"),
            ),
            Self::TooMany(count) => whole(path, &format!("expected at most {MOST} files, found {count}"), None),
            Self::Utf16 => whole(path, "expected UTF-8 text, found UTF-16", Some("save it as UTF-8")),
            Self::NoText { line, column } => {
                let finding = whole(path, "expected UTF-8 text, found other bytes", Some("save it as UTF-8"));
                Finding { line, column, ..finding }
            }
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Io(error),
        }
    }
}

fn whole(path: &Path, problem: &str, remedy: Option<&str>) -> Finding {
    Finding {
        file: path.display().to_string(),
        line: 0,
        column: 0,
        field: String::new(),
        problem: problem.to_owned(),
        remedy: remedy.map(str::to_owned),
        lacks: None,
    }
}

/// Whether a file beside others in `conf.d` is read, or looks as if it was meant to be, by its name.
#[must_use]
pub fn is_read(path: &Path) -> bool {
    // Hidden entries are half-written files of editors, and the inner workings of a mounted ConfigMap.
    let hidden = path.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b".");
    !hidden && matches!(path.extension().and_then(OsStr::to_str), Some("yaml" | "yml" | "YAML" | "YML" | "Yaml"))
}

/// The files of a directory that are read, in name order, and those that look as if they were meant to be.
fn list(directory: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Refusal> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
        Err(error) => return Err(error.into()),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.retain(|path| is_read(path));
    // What was changed at run time wins over all other files, whatever their names.
    paths.sort_by_cached_key(|path| (path.file_name() == Some(OsStr::new(super::RUNTIME_FILE)), path.clone()));
    let others = paths.extract_if(.., |path| path.extension() != Some(OsStr::new("yaml"))).collect::<Vec<_>>();
    let others = others.into_iter().filter(|path| path.is_file()).collect();
    if paths.len() >= MOST {
        return Err(Refusal::TooMany(paths.len()));
    }
    Ok((paths, others))
}

/// The text of a file; `regular`: of a regular one only, since reading a pipe may wait for ever.
fn read(path: &Path, regular: bool) -> Result<String, Refusal> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(Refusal::NoFile("a directory"));
    }
    // A pipe without a writer is waited for; one that a shell made is not without.
    if kind.is_fifo() && !path.starts_with("/dev") && !path.starts_with("/proc") {
        return Err(Refusal::NoFile("a pipe"));
    }
    if regular && !kind.is_file() {
        return Err(Refusal::NoFile("a device, pipe or socket"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST) {
        return Err(Refusal::TooLong);
    }
    text(bytes)
}

fn text(bytes: Vec<u8>) -> Result<String, Refusal> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Refusal::Utf16);
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let valid = String::from_utf8_lossy(&bytes[..error.utf8_error().valid_up_to()]);
        let line = valid.matches('\n').count() + 1;
        let column = valid.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Refusal::NoText { line: number(line), column: number(column) }
    })?;
    // Some editors begin a file with a byte order mark, which UTF-8 has no need of.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

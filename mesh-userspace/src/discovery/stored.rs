//! Files that outlive the daemon: replaced as a whole, and set aside when they make no sense.
//!
//! A record that makes no sense is left out alone. Files are read under the lock of their directory: only one daemon may
//! find that one makes no sense.

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    fs,
    io::{self, Read, Write},
    iter,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The longest file that is read, in bytes: more than a daemon ever writes.
const LONGEST: u64 = 1 << 30;

/// How many files of one name are kept that made no sense: the first ones, and the last one.
const MOST_ASIDE: usize = 9;

/// How many records that are left out are named in the log.
const NAMED: usize = 10;

/// What was read of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept<T> {
    /// The records that make sense.
    pub records: Vec<T>,
    /// What is wrong with the file, or with its other records.
    pub trouble: Trouble,
}

/// What is wrong with a file, or with records of it, each in a sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble(Vec<String>);

impl Trouble {
    /// How many sentences there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self, sentence: String) {
        self.0.push(sentence);
    }

    /// Names it in the log, not more than a few of it one by one.
    pub fn log(&self) {
        self.0.iter().take(NAMED).for_each(|sentence| tracing::error!("{sentence}"));
        if let Some(more @ 1..) = self.count().checked_sub(NAMED) {
            tracing::error!("and {more} more");
        }
    }

    /// All of it in one sentence; `None`: nothing is wrong.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        match &self.0[..] {
            [] => None,
            [one] => Some(one.clone()),
            [first, more @ ..] => Some(format!("{first}; and {} more", more.len())),
        }
    }
}

/// A record of a file, or what is wrong with it.
#[derive(Debug)]
pub(super) struct Each<T>(Result<T, String>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Each<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(Self(T::deserialize(&value).map_err(|e| format!("{e}: {}", shown(&value)))))
    }
}

/// A record as it is logged.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 200;
    let text = value.to_string();
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The records of a file that make sense; none, where there is no such file. `records_of` tells which version of the format
/// it is in, and its records; `check` says what is wrong with one of them.
///
/// A file that makes no sense, or is of another version than `version`, is set aside.
pub(super) fn read<F: DeserializeOwned, R, T>(
    path: &Path,
    version: u32,
    records_of: impl FnOnce(F) -> (u32, Vec<Each<R>>),
    check: impl Fn(R) -> Result<T, String>,
) -> Kept<T> {
    let mut kept = Kept { records: Vec::new(), trouble: Trouble::default() };
    let records = match text(path) {
        Ok(None) => return kept,
        Ok(Some(text)) => serde_json::from_slice(&text).map_err(|e| e.to_string()).map(records_of),
        Err(Unreadable::Now(e)) => {
            kept.trouble.add(format!("{}: {e}", path.display()));
            return kept;
        }
        Err(Unreadable::Foreign(why)) => Err(why),
    };
    let records = records.and_then(|(found, records)| match found == version {
        true => Ok(records),
        false => Err(format!("version {found}, not {version}")),
    });
    match records {
        Ok(records) => {
            for (i, Each(record)) in records.into_iter().enumerate() {
                match record.and_then(&check) {
                    Ok(record) => kept.records.push(record),
                    Err(why) => kept.trouble.add(left_out(path, format_args!("record {}: {why}", i + 1))),
                }
            }
        }
        Err(why) => kept.trouble.add(set_aside(path, &why)),
    }
    kept
}

/// What there is to say about a record that is left out.
pub(super) fn left_out(path: &Path, record: impl std::fmt::Display) -> String {
    format!("{}: left out: {record}", path.display())
}

/// Why there is no text.
enum Unreadable {
    /// The system refuses.
    Now(io::Error),
    /// No daemon wrote this.
    Foreign(String),
}

fn text(path: &Path) -> Result<Option<Vec<u8>>, Unreadable> {
    // A pipe would be waited for.
    let file = match fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Unreadable::Now(e)),
    };
    let found = file.metadata().map_err(Unreadable::Now)?;
    if !found.is_file() {
        return Err(Unreadable::Foreign("it is no file".to_owned()));
    }
    if found.len() > LONGEST {
        return Err(Unreadable::Foreign(format!("it has {} bytes, more than a daemon ever writes", found.len())));
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).map_err(Unreadable::Now)?;
    Ok(Some(text))
}

/// Gives a file that makes no sense another name, for someone to look at. Returns what there is to say about it.
fn set_aside(path: &Path, why: &str) -> String {
    let aside = place_aside(path);
    let moved = match fs::rename(path, &aside) {
        Ok(()) => format!("it is {} now", aside.display()),
        Err(e) => format!("and it cannot be set aside: {e}"),
    };
    format!("{} is not what a daemon wrote ({why}); {moved}", path.display())
}

/// A name that no earlier one has; where there are many, that of the last one.
fn place_aside(path: &Path) -> PathBuf {
    let mut names = iter::once("json.bad".to_owned()).chain((2..=MOST_ASIDE).map(|n| format!("json.bad.{n}")));
    let free = |name: &String| fs::symlink_metadata(path.with_extension(name)).is_err();
    let name = names.find(free).unwrap_or_else(|| format!("json.bad.{MOST_ASIDE}"));
    path.with_extension(name)
}

/// Puts `content` in the place of what the file holds, as a whole or not at all.
///
/// # Errors
/// Why it cannot be written. What was written before is still there.
pub(super) fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), String> {
    let text = serde_json::to_vec(content).map_err(|e| e.to_string())?;
    replace(path, &text).map_err(|e| format!("{}: {e}", path.display()))
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("json.new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text)?;
    // Or else a loss of power could leave the new name with nothing in it.
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        version: u32,
        numbers: Vec<Each<u8>>,
    }

    fn read_numbers(path: &Path) -> Kept<u8> {
        let odd = |n: u8| if n % 2 == 1 { Ok(n) } else { Err(format!("{n} is even")) };
        read(path, 1, |file: File| (file.version, file.numbers), odd)
    }

    #[test]
    fn a_record_that_makes_no_sense_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("numbers.json");
        fs::write(&path, r#"{"version":1,"numbers":[1,2,3,{"a":"b"},5,256]}"#).unwrap();
        let Kept { records, trouble } = read_numbers(&path);
        assert_eq!((records, trouble.count()), (vec![1, 3, 5], 3));
        assert!(trouble.0[0].ends_with("numbers.json: left out: record 2: 2 is even"), "{trouble:?}");
        assert!(trouble.0[1].contains("record 4: ") && trouble.0[1].ends_with(r#": {"a":"b"}"#), "{trouble:?}");
        assert!(trouble.summary().unwrap().ends_with("; and 2 more"), "{trouble:?}");
        assert!(path.exists(), "what is right about it counts still");
    }

    #[test]
    fn files_that_are_set_aside_replace_no_earlier_one_and_do_not_grow_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("numbers.json");
        for n in 0..20 {
            fs::write(&path, format!("nonsense {n}")).unwrap();
            let Kept { records, trouble } = read_numbers(&path);
            assert_eq!((records.len(), trouble.count(), path.exists()), (0, 1, false));
        }
        let content = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(content("numbers.json.bad"), "nonsense 0");
        assert_eq!(content("numbers.json.bad.2"), "nonsense 1");
        assert_eq!(content("numbers.json.bad.9"), "nonsense 19");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), MOST_ASIDE);
    }

    #[test]
    fn what_is_no_file_or_too_long_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("numbers.json");
        fs::File::create(&path).unwrap().set_len(LONGEST + 1).unwrap();
        let long = read_numbers(&path).trouble.summary().unwrap();
        assert!(long.contains("it has 1073741825 bytes, more than a daemon ever writes"), "{long}");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let pipe = read_numbers(&path).trouble.summary().unwrap();
        assert!(pipe.contains("it is no file") && pipe.contains("numbers.json.bad.2"), "{pipe}");
        assert_eq!(read_numbers(&path).trouble, Trouble::default());
    }
}

//! What the guest tells the host: lines on a serial port, each with a word first.

use std::fmt;
use std::time::Duration;

/// One line. Tests go by their number in the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The guest runs, on this kernel.
    Up {
        release: String,
    },
    Began {
        test: usize,
    },
    /// It still runs: said every few seconds, so that silence means that the guest hangs.
    Alive,
    Ended {
        test: usize,
        outcome: Outcome,
        took: Duration,
    },
    /// Something the test printed, which is told only of those that failed.
    Said {
        test: usize,
        text: String,
    },
    /// All is done, and the guest switches itself off.
    Done,
    /// Something is wrong with the guest itself.
    Broken {
        why: String,
    },
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    /// It found that it cannot run here, and why.
    Skipped(String),
    Failed(String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { release } => write!(f, "up {release}"),
            Self::Began { test } => write!(f, "began {test}"),
            Self::Alive => write!(f, "alive"),
            Self::Ended { test, outcome, took } => {
                let (word, why) = match outcome {
                    Outcome::Passed => ("passed", ""),
                    Outcome::Skipped(why) => ("skipped", why.as_str()),
                    Outcome::Failed(why) => ("failed", why.as_str()),
                };
                write!(f, "{word} {test} {} {}", took.as_millis(), one_line(why))
            }
            Self::Said { test, text } => write!(f, "said {test} {}", one_line(text)),
            Self::Done => write!(f, "done"),
            Self::Broken { why } => write!(f, "broken {}", one_line(why)),
        }
    }
}

impl Line {
    /// What a line says; nothing if it is none of ours, such as what the firmware prints.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end_matches(['\r', '\n']);
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = |text: &str| text.parse::<usize>().ok();
        Some(match word {
            "up" => Self::Up { release: rest.to_owned() },
            "began" => Self::Began { test: number(rest)? },
            "alive" => Self::Alive,
            "passed" | "skipped" | "failed" => {
                let mut fields = rest.splitn(3, ' ');
                let test = number(fields.next()?)?;
                let took = Duration::from_millis(fields.next()?.parse().ok()?);
                let why = fields.next().unwrap_or_default().to_owned();
                let outcome = match word {
                    "passed" => Outcome::Passed,
                    "skipped" => Outcome::Skipped(why),
                    _ => Outcome::Failed(why),
                };
                Self::Ended { test, outcome, took }
            }
            "said" => {
                let (test, text) = rest.split_once(' ').unwrap_or((rest, ""));
                Self::Said { test: number(test)?, text: text.to_owned() }
            }
            "done" => Self::Done,
            "broken" => Self::Broken { why: rest.to_owned() },
            _ => return None,
        })
    }
}

/// What would end a line, or be taken by a terminal for more than text, is left out.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_reads_as_it_was_written() {
        let took = Duration::from_millis(1234);
        for line in [
            Line::Up { release: "6.1.0-56-cloud-amd64".into() },
            Line::Began { test: 7 },
            Line::Alive,
            Line::Ended { test: 0, outcome: Outcome::Passed, took },
            Line::Ended { test: 1, outcome: Outcome::Skipped("needs `etcd`".into()), took },
            Line::Ended { test: 2, outcome: Outcome::Failed("no end after 60s".into()), took },
            Line::Said { test: 2, text: "thread panicked at  x".into() },
            Line::Said { test: 2, text: String::new() },
            Line::Done,
            Line::Broken { why: "/proc: no".into() },
        ] {
            assert_eq!(Line::parse(&format!("{line}\r\n")), Some(line));
        }
    }

    #[test]
    fn what_is_no_line_of_ours_is_nothing() {
        for text in ["", "SeaBIOS (version 1.16)", "began x", "passed 1", "passed 1 soon"] {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }

    #[test]
    fn text_of_tests_cannot_write_lines() {
        let said = Line::Said { test: 1, text: "a\ndone".into() };
        assert_eq!(said.to_string().lines().count(), 1);
    }
}

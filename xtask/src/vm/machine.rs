//! One run of the tests on one kernel: what the guest says is told as it comes, and a guest that says nothing any more,
//! or whose kernel is in trouble, has failed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::interrupt;
use crate::process::tell;

use super::console;
use super::kernels::Kernel;
use super::plan::Test;
use super::protocol::{Line, Outcome};
use super::qemu::{self, Accelerator};

/// How long a guest may say nothing: it tells every 5 s of its own time that it lives, and that time passes up to twenty
/// times slower where instructions are translated.
const SILENCE: Duration = Duration::from_secs(240);
/// How long all may take: so much for a start, and so much more for each test.
const START: Duration = Duration::from_secs(300);
const EACH: Duration = Duration::from_secs(180);
/// Lines of the kernel's messages that are shown when something is wrong with it.
const SHOWN: usize = 60;

/// What became of the tests on one kernel.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) label: String,
    pub(super) release: String,
    /// One for each test that ended, or that ran when the machine failed.
    pub(super) outcomes: BTreeMap<usize, Outcome>,
    /// What was wrong with the machine itself.
    pub(super) trouble: Option<String>,
}

impl Results {
    pub(super) fn new(label: &str) -> Self {
        Self { label: label.to_owned(), release: String::new(), outcomes: BTreeMap::new(), trouble: None }
    }

    /// The release that ran, or what was to run where none did.
    pub(super) fn release_or_label(&self) -> &str {
        if self.release.is_empty() { &self.label } else { &self.release }
    }

    /// Passed, failed, skipped.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let count = |which: fn(&Outcome) -> bool| self.outcomes.values().filter(|outcome| which(outcome)).count();
        (
            count(|outcome| matches!(outcome, Outcome::Passed)),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
            count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        )
    }

    /// Whether all `planned` tests ended, none of them badly and not all skipped, and the kernel was well.
    pub(super) fn good(&self, planned: usize) -> bool {
        let (passed, failed, _) = self.counts();
        self.trouble.is_none() && self.outcomes.len() == planned && passed > 0 && failed == 0
    }
}

/// What follows from lines, whoever says them: keeps outcomes, and tells of them.
pub(super) struct Listener<'a> {
    tests: &'a [Test],
    results: Results,
    running: Option<usize>,
    said: Vec<String>,
    done: bool,
}

impl<'a> Listener<'a> {
    pub(super) fn new(label: &str, tests: &'a [Test]) -> Self {
        Self { tests, results: Results::new(label), running: None, said: Vec::new(), done: false }
    }

    /// Takes a line.
    pub(super) fn hear(&mut self, line: Line) {
        match line {
            Line::Up { release } => {
                tell(&format!("          UP            {}: {release}", self.results.label));
                self.results.release = release;
            }
            Line::Alive => {}
            Line::Began { test } => {
                self.running = Some(test);
                self.said.clear();
            }
            Line::Said { text, .. } => self.said.push(text),
            Line::Ended { test, outcome, took } => {
                self.running = None;
                if let Some(named) = self.tests.get(test) {
                    let head = format!("({}/{}) {} {}", test + 1, self.tests.len(), self.results.label, named.id());
                    tell(&ended(&head, &outcome, took, &self.said));
                    self.results.outcomes.insert(test, outcome);
                }
            }
            Line::Broken { why } => self.fail(why),
            Line::Done => self.done = true,
        }
    }

    /// Something is wrong with the machine, and so with the test that runs.
    fn fail(&mut self, why: String) {
        if let Some(test) = self.running.take() {
            let name = self.tests.get(test).map(Test::id).unwrap_or_default();
            tell(&format!("        FAIL            {} {name}: {why}", self.results.label));
            self.results.outcomes.insert(test, Outcome::Failed(why.clone()));
        }
        self.results.trouble.get_or_insert(why);
    }

    pub(super) fn finish(self) -> Results {
        self.results
    }
}

/// What is told of a test that ended.
fn ended(test: &str, outcome: &Outcome, took: Duration, said: &[String]) -> String {
    let (word, why) = match outcome {
        Outcome::Passed => ("PASS", String::new()),
        Outcome::Skipped(why) => ("SKIP", format!(": {why}")),
        Outcome::Failed(why) => ("FAIL", format!(": {why}")),
    };
    let mut text = format!("        {word} [{:>8.3}s] {test}{why}", took.as_secs_f64());
    if matches!(outcome, Outcome::Failed(_)) {
        for line in said {
            text.push_str("\n    ");
            text.push_str(line);
        }
    }
    text
}

/// Boots `kernel` and has the tests run that the image holds.
pub(super) fn run(
    accelerator: Accelerator,
    kernel: &Kernel,
    image: &Path,
    console: &Path,
    tests: &[Test],
) -> Result<Results, String> {
    let size = fs::metadata(image).map_err(|error| format!("{}: {error}", image.display()))?.len() >> 20;
    // Twice the image, packed and unpacked; then what runs.
    let mut machine = qemu::start(accelerator, kernel, image, console, 2 * size + 1536)?;
    let mut listener = Listener::new(&kernel.label, tests);
    let lines = listen(&mut machine);
    let limit = START + EACH * u32::try_from(tests.len()).unwrap_or(u32::MAX);
    let stopped = follow(&lines, &mut listener, limit);
    let _ = machine.kill();
    let _ = machine.wait();
    let messages = String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned();
    if let Some(line) = messages.lines().find_map(console::trouble) {
        listener.fail(format!("the kernel says: {line}"));
    } else if let Some(why) = stopped {
        listener.fail(why);
    } else if !listener.done {
        let mut said = String::new();
        if let Some(mut stderr) = machine.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        listener.fail(format!("the machine ended by itself{}{}", if said.is_empty() { "" } else { ": " }, said.trim()));
    }
    if let Some(why) = &listener.results.trouble {
        let part = console::telling(&messages, SHOWN);
        tell(&format!("error: {}: {why}\n  {}:\n{part}", kernel.label, console.display()));
    } else {
        let _ = fs::remove_file(console);
    }
    Ok(listener.finish())
}

/// Reads what the guest says, in a thread that ends with the machine.
fn listen(machine: &mut Child) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(said) = machine.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(said).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// Hears the guest to its end. Why it was not heard to its end, if it was not.
fn follow(lines: &Receiver<String>, listener: &mut Listener<'_>, limit: Duration) -> Option<String> {
    let began = Instant::now();
    let mut heard = began;
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                if let Some(line) = Line::parse(&line) {
                    heard = Instant::now();
                    listener.hear(line);
                }
                // Whether it then switches itself off as it should is of no interest.
                if listener.done {
                    return None;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if heard.elapsed() > SILENCE {
            return Some(format!("it hangs: nothing was heard of it for {SILENCE:?}"));
        }
        if began.elapsed() > limit {
            return Some(format!("not done after {limit:?}"));
        }
        if interrupt::asked() {
            return Some("interrupted".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests() -> Vec<Test> {
        let test = |name: &str| Test { binary: "b".into(), name: name.into() };
        vec![test("one"), test("two"), test("three")]
    }

    fn hear(lines: Vec<Line>) -> Results {
        let tests = tests();
        let mut listener = Listener::new("6.1", &tests);
        lines.into_iter().for_each(|line| listener.hear(line));
        listener.finish()
    }

    fn end(test: usize, outcome: Outcome) -> Line {
        Line::Ended { test, outcome, took: Duration::from_secs(1) }
    }

    #[test]
    fn all_is_good_where_every_test_ended_well() {
        let skipped = Outcome::Skipped("needs x".into());
        let results = hear(vec![end(0, Outcome::Passed), end(1, skipped), end(2, Outcome::Passed), Line::Done]);
        assert_eq!(results.counts(), (2, 0, 1));
        assert!(results.good(3));
    }

    #[test]
    fn a_test_that_failed_or_never_ended_is_not_good() {
        assert!(
            !hear(vec![end(0, Outcome::Passed), end(1, Outcome::Failed("x".into())), end(2, Outcome::Passed)]).good(3)
        );
        assert!(!hear(vec![end(0, Outcome::Passed), end(1, Outcome::Passed)]).good(3));
        let skipped = |test| end(test, Outcome::Skipped("needs root".into()));
        assert!(!hear((0..3).map(skipped).collect()).good(3), "nothing was tested");
    }

    #[test]
    fn a_machine_that_breaks_fails_the_test_that_runs() {
        let results = hear(vec![end(0, Outcome::Passed), Line::Began { test: 1 }, Line::Broken { why: "gone".into() }]);
        assert_eq!(results.outcomes[&1], Outcome::Failed("gone".into()));
        assert_eq!(results.trouble.as_deref(), Some("gone"));
        assert!(!results.good(2));
    }

    #[test]
    fn a_silent_guest_is_given_up_and_an_ended_one_is_not_waited_for() {
        let tests = tests();
        let (sender, receiver) = mpsc::channel();
        sender.send("began 0".to_owned()).unwrap();
        let mut listener = Listener::new("6.1", &tests);
        let stopped = follow(&receiver, &mut listener, Duration::ZERO);
        assert!(stopped.unwrap().contains("not done"));
        drop(sender);
        assert_eq!(follow(&receiver, &mut listener, Duration::from_secs(60)), None);
    }

    #[test]
    fn a_failure_shows_what_the_test_printed_and_a_pass_does_not() {
        let said = vec!["panicked at x".to_owned()];
        let failed = ended("6.1 b::one", &Outcome::Failed("it failed".into()), Duration::from_millis(1500), &said);
        assert_eq!(failed, "        FAIL [   1.500s] 6.1 b::one: it failed\n    panicked at x");
        let passed = ended("6.1 b::one", &Outcome::Passed, Duration::ZERO, &said);
        assert_eq!(passed, "        PASS [   0.000s] 6.1 b::one");
    }
}

//! Runs tests one after the other, each in a process of its own, so that one that crashes or hangs is known by its name.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::protocol::{Line, Outcome};

/// How long a test may take. In the time of the machine it runs on: a guest's is not the host's. Of those that are full
/// of work, which take a minute natively, a guest that is translated makes ten.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// How often it is said that a test still runs.
const HEARTBEAT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);
/// How much of what a failed test printed is told.
const TOLD: usize = 200;
/// And of what it said when it stumbled.
const STUMBLED: usize = 10;

/// A test to run.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) binary: PathBuf,
    pub(super) name: String,
}

/// What tests read from their environment.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) daemon: PathBuf,
    pub(super) python: Option<PathBuf>,
}

/// Runs them all, and says in lines what happens. Ends early where `say` answers no.
pub(super) fn run(jobs: &[Job], surroundings: &Surroundings, say: &mut dyn FnMut(Line) -> bool) {
    let place = std::env::temp_dir().join(format!("mesh-vm-{}", std::process::id()));
    let (output, skips) = (place.with_extension("output"), place.with_extension("skips"));
    for (test, job) in jobs.iter().enumerate() {
        let _ = fs::remove_file(&skips);
        let began = Instant::now();
        let mut go_on = say(Line::Began { test });
        let outcome = match start(job, surroundings, &output, &skips) {
            Ok(mut child) => match wait(&mut child, || say(Line::Alive)) {
                Some(status) => judge(status, &fs::read_to_string(&skips).unwrap_or_default()),
                None => Outcome::Failed(format!("it had no end after {LIMIT:?}")),
            },
            Err(error) => Outcome::Failed(format!("it does not start: {error}")),
        };
        let took = began.elapsed();
        if matches!(outcome, Outcome::Failed(_)) {
            let printed = fs::read(&output).unwrap_or_default();
            for text in end_of(&String::from_utf8_lossy(&printed)) {
                go_on &= say(Line::Said { test, text: text.to_owned() });
            }
        }
        go_on &= say(Line::Ended { test, outcome, took });
        if !go_on {
            break;
        }
    }
    for file in [output, skips] {
        let _ = fs::remove_file(file);
    }
}

fn start(job: &Job, surroundings: &Surroundings, output: &Path, skips: &Path) -> std::io::Result<Child> {
    // Into a file and not through a pipe: whatever a test leaves behind may keep that open for ever.
    let output = File::create(output)?;
    let mut command = Command::new(&job.binary);
    command.args(["--exact", "--nocapture", &job.name]).stdin(Stdio::null());
    command.stdout(output.try_clone()?).stderr(output);
    command.env("MESH_BIN", &surroundings.daemon).env("MESH_SKIP_FILE", skips);
    if let Some(python) = &surroundings.python {
        command.env("MESH_TEST_PYTHON", python);
    }
    command.process_group(0).spawn()
}

/// Waits for a child to end, and ends it with its group where it takes too long or `alive` answers no.
fn wait(child: &mut Child, mut alive: impl FnMut() -> bool) -> Option<ExitStatus> {
    let began = Instant::now();
    let mut said = began;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        let mut go_on = true;
        if said.elapsed() >= HEARTBEAT {
            said = Instant::now();
            go_on = alive();
        }
        if began.elapsed() >= LIMIT || !go_on {
            if let Ok(group) = libc::pid_t::try_from(child.id()) {
                // SAFETY: takes numbers. The child has not been waited for, so its group is still its own.
                unsafe { libc::kill(-group, libc::SIGKILL) };
            }
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

fn judge(status: ExitStatus, skips: &str) -> Outcome {
    match (status.success(), skips.lines().next()) {
        // `module::test: why`
        (true, Some(skip)) => Outcome::Skipped(skip.split_once(": ").map_or(skip, |(_, why)| why).to_owned()),
        (true, None) => Outcome::Passed,
        (false, _) => Outcome::Failed(match status.signal() {
            Some(signal) => format!("signal {signal}"),
            None => "it failed".to_owned(),
        }),
    }
}

/// The last lines of a text, after those that say where a test stumbled: daemons show their logs after that, which are long.
fn end_of(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let end = lines.len().saturating_sub(TOLD);
    let stumbled = lines[..end].iter().position(|line| line.contains(" panicked at "));
    let stumbled = stumbled.map_or(&[][..], |at| &lines[at..end.min(at + STUMBLED)]);
    [stumbled, &lines[end..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_says_it_skipped_has_not_passed() {
        let (well, badly, killed) = (ExitStatus::from_raw(0), ExitStatus::from_raw(101 << 8), ExitStatus::from_raw(9));
        assert_eq!(judge(well, ""), Outcome::Passed);
        assert_eq!(
            judge(well, "dns::a: needs `etcd`, says: who\n"),
            Outcome::Skipped("needs `etcd`, says: who".into())
        );
        assert_eq!(judge(badly, "dns::a: x\n"), Outcome::Failed("it failed".into()));
        assert_eq!(judge(killed, ""), Outcome::Failed("signal 9".into()));
    }

    #[test]
    fn where_a_test_stumbled_is_told_before_the_end_of_what_it_said() {
        let log = "log\n".repeat(500);
        let text = format!("begin\nthread 'x' panicked at a.rs:1:2:\nleft is not right\n{log}end\n");
        let told = end_of(&text);
        assert_eq!(told[..2], ["thread 'x' panicked at a.rs:1:2:", "left is not right"]);
        assert_eq!((told.len(), told.last()), (STUMBLED + TOLD, Some(&"end")));
        assert_eq!(end_of("one\ntwo"), ["one", "two"]);
    }

    #[test]
    fn a_program_that_is_not_there_fails_and_the_next_one_still_runs() {
        let job = |binary: &str| Job { binary: binary.into(), name: "x".into() };
        let surroundings = Surroundings { daemon: "/no/mesh".into(), python: None };
        let mut lines = Vec::new();
        run(&[job("/no/such/test"), job("/bin/true")], &surroundings, &mut |line| {
            lines.push(line);
            true
        });
        let ended: Vec<&Outcome> = lines
            .iter()
            .filter_map(|line| if let Line::Ended { outcome, .. } = line { Some(outcome) } else { None })
            .collect();
        assert!(matches!(ended[0], Outcome::Failed(why) if why.contains("does not start")));
        assert_eq!(ended[1], &Outcome::Passed);
    }
}

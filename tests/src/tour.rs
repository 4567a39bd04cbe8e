//! Tours: commands that a page of the documentation shows, with what they print, run as they stand.
//!
//! What lies between `<!-- tour: begin -->` and `<!-- tour: end -->` is one session of a shell. Blocks of `sh` are run;
//! blocks of `console` are run line by line (`$ COMMAND`), and what is printed has to be of the shape that the page shows.

use crate::{Cgroup, poll, process, skip};
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Longer than any tour takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(400);
/// Printed by the shell before what a command prints.
const MARK: &str = "@@ tour ";

/// A command, and the lines that the page shows below it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    command: String,
    printed: Vec<String>,
}

/// A tour of a page.
#[derive(Debug, Default)]
pub struct Tour {
    script: String,
    steps: Vec<Step>,
}

impl Tour {
    /// The tour of a page.
    #[must_use]
    pub fn of(page: &str) -> Self {
        let mut tour = Self::default();
        let areas =
            page.split("<!-- tour: begin -->").skip(1).filter_map(|rest| rest.split("<!-- tour: end -->").next());
        for area in areas {
            let mut lines = area.lines();
            while let Some(line) = lines.next() {
                match line {
                    "```sh" => tour.script.extend(block(&mut lines).flat_map(|line| [line, "\n"])),
                    "```console" => tour.console(block(&mut lines)),
                    _ => {}
                }
            }
        }
        tour
    }

    fn console<'l>(&mut self, lines: impl Iterator<Item = &'l str>) {
        for line in lines {
            match (line.strip_prefix("$ "), self.steps.last_mut()) {
                (Some(command), _) => {
                    self.script.push_str(&format!("printf '\\n{MARK}%s\\n' {}\n{command}\n", self.steps.len()));
                    self.steps.push(Step { command: command.to_owned(), printed: Vec::new() });
                }
                (None, Some(step)) => step.printed.push(line.to_owned()),
                (None, None) => panic!("a block of console begins with a command: {line}"),
            }
        }
        // What blocks of sh print is compared with nothing.
        self.script.push_str(&format!("printf '\\n{MARK}none\\n'\n"));
    }

    /// How many commands print something that is compared.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Runs it in namespaces of its own, so that its fixed names and ports meet nobody, and its processes end with it.
    ///
    /// # Errors
    /// What this machine lacks.
    ///
    /// # Panics
    /// Where something else is printed than the page shows.
    pub fn run(&self) -> Result<(), String> {
        skip::requirements()?;
        if let Some(missing) = ["unshare", "findmnt", "curl", "python3", "ip"].iter().find(|name| !is_here(name)) {
            return Err(format!("needs {missing}"));
        }
        let cgroup = Cgroup::new().map_err(|error| format!("needs a cgroup: {error}"))?;
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let printed = directory.path().join("printed");
        let mut child = start(&cgroup, &printed).map_err(|error| format!("needs namespaces: {error}"))?;
        let written = child.stdin.take().map(|mut stdin| stdin.write_all(self.script.as_bytes()));
        let ended = poll::within(PATIENCE, || child.try_wait().ok().flatten().ok_or(()));
        if ended.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let printed = fs::read_to_string(printed).unwrap_or_default();
        assert!(ended.is_ok() && written.is_some_and(|done| done.is_ok()), "no end of the tour:\n{printed}");
        self.compare(&printed);
        Ok(())
    }

    fn compare(&self, printed: &str) {
        let mut parts: Vec<Vec<&str>> = vec![Vec::new(); self.steps.len()];
        let mut at = None;
        for line in printed.lines() {
            match line.strip_prefix(MARK) {
                Some(number) => at = number.parse::<usize>().ok(),
                None => {
                    if let Some(part) = at.and_then(|at| parts.get_mut(at)) {
                        part.push(line);
                    }
                }
            }
        }
        for (step, part) in self.steps.iter().zip(&parts) {
            // What a shell says about processes that it started and that were ended.
            let said = part.iter().filter(|line| !line.is_empty() && !is_about_a_job(line));
            let found: Vec<String> = said.map(|line| shape(line)).collect();
            let wanted: Vec<String> = step.printed.iter().filter(|l| !l.is_empty()).map(|line| shape(line)).collect();
            assert_eq!(found, wanted, "$ {}\nprints\n{}\n--- all of it\n{printed}", step.command, part.join("\n"));
        }
    }
}

fn block<'l>(lines: &mut impl Iterator<Item = &'l str>) -> impl Iterator<Item = &'l str> {
    lines.take_while(|line| *line != "```")
}

fn is_here(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$1\"", "sh", program]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// `bash: line 7: 4711 Terminated   python3 ...`
fn is_about_a_job(line: &str) -> bool {
    line.contains(": line ") && [" Terminated ", " Killed "].iter().any(|word| line.contains(word))
}

/// A shell that reads commands, as root of namespaces of its own: network, mounts, cgroups, processes. The binary under
/// test stands where `cargo xtask build` would put it, and /tmp is empty.
const INSIDE: &str = r#"
set -e
ip link set lo up
mount -t tmpfs tmpfs /mnt
mkdir -p /mnt/tmp /mnt/repository/target/release
touch /mnt/repository/target/release/mesh
mount --bind "$1" /mnt/repository/target/release/mesh
mount --bind /mnt/tmp /tmp
hierarchy=$(findmnt -nt cgroup2 -o TARGET | head -1)
umount "$hierarchy"
mount -t cgroup2 cgroup2 "$hierarchy"
mount -t bpf bpf /sys/fs/bpf
cd /mnt/repository
exec bash
"#;

fn start(cgroup: &Cgroup, printed: &Path) -> std::io::Result<Child> {
    let out = fs::File::create(printed)?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--cgroup", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["bash", "-c", INSIDE, "bash"]).arg(process::mesh());
    command.env_remove("MESH_CONFIG").env_remove("MESH_ADMIN_SOCKET");
    command.stdin(Stdio::piped()).stdout(out.try_clone()?).stderr(out);
    process::place(&mut command, Some(cgroup.path()), None)?;
    command.spawn()
}

/// What stays the same from one run to the next: words and addresses. Numbers with their units vary, and so does the
/// width of columns; health is not known before the first check.
fn shape(line: &str) -> String {
    const UNITS: [&str; 9] = ["KiB", "MiB", "GiB", "B", "µs", "ms", "s", "m", "%"];
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let word = if word == "unknown" { "healthy" } else { word };
        let after_number = words.last().is_some_and(|last| last == "#");
        if !(after_number && UNITS.contains(&word)) {
            words.push(without_numbers(word));
        }
    }
    words.join(" ")
}

/// A word with `#` in place of each number, and of a number with a unit that is a word itself; addresses stay.
fn without_numbers(word: &str) -> String {
    let is_address = |word: &str| word.matches('.').count() == 3 || word.contains("::");
    if is_address(word) && !word.contains('}') {
        // Ports that the kernel chose are above those that a page names.
        return match word.rsplit_once(':') {
            Some((host, port)) if port.parse::<u32>().is_ok_and(|port| port > 20_000) => format!("{host}:#"),
            _ => word.to_owned(),
        };
    }
    let mut shape = String::new();
    let mut letters = word.chars().peekable();
    while let Some(letter) = letters.next() {
        if !letter.is_ascii_digit() {
            shape.push(letter);
            continue;
        }
        while letters.next_if(|c| c.is_ascii_digit() || *c == '.').is_some() {}
        shape.push('#');
    }
    let unit = ["#ms", "#s", "#m"].iter().any(|unit| shape == *unit);
    if unit { "#".to_owned() } else { shape }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_steps_with_what_they_print() {
        let page = "```sh\nnot run\n```\n<!-- tour: begin -->\n```sh\na=1\n```\n```console\n$ echo $a\n1\n$ true\n```\n\
                    <!-- tour: end -->\n```console\n$ not run\n```\n";
        let tour = Tour::of(page);
        let step = |command: &str, printed: &[&str]| Step {
            command: command.to_owned(),
            printed: printed.iter().map(|line| (*line).to_owned()).collect(),
        };
        assert_eq!(tour.steps, [step("echo $a", &["1"]), step("true", &[])]);
        assert!(tour.script.starts_with("a=1\n") && !tour.script.contains("not run"), "{}", tour.script);
    }

    #[test]
    fn numbers_vary_and_words_do_not() {
        for (one, other) in [
            ("web  127.0.0.1:8081  closed  0  12.2 KiB  in 27s", "web 127.0.0.1:8081 closed 12 784 B in 1s"),
            ("x 127.0.0.1:41544 17 ms", "x 127.0.0.1:39000 1.02 ms"),
            ("     40 endpoint 1", "      9 endpoint 3"),
            ("0  unknown", "3  healthy"),
        ] {
            assert_eq!(shape(one), shape(other));
        }
        for (one, other) in [
            ("web 127.0.0.1:8081 closed", "web 127.0.0.1:8082 closed"),
            ("web closed", "web open"),
            ("RETRY -", "RETRY in 3s"),
        ] {
            assert_ne!(shape(one), shape(other));
        }
    }
}

//! A terminal to look at: tmux with a server of its own.

use crate::{poll, programs};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// A shell in a terminal of 80 columns and 24 rows that nobody sees. Dropped, it ends with everything in it.
#[derive(Debug)]
pub struct Terminal {
    tmux: PathBuf,
    /// With the socket of the server.
    dir: TempDir,
}

impl Terminal {
    /// A terminal whose shell has these variables.
    ///
    /// # Errors
    /// Where tmux is not installed.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn new(environment: &[(&str, &Path)]) -> Result<Self, String> {
        let tmux = programs::find("tmux").ok_or("needs `tmux`, which `cargo xtask setup` installs")?;
        let dir = tempfile::Builder::new().prefix("mesh-test-tmux-").tempdir();
        let terminal = Self { tmux, dir: dir.expect("a temporary directory can be made") };
        let mut command = terminal.command(&["new-session", "-d", "-x", "80", "-y", "24", "sh"]);
        command.env_remove("TMUX").env_remove("NO_COLOR");
        command.envs(environment.iter().copied());
        done(&mut command);
        terminal.until("the shell's prompt", |screen| !screen.trim().is_empty());
        Ok(terminal)
    }

    /// Types a line.
    pub fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.press("Enter");
    }

    /// Types characters.
    pub fn write(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Presses a key, by the name that tmux has for it.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Makes it another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What is on it.
    #[must_use]
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What is on it, colours and other attributes included as the sequences that make them.
    #[must_use]
    pub fn painted(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until it shows something that passes, and gives that.
    ///
    /// # Panics
    /// Where it does not in time.
    pub fn until(&self, what: &str, passes: impl Fn(&str) -> bool) -> String {
        poll::eventually(what, || {
            let screen = self.screen();
            if passes(&screen) { Ok(screen) } else { Err(format!("\n{screen}")) }
        })
    }

    /// Waits until it shows `text`, and gives all that it shows.
    ///
    /// # Panics
    /// Where it does not in time.
    pub fn shows(&self, text: &str) -> String {
        self.until(&format!("the terminal shows {text:?}"), |screen| screen.contains(text))
    }

    /// Whether a program has taken the whole screen, and whether the cursor is hidden.
    #[must_use]
    pub fn modes(&self) -> (bool, bool) {
        let said = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        let mut flags = said.split_whitespace().map(|flag| flag == "1");
        (flags.next().unwrap_or_default(), !flags.next().unwrap_or_default())
    }

    /// The shell's process.
    ///
    /// # Panics
    /// Where tmux does not say.
    #[must_use]
    pub fn shell(&self) -> u32 {
        self.tmux(&["display-message", "-p", "#{pane_pid}"]).trim().parse().expect("a process id")
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&done(&mut self.command(arguments)).stdout).into_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.tmux);
        // A configuration of the user's would change keys and colours.
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(self.dir.path().join("socket")).args(arguments);
        command
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the terminal\n{}---", self.screen());
        }
        // It may have ended with its shell.
        let _ = self.command(&["kill-server"]).output();
    }
}

fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

//! How much which module logs.

use std::{collections::BTreeMap, fmt};

/// What a module may log, from nothing to everything.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The programs in the kernel.
const PROGRAMS: &str = "mesh_ebpf";

/// The daemon itself: all of its modules.
const DAEMON: &str = "mesh_userspace";

/// The modules of the daemon, each of which logs what it does.
pub const MODULES: [&str; 12] = [
    "api",
    "app",
    "cli",
    "config",
    "datapath",
    "discovery",
    "health",
    "kernel",
    "model",
    "policy",
    "proxy",
    "telemetry",
];

/// What logs besides the daemon's modules: the programs in the kernel, requests and connections, libraries.
const OTHERS: [&str; 15] = [
    DAEMON,
    PROGRAMS,
    super::entry::REQUEST,
    super::entry::CONNECTION,
    "aya",
    "h2",
    "hickory_net",
    "hickory_proto",
    "hickory_resolver",
    "hickory_server",
    "hyper",
    "hyper_util",
    "kube_client",
    "kube_runtime",
    "tower",
];

/// What is wrong about a change.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such level.
    #[error("{0:?} is no level: expected MODULE=LEVEL, or LEVEL for all others, with one of {levels}", levels = LEVELS.join(", "))]
    Level(String),
    /// There is no such module.
    #[error(
        "no module is called {0:?}: expected {DAEMON}, one of its modules ({modules}), or one of {others}",
        modules = MODULES.join(", "), others = OTHERS[1..].join(", ")
    )]
    Module(String),
}

/// One change: of a module, or of all that have no level of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As `tracing` calls it; `None`: all others.
    pub module: Option<String>,
    /// One of [`LEVELS`].
    pub level: &'static str,
}

impl Change {
    /// `MODULE=LEVEL`, or `LEVEL`. A module of the daemon needs no `mesh_userspace::` before it.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn parse(text: &str) -> Result<Self, ChangeError> {
        let (module, level) = match text.split_once('=') {
            Some((module, level)) => (Some(module.trim()), level.trim()),
            None => (None, text.trim()),
        };
        let known = LEVELS.into_iter().find(|known| known.eq_ignore_ascii_case(level));
        let level = known.ok_or_else(|| ChangeError::Level(level.to_owned()))?;
        Ok(Self { module: module.map(full_name).transpose()?, level })
    }
}

fn full_name(module: &str) -> Result<String, ChangeError> {
    let own = module.strip_prefix(DAEMON).and_then(|rest| rest.strip_prefix("::")).unwrap_or(module);
    if MODULES.contains(&own) {
        Ok(format!("{DAEMON}::{own}"))
    } else if OTHERS.contains(&module) {
        Ok(module.to_owned())
    } else {
        Err(ChangeError::Module(module.to_owned()))
    }
}

/// The levels of modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// Of modules that have none of their own.
    pub level: String,
    /// Of modules.
    pub modules: BTreeMap<String, String>,
}

impl Directives {
    /// As the configuration writes them: a level, `MODULE=LEVEL`, or several of these with commas between. A module of the
    /// daemon needs no `mesh_userspace::` before it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        // What `tracing` takes where no plain level is written.
        let mut directives = Self { level: "error".to_owned(), modules: BTreeMap::new() };
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            match directive.split_once('=') {
                Some((module, level)) => {
                    let module = full_name(module).unwrap_or_else(|_| module.to_owned());
                    directives.modules.insert(module, level.to_owned());
                }
                None => directive.clone_into(&mut directives.level),
            }
        }
        directives
    }

    /// Makes a change; the level that held before.
    pub fn change(&mut self, change: &Change) -> String {
        let level = change.level.to_owned();
        match &change.module {
            None => std::mem::replace(&mut self.level, level),
            Some(module) => {
                let before = self.of(module).to_owned();
                self.modules.insert(module.clone(), level);
                before
            }
        }
    }

    /// The level of a module: its own, else that of the nearest around it.
    #[must_use]
    pub fn of(&self, module: &str) -> &str {
        let mut around = Some(module);
        while let Some(name) = around {
            if let Some(level) = self.modules.get(name) {
                return level;
            }
            around = name.rsplit_once("::").map(|(around, _)| around);
        }
        &self.level
    }
}

impl Directives {
    /// How much the programs in the kernel have to log, as they number it: 0 (nothing) to 5 (trace).
    #[must_use]
    pub fn of_programs(&self) -> u8 {
        let number = |level: &str| LEVELS.iter().position(|known| *known == level).map_or(0, |at| at as u8);
        let inside = self.modules.iter().filter(|(module, _)| module.starts_with("mesh_ebpf::"));
        let inside = inside.map(|(_, level)| number(level)).max().unwrap_or(0);
        inside.max(number(self.of(PROGRAMS)))
    }
}

impl fmt::Display for Directives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.level)?;
        self.modules.iter().try_for_each(|(module, level)| write!(f, ",{module}={level}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    fn change(text: &str) -> Change {
        Change::parse(text).unwrap()
    }

    #[test]
    fn the_modules_that_can_be_named_are_those_that_there_are() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let directories = fs::read_dir(source).unwrap().map(Result::unwrap).filter(|e| e.path().is_dir());
        let mut found: Vec<_> = directories.map(|e| e.file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, MODULES);
    }

    #[test]
    fn a_module_is_changed_and_the_others_stay() {
        let mut directives = Directives::parse("info, mesh_userspace::kernel=debug");
        assert_eq!(directives.change(&change("proxy=TRACE")), "info");
        assert_eq!(directives.change(&change("mesh_userspace::kernel=off")), "debug");
        assert_eq!(directives.change(&change("warn")), "info");
        assert_eq!(directives.change(&change("request=off")), "warn");
        assert_eq!(directives.to_string(), "warn,mesh_userspace::kernel=off,mesh_userspace::proxy=trace,request=off");
        assert_eq!(Directives::parse(&directives.to_string()), directives);
        assert_eq!(Directives::parse("warn,proxy=trace,x=off").to_string(), "warn,mesh_userspace::proxy=trace,x=off");
    }

    #[test]
    fn the_programs_log_as_much_as_is_wanted_of_any_of_their_parts() {
        let of = |text| Directives::parse(text).of_programs();
        assert_eq!(
            [of("info"), of("trace"), of("warn,mesh_ebpf=debug"), of("warn,mesh_ebpf::translate=debug")],
            [3, 5, 4, 4]
        );
        assert_eq!([of("info,mesh_userspace=trace"), of("debug,mesh_ebpf=off"), of("mesh_ebpf=info")], [3, 0, 3]);
    }

    #[test]
    fn the_level_of_a_module_is_that_of_the_nearest_around_it() {
        let directives = Directives::parse("mesh_userspace=debug,mesh_userspace::proxy=warn");
        let of = |module| directives.of(module);
        assert_eq!(
            [of("mesh_userspace::proxy::pool"), of("mesh_userspace::api"), of("hyper")],
            ["warn", "debug", "error"]
        );
    }

    #[test]
    fn what_is_no_level_and_no_module_is_refused_with_what_there_is() {
        let message = |text| Change::parse(text).unwrap_err().to_string();
        assert!(
            message("proxy=loud").starts_with("\"loud\" is no level: expected MODULE=LEVEL"),
            "{}",
            message("proxy=loud")
        );
        assert!(message("proxy").contains("one of off, error, warn, info, debug, trace"));
        assert!(message("proxie=debug").starts_with("no module is called \"proxie\""));
        for text in
            ["", "=", "=debug", "mesh_userspace::=debug", "a b=debug", "proxy=debug,api=debug", "proxy[x]=debug"]
        {
            assert!(Change::parse(text).is_err(), "{text}");
        }
    }
}

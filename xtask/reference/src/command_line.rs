//! Commands with their arguments and options, from the definition by which they are parsed.

use crate::table::{code, table};
use clap::{Arg, Command};
use mesh_userspace::cli;

/// Every command but those that only group others; or, for the word `options`, what every command takes.
pub(crate) fn part(arguments: &[&str]) -> Result<String, String> {
    let mut mesh = cli::definition();
    mesh.build();
    match arguments {
        ["options"] => Ok(arguments_of(mesh.get_arguments().filter(|a| a.is_global_set()))),
        ["commands"] => {
            let mut text = String::new();
            mesh.get_subcommands_mut().for_each(|command| tell(command, &mut text));
            Ok(text)
        }
        _ => Err(format!("command-line is followed by options or commands, not {arguments:?}")),
    }
}

fn tell(command: &mut Command, text: &mut String) {
    if command.get_name() == "help" || command.is_hide_set() {
        return;
    }
    if !command.is_subcommand_required_set() {
        let name = command.get_bin_name().unwrap_or_default().to_owned();
        let usage = command.render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").lines().map(str::trim).collect::<Vec<_>>().join("\n");
        text.push_str(&format!("### {name}\n\n"));
        let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
        for paragraph in about.split("\n\n") {
            text.push_str(&format!("{}\n\n", sentence(&paragraph.replace('\n', " "))));
        }
        text.push_str(&format!("```text\n{usage}\n```\n\n"));
        let own = arguments_of(command.get_arguments().filter(|a| !a.is_global_set() && a.get_id() != "help"));
        if !own.is_empty() {
            text.push_str(&format!("{own}\n"));
        }
    }
    command.get_subcommands_mut().for_each(|command| tell(command, text));
}

/// A table of arguments; nothing of none.
fn arguments_of<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let shown = arguments.filter(|a| !a.is_hide_set() && !matches!(a.get_id().as_str(), "help" | "version"));
    let rows: Vec<[String; 3]> = shown.map(|a| [code(&name(a)), meaning(a), default(a)]).collect();
    if rows.is_empty() { String::new() } else { table(["argument", "meaning", "default"], rows) }
}

/// `SERVICE`, or `-o, --output FORMAT`.
fn name(argument: &Arg) -> String {
    let takes = argument.get_action().takes_values();
    let value = match argument.get_value_names() {
        Some([value, ..]) if takes => value.to_string(),
        _ => String::new(),
    };
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    match (short, long) {
        (None, None) => value,
        (short, long) => {
            let names: Vec<String> = short.into_iter().chain(long).collect();
            format!("{} {value}", names.join(", ")).trim_end().to_owned()
        }
    }
}

/// Its help, without what it says about its default, and the words that it may be.
fn meaning(argument: &Arg) -> String {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let (help, _) = notes(&help);
    let words: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set() && !argument.is_hide_possible_values_set())
        .map(|value| code(value.get_name()))
        .collect();
    let takes = argument.get_action().takes_values();
    let words = if takes && !words.is_empty() { format!(": {}", words.join(", ")) } else { String::new() };
    format!("{help}{words}")
}

/// What holds if it is left out: clap's default, or what its help says in brackets.
fn default(argument: &Arg) -> String {
    let values: Vec<String> = argument.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let (_, notes) = notes(&help);
    match (notes.is_empty(), values.as_slice()) {
        (false, _) => notes,
        (true, [value]) if argument.get_action().takes_values() && !argument.is_hide_default_value_set() => code(value),
        _ => String::new(),
    }
}

/// A help in two: what it says, and the notes `[env: X] [default: Y]` at its end.
fn notes(help: &str) -> (&str, String) {
    let Some((help, notes)) = help.split_once(" [") else { return (help, String::new()) };
    let notes = notes.trim_end_matches(']').split("] [").map(|note| match note.split_once(": ") {
        Some(("env", name)) => format!("`${name}`"),
        Some(("default", value)) if !value.contains(' ') => code(value),
        Some(("default", words)) => words.to_owned(),
        _ => note.to_owned(),
    });
    (help, notes.collect::<Vec<_>>().join(", else "))
}

fn sentence(text: &str) -> String {
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_with_their_arguments_and_defaults() {
        let commands = part(&["commands"]).unwrap();
        for line in [
            "### mesh run",
            "### mesh endpoints drain",
            "| `--config FILE` | The configuration | `$MESH_CONFIG`, else `/etc/mesh/mesh.yaml` |",
            "| `-o, --output FORMAT` | How to print: `table`, `json`, `yaml` | `table` |",
        ] {
            assert!(commands.lines().any(|l| l == line), "{line}\n{commands}");
        }
        assert!(!commands.contains("### mesh config\n"), "it only groups others");
        assert!(!commands.contains("--admin-socket PATH`"), "that stands once, among the options");
        assert!(part(&["options"]).unwrap().contains("--admin-socket PATH"));
    }
}

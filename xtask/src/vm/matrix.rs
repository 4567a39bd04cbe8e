//! Every test on every kernel, as the table in `docs/kernels.md`.

use super::machine::Results;
use super::plan::Test;
use super::protocol::Outcome;

/// The table in Markdown: a line for each test, a column for each kernel, then why tests were skipped or failed.
pub(super) fn markdown(tests: &[Test], columns: &[Results]) -> String {
    let mut text = String::from("| test |");
    for column in columns {
        text.push_str(&format!(" {} |", column.label));
    }
    text.push_str("\n| --- |");
    text.push_str(&" --- |".repeat(columns.len()));
    text.push('\n');
    let mut notes: Vec<String> = Vec::new();
    for (n, test) in tests.iter().enumerate() {
        text.push_str(&format!("| `{}` |", test.id()));
        for column in columns {
            text.push_str(&format!(" {} |", cell(column.outcomes.get(&n), &mut notes)));
        }
        text.push('\n');
    }
    text.push_str("| **passed, failed, skipped** |");
    for column in columns {
        let (passed, failed, skipped) = column.counts();
        text.push_str(&format!(" **{passed}, {failed}, {skipped}** |"));
    }
    text.push('\n');
    if !notes.is_empty() {
        text.push('\n');
    }
    for (n, note) in notes.iter().enumerate() {
        text.push_str(&format!("{}. {note}\n", n + 1));
    }
    text
}

/// What became of a test, with the number of the note that says why.
fn cell(outcome: Option<&Outcome>, notes: &mut Vec<String>) -> String {
    let mut note = |why: &str| {
        let known = notes.iter().position(|note| note == why);
        known.unwrap_or_else(|| {
            notes.push(why.to_owned());
            notes.len() - 1
        }) + 1
    };
    match outcome {
        None => "did not run".into(),
        Some(Outcome::Passed) => "pass".into(),
        Some(Outcome::Skipped(why)) => format!("skipped ({})", note(why)),
        Some(Outcome::Failed(why)) => format!("**fails** ({})", note(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_has_a_line_for_each_test_and_a_note_for_each_reason() {
        let test = |name: &str| Test { binary: "b".into(), name: name.into() };
        let tests = [test("one"), test("two"), test("three")];
        let mut old = Results::new("6.1");
        old.outcomes.insert(0, Outcome::Passed);
        old.outcomes.insert(1, Outcome::Skipped("needs `x`".into()));
        let mut new = Results::new("6.12");
        new.outcomes.insert(0, Outcome::Failed("it failed".into()));
        new.outcomes.insert(1, Outcome::Skipped("needs `x`".into()));
        new.outcomes.insert(2, Outcome::Passed);
        let expected = "\
| test | 6.1 | 6.12 |
| --- | --- | --- |
| `b::one` | pass | **fails** (1) |
| `b::two` | skipped (2) | skipped (2) |
| `b::three` | did not run | pass |
| **passed, failed, skipped** | **1, 0, 1** | **1, 1, 1** |

1. it failed
2. needs `x`
";
        assert_eq!(markdown(&tests, &[old, new]), expected);
    }
}

//! Tables of Markdown.

/// A table with these heads and rows.
pub(crate) fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut text = line(heads.map(str::to_owned));
    text.push_str(&line(heads.map(|_| "---".to_owned())));
    rows.into_iter().for_each(|row| text.push_str(&line(row)));
    text
}

fn line<const N: usize>(cells: [String; N]) -> String {
    let mut line = String::from("|");
    for cell in cells {
        // One line a row, and no bar within a cell.
        let cell = cell.replace('|', "\\|").replace('\n', " ");
        line.push_str(if cell.is_empty() { "" } else { " " });
        line.push_str(&format!("{cell} |"));
    }
    line.push('\n');
    line
}

/// As code; nothing of nothing.
pub(crate) fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

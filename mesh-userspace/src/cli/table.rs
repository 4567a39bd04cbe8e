//! Columns of text.

use super::output::{Look, Style, harmless};
use unicode_width::UnicodeWidthStr;

/// Blanks between two columns.
const GAP: usize = 2;

/// A table without borders, its columns as wide as their widest cell, numbers to the right.
///
/// It is not fitted to the terminal: a line that wraps can still be copied and searched, a cell that wraps cannot.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Field>>,
}

struct Column {
    title: &'static str,
    right: bool,
    /// It is no narrower, whatever is in it.
    least: usize,
}

/// A cell: what it says and how it looks.
pub(super) struct Field {
    text: String,
    look: Look,
}

impl Field {
    /// A cell that says `text`, or `-` if that is empty.
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self::look(Look::Plain, text)
    }

    /// A cell with a look.
    pub(super) fn look(look: Look, text: impl AsRef<str>) -> Self {
        let text = harmless(text.as_ref());
        if text.is_empty() { Self { text: "-".to_owned(), look: Look::Faint } } else { Self { text, look } }
    }
}

impl Table {
    /// A table with these columns; those that begin with `>` are numbers.
    pub(super) fn new(titles: &[&'static str]) -> Self {
        let columns = titles.iter().map(|title| match title.strip_prefix('>') {
            Some(title) => Column { title, right: true, least: 0 },
            None => Column { title, right: false, least: 0 },
        });
        Self { columns: columns.collect(), rows: Vec::new() }
    }

    /// The same with columns of at least these widths.
    pub(super) fn at_least(mut self, widths: &[usize]) -> Self {
        self.columns.iter_mut().zip(widths).for_each(|(column, width)| column.least = *width);
        self
    }

    /// Adds a row, a cell for each column.
    pub(super) fn row(&mut self, fields: impl IntoIterator<Item = Field>) {
        self.rows.push(fields.into_iter().collect());
    }

    /// Leaves out this column if no cell of it says anything.
    pub(super) fn drop_if_empty(&mut self, title: &str) {
        let Some(at) = self.columns.iter().position(|column| column.title == title) else { return };
        if self.rows.iter().all(|row| row.get(at).is_none_or(|field| field.text == "-")) {
            self.columns.remove(at);
            for row in &mut self.rows {
                if at < row.len() {
                    row.remove(at);
                }
            }
        }
    }

    /// The lines, each with its line break, each indented by `indent` spaces.
    pub(super) fn render(&self, style: Style, indent: usize) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|field| field.text.width());
            let column = self.columns.get(at).map(|column| column.title.width().max(column.least));
            cells.chain(column).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let header = self.columns.iter().map(|column| (Look::Bold, column.title));
        let rows = self.rows.iter().map(|row| row.iter().map(|field| (field.look, field.text.as_str())).collect());
        let mut text = String::new();
        for row in std::iter::once(header.collect::<Vec<_>>()).chain(rows) {
            text.push_str(&" ".repeat(indent));
            // Blanks are held back until something follows them, so that no line ends in any.
            let mut blanks = 0;
            for (((look, cell), column), width) in row.into_iter().zip(&self.columns).zip(&widths) {
                let missing = width - cell.width();
                let (before, after) = if column.right { (missing, 0) } else { (0, missing) };
                text.push_str(&" ".repeat(blanks + before));
                text.push_str(&style.paint(look, cell));
                blanks = after + GAP;
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_no_line_ends_in_spaces() {
        let mut table = Table::new(&["NAME", ">COUNT", "NOTE"]);
        table.row([Field::new("a"), Field::new("1,234"), Field::new("")]);
        table.row([Field::new("longer"), Field::new("5"), Field::new("x y")]);
        assert_eq!(
            table.render(Style { color: false }, 0),
            "NAME    COUNT  NOTE\n\
             a       1,234  -\n\
             longer      5  x y\n"
        );
    }

    #[test]
    fn a_column_is_no_narrower_than_it_is_to_be() {
        let mut table = Table::new(&["NAME", ">COUNT", "NOTE"]).at_least(&[6, 7, 0]);
        table.row([Field::new("a"), Field::new("1"), Field::new("x")]);
        assert_eq!(table.render(Style { color: false }, 0), "NAME      COUNT  NOTE\na             1  x\n");
    }

    #[test]
    fn colours_do_not_shift_columns() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row([Field::new("a"), Field::look(Look::Good, "up")]);
        table.row([Field::look(Look::Bad, "bb"), Field::new("down")]);
        let coloured = table.render(Style { color: true }, 2);
        let mut plain = coloured.clone();
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m"] {
            plain = plain.replace(code, "");
        }
        assert!(coloured.contains("\x1b[32mup\x1b[0m"), "{coloured:?}");
        assert_eq!(plain, table.render(Style { color: false }, 2));
    }

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row([Field::new("evil\x1b[2J\nname")]);
        assert_eq!(table.render(Style { color: false }, 0), "NAME\nevil\\u{1b}[2J\\u{a}name\n");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new(&["NAME", "NOTE"]);
        table.row([Field::new("日本"), Field::new("x")]);
        table.row([Field::new("four"), Field::new("y")]);
        assert_eq!(table.render(Style { color: false }, 0), "NAME  NOTE\n日本  x\nfour  y\n");
    }

    #[test]
    fn a_column_that_says_nothing_is_left_out() {
        let mut table = Table::new(&["NAME", "NOTE", "LAST"]);
        table.row([Field::new("a"), Field::new(""), Field::new("z")]);
        table.drop_if_empty("NOTE");
        table.drop_if_empty("NAME");
        assert_eq!(table.render(Style { color: false }, 0), "NAME  LAST\na     z\n");
    }
}

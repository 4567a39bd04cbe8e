//! A list that can be sorted, filtered and moved about in.

use super::{
    column::{Column, Kind, Row},
    text,
};

/// Rows, which of them are shown in which order, and which one is selected.
pub(super) struct List<R: Row> {
    rows: Vec<R>,
    /// How wide the widest cell of each column is; `None`: it says nothing of any row.
    widths: Vec<Option<usize>>,
    /// Numbers of rows, as they are shown.
    shown: Vec<usize>,
    sorted: usize,
    reversed: bool,
    filter: String,
    /// `None`: whatever comes first.
    selected: Option<R::Id>,
    /// Where the selected row is, or was before it went.
    at: usize,
    /// The first row on the screen.
    offset: usize,
    /// Rows on the screen.
    page: usize,
}

/// What can be done to a list whatever is in it.
pub(super) trait Browse {
    /// Selects the row so many further down.
    fn step(&mut self, rows: isize);
    /// Selects the row a page further down, or up.
    fn turn(&mut self, down: bool);
    /// Selects whatever comes first.
    fn first(&mut self);
    /// Selects the last row.
    fn last(&mut self);
    /// Sorts by the next column, or the one before.
    fn sort_next(&mut self, forward: bool);
    /// Sorts the other way round.
    fn reverse(&mut self);
    /// Shows only rows with all words of `text` in them, in upper or lower case.
    fn filter(&mut self, text: &str);
    /// The text of the filter.
    fn filtered(&self) -> &str;
    /// So many rows are on the screen.
    fn fit(&mut self, page: usize);
    /// How many rows are shown, and how many there are.
    fn counts(&self) -> (usize, usize);
    /// The column sorted by, and whether its largest value comes first.
    fn order(&self) -> (&'static str, bool);
}

impl<R: Row> List<R> {
    /// An empty list, sorted by the column of this title.
    pub(super) fn sorted_by(title: &str) -> Self {
        Self {
            rows: Vec::new(),
            widths: R::COLUMNS.iter().map(|column| Some(column.least)).collect(),
            shown: Vec::new(),
            sorted: R::COLUMNS.iter().position(|column| column.title == title).unwrap_or_default(),
            reversed: false,
            filter: String::new(),
            selected: None,
            at: 0,
            offset: 0,
            page: 1,
        }
    }

    /// All rows anew. The selected one stays selected if it is among them; else one near to where it was is.
    pub(super) fn replace(&mut self, rows: Vec<R>) {
        self.rows = rows;
        self.widths = R::COLUMNS.iter().map(|column| self.width(column)).collect();
        self.arrange();
    }

    fn width(&self, column: &Column<R>) -> Option<usize> {
        if !self.rows.is_empty() && !self.rows.iter().any(column.applies) {
            return None;
        }
        if column.least == column.most {
            return Some(column.least);
        }
        let widths = self.rows.iter().map(|row| text::width(&(column.cell)(row, column.most).text));
        Some(widths.max().unwrap_or(column.least))
    }

    /// How wide the widest cell of a column is; `None`: it says nothing of any row.
    pub(super) fn wants(&self, column: usize) -> Option<usize> {
        self.widths.get(column).copied().flatten()
    }

    /// Forgets where the operator was, and what was looked for.
    pub(super) fn reset(&mut self) {
        self.filter.clear();
        self.first();
        self.arrange();
    }

    /// All rows.
    pub(super) fn rows(&self) -> &[R] {
        &self.rows
    }

    /// The rows on the screen, and which one of them is selected.
    pub(super) fn on_screen(&self) -> (Vec<&R>, Option<usize>) {
        let rows = self.shown.iter().skip(self.offset).take(self.page).map(|row| &self.rows[*row]);
        (rows.collect(), self.at.checked_sub(self.offset).filter(|_| !self.shown.is_empty()))
    }

    /// The selected row.
    pub(super) fn selected(&self) -> Option<&R> {
        self.shown.get(self.at).map(|row| &self.rows[*row])
    }

    /// The number of the column sorted by.
    pub(super) const fn sorted(&self) -> usize {
        self.sorted
    }

    fn descends(&self) -> bool {
        (R::COLUMNS[self.sorted].kind == Kind::Number) != self.reversed
    }

    fn arrange(&mut self) {
        let words: Vec<String> = self.filter.split_whitespace().map(str::to_lowercase).collect();
        let wanted = |row: &R| {
            let text = row.words().to_lowercase();
            words.iter().all(|word| text.contains(word))
        };
        let all = 0..self.rows.len();
        self.shown = all.filter(|row| words.is_empty() || wanted(&self.rows[*row])).collect();
        let (value, descends, rows) = (R::COLUMNS[self.sorted].value, self.descends(), &self.rows);
        // Equals stay in the order of the daemon, which is that of names and addresses.
        self.shown.sort_by(|a, b| {
            let order = value(&rows[*a]).compare(&value(&rows[*b]));
            if descends { order.reverse() } else { order }
        });
        match &self.selected {
            None => self.at = 0,
            Some(id) => {
                let found = self.shown.iter().position(|row| self.rows[*row].id() == *id);
                self.at = found.unwrap_or_else(|| self.at.min(self.shown.len().saturating_sub(1)));
            }
        }
        self.scroll();
    }

    fn select(&mut self, at: usize) {
        self.at = at.min(self.shown.len().saturating_sub(1));
        self.selected = self.selected().map(Row::id);
        self.scroll();
    }

    /// Moves the screen as little as need be for the selected row to be on it, and for it to be full.
    fn scroll(&mut self) {
        let page = self.page.max(1);
        let last = self.shown.len().saturating_sub(page);
        let lowest = (self.at + 1).saturating_sub(page);
        self.offset = self.offset.clamp(lowest, self.at).min(last);
    }
}

impl<R: Row> Browse for List<R> {
    fn step(&mut self, rows: isize) {
        self.select(self.at.saturating_add_signed(rows));
    }

    fn turn(&mut self, down: bool) {
        let page = self.page.max(1);
        self.select(if down { self.at.saturating_add(page) } else { self.at.saturating_sub(page) });
    }

    fn first(&mut self) {
        self.select(0);
        self.selected = None;
    }

    fn last(&mut self) {
        self.select(usize::MAX);
    }

    fn sort_next(&mut self, forward: bool) {
        let columns = R::COLUMNS.len();
        self.sorted = (self.sorted + if forward { 1 } else { columns - 1 }) % columns;
        self.reversed = false;
        self.arrange();
    }

    fn reverse(&mut self) {
        self.reversed = !self.reversed;
        self.arrange();
    }

    fn filter(&mut self, text: &str) {
        text.clone_into(&mut self.filter);
        self.arrange();
    }

    fn filtered(&self) -> &str {
        &self.filter
    }

    fn fit(&mut self, page: usize) {
        self.page = page;
        self.scroll();
    }

    fn counts(&self) -> (usize, usize) {
        (self.shown.len(), self.rows.len())
    }

    fn order(&self) -> (&'static str, bool) {
        (R::COLUMNS[self.sorted].title, self.descends())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::column::{Cell, Value};

    struct Item(&'static str, f64);

    impl Row for Item {
        type Id = &'static str;

        const COLUMNS: &'static [Column<Self>] = &[
            Column {
                title: "NAME",
                least: 5,
                most: 5,
                rank: 0,
                kind: Kind::Text,
                cell: |item, _| Cell::plain(item.0),
                value: |item| Value::Text(item.0),
                applies: |_| true,
            },
            Column {
                title: "SIZE",
                least: 5,
                most: 5,
                rank: 1,
                kind: Kind::Number,
                cell: |_, _| Cell::plain(""),
                value: |item| Value::Number(Some(item.1)),
                applies: |_| true,
            },
        ];

        fn id(&self) -> &'static str {
            self.0
        }

        fn words(&self) -> String {
            format!("{} item", self.0)
        }

        fn details(&self) -> [String; 2] {
            [String::new(), String::new()]
        }
    }

    fn list(items: &[(&'static str, f64)], page: usize) -> List<Item> {
        let mut list = List::sorted_by("NAME");
        list.fit(page);
        list.replace(items.iter().map(|item| Item(item.0, item.1)).collect());
        list
    }

    fn names(list: &List<Item>) -> String {
        let (rows, at) = list.on_screen();
        let name =
            |(row, item): (usize, &&Item)| if Some(row) == at { format!("[{}]", item.0) } else { item.0.to_owned() };
        rows.iter().enumerate().map(name).collect::<Vec<_>>().join(" ")
    }

    const ITEMS: [(&str, f64); 4] = [("a", 1.0), ("b", 7.0), ("c", 3.0), ("d", 7.0)];

    #[test]
    fn numbers_begin_with_the_largest_and_words_with_the_first() {
        let mut list = list(&ITEMS, 9);
        assert_eq!((names(&list).as_str(), list.order()), ("[a] b c d", ("NAME", false)));
        list.sort_next(true);
        assert_eq!((names(&list).as_str(), list.order()), ("[b] d c a", ("SIZE", true)));
        list.reverse();
        assert_eq!((names(&list).as_str(), list.order()), ("[a] c b d", ("SIZE", false)));
        list.sort_next(true);
        assert_eq!((names(&list).as_str(), list.order()), ("[a] b c d", ("NAME", false)), "round and round");
        list.sort_next(false);
        assert_eq!(list.order(), ("SIZE", true));
    }

    #[test]
    fn the_selected_row_stays_selected_wherever_it_moves() {
        let mut list = list(&ITEMS, 2);
        list.step(2);
        assert_eq!(names(&list), "b [c]");
        list.sort_next(true);
        assert_eq!(names(&list), "d [c]");
        list.replace([("b", 7.0), ("c", 9.0), ("d", 7.0)].map(|(name, size)| Item(name, size)).into());
        assert_eq!(names(&list), "[c] b");
        list.replace([("b", 7.0), ("d", 7.0)].map(|(name, size)| Item(name, size)).into());
        assert_eq!(names(&list), "[b] d", "it is gone");
        list.replace([("c", 1.0), ("b", 7.0)].map(|(name, size)| Item(name, size)).into());
        assert_eq!(names(&list), "b [c]", "and back");
    }

    #[test]
    fn whatever_comes_first_is_selected_until_the_operator_moves() {
        let mut list = list(&ITEMS, 9);
        list.sort_next(true);
        list.replace([("a", 9.0), ("b", 7.0)].map(|(name, size)| Item(name, size)).into());
        assert_eq!(names(&list), "[a] b");
        list.last();
        list.first();
        list.replace([("a", 9.0), ("b", 10.0)].map(|(name, size)| Item(name, size)).into());
        assert_eq!(names(&list), "[b] a");
    }

    #[test]
    fn pages_end_at_the_ends() {
        let mut list = list(&ITEMS, 3);
        list.turn(true);
        assert_eq!(names(&list), "b c [d]");
        list.turn(true);
        assert_eq!(names(&list), "b c [d]");
        list.turn(false);
        assert_eq!(names(&list), "[a] b c");
        list.last();
        list.fit(2);
        assert_eq!(names(&list), "c [d]");
        list.fit(9);
        assert_eq!(names(&list), "a b c [d]");
    }

    #[test]
    fn a_filter_wants_all_its_words() {
        let mut list = list(&ITEMS, 9);
        list.filter(" ITEM  b ");
        assert_eq!((names(&list).as_str(), list.counts()), ("[b]", (1, 4)));
        list.filter("nothing");
        assert_eq!((names(&list).as_str(), list.selected().is_none()), ("", true));
        list.step(1);
        list.filter("");
        assert_eq!(names(&list), "[a] b c d");
    }
}

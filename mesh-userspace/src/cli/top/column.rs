//! What a table shows: rows, and the columns that they have.

use super::text;
use crate::cli::output::{Look, harmless};
use std::{cmp::Ordering, net::SocketAddr};

/// What a line of a table is about.
pub(super) trait Row: Sized + 'static {
    /// What tells it from every other one at the same time.
    type Id: Clone + PartialEq;

    /// All that can be shown of it, in this order. The first one decides where others are equal.
    const COLUMNS: &'static [Column<Self>];

    /// Which one.
    fn id(&self) -> Self::Id;

    /// Everything about it that a filter looks at.
    fn words(&self) -> String;

    /// What the columns have no room for, in two lines.
    fn details(&self) -> [String; 2];
}

/// A column of a table.
pub(super) struct Column<R> {
    /// What it is called.
    pub(super) title: &'static str,
    /// The room that it needs, title and mark of the order included.
    pub(super) least: usize,
    /// The room of which it can make use.
    pub(super) most: usize,
    /// Its importance: where there is no room for all, the highest number goes first.
    pub(super) rank: u8,
    /// What kind it is.
    pub(super) kind: Kind,
    /// What it shows, in so many columns of the terminal at most. A longer text is cut.
    pub(super) cell: fn(&R, usize) -> Cell,
    /// What rows are sorted by.
    pub(super) value: fn(&R) -> Value<'_>,
    /// Whether it can say anything of this row. A column that says nothing of any is left out.
    pub(super) applies: fn(&R) -> bool,
}

impl<R> Column<R> {
    /// A column that has something to say only of some rows.
    pub(super) const fn when(self, applies: fn(&R) -> bool) -> Self {
        Self { applies, ..self }
    }
}

/// What a column has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Words, to the left.
    Text,
    /// Words of which the last say most.
    Path,
    /// Numbers, to the right; the largest come first.
    Number,
}

/// Something to sort by. What there is none of is less than anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Number(Option<f64>),
    Text(&'a str),
    Address(Option<SocketAddr>),
}

impl Value<'_> {
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => {
                let number = |value: &Option<f64>| value.unwrap_or(f64::NEG_INFINITY);
                number(a).total_cmp(&number(b))
            }
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Address(a), Self::Address(b)) => a.cmp(b),
            // A column has values of one kind.
            _ => Ordering::Equal,
        }
    }
}

/// What stands in a column of a row. Nothing in it can do anything to a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) look: Look,
}

impl Cell {
    /// A cell that says `text`, or `-` if that is empty.
    pub(super) fn new(look: Look, text: impl AsRef<str>) -> Self {
        let text = harmless(text.as_ref());
        if text.is_empty() { Self { text: "-".to_owned(), look: Look::Faint } } else { Self { text, look } }
    }

    /// A cell without a look of its own.
    pub(super) fn plain(text: impl AsRef<str>) -> Self {
        Self::new(Look::Plain, text)
    }

    /// A number as `shown`; faint where it is nothing.
    pub(super) fn number(value: Option<f64>, shown: impl FnOnce(f64) -> String) -> Self {
        match value {
            None => Self::plain(""),
            Some(value) => Self::new(if value == 0.0 { Look::Faint } else { Look::Plain }, shown(value)),
        }
    }
}

/// A column that is shown, and how wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Its number.
    pub(super) column: usize,
    /// Its width.
    pub(super) width: usize,
}

/// The gap between two columns.
pub(super) const GAP: usize = 1;

/// The columns that have room in `width`, in their order. The one of number `sorted` is the last to go, and what is left
/// over widens those that can use it, the most important first. `wants` says of a column how wide its widest cell is;
/// `None`: it is not to be shown.
pub(super) fn fit<R>(
    columns: &[Column<R>],
    width: usize,
    sorted: usize,
    wants: impl Fn(usize) -> Option<usize>,
) -> Vec<Shown> {
    let mut by_rank: Vec<(usize, usize)> = (0..columns.len()).filter_map(|at| Some((at, wants(at)?))).collect();
    by_rank.sort_by_key(|(at, _)| (*at != sorted, columns[*at].rank));
    let mut left = width + GAP;
    let mut shown: Vec<(Shown, usize)> = Vec::new();
    for (column, wanted) in by_rank {
        let Column { least, most, .. } = columns[column];
        if let Some(rest) = left.checked_sub(least + GAP) {
            left = rest;
            shown.push((Shown { column, width: least }, wanted.clamp(least, most) - least));
        } else {
            if shown.is_empty() {
                shown.push((Shown { column, width }, 0));
                left = 0;
            }
            // A less important one that is narrower is not shown in its place: columns would come and go in no order.
            break;
        }
    }
    let widened = shown.into_iter().map(|(shown, more)| {
        let more = more.min(left);
        left -= more;
        Shown { width: shown.width + more, ..shown }
    });
    let mut shown: Vec<Shown> = widened.collect();
    shown.sort_by_key(|shown| shown.column);
    shown
}

/// `cell`, cut to `width` columns.
pub(super) fn cut(cell: Cell, kind: Kind, width: usize) -> Cell {
    let text = match kind {
        Kind::Path => text::cut_start(&cell.text, width),
        Kind::Text | Kind::Number => text::cut_end(&cell.text, width),
    };
    Cell { text, ..cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn column(title: &'static str, least: usize, most: usize, rank: u8) -> Column<()> {
        Column {
            title,
            least,
            most,
            rank,
            kind: Kind::Text,
            cell: |(), _| Cell { text: String::new(), look: Look::Plain },
            value: |()| Value::Text(""),
            applies: |()| true,
        }
    }

    const COLUMNS: [Column<()>; 3] = [column("A", 4, 10, 0), column("B", 6, 6, 2), column("C", 5, 30, 1)];

    fn widths(width: usize, sorted: usize) -> Vec<(&'static str, usize)> {
        let shown = fit(&COLUMNS, width, sorted, |_| Some(8));
        assert!(shown.iter().map(|s| s.width + GAP).sum::<usize>() <= width + GAP, "{width}: {shown:?}");
        shown.into_iter().map(|s| (COLUMNS[s.column].title, s.width)).collect()
    }

    #[test]
    fn the_least_important_column_goes_first_and_the_sorted_one_last() {
        assert_eq!(widths(17, 0), [("A", 4), ("B", 6), ("C", 5)]);
        assert_eq!(widths(16, 0), [("A", 8), ("C", 7)]);
        assert_eq!(widths(16, 1), [("A", 8), ("B", 6)]);
        assert_eq!(widths(9, 0), [("A", 8)]);
        assert_eq!(widths(9, 1), [("B", 6)]);
        assert_eq!((widths(3, 0), widths(0, 0)), (vec![("A", 3)], vec![("A", 0)]));
    }

    #[test]
    fn what_is_left_over_goes_to_the_important_up_to_what_they_want() {
        assert_eq!(widths(20, 0), [("A", 7), ("B", 6), ("C", 5)]);
        assert_eq!(widths(24, 0), [("A", 8), ("B", 6), ("C", 8)]);
        assert_eq!(widths(200, 0), [("A", 8), ("B", 6), ("C", 8)]);
    }

    #[test]
    fn a_column_that_is_not_wanted_makes_room_even_if_it_is_sorted_by() {
        let shown = fit(&COLUMNS, 11, 1, |at| (at != 1).then_some(8));
        assert_eq!(shown, [Shown { column: 0, width: 5 }, Shown { column: 2, width: 5 }]);
    }

    #[test]
    fn what_there_is_none_of_is_less_than_anything() {
        assert_eq!(Value::Number(None).compare(&Value::Number(Some(-5.0))), Ordering::Less);
        assert_eq!(Value::Address(None).compare(&Value::Address("10.0.0.1:1".parse().ok())), Ordering::Less);
    }
}

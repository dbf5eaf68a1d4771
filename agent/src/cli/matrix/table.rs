//! The matrix on a terminal: with the targets' names above, if there is room; else with numbers; else
//! with signs, and in parts.

use super::model::{Amount, Exactness, Matrix, Passing};
use crate::cli::color::Colors;

const SIGNS: &str = "\
  *  every port passes     +  just the ports that the target declares
  ~  some ports pass       .  nothing passes
";

pub(super) fn render(
    matrix: &Matrix,
    exactness: Exactness,
    width: usize,
    colors: Colors,
) -> String {
    let words = |passing: &Passing, to: usize| passing.words(&matrix.ends[to], exactness);
    let grid = Grid {
        matrix,
        colors,
        cell: &words,
    };
    let names: Vec<String> = matrix.ends.iter().map(|end| end.label.clone()).collect();
    let all: Vec<usize> = (0..names.len()).collect();
    let named = grid.layout(&all, &names, &names);
    if named.width() <= width {
        return named.text() + &legend(exactness, "");
    }
    let numbers: Vec<String> = (1..=names.len()).map(|n| n.to_string()).collect();
    let rows: Vec<String> = names
        .iter()
        .zip(&numbers)
        .map(|(name, number)| format!("{number:>3} {name}"))
        .collect();
    let numbered = grid.layout(&all, &rows, &numbers);
    if numbered.width() <= width {
        return numbered.text() + &legend(exactness, "");
    }
    let signs = |passing: &Passing, to: usize| sign(passing.amount(&matrix.ends[to]));
    let grid = Grid {
        cell: &signs,
        ..grid
    };
    let label = rows
        .iter()
        .map(|row| row.chars().count())
        .max()
        .unwrap_or(0);
    let column = numbers.last().map_or(1, String::len) + 1;
    let at_once = (width.saturating_sub(label) / column).max(8);
    let parts: Vec<String> = all
        .chunks(at_once)
        .map(|part| grid.layout(part, &rows, &numbers).with_gap(1).text())
        .collect();
    parts.join("\n") + &legend(exactness, SIGNS)
}

fn sign(amount: Amount) -> String {
    let sign = match amount {
        Amount::All => "*",
        Amount::Declared => "+",
        Amount::Some => "~",
        Amount::None => ".",
    };
    sign.to_owned()
}

fn legend(exactness: Exactness, signs: &str) -> String {
    let ports = match (exactness, signs) {
        (_, signs) if !signs.is_empty() => "--output csv has the ports",
        (Exactness::Exact, _) => "ports that pass",
        (Exactness::Declared, _) => {
            "ports that pass, of those the target declares; +: others too (--ports)"
        }
    };
    format!("\nfrom rows to columns; {ports}\n{signs}")
}

struct Grid<'a> {
    matrix: &'a Matrix,
    colors: Colors,
    cell: &'a dyn Fn(&Passing, usize) -> String,
}

struct Layout {
    /// Text and colour of each cell, the heading first; the first column is the rows' names.
    rows: Vec<Vec<(String, Option<Amount>)>>,
    colors: Colors,
    gap: usize,
}

impl Grid<'_> {
    fn layout(&self, columns: &[usize], names: &[String], heads: &[String]) -> Layout {
        let plain = |text: &str| (text.to_owned(), None);
        let heading = columns.iter().map(|to| plain(&heads[*to]));
        let mut rows = vec![
            std::iter::once(plain(""))
                .chain(heading)
                .collect::<Vec<_>>(),
        ];
        for (from, name) in names.iter().enumerate() {
            let mut row = vec![plain(name)];
            row.extend(columns.iter().map(|to| match self.matrix.cell(from, *to) {
                None => plain(""),
                Some(passing) => {
                    let amount = passing.amount(&self.matrix.ends[*to]);
                    ((self.cell)(passing, *to), Some(amount))
                }
            }));
            rows.push(row);
        }
        Layout {
            rows,
            colors: self.colors,
            gap: 2,
        }
    }
}

impl Layout {
    fn with_gap(self, gap: usize) -> Self {
        Self { gap, ..self }
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].0.chars().count());
            cells.max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }

    fn width(&self) -> usize {
        let widths = self.widths();
        widths.iter().sum::<usize>() + self.gap * widths.len().saturating_sub(1)
    }

    fn text(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            let mut owed = 0;
            for ((cell, amount), width) in row.iter().zip(&widths) {
                line.extend(std::iter::repeat_n(' ', owed));
                let shown = match amount {
                    None => cell.clone(),
                    Some(Amount::None) => self.colors.bad(cell),
                    Some(Amount::All) => self.colors.good(cell),
                    Some(Amount::Some | Amount::Declared) => self.colors.warn(cell),
                };
                line.push_str(&shown);
                owed = width - cell.chars().count() + self.gap;
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

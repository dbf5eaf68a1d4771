//! Aligned columns.

/// Rows under a heading, columns two spaces apart; the last column is not padded.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(|h| (*h).to_owned()).collect()],
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Whether there is nothing under the heading.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The text. An empty cell is written `-`.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(width_of(cell).max(1));
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                let cell = if cell.is_empty() { "-" } else { cell };
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + 2 - width_of(cell)));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Characters that show: colour codes do not.
fn width_of(cell: &str) -> usize {
    let mut width = 0;
    let mut in_code = false;
    for c in cell.chars() {
        match c {
            '\u{1b}' => in_code = true,
            'm' if in_code => in_code = false,
            _ if in_code => {}
            _ => width += 1,
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_whatever_the_colours() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(["\u{1b}[32mgreen\u{1b}[0m".to_owned(), String::new()]);
        table.row(["x".to_owned(), "y".to_owned()]);
        let text = table.render();
        assert_eq!(text, "A      LONG\n\u{1b}[32mgreen\u{1b}[0m  -\nx      y\n");
    }
}

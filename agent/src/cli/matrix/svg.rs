//! The matrix as a picture: a field for each pair, coloured by how much passes, with a title that tells
//! the ports. It needs nothing but itself.

use std::fmt::Write as _;

use super::model::{Amount, End, Exactness, Matrix};

/// Size of a field, and of a letter, in pixels.
const FIELD: usize = 24;
const LETTER: usize = 7;
/// Room around.
const EDGE: usize = 12;
const LEGEND: [(Amount, &str); 4] = [
    (Amount::All, "every port passes"),
    (Amount::Declared, "just the ports that the target declares"),
    (Amount::Some, "some ports pass"),
    (Amount::None, "nothing passes"),
];

pub(super) fn render(matrix: &Matrix, exactness: Exactness) -> String {
    let letters = matrix.ends.iter().map(|end| end.label.chars().count());
    let label = letters.max().unwrap_or(0) * LETTER + EDGE;
    let size = matrix.ends.len() * FIELD;
    let legend = LEGEND.len() * FIELD;
    let (left, top) = (EDGE + label, EDGE + label);
    let width = (left + size).max(left + 50 * LETTER) + EDGE;
    let height = top + size + EDGE + legend + EDGE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"11\">\n\
         <title>who reaches whom: from rows to columns</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (number, end) in matrix.ends.iter().enumerate() {
        names(&mut svg, end, number, left, top);
    }
    for (from, source) in matrix.ends.iter().enumerate() {
        for (to, target) in matrix.ends.iter().enumerate() {
            let (x, y) = (left + to * FIELD, top + from * FIELD);
            let (fill, title) = match matrix.cell(from, to) {
                None => ("#f0f0f0", "not judged by policies".to_owned()),
                Some(passing) => (
                    colour(passing.amount(target)),
                    passing.words(target, exactness),
                ),
            };
            let title = format!("{} -> {}: {title}", source.label, target.label);
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{FIELD}\" height=\"{FIELD}\" fill=\"{fill}\" \
                 stroke=\"#ffffff\"><title>{}</title></rect>",
                escaped(&title)
            );
        }
    }
    for (number, (amount, words)) in LEGEND.iter().enumerate() {
        let y = top + size + EDGE + number * FIELD;
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{y}\" width=\"{FIELD}\" height=\"{FIELD}\" fill=\"{}\" \
             stroke=\"#ffffff\"/>\n<text x=\"{}\" y=\"{}\">{}</text>",
            colour(*amount),
            left + FIELD + EDGE / 2,
            y + FIELD * 2 / 3,
            escaped(words)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// An end's name at its row, and turned at its column.
fn names(svg: &mut String, end: &End, number: usize, left: usize, top: usize) {
    let name = escaped(&end.label);
    let weight = if end.asked { "bold" } else { "normal" };
    let middle = number * FIELD + FIELD * 2 / 3;
    let (x, y) = (left - EDGE / 2, top + middle);
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" font-weight=\"{weight}\">{name}</text>"
    );
    let (x, y) = (left + middle, top - EDGE / 2);
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" transform=\"rotate(-90 {x} {y})\" font-weight=\"{weight}\">{name}</text>"
    );
}

fn colour(amount: Amount) -> &'static str {
    match amount {
        Amount::All => "#1a7f37",
        Amount::Declared => "#7bc47f",
        Amount::Some => "#e3b341",
        Amount::None => "#d0d7de",
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML has no such letters.
            c if c.is_control() => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_text() {
        assert_eq!(
            escaped("<a & \"b\">\u{1}"),
            "&lt;a &amp; &quot;b&quot;&gt;?"
        );
    }
}

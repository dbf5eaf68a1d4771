//! The matrix as a graph, for Graphviz: an edge for each pair between which something passes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::model::{Amount, Exactness, Matrix};

pub(super) fn render(matrix: &Matrix, exactness: Exactness) -> String {
    let mut text = String::from(
        "digraph policy {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n  \
         edge [fontname=\"sans-serif\", fontsize=10];\n",
    );
    let mut by_namespace: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, end) in matrix.ends.iter().enumerate() {
        by_namespace.entry(&end.namespace).or_default().push(number);
    }
    for (number, (namespace, ends)) in by_namespace.into_iter().enumerate() {
        let grouped = !namespace.is_empty();
        if grouped {
            let name = quoted(namespace);
            let _ = writeln!(text, "  subgraph cluster_{number} {{\n    label={name};");
        }
        for end in ends {
            let label = quoted(&matrix.ends[end].label);
            let _ = writeln!(text, "    e{end} [label={label}];");
        }
        if grouped {
            text.push_str("  }\n");
        }
    }
    for from in 0..matrix.ends.len() {
        for (to, end) in matrix.ends.iter().enumerate() {
            let Some(passing) = matrix.cell(from, to) else {
                continue;
            };
            let style = match passing.amount(end) {
                Amount::None => continue,
                Amount::All => ", style=bold",
                Amount::Declared | Amount::Some => "",
            };
            let label = quoted(&passing.words(end, exactness));
            let _ = writeln!(text, "  e{from} -> e{to} [label={label}{style}];");
        }
    }
    text.push_str("}\n");
    text
}

fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", escaped.replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted() {
        assert_eq!(quoted("a \"b\" \\ c"), "\"a \\\"b\\\" \\\\ c\"");
    }
}

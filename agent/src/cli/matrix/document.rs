//! The matrix for programs: JSON, and CSV (RFC 4180).

use serde_json::{Value, json};

use super::model::{Amount, End, Exactness, Matrix, Passing};

/// Every end, and every pair that is judged (docs/cli.md).
pub(super) fn json(matrix: &Matrix) -> Value {
    let end = |end: &End| {
        json!({
            "label": end.label,
            "namespace": Some(&end.namespace).filter(|n| !n.is_empty()),
            "inNamespace": end.asked,
            "members": end.members,
            "declared": end.declared.ranges(),
        })
    };
    let cells = matrix
        .cells()
        .flat_map(|(from, to, passing)| cells(from, to, passing));
    json!({
        "ends": matrix.ends.iter().map(end).collect::<Vec<_>>(),
        "cells": cells.collect::<Vec<_>>(),
    })
}

fn cells<'a>(from: &'a End, to: &'a End, passing: &'a Passing) -> impl Iterator<Item = Value> + 'a {
    passing.families().into_iter().map(|(family, ports)| {
        let mut cell = json!({
            "from": from.label,
            "to": to.label,
            "verdict": match () {
                () if ports.is_everything() => "all",
                () if ports.is_empty() => "none",
                () => "some",
            },
            "ports": ports.ranges(),
            "declaredOnly": passing.amount(to) == Amount::Declared,
        });
        if let Some(family) = family {
            cell["family"] = json!(family);
        }
        cell
    })
}

/// The table: sources in rows, targets in columns; an empty field is not judged by policies.
pub(super) fn csv(matrix: &Matrix, exactness: Exactness) -> String {
    let labels = || matrix.ends.iter().map(|end| end.label.clone());
    let mut text = line(std::iter::once("from \\ to".to_owned()).chain(labels()));
    for (from, label) in labels().enumerate() {
        let cells = matrix.ends.iter().enumerate().map(|(to, end)| {
            let cell = matrix.cell(from, to);
            cell.map(|passing| passing.words(end, exactness))
                .unwrap_or_default()
        });
        text.push_str(&line(std::iter::once(label).chain(cells)));
    }
    text
}

fn line(fields: impl Iterator<Item = String>) -> String {
    let quoted = fields.map(|field| {
        if field.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field
        }
    });
    quoted.collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_commas_and_quotes_are_quoted() {
        let fields = ["a", "b,c", "d\"e", ""].map(str::to_owned);
        assert_eq!(line(fields.into_iter()), "a,\"b,c\",\"d\"\"e\",\r\n");
    }
}

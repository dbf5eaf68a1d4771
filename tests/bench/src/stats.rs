//! Numbers, and how they are shown.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What one part of a benchmark found.
#[derive(Serialize)]
pub struct Section {
    pub title: String,
    pub rows: Vec<Row>,
}

/// One thing measured.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    pub value: String,
    /// What it was asked to be, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<String>,
    /// Whether it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

impl Section {
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.rows.push(Row {
            name: name.into(),
            value: value.into(),
            goal: None,
            met: None,
        });
    }

    pub fn goal(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
        goal: impl Into<String>,
        met: bool,
    ) {
        self.rows.push(Row {
            name: name.into(),
            value: value.into(),
            goal: Some(goal.into()),
            met: Some(met),
        });
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for row in &self.rows {
            write!(f, "  {:<46} {:>16}", row.name, row.value)?;
            if let (Some(goal), Some(met)) = (&row.goal, row.met) {
                let word = if met { "met" } else { "NOT MET" };
                write!(f, "   goal {goal}: {word}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// In milliseconds.
pub fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

/// The value that `share` (0 to 1) of the sorted values do not exceed.
pub fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(index.saturating_sub(1).min(last))
        .copied()
        .unwrap_or_default()
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

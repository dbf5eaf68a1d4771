//! Percentiles.

use serde::Serialize;

/// What many measurements come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// How many.
    pub count: usize,
    /// Half are at most this.
    pub p50: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
}

impl Stats {
    /// Of these, in any order; of none, zeros.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self {
            count: values.len(),
            p50: rank(&values, 50),
            p99: rank(&values, 99),
        }
    }
}

/// The nearest rank: a value that was measured.
fn rank(sorted: &[f64], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_nearest_rank() {
        let stats = Stats::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((stats.count, stats.p50, stats.p99), (100, 50.0, 99.0));
        assert_eq!(Stats::of(vec![7.0]).p99, 7.0);
        assert_eq!(Stats::of(Vec::new()), Stats::default());
    }
}

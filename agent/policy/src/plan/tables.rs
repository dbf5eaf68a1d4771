//! Tables of verdicts, compared by content and given places in `INTERVALS`.

use std::collections::HashMap;
use std::sync::Arc;

use weir_abi::map;
use weir_abi::policy::{Decision, Interval, RuleId, RuleVerdict};

use crate::actual::Actual;
use crate::flatten::Table;
use crate::hash::ContentHasher;
use crate::limits::{CapacityError, Limits};
use crate::rule::RuleName;
use crate::write::Write;

/// A table by its content: equal contents are equal ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct TableId(u32);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Content {
    Inline(RuleVerdict),
    Intervals(Vec<Interval>),
}

/// The tables of rows, the kernel's and those to come.
pub(super) struct Tables<'a> {
    actual: &'a Actual,
    contents: Vec<Content>,
    by_content: HashMap<Content, TableId>,
    by_decision: HashMap<Decision, TableId>,
    by_table: HashMap<*const Table, TableId>,
    /// Where each table stands; none: nowhere yet, as far as is known.
    places: Vec<Option<Decision>>,
    /// Where the kernel has which content; made when first needed.
    regions: Option<HashMap<&'a [Interval], Decision>>,
    /// (at, end), ascending; made when first needed.
    free: Option<Vec<(u32, u32)>>,
    size: u32,
    /// One [`Write::PutInterval`] for each new element.
    pub writes: Vec<Write>,
}

impl<'a> Tables<'a> {
    pub fn new(actual: &'a Actual, limits: &Limits) -> Self {
        Self {
            actual,
            contents: Vec::new(),
            by_content: HashMap::new(),
            by_decision: HashMap::new(),
            by_table: HashMap::new(),
            places: Vec::new(),
            regions: None,
            free: None,
            size: limits.intervals,
            writes: Vec::new(),
        }
    }

    /// The table of a row that is missing: a denial by no rule.
    pub fn no_row(&mut self) -> TableId {
        self.intern(Content::Inline(RuleVerdict::default()))
    }

    /// The table of one of the kernel's rows.
    pub fn of_row(&mut self, decision: Decision) -> TableId {
        if let Some(id) = self.by_decision.get(&decision) {
            return *id;
        }
        let content = if decision.len == 0 {
            Content::Inline(RuleVerdict(decision.at))
        } else {
            Content::Intervals(self.actual.region(decision).to_vec())
        };
        let id = self.intern(content);
        self.places[id.0 as usize].get_or_insert(decision);
        self.by_decision.insert(decision, id);
        id
    }

    /// A compiled table, with the kernel's number of each rule.
    ///
    /// # Errors
    /// A rule cannot be given a number.
    pub fn of_table(
        &mut self,
        table: &Arc<Table>,
        mut rule: impl FnMut(&RuleName) -> Result<RuleId, CapacityError>,
    ) -> Result<TableId, CapacityError> {
        let pointer = Arc::as_ptr(table);
        if let Some(id) = self.by_table.get(&pointer) {
            return Ok(*id);
        }
        let mut intervals = Vec::with_capacity(table.len());
        for cell in table.iter() {
            let id = match &cell.rule {
                Some(named) => rule(named)?,
                None => RuleId::NOT_SELECTED,
            };
            let verdict = if cell.allow {
                RuleVerdict::allow(id)
            } else {
                RuleVerdict::deny(id)
            };
            intervals.push(Interval {
                start: cell.start,
                verdict,
            });
        }
        let content = match intervals.as_slice() {
            [all] => Content::Inline(all.verdict),
            _ => Content::Intervals(intervals),
        };
        let id = self.intern(content);
        self.by_table.insert(pointer, id);
        Ok(id)
    }

    fn intern(&mut self, content: Content) -> TableId {
        if let Some(id) = self.by_content.get(&content) {
            return *id;
        }
        let id = TableId(self.contents.len() as u32);
        self.places.push(match &content {
            Content::Inline(verdict) => Some(Decision {
                at: verdict.0,
                len: 0,
            }),
            Content::Intervals(_) => None,
        });
        self.contents.push(content.clone());
        self.by_content.insert(content, id);
        id
    }

    pub fn hash(&self, id: TableId, hasher: &mut ContentHasher) {
        match &self.contents[id.0 as usize] {
            Content::Inline(verdict) => hasher.number(0).number(verdict.0.into()),
            Content::Intervals(intervals) => {
                hasher.number(intervals.len() as u64);
                for interval in intervals {
                    hasher
                        .number(interval.start.into())
                        .number(interval.verdict.0.into());
                }
                hasher
            }
        };
    }

    /// The row of a table, which is written where it does not yet stand anywhere.
    pub fn place(&mut self, id: TableId) -> Result<Decision, CapacityError> {
        if let Some(decision) = self.places[id.0 as usize] {
            return Ok(decision);
        }
        let Content::Intervals(intervals) = &self.contents[id.0 as usize] else {
            return Ok(Decision::default());
        };
        let actual = self.actual;
        let regions = self.regions.get_or_insert_with(|| regions(actual));
        if let Some(decision) = regions.get(intervals.as_slice()) {
            self.places[id.0 as usize] = Some(*decision);
            return Ok(*decision);
        }
        let len = intervals.len() as u32;
        CapacityError::check(map::INTERVALS, intervals.len(), Decision::MAX_LEN)?;
        let intervals = intervals.clone();
        let at = self.allocate(len)?;
        for (at, interval) in (at..).zip(intervals) {
            self.writes.push(Write::PutInterval { at, interval });
        }
        let decision = Decision { at, len };
        self.places[id.0 as usize] = Some(decision);
        Ok(decision)
    }

    fn allocate(&mut self, len: u32) -> Result<u32, CapacityError> {
        let size = self.size;
        let actual = self.actual;
        let free = self.free.get_or_insert_with(|| gaps(actual, size));
        let Some(gap) = free.iter_mut().find(|gap| gap.1 - gap.0 >= len) else {
            let left: u32 = free.iter().map(|gap| gap.1 - gap.0).sum();
            let used = size - left;
            // With room in pieces that are all too small, what is missing is at least one.
            let needed = (used as usize + len as usize).max(size as usize + 1);
            return CapacityError::check(map::INTERVALS, needed, size).map(|()| 0);
        };
        let at = gap.0;
        gap.0 += len;
        Ok(at)
    }
}

/// Where which content stands.
fn regions(actual: &Actual) -> HashMap<&[Interval], Decision> {
    let decisions = actual
        .usage
        .regions
        .keys()
        .map(|(at, len)| Decision { at: *at, len: *len });
    decisions
        .map(|decision| (actual.region(decision), decision))
        .collect()
}

/// The elements that no row uses or has used lately: (at, end), ascending.
fn gaps(actual: &Actual, size: u32) -> Vec<(u32, u32)> {
    let resting = actual
        .resting_regions
        .iter()
        .map(|(at, len)| *at..at.saturating_add(*len));
    let mut used: Vec<_> = actual
        .interval_ranges()
        .into_iter()
        .chain(resting)
        .collect();
    used.sort_by_key(|range| range.start);
    let mut gaps = Vec::new();
    let mut at = 0;
    for range in used {
        let end = range.start.min(size);
        if at < end {
            gaps.push((at, end));
        }
        at = at.max(range.end);
    }
    if at < size {
        gaps.push((at, size));
    }
    gaps
}

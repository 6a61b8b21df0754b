//! Counts what an answer holds while it is written.

use std::sync::Arc;

use crate::{
    metrics::Metrics,
    model::FieldStatus,
    proxy::{AnswerColumn, Answers},
};

/// How many values each view had, and how many it had not.
#[derive(Debug, Default)]
pub(super) struct Tally<'a> {
    // Few views, and the columns of one mostly follow each other.
    views: Vec<ViewTally<'a>>,
}

#[derive(Debug)]
struct ViewTally<'a> {
    view: &'a Arc<str>,
    present: u64,
    not_found: u64,
}

/// Counts the values of one column.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ColumnTally {
    not_found: u64,
}

impl ColumnTally {
    /// Counts a value.
    pub(super) fn count(&mut self, status: FieldStatus) {
        let missing = matches!(status, FieldStatus::NotFound | FieldStatus::Invalid);
        self.not_found += u64::from(missing);
    }
}

impl<'a> Tally<'a> {
    /// Adds a column of `rows` values. Those of entities do not count.
    pub(super) fn add(&mut self, column: &AnswerColumn<'a>, rows: usize, counted: ColumnTally) {
        let AnswerColumn::Feature(feature) = column else {
            return;
        };
        let view = feature.view();
        let known = self.views.iter_mut().rev().find(|known| Arc::ptr_eq(known.view, view));
        let tally = match known {
            Some(tally) => tally,
            None => {
                self.views.push(ViewTally { view, present: 0, not_found: 0 });
                self.views.last_mut().expect("it was pushed just now")
            }
        };
        tally.present += rows as u64 - counted.not_found;
        tally.not_found += counted.not_found;
    }

    /// Reports what was counted.
    pub(super) fn report(&self, metrics: &Metrics) {
        for ViewTally { view, present, not_found } in &self.views {
            metrics.feast_statuses(view, *present, *not_found);
        }
    }
}

/// The views of an answer with their versions, each name once, as Feast's servers list them: a
/// view of which several versions were read appears with the first.
pub(super) fn view_versions(answers: &Answers) -> Vec<(&str, u32)> {
    let mut views: Vec<(&str, u32)> = Vec::with_capacity(answers.views().len());
    for (name, version) in answers.views() {
        let name = without_version(name);
        if !views.iter().any(|(known, _)| *known == name) {
            views.push((name, version));
        }
    }
    views
}

/// `orders` of `orders@v2`.
fn without_version(name: &str) -> &str {
    match name.rsplit_once("@v") {
        Some((bare, digits))
            if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) =>
        {
            bare
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_no_part_of_a_views_name() {
        for (name, bare) in [
            ("orders", "orders"),
            ("orders@v2", "orders"),
            ("orders@v", "orders@v"),
            ("orders@vip", "orders@vip"),
        ] {
            assert_eq!(without_version(name), bare);
        }
    }
}

//! The table at the end.

use std::fmt;

/// Figures, goals, and what came of them.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<[String; 6]>);

/// One figure.
#[derive(Debug)]
pub(crate) struct Row {
    work: String,
    figure: String,
    goal: String,
    verdict: &'static str,
    upstream: &'static str,
}

/// Which side of the goal is the good one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

const HEAD: [&str; 6] = ["work", "figure", "goal", "verdict", "GitLab Runner 19.4", "load"];

// === impl Row ===

impl Row {
    /// A figure with a goal. `upstream` is what GitLab Runner took, with its unit; empty where it was not measured.
    pub(crate) fn new(
        work: impl Into<String>,
        figure: f64,
        unit: &str,
        goal: Goal,
        upstream: &'static str,
    ) -> Self {
        let (goal_text, met) = match goal {
            Goal::AtLeast(least) => (format!(">= {least} {unit}"), figure >= least),
            Goal::AtMost(most) => (format!("<= {most} {unit}"), figure <= most),
        };
        Self {
            work: work.into(),
            figure: shown(figure, unit),
            goal: goal_text,
            verdict: if met { "met" } else { "NOT MET" },
            upstream,
        }
    }

    /// A figure that explains others and has no goal of its own.
    pub(crate) fn plain(work: impl Into<String>, figure: f64, unit: &str) -> Self {
        Self {
            work: work.into(),
            figure: shown(figure, unit),
            goal: String::new(),
            verdict: "",
            upstream: "",
        }
    }
}

// === impl Table ===

impl Table {
    /// Adds figures that were taken under this load of the machine.
    pub(crate) fn add(&mut self, rows: Vec<Row>, load: &str) {
        let cells = |row: Row| {
            [row.work, row.figure, row.goal, row.verdict.into(), row.upstream.into(), load.to_owned()]
        };
        self.0.extend(rows.into_iter().map(cells));
    }
}

impl fmt::Display for Table {
    /// As Markdown, with columns that also line up as plain text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = HEAD.map(str::to_owned);
        let width = |column: usize| {
            let cells = self.0.iter().chain([&head]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
        let rule = ["---"; HEAD.len()].map(str::to_owned);
        for row in [&head, &rule].into_iter().chain(&self.0) {
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")?;
        }
        Ok(())
    }
}

pub(crate) fn shown(figure: f64, unit: &str) -> String {
    // Three digits tell all that a measurement of this kind can tell.
    let decimals = match figure.abs() {
        small if small < 1.0 => 3,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    format!("{figure:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_judged_on_their_own_side() {
        let verdict = |goal| Row::new("work", 10.0, "s", goal, "").verdict;
        assert_eq!(verdict(Goal::AtLeast(10.0)), "met");
        assert_eq!(verdict(Goal::AtMost(10.0)), "met");
        assert_eq!(verdict(Goal::AtLeast(10.1)), "NOT MET");
        assert_eq!(verdict(Goal::AtMost(9.9)), "NOT MET");
    }

    #[test]
    fn a_figure_that_is_not_a_number_meets_no_goal() {
        assert_eq!(Row::new("work", f64::NAN, "s", Goal::AtMost(1.0), "").verdict, "NOT MET");
        assert_eq!(Row::new("work", f64::NAN, "s", Goal::AtLeast(1.0), "").verdict, "NOT MET");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        table.add(vec![Row::plain("a", 1.0, "s"), Row::plain("longer", 1234.0, "MiB")], "0.1");
        let text = table.to_string();
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(lengths.len(), 4);
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn three_digits_are_shown() {
        assert_eq!(shown(0.0312, "%"), "0.031 %");
        assert_eq!(shown(1.456, "ms"), "1.46 ms");
        assert_eq!(shown(19.96, "MiB"), "20.0 MiB");
        assert_eq!(shown(251.4, "MiB/s"), "251 MiB/s");
    }
}

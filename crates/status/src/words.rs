//! Sentences for decisions.

use std::fmt::Write as _;

use taskscaler_core::{Counts, Inputs, Report, Why};

/// The inputs of the scaling formula as GitLab Runner's log line "required scaling change" has them in one field.
#[must_use]
pub fn capacity_info(inputs: &Inputs) -> String {
    format!(
        "instance_count:{},max_instance_count:{},acquired:{},unavailable_capacity:{},pending:{},reserved:{},\
         idle_count:{},scale_factor:{},scale_factor_limit:{},capacity_per_instance:{}",
        inputs.instance_count,
        inputs.max_instance_count.unwrap_or(0),
        inputs.acquired,
        inputs.unavailable_capacity,
        inputs.pending,
        inputs.reserved,
        inputs.idle_count,
        inputs.scale_factor.as_f64(),
        inputs.scale_factor_limit,
        inputs.capacity_per_instance,
    )
}

/// The most important reason of a decision, with the figures that led to it.
#[must_use]
pub fn decided(report: &Report) -> String {
    report.why.first().map_or_else(String::new, |why| reason(why, report))
}

/// All reasons of a decision in one line.
#[must_use]
pub fn reasons(report: &Report) -> String {
    let all: Vec<String> = report.why.iter().map(|why| reason(why, report)).collect();
    all.join("; ")
}

/// One reason, with the figures that led to it.
#[must_use]
pub fn reason(why: &Why, report: &Report) -> String {
    let Why::Launching { count, .. } = why else { return why.to_string() };
    let (pending, idle, wanted) = (report.inputs.pending, report.idle, report.wanted.idle);
    let mut text = format!("launching {count}: ");
    let waits = if pending == 1 { "job waits" } else { "jobs wait" };
    if pending > 0 || wanted == 0 {
        let _ = write!(text, "{pending} {waits}, {}", counted(idle, "free slot"));
    } else {
        let _ = write!(text, "{}", counted(idle, "free slot"));
    }
    if wanted > 0 {
        let _ = write!(text, ", {wanted} idle wanted");
    }
    text
}

/// What jobs that have no slot wait for: instances on their way, and what keeps more from coming.
#[must_use]
pub fn waiting(report: &Report) -> String {
    let mut text = on_their_way(&report.counts);
    if text.is_empty() {
        text.push_str("no instance is on its way");
        let _ = write!(text, ", {} in use", counted(report.inputs.acquired, "slot"));
    }
    for why in report.why.iter().filter(|why| why.holds_back()) {
        let _ = write!(text, "; {}", reason(why, report));
    }
    text
}

/// Instances that are not ready yet, by state: `2 booting, 1 requested`; empty without any.
#[must_use]
pub fn on_their_way(counts: &Counts) -> String {
    let states = [
        (counts.booting, "booting"),
        (counts.creating, "creating"),
        (counts.requested, "requested"),
        (counts.restoring, "restoring"),
    ];
    listed(&states)
}

/// All instances, by state; `none` without any.
#[must_use]
pub fn instances(counts: &Counts) -> String {
    let states = [
        (counts.requested, "requested"),
        (counts.restoring, "restoring"),
        (counts.creating, "creating"),
        (counts.booting, "booting"),
        (counts.ready, "ready"),
        (counts.suspect, "suspect"),
        (counts.draining, "draining"),
        (counts.deleting, "deleting"),
    ];
    let text = listed(&states);
    if text.is_empty() { "none".to_owned() } else { text }
}

fn listed(states: &[(u32, &str)]) -> String {
    let present = states.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = present.map(|(count, state)| format!("{count} {state}")).collect();
    parts.join(", ")
}

/// A number and its thing, in the plural where it must be.
pub(crate) fn counted(count: u32, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

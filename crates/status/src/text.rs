//! The document for people at a terminal.

use std::fmt::{self, Write as _};

use chrono::{DateTime, SecondsFormat, Utc};

use crate::diary::{Kind, Moment};
use crate::document::{Document, EntryState, JobStatus, RunnerStatus};
use crate::scaling::{InstanceStatus, PolicyStatus, Scaling};
use crate::words::counted;

/// What of a document is wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only the runner entries of this name, or of this short token.
    pub runner: Option<String>,
    /// Only this instance.
    pub instance: Option<String>,
}

// === impl Filter ===

impl Filter {
    /// Leaves what is wanted; says what was not found and what there is.
    ///
    /// # Errors
    /// A text for the user when nothing fits.
    pub fn apply(&self, document: &mut Document) -> Result<(), String> {
        if let Some(wanted) = &self.runner {
            let names: Vec<String> =
                document.runners.iter().map(|runner| format!("`{}`", runner.name)).collect();
            document.runners.retain(|runner| runner.name == *wanted || runner.short_token == *wanted);
            if document.runners.is_empty() {
                return Err(format!(
                    "the manager has no runner `{wanted}`; it has {}",
                    names_or(&names, "none")
                ));
            }
        }
        let Some(wanted) = &self.instance else { return Ok(()) };
        let mut known = Vec::new();
        for runner in &mut document.runners {
            let Some(scaling) = &mut runner.scaling else { continue };
            known.extend(scaling.instances.iter().map(|instance| format!("`{}`", instance.id)));
            scaling.instances.retain(|instance| instance.id == *wanted);
            scaling.recent.retain(|moment| mentions(&moment.text, wanted));
            runner.jobs.retain(|job| mentions(&job.place, wanted));
        }
        let holds = |runner: &RunnerStatus| {
            runner
                .scaling
                .as_ref()
                .is_some_and(|scaling| !scaling.instances.is_empty() || !scaling.recent.is_empty())
        };
        document.runners.retain(holds);
        if document.runners.is_empty() {
            return Err(format!(
                "no runner of the manager has an instance `{wanted}`, nor had it lately; there is {}",
                names_or(&known, "none")
            ));
        }
        Ok(())
    }
}

/// The document for people.
#[must_use]
pub fn text(document: &Document) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_document(&mut out, document);
    out
}

fn write_document(out: &mut String, document: &Document) -> fmt::Result {
    let (manager, at) = (&document.manager, document.at);
    writeln!(
        out,
        "{} {} ({}), manager {}, pid {}, {} for {}, at {}",
        line(&manager.name),
        line(&manager.version),
        line(&manager.revision),
        line(&manager.system_id),
        manager.pid,
        line(&manager.phase),
        ago(manager.started, at),
        at.to_rfc3339_opts(SecondsFormat::Secs, true),
    )?;
    let runners = document.runners.len();
    writeln!(
        out,
        "{} of at most {} at once, {}",
        counted(manager.jobs, "job"),
        manager.concurrent,
        counted(u32::try_from(runners).unwrap_or(u32::MAX), "runner")
    )?;
    for runner in &document.runners {
        out.push('\n');
        write_runner(out, runner, at)?;
    }
    Ok(())
}

fn write_runner(out: &mut String, runner: &RunnerStatus, at: DateTime<Utc>) -> fmt::Result {
    let RunnerStatus { name, short_token, executor, state, .. } = runner;
    let (name, executor) = (line(name), line(executor));
    writeln!(out, "RUNNER {name} ({short_token}), executor {executor}: {}", state.as_str())?;
    if !runner.why.is_empty() {
        field(out, "because", &line(&runner.why))?;
    }
    if *state == EntryState::Working {
        let health = if runner.healthy {
            "asked for jobs"
        } else {
            "refuses this runner; it is left alone for a while"
        };
        field(
            out,
            "GitLab",
            &format!("{health}, {} of {} requests under way", runner.requests, runner.requests_limit),
        )?;
        field(out, "jobs", &jobs(runner))?;
        if !runner.no_room.is_empty() {
            field(out, "", &format!("no other job is asked for: {}", line(&runner.no_room)))?;
        }
    }
    if let Some(scaling) = &runner.scaling {
        write_scaling(out, scaling, at)?;
    }
    write_jobs(out, runner, at)?;
    let recent = runner.scaling.as_ref().map(|scaling| scaling.recent.as_slice()).unwrap_or_default();
    let (errors, decisions): (Vec<&Moment>, Vec<&Moment>) =
        recent.iter().chain(&runner.errors).partition(|moment| moment.kind == Kind::Error);
    write_moments(out, "RECENT DECISIONS", decisions, at)?;
    write_moments(out, "RECENT ERRORS", errors, at)
}

fn jobs(runner: &RunnerStatus) -> String {
    let waiting = runner.jobs.iter().filter(|job| job.waits()).count();
    let running = runner.jobs.len() - waiting;
    let limit = match runner.limit {
        0 => "no limit of its own".to_owned(),
        limit => format!("at most {limit}"),
    };
    format!("{running} running, {waiting} waiting for an instance, {limit}")
}

fn write_scaling(out: &mut String, scaling: &Scaling, at: DateTime<Utc>) -> fmt::Result {
    field(out, "group", &format!("{} ({})", line(&scaling.group), line(&scaling.provider)))?;
    if !scaling.owner.is_empty() {
        field(out, "held by", &line(&scaling.owner))?;
    }
    field(out, "policy", &policy(&scaling.policy, at))?;
    field(out, "instances", &instances(scaling))?;
    let slots = &scaling.slots;
    let mut text = format!(
        "{} in use, {} free, {} unavailable; {} wait for one, {} reserved for requests; {}",
        slots.acquired,
        slots.idle,
        slots.unavailable,
        slots.pending,
        slots.reserved,
        counted(slots.per_instance, "slot")
    );
    text.push_str(" per instance");
    if slots.uses_per_instance > 0 {
        write!(text, ", {} per instance", counted(slots.uses_per_instance, "use"))?;
    }
    field(out, "slots", &text)?;
    if let Some(waiting) = &scaling.waiting {
        field(out, "wait for", &line(&waiting.text))?;
    }
    for (index, reason) in scaling.why.iter().enumerate() {
        let head = if index == 0 { "why" } else { "" };
        let left = reason.until.map(|until| format!(" ({})", until_words(until, at))).unwrap_or_default();
        field(out, head, &format!("{}{left}", line(&reason.text)))?;
    }
    write_instances(out, &scaling.instances, slots.uses_per_instance, at)
}

fn policy(policy: &PolicyStatus, at: DateTime<Utc>) -> String {
    let mut text = match policy.index {
        Some(index) => {
            let periods: Vec<String> =
                policy.periods.iter().map(|period| format!("`{}`", line(period))).collect();
            format!("{} of {}, {} ({})", index + 1, policy.of, periods.join(" or "), line(&policy.zone))
        }
        None => "none matches, so the defaults apply".to_owned(),
    };
    let _ = write!(text, "; idle_count {}, idle_time {}", policy.idle_count, policy.idle_time());
    if policy.scale_factor > 0.0 {
        let _ = write!(text, ", scale_factor {}", policy.scale_factor);
    }
    let _ = write!(text, ": {} wanted", counted(policy.idle_wanted, "idle slot"));
    if policy.preemptive {
        text.push_str("; jobs are taken only for free slots");
    }
    match policy.until {
        Some(until) => {
            let _ = write!(text, "; {}", until_words(until, at));
        }
        None => text.push_str("; no change within a week"),
    }
    text
}

fn instances(scaling: &Scaling) -> String {
    let wanted = match scaling.wanted {
        Some(wanted) if wanted < scaling.wanted_without_maximum => {
            format!("{wanted} wanted ({} without the maximum)", scaling.wanted_without_maximum)
        }
        Some(wanted) => format!("{wanted} wanted"),
        None => "how many are wanted cannot be said".to_owned(),
    };
    let maximum = scaling.maximum.map_or_else(|| "no maximum".to_owned(), |most| format!("at most {most}"));
    format!("{wanted}, {maximum}; there are: {}", scaling.have)
}

fn write_instances(
    out: &mut String,
    instances: &[InstanceStatus],
    most_uses: u32,
    at: DateTime<Utc>,
) -> fmt::Result {
    if instances.is_empty() {
        return Ok(());
    }
    let mut rows =
        vec![["INSTANCE", "STATE", "SLOTS", "USES", "AGE", "IDLE FOR", "WHAT NEXT"].map(str::to_owned)];
    for instance in instances {
        let uses = match most_uses {
            0 => instance.uses.to_string(),
            most => format!("{}/{most}", instance.uses),
        };
        let left = instance.until.map(|until| format!(" ({})", until_words(until, at))).unwrap_or_default();
        rows.push([
            line(&instance.id),
            line(&instance.state),
            format!("{}/{}", instance.slots_used, instance.slots),
            uses,
            ago(instance.created, at),
            instance.idle_since.map_or_else(|| "-".to_owned(), |since| ago(since, at)),
            format!("{}{left}", line(&instance.next)),
        ]);
    }
    table(out, &rows)
}

fn write_jobs(out: &mut String, runner: &RunnerStatus, at: DateTime<Utc>) -> fmt::Result {
    if runner.jobs.is_empty() {
        return Ok(());
    }
    let mut rows = vec![["JOB", "FOR", "WHERE", "STAGE", "URL"].map(str::to_owned)];
    rows.extend(runner.jobs.iter().map(|job| job_row(job, at)));
    table(out, &rows)
}

fn job_row(job: &JobStatus, at: DateTime<Utc>) -> [String; 5] {
    let (place, stage) = if job.waits() {
        ("-".to_owned(), "waits for an instance".to_owned())
    } else {
        let place = if job.place.is_empty() { "-".to_owned() } else { line(&job.place) };
        (place, format!("{} for {}", line(&job.stage), ago(job.stage_since, at)))
    };
    [job.job.to_string(), ago(job.since, at), place, stage, line(&job.url)]
}

fn write_moments(out: &mut String, title: &str, mut moments: Vec<&Moment>, at: DateTime<Utc>) -> fmt::Result {
    if moments.is_empty() {
        return Ok(());
    }
    moments.sort_by_key(|moment| moment.at);
    writeln!(out, "  {title}")?;
    for moment in moments {
        // What is older than a day needs its date.
        let old = (at - moment.at).num_hours() >= 24;
        let time = moment.at.format(if old { "%Y-%m-%d %H:%M:%S" } else { "%H:%M:%S" });
        let times = if moment.times > 1 { format!(" ({} times)", moment.times) } else { String::new() };
        writeln!(out, "  {time}  {}{times}", line(&moment.text))?;
    }
    Ok(())
}

fn field(out: &mut String, name: &str, value: &str) -> fmt::Result {
    writeln!(out, "  {name:<10} {value}")
}

/// Columns as wide as their widest cell; the last one as it is.
fn table<const N: usize>(out: &mut String, rows: &[[String; N]]) -> fmt::Result {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut text = String::from(" ");
        for (cell, width) in row.iter().zip(widths) {
            write!(text, " {cell:<width$} ")?;
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// Text of others on one line of a terminal: nothing in it can steer the terminal or pass itself off as another line.
fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn ago(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - then).num_seconds().max(0).unsigned_abs();
    go_duration::format(std::time::Duration::from_secs(seconds))
}

fn until_words(until: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let time = until.format(if (until - now).num_hours() >= 24 { "%a %d %b %H:%M:%S" } else { "%H:%M:%S" });
    if until > now {
        format!("until {time} UTC, in {}", ago(now, until))
    } else {
        format!("until {time} UTC, due")
    }
}

fn mentions(text: &str, id: &str) -> bool {
    // `i-1` is not mentioned by `i-12`.
    text.match_indices(id).any(|(start, _)| {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
        let before = text[..start].chars().next_back();
        let after = text[start + id.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

fn names_or(names: &[String], none: &str) -> String {
    if names.is_empty() { none.to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_not_mentioned_by_a_longer_name() {
        assert!(mentions("i-1 is ready", "i-1") && mentions("removing 2, first i-1: idle", "i-1"));
        assert!(!mentions("i-12 is ready", "i-1") && !mentions("ai-1", "i-1"));
    }

    #[test]
    fn text_of_others_cannot_steer_a_terminal() {
        assert_eq!(line("a\x1b[2J\nb"), "a\\u{1b}[2J\\nb");
    }
}

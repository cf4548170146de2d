//! The picture: a pure function of the model, the time and the size. Text first; colours only underline it.

use std::collections::BTreeMap;
use std::time::Duration;

use taskscaler_core::PhaseName;

use crate::model::{Counts, Instance, Job, Model, Sample, seconds};
use crate::settings::{CAPACITY, MAX_INSTANCES, MAX_USES};

/// Lines of text with their colours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Picture {
    pub(crate) lines: Vec<Vec<Span>>,
}

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) ink: Ink,
}

/// What a piece of text means, from which follows how it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    Plain,
    Title,
    Faint,
    Good,
    Busy,
    Coming,
    Bad,
}

/// A line under construction: it never grows beyond the width.
struct Line {
    spans: Vec<Span>,
    left: usize,
}

/// Columns of an instance's line before its slots.
const INSTANCE_WIDTH: usize = 16;
const STATE_WIDTH: usize = 10;
const AGE_WIDTH: usize = 8;
/// Columns after the slots: uses, and one for the blank before.
const USES_WIDTH: usize = 9;
/// Reasons that are shown.
const REASONS: usize = 3;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws the picture of one moment, of at most `width` x `height` characters.
pub(crate) fn render(model: &Model, now: Duration, width: usize, height: usize) -> Picture {
    let mut lines = vec![header(model, now, width), rule(width)];
    lines.push(titles(width));
    lines.extend(instances(model, now, width));
    lines.push(Vec::new());
    lines.push(waiting(model, width));
    lines.extend(why(model, width));
    lines.push(Vec::new());
    lines.extend(history(model, width));
    lines.push(Vec::new());
    let room = height.saturating_sub(lines.len());
    lines.extend(news(model, width, room));
    lines.truncate(height);
    Picture { lines }
}

// === impl Picture ===

impl Picture {
    /// Its lines without colours and without blanks at their ends.
    pub(crate) fn text(&self) -> Vec<String> {
        let text = |line: &Vec<Span>| {
            let text: String = line.iter().map(|span| span.text.as_str()).collect();
            text.trim_end().to_owned()
        };
        self.lines.iter().map(text).collect()
    }

    /// Its lines for a terminal with colours.
    pub(crate) fn ansi(&self) -> Vec<String> {
        let span = |span: &Span| match span.ink.code() {
            Some(code) => format!("\u{1b}[{code}m{}\u{1b}[0m", span.text),
            None => span.text.clone(),
        };
        self.lines.iter().map(|line| line.iter().map(span).collect()).collect()
    }
}

// === impl Ink ===

impl Ink {
    /// The terminal's code for it.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Title => Some("1"),
            Self::Faint => Some("2"),
            Self::Good => Some("32"),
            Self::Busy => Some("36"),
            Self::Coming => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

// === impl Line ===

impl Line {
    fn new(width: usize) -> Self {
        Self { spans: Vec::new(), left: width }
    }

    /// Adds text, cut where the line ends.
    fn put(&mut self, ink: Ink, text: &str) -> &mut Self {
        let text = cut(text, self.left);
        self.left -= text.chars().count();
        if !text.is_empty() {
            self.spans.push(Span { text, ink });
        }
        self
    }

    /// Adds text and fills it up to so many columns.
    fn column(&mut self, ink: Ink, text: &str, columns: usize) -> &mut Self {
        let text = cut(text, columns.saturating_sub(1));
        self.put(ink, &format!("{text:<columns$}"))
    }

    fn done(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.spans)
    }
}

// === the parts ===

fn header(model: &Model, now: Duration, width: usize) -> Vec<Span> {
    let Counts { arrived, waiting, running, succeeded, failed } = model.counts();
    let mut line = Line::new(width);
    let minutes = now.as_secs() / 60;
    line.put(Ink::Title, "drover demo").put(Ink::Plain, &format!("  {minutes}:{:02}", now.as_secs() % 60));
    line.put(Ink::Plain, &format!("   {arrived} of {} jobs", model.planned));
    line.put(Ink::Coming, &format!("   {waiting} waiting")).put(Ink::Busy, &format!("   {running} running"));
    line.put(Ink::Good, &format!("   {succeeded} done"));
    line.put(if failed > 0 { Ink::Bad } else { Ink::Plain }, &format!("   {failed} failed"));
    line.done()
}

fn rule(width: usize) -> Vec<Span> {
    Line::new(width).put(Ink::Faint, &"─".repeat(width)).done()
}

fn titles(width: usize) -> Vec<Span> {
    let mut line = Line::new(width);
    line.column(Ink::Faint, "INSTANCE", INSTANCE_WIDTH).column(Ink::Faint, "STATE", STATE_WIDTH);
    line.column(Ink::Faint, "AGE", AGE_WIDTH);
    line.column(Ink::Faint, "SLOTS", slot_width(width) * CAPACITY as usize).put(Ink::Faint, "USES");
    line.done()
}

/// One line for each instance that exists, and blank ones up to the maximum, so that nothing jumps.
fn instances(model: &Model, now: Duration, width: usize) -> Vec<Vec<Span>> {
    let mut lines: Vec<_> =
        model.instances.iter().map(|instance| instance_line(model, instance, now, width)).collect();
    while lines.len() < MAX_INSTANCES as usize {
        lines.push(Line::new(width).put(Ink::Faint, "·").done());
    }
    lines
}

fn instance_line(model: &Model, instance: &Instance, now: Duration, width: usize) -> Vec<Span> {
    let mut line = Line::new(width);
    let (state, ink) = state(instance);
    line.column(Ink::Plain, &instance.id, INSTANCE_WIDTH).column(ink, state, STATE_WIDTH);
    line.column(Ink::Plain, &seconds(now.saturating_sub(instance.seen)), AGE_WIDTH);
    let by_slot: BTreeMap<u32, (u64, &Job)> =
        model.on(&instance.id).filter_map(|(id, job)| Some((job.place.as_ref()?.slot?, (id, job)))).collect();
    let columns = slot_width(width) * CAPACITY as usize;
    match (&instance.reason, instance.phase) {
        (Some(reason), _) if by_slot.is_empty() => line.column(Ink::Faint, reason, columns),
        (_, PhaseName::Restoring | PhaseName::Creating | PhaseName::Booting) => {
            line.column(Ink::Faint, "no slots yet", columns)
        }
        (_, PhaseName::Ready | PhaseName::Suspect | PhaseName::Draining | PhaseName::Deleting) => {
            slots(&mut line, &by_slot, slot_width(width).saturating_sub(3))
        }
    };
    line.put(Ink::Plain, &format!("{}/{MAX_USES}", instance.uses));
    line.done()
}

/// A box for each slot, `inner` columns wide between its brackets, with the job in it.
fn slots<'l>(line: &'l mut Line, jobs: &BTreeMap<u32, (u64, &Job)>, inner: usize) -> &'l mut Line {
    for slot in 0..CAPACITY {
        let text = jobs.get(&slot).map(|(id, job)| format!("{id} {} · {}", job.name, stage(&job.stage)));
        let text = cut(&text.unwrap_or_default(), inner);
        line.put(Ink::Faint, "[").put(Ink::Busy, &format!("{text:<inner$}")).put(Ink::Faint, "] ");
    }
    line
}

fn waiting(model: &Model, width: usize) -> Vec<Span> {
    let waiting: Vec<_> =
        model.jobs.iter().filter(|(_, job)| job.place.is_none() && job.end.is_none()).collect();
    let mut line = Line::new(width);
    line.column(Ink::Faint, "WAITING", 9);
    if waiting.is_empty() {
        return line.put(Ink::Faint, "none").done();
    }
    for (index, (id, job)) in waiting.iter().enumerate() {
        let text = format!("{id} {}", job.name);
        let more = format!("and {} more", waiting.len() - index);
        // The rest must still have room behind this one.
        if line.left < text.chars().count() + 3 + more.len() && index + 1 < waiting.len() {
            return line.put(Ink::Coming, &more).done();
        }
        line.put(Ink::Coming, &text).put(Ink::Faint, if index + 1 < waiting.len() { " · " } else { "" });
    }
    line.done()
}

/// Always as many lines, so that nothing jumps.
fn why(model: &Model, width: usize) -> Vec<Vec<Span>> {
    let reason = |index: usize| {
        let mut line = Line::new(width);
        line.column(Ink::Faint, if index == 0 { "WHY" } else { "" }, 9);
        line.put(Ink::Plain, model.why.get(index).map_or("", String::as_str)).done()
    };
    (0..REASONS).map(reason).collect()
}

/// The numbers over time, each with its own scale; the newest value is on the right.
fn history(model: &Model, width: usize) -> Vec<Vec<Span>> {
    let bar = |name: &str, ink: Ink, value: fn(&Sample) -> u32, top: u32| {
        let values: Vec<u32> = model.samples.iter().map(value).collect();
        let most = values.iter().copied().max().unwrap_or_default().max(top);
        let mut line = Line::new(width);
        line.column(Ink::Faint, name, 11);
        line.put(ink, &sparkline(&values, most, width.saturating_sub(11 + 4)));
        line.put(Ink::Plain, &format!(" {}", values.last().copied().unwrap_or_default())).done()
    };
    vec![
        bar("instances", Ink::Good, |sample| sample.instances, MAX_INSTANCES),
        bar("running", Ink::Busy, |sample| sample.running, MAX_INSTANCES * CAPACITY),
        bar("waiting", Ink::Coming, |sample| sample.waiting, MAX_INSTANCES * CAPACITY),
    ]
}

/// As much of the newest news as there is room for.
fn news(model: &Model, width: usize, room: usize) -> Vec<Vec<Span>> {
    let newest = model.recent.iter().skip(model.recent.len().saturating_sub(room));
    let line = |(at, text): &(Duration, String)| {
        let ink = if text.contains(" failed: ") || text.contains(" killed ") { Ink::Bad } else { Ink::Plain };
        Line::new(width).put(Ink::Faint, &format!("{:7.1}  ", at.as_secs_f64())).put(ink, text).done()
    };
    newest.map(line).collect()
}

// === helpers ===

/// A bar per value. More values than columns share columns, each showing its largest value.
fn sparkline(values: &[u32], most: u32, columns: usize) -> String {
    let share = values.len().div_ceil(columns.max(1)).max(1);
    values
        .chunks(share)
        .map(|chunk| {
            let value = chunk.iter().copied().max().unwrap_or_default();
            match value * 8 / most.max(1) {
                0 if value == 0 => ' ',
                level => BARS[(level.max(1) - 1).min(7) as usize],
            }
        })
        .collect()
}

fn state(instance: &Instance) -> (&'static str, Ink) {
    match instance.phase {
        PhaseName::Restoring | PhaseName::Creating => ("creating", Ink::Coming),
        PhaseName::Booting => ("booting", Ink::Coming),
        PhaseName::Ready if instance.reason.is_some() => ("last jobs", Ink::Faint),
        PhaseName::Ready => ("ready", Ink::Good),
        PhaseName::Suspect => ("suspect", Ink::Bad),
        PhaseName::Draining => ("draining", Ink::Faint),
        PhaseName::Deleting => ("deleting", Ink::Faint),
    }
}

/// A short word for a stage.
fn stage(name: &str) -> &str {
    match name {
        "" | "prepare_executor" | "prepare_script" => "prepare",
        "get_sources" => "clone",
        "step_script" => "script",
        "after_script" => "after",
        "cleanup_file_variables" => "clean up",
        other => other,
    }
}

/// Columns of one slot with its brackets and the blank behind.
fn slot_width(width: usize) -> usize {
    let left = width.saturating_sub(INSTANCE_WIDTH + STATE_WIDTH + AGE_WIDTH + USES_WIDTH);
    (left / CAPACITY as usize).clamp(8, 34)
}

/// The beginning of a text; where something is cut off, its last character says so.
fn cut(text: &str, columns: usize) -> String {
    let mut characters = text.chars();
    let mut kept: String = characters.by_ref().take(columns).collect();
    if characters.next().is_some() && kept.pop().is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests;

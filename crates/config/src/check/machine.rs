//! Rules for `[runners.machine]`.

use croner::parser::{CronParser, Seconds, Year};

use super::Findings;
use crate::model::{Machine, MachineAutoscaling};
use crate::read::KeyPath;

pub(super) fn check(machine: &Machine, at: &KeyPath, findings: &mut Findings) {
    match machine.machine_name.as_deref() {
        None => {
            let hint = "write a template such as \"runner-%s\"; %s becomes a unique part";
            findings.error(
                "machine-name",
                &at.key("MachineName"),
                "[runners.machine] has no `MachineName`",
                hint,
            );
        }
        Some(name) if !name.contains("%s") => {
            let message = format!("`MachineName` is \"{name}\" and has no %s placeholder");
            findings.error(
                "machine-name",
                &at.key("MachineName"),
                message,
                "add %s, which becomes a unique part",
            );
        }
        Some(_) => {}
    }
    if machine.machine_driver.is_none() {
        let hint = "name the driver, for example MachineDriver = \"amazonec2\"";
        findings.error(
            "machine-driver",
            &at.key("MachineDriver"),
            "[runners.machine] has no `MachineDriver`",
            hint,
        );
    }
    for (index, option) in machine.machine_options_with_name.iter().enumerate() {
        if !option.contains("%s") {
            let name = option.split('=').next().unwrap_or(option);
            let message = format!("machine option with name \"{name}\" must contain %s placeholder");
            let at = at.key("MachineOptionsWithName").index(index);
            findings.error(
                "machine-option",
                &at,
                message,
                "write it into MachineOptions if it does not depend on the name",
            );
        }
    }
    for (key, options) in [
        ("MachineOptions", &machine.machine_options),
        ("MachineOptionsWithName", &machine.machine_options_with_name),
    ] {
        for (index, option) in options.iter().enumerate() {
            if option.starts_with('-') {
                let message = "options of the driver are written without leading dashes";
                findings.warning("machine-option", &at.key(key).index(index), message, "remove the dashes");
            }
        }
    }

    findings.not_negative(at, "MaxGrowthRate", machine.max_growth_rate, "0 means no limit");
    findings.not_negative(at, "MaxBuilds", machine.max_builds, "0 means that machines are never replaced");
    findings.not_negative(
        at,
        "MaxRemovalAttempts",
        machine.max_removal_attempts,
        "0 means the default of 30",
    );
    let root = MachineAutoscaling {
        idle_count: machine.idle_count,
        idle_scale_factor: machine.idle_scale_factor,
        idle_count_min: machine.idle_count_min,
        idle_time: machine.idle_time,
        ..MachineAutoscaling::default()
    };
    idle(&root, at, findings);
    for (index, entry) in machine.autoscaling.iter().enumerate() {
        let at = at.key("autoscaling").index(index);
        idle(entry, &at, findings);
        findings.zone(&at, "Timezone", entry.timezone.as_deref());
        periods(entry, &at, findings);
    }
    off_peak(machine, at, findings);
}

fn idle(entry: &MachineAutoscaling, at: &KeyPath, findings: &mut Findings) {
    findings.not_negative(at, "IdleCount", entry.idle_count, "0 creates machines when jobs are there");
    findings.not_negative(at, "IdleCountMin", entry.idle_count_min, "remove the key");
    findings.not_negative(
        at,
        "IdleTime",
        entry.idle_time,
        "the time is in seconds; 0 removes idle machines at once",
    );
    let factor = entry.idle_scale_factor.unwrap_or(0.0);
    if factor < 0.0 {
        let message = format!("`IdleScaleFactor` cannot be negative, found {factor}");
        findings.error("impossible", &at.key("IdleScaleFactor"), message, "0 switches it off");
    }
    if factor <= 0.0 && entry.idle_count_min.is_some_and(|min| min > 0) {
        let message = "`IdleCountMin` has no effect without an `IdleScaleFactor`";
        findings.warning(
            "scale-factor",
            &at.key("IdleCountMin"),
            message,
            "set IdleScaleFactor, or remove it",
        );
    }
    if factor > 0.0 && entry.idle_count() < entry.idle_count_min() {
        findings.warning(
            "impossible-idle",
            &at.key("IdleScaleFactor"),
            format!(
                "`IdleCount` is {}, below the least of {} idle machines",
                entry.idle_count(),
                entry.idle_count_min()
            ),
            "with IdleScaleFactor, IdleCount is the most idle machines; raise it",
        );
    }
}

/// Patterns with seconds and years: missing seconds are 0 and a missing year is any, as in GitLab Runner.
fn periods(entry: &MachineAutoscaling, at: &KeyPath, findings: &mut Findings) {
    if entry.periods.is_empty() {
        let message = "the entry has no `Periods` and never applies";
        findings.warning("period", at, message, "add Periods = [\"* * 9-17 * * mon-fri *\"]");
    }
    for (index, period) in entry.periods.iter().enumerate() {
        let at = at.key("Periods").index(index);
        let fields = period.split_whitespace().count();
        let whole = match fields {
            1 if period.trim().starts_with('@') => period.trim().to_owned(),
            5 => format!("0 {period} *"),
            6 => format!("0 {period}"),
            7 => period.clone(),
            _ => {
                findings.error(
                    "period",
                    &at,
                    format!("`{period}` has {fields} fields; a period has 5 to 7"),
                    "write seven: second minute hour day-of-month month day-of-week year",
                );
                continue;
            }
        };
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Optional).build();
        if let Err(error) = parser.parse(&whole) {
            findings.error(
                "period",
                &at,
                format!("`{period}` is not a period: {}", reason(&error.to_string())),
                "write seven fields: second minute hour day-of-month month day-of-week year",
            );
        } else if matches!(fields, 5 | 6) {
            findings.warning(
                "period-seconds",
                &at,
                format!("`{period}` names no seconds: in GitLab Runner it holds for about a second of each minute only"),
                "put `*` in front, for the seconds",
            );
        }
    }
}

/// The parser's reason as the end of a message.
fn reason(text: &str) -> String {
    text.rsplit(": ").next().unwrap_or(text).trim_end_matches('.').to_lowercase()
}

fn off_peak(machine: &Machine, at: &KeyPath, findings: &mut Findings) {
    let keys = [
        ("OffPeakPeriods", !machine.off_peak_periods.is_empty()),
        ("OffPeakTimezone", machine.off_peak_timezone.is_some()),
        ("OffPeakIdleCount", machine.off_peak_idle_count.is_some()),
        ("OffPeakIdleTime", machine.off_peak_idle_time.is_some()),
    ];
    for (key, is_there) in keys {
        if is_there {
            let message = format!("`{key}` has no effect since GitLab Runner 14.0");
            findings.warning(
                "deprecated",
                &at.key(key),
                message,
                "write an entry of [[runners.machine.autoscaling]]",
            );
        }
    }
}

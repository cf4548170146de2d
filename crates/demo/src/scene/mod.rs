//! What happens in the demonstration: which jobs there are, and when each arrives. Pure; the seed decides.

mod project;

use std::time::Duration;

use gitlab_mock::{JobBuilder, Repository};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

pub(crate) use project::{FILES, PROJECT};

/// Value of the masked variable. It must not appear in any log.
pub(crate) const SECRET: &str = "lamp-oil-9f3c2ab1";
/// The exit code of the job that is meant to fail.
pub(crate) const AUDIT_EXIT_CODE: i64 = 3;

/// Jobs for which the pauses between bursts are those of [`BURSTS`]; fewer jobs come closer together.
const FULL_HOUSE: f64 = 40.0;
/// Parts of the jobs: when the part begins, how long it takes to arrive, and the share that has arrived at its end.
const BURSTS: [Burst; 4] = [
    Burst { at: 0.2, during: 0.0, until_share: 0.20 },
    Burst { at: 12.0, during: 0.0, until_share: 0.55 },
    Burst { at: 19.0, during: 8.0, until_share: 0.70 },
    Burst { at: 34.0, during: 0.0, until_share: 1.0 },
];
/// When the job arrives whose instance is killed: in the pause after the first burst, so that it is alone there.
const SOAK_AT: f64 = 6.0;
/// How long that job runs if nothing happens to it.
const SOAK_WORK: Duration = Duration::from_secs(8);

/// One job of the demonstration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    /// When it arrives, since the beginning.
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    /// Job name.
    pub(crate) name: String,
    /// How long its script has to do besides its real work.
    pub(crate) work: Duration,
}

/// What a job does. Each kind is a script in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Build,
    UnitTests {
        part: u32,
    },
    Lint,
    /// Has an `after_script`.
    Integration,
    /// Has a masked variable, which its script prints.
    Deploy,
    /// Fails.
    Audit,
    Docs,
    Package,
    /// Runs until its instance is killed.
    Soak,
}

struct Burst {
    at: f64,
    during: f64,
    until_share: f64,
}

/// The order in which kinds come round. Those with something to show come early, so that few jobs show it too.
const ROUND: [Kind; 10] = [
    Kind::Build,
    Kind::Deploy,
    Kind::Audit,
    Kind::Integration,
    Kind::UnitTests { part: 1 },
    Kind::UnitTests { part: 2 },
    Kind::UnitTests { part: 3 },
    Kind::Lint,
    Kind::Docs,
    Kind::Package,
];
/// What further rounds have in place of the one job that is meant to fail.
const PEACEFUL: [Kind; 3] = [Kind::Lint, Kind::Docs, Kind::Package];

/// All jobs, in the order of their arrival.
pub(crate) fn plan(jobs: usize, kill_instance: bool, seed: u64) -> Vec<Planned> {
    let mut chance = StdRng::seed_from_u64(seed);
    #[expect(clippy::cast_precision_loss, reason = "numbers of jobs are small")]
    let stretch = (jobs as f64 / FULL_HOUSE).min(1.0);
    let mut planned: Vec<Planned> = (0..jobs)
        .map(|index| {
            let mut kind = ROUND[index % ROUND.len()];
            if kind == Kind::Audit && index >= ROUND.len() {
                kind = *PEACEFUL.choose(&mut chance).unwrap_or(&Kind::Lint);
            }
            let work = Duration::from_millis(chance.random_range(200..=2000));
            let at = Duration::from_secs_f64(arrival(index, jobs) * stretch);
            Planned { at, kind, name: name(kind), work }
        })
        .collect();
    if kill_instance {
        let at = Duration::from_secs_f64(SOAK_AT * stretch);
        planned.push(Planned { at, kind: Kind::Soak, name: name(Kind::Soak), work: SOAK_WORK });
        planned.sort_by_key(|job| job.at);
    }
    planned
}

// === impl Planned ===

impl Planned {
    /// The job as GitLab has it.
    pub(crate) fn job(&self, repository: &Repository) -> JobBuilder {
        let job = JobBuilder::new(&self.name)
            .stage(self.kind.stage())
            .script(self.kind.script())
            .variable("WORK", format!("{:.3}", self.work.as_secs_f64()))
            .timeout(Duration::from_secs(300))
            .repository(repository);
        match self.kind {
            Kind::Deploy => job.masked_variable("DEPLOY_TOKEN", SECRET),
            Kind::Integration => job.after_script(["ci/lights-out.sh"]),
            Kind::Build
            | Kind::UnitTests { .. }
            | Kind::Lint
            | Kind::Audit
            | Kind::Docs
            | Kind::Package
            | Kind::Soak => job,
        }
    }
}

// === impl Kind ===

impl Kind {
    fn stage(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::UnitTests { .. } | Self::Lint | Self::Integration | Self::Audit | Self::Soak => "test",
            Self::Deploy | Self::Docs | Self::Package => "deploy",
        }
    }

    fn script(self) -> Vec<String> {
        vec![match self {
            Self::Build => "ci/build.sh".to_owned(),
            Self::UnitTests { part } => format!("ci/test.sh {part} 3"),
            Self::Lint => "ci/lint.sh".to_owned(),
            Self::Integration => "ci/integration.sh".to_owned(),
            Self::Deploy => "ci/deploy.sh".to_owned(),
            Self::Audit => "ci/audit.sh".to_owned(),
            Self::Docs => "ci/docs.sh".to_owned(),
            Self::Package => "ci/package.sh".to_owned(),
            Self::Soak => "ci/soak.sh".to_owned(),
        }]
    }

    /// A line that stands in the log only if the script did its work.
    pub(crate) fn evidence(self) -> &'static str {
        match self {
            Self::Build => "... --- ...",
            Self::UnitTests { .. } => "3 cases passed",
            Self::Lint => "all scripts are clean",
            Self::Integration => "lights out",
            Self::Deploy => "signing in with [MASKED]",
            Self::Audit => "audit: the lamp has no spare bulb",
            Self::Docs => "morse TEXT: prints the code of a text",
            Self::Package => "packaged out/blink",
            Self::Soak => "burning in the lamp",
        }
    }
}

fn name(kind: Kind) -> String {
    match kind {
        Kind::Build => "build".to_owned(),
        Kind::UnitTests { part } => format!("unit-tests {part}/3"),
        Kind::Lint => "lint".to_owned(),
        Kind::Integration => "integration".to_owned(),
        Kind::Deploy => "deploy".to_owned(),
        Kind::Audit => "audit".to_owned(),
        Kind::Docs => "docs".to_owned(),
        Kind::Package => "package".to_owned(),
        Kind::Soak => "soak".to_owned(),
    }
}

/// When the job of this index arrives among so many, in seconds before stretching.
#[expect(clippy::cast_precision_loss, reason = "numbers of jobs are small")]
fn arrival(index: usize, jobs: usize) -> f64 {
    let share = index as f64 / jobs as f64;
    let mut before = 0.0;
    for burst in &BURSTS {
        if share < burst.until_share {
            let within = (share - before) / (burst.until_share - before);
            return burst.at + within * burst.during;
        }
        before = burst.until_share;
    }
    BURSTS[BURSTS.len() - 1].at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forty_jobs_arrive_in_bursts_of_eight_fourteen_six_and_twelve() {
        let planned = plan(40, false, 1);
        let at = |second: f64| planned.iter().filter(|job| job.at == Duration::from_secs_f64(second)).count();
        assert_eq!((at(0.2), at(12.0), at(34.0)), (8, 14, 12));
        let trickle: Vec<_> = planned.iter().filter(|job| (19..34).contains(&job.at.as_secs())).collect();
        assert_eq!(trickle.len(), 6);
        assert!(trickle.windows(2).all(|pair| pair[0].at < pair[1].at));
    }

    #[test]
    fn few_jobs_show_everything_in_a_few_seconds() {
        let planned = plan(6, false, 1);
        assert!(planned.last().unwrap().at < Duration::from_secs(6));
        for kind in [Kind::Deploy, Kind::Audit, Kind::Integration] {
            assert_eq!(planned.iter().filter(|job| job.kind == kind).count(), 1);
        }
    }

    #[test]
    fn one_job_is_meant_to_fail_however_many_there_are() {
        for jobs in [3, 40, 95] {
            let audits = plan(jobs, false, 7).iter().filter(|job| job.kind == Kind::Audit).count();
            assert_eq!((jobs, audits), (jobs, 1));
        }
    }

    #[test]
    fn the_same_seed_plans_the_same_and_another_one_does_not() {
        assert_eq!(plan(40, true, 5), plan(40, true, 5));
        assert_ne!(plan(40, true, 5), plan(40, true, 6));
    }

    #[test]
    fn the_job_whose_instance_is_killed_comes_on_top_and_in_order() {
        let planned = plan(40, true, 1);
        assert_eq!(planned.len(), 41);
        assert!(planned.is_sorted_by_key(|job| job.at));
        assert_eq!(planned.iter().position(|job| job.kind == Kind::Soak), Some(8));
    }
}

//! The stages of a job: which there are, and what each has to do.

use std::borrow::Cow;
use std::time::Duration;

use job_payload::{Artifact, Dependency, Step};

use super::Context;
use crate::cache::CacheEntry;
use crate::flags::FeatureFlag;
use crate::shell::{Script, Shell, posix, pwsh};
use crate::stage::{Outcome, Stage, StagePlan};

impl Context {
    /// The stages of the job in order, without those that have nothing to do. Of the pairs that differ by outcome, the job
    /// runs one. [`Stage::ClearWorktree`] is listed after the stage whose second attempt it prepares.
    #[must_use]
    pub fn stages(&self) -> Vec<StagePlan> {
        let mut stages = vec![
            Stage::ResolveSecrets,
            Stage::PrepareExecutor,
            Stage::PrepareScript,
            Stage::GetSources,
            Stage::ClearWorktree,
            Stage::RestoreCache,
            Stage::DownloadArtifacts,
        ];
        stages.extend((0..self.job.steps.len()).map(Stage::Step));
        stages.extend([
            Stage::AfterScript,
            Stage::ArchiveCache(Outcome::Success),
            Stage::ArchiveCache(Outcome::Failure),
            Stage::UploadArtifacts(Outcome::Success),
            Stage::UploadArtifacts(Outcome::Failure),
            Stage::CleanupFileVariables,
        ]);
        stages.retain(|stage| self.is_needed(*stage));
        stages.into_iter().map(|stage| self.plan(stage)).collect()
    }

    /// Whether the stage has anything to do in this job.
    #[must_use]
    pub fn is_needed(&self, stage: Stage) -> bool {
        match stage {
            Stage::PrepareExecutor
            | Stage::PrepareScript
            | Stage::GetSources
            | Stage::CleanupFileVariables => true,
            Stage::ResolveSecrets => !self.job.secrets.is_empty(),
            Stage::ClearWorktree => self.has_repository() && self.settings.attempts.get_sources > 1,
            Stage::RestoreCache => !self.caches.is_empty(),
            Stage::DownloadArtifacts => self.artifact_downloads().next().is_some(),
            Stage::Step(index) => self.job.steps.get(index).is_some_and(|step| step.name != "after_script"),
            Stage::AfterScript => self.after_script().is_some(),
            Stage::ArchiveCache(outcome) => self.caches_to_save(outcome).next().is_some(),
            Stage::UploadArtifacts(outcome) => {
                !self.runner.url.is_empty() && self.artifacts_to_upload(outcome).next().is_some()
            }
        }
    }

    /// Name, title and attempts of a stage.
    #[must_use]
    pub fn plan(&self, stage: Stage) -> StagePlan {
        let step = match stage {
            Stage::Step(index) => self.job.steps.get(index).map_or("", |step| step.name.as_str()),
            Stage::ResolveSecrets
            | Stage::PrepareExecutor
            | Stage::PrepareScript
            | Stage::GetSources
            | Stage::ClearWorktree
            | Stage::RestoreCache
            | Stage::DownloadArtifacts
            | Stage::AfterScript
            | Stage::ArchiveCache(_)
            | Stage::UploadArtifacts(_)
            | Stage::CleanupFileVariables => "",
        };
        let attempts = match stage {
            Stage::ResolveSecrets => self.settings.attempts.secrets,
            Stage::PrepareExecutor => 3,
            Stage::GetSources => self.settings.attempts.get_sources,
            Stage::RestoreCache => self.settings.attempts.restore_cache,
            Stage::DownloadArtifacts => self.settings.attempts.download_artifacts,
            Stage::PrepareScript
            | Stage::ClearWorktree
            | Stage::Step(_)
            | Stage::AfterScript
            | Stage::ArchiveCache(_)
            | Stage::UploadArtifacts(_)
            | Stage::CleanupFileVariables => 1,
        };
        StagePlan {
            stage,
            name: stage.name(step),
            title: stage.title(step, &self.runner.executor),
            runs: stage.runs(),
            place: stage.place(),
            attempts,
        }
    }

    /// The script of a stage, or none if it has nothing to do.
    #[must_use]
    pub fn script(&self, stage: Stage) -> Option<Script> {
        match self.runner.shell {
            shell @ (Shell::Bash | Shell::Sh) => posix::script(self, stage, shell),
            Shell::Pwsh => pwsh::script(self, stage),
        }
    }

    /// The pause before attempt `next` (2 and up) of a stage.
    #[must_use]
    pub fn retry_delay(&self, next: u32) -> Duration {
        let (first, most) =
            if self.flags.is_on(FeatureFlag::UseExponentialBackoffStageRetry) { (5, 300) } else { (1, 5) };
        let doublings = next.saturating_sub(2).min(16);
        Duration::from_secs((first << doublings).min(most))
    }

    /// The commands of a step. GitLab writes the one named `release`, and leaves its variables to the runner.
    pub(crate) fn step_commands<'a>(&'a self, step: &'a Step) -> Vec<Cow<'a, str>> {
        let expand = step.name == "release";
        step.script
            .iter()
            .map(
                |line| if expand { self.variables.expand_inside(line) } else { Cow::Borrowed(line.as_str()) },
            )
            .collect()
    }

    pub(crate) fn after_script(&self) -> Option<&Step> {
        self.job.steps.iter().find(|step| step.name == "after_script" && !step.script.is_empty())
    }

    pub(crate) fn caches_to_save(&self, outcome: Outcome) -> impl Iterator<Item = &CacheEntry> {
        self.caches.iter().filter(move |cache| cache.is_due(outcome))
    }

    pub(crate) fn artifact_downloads(&self) -> impl Iterator<Item = &Dependency> {
        self.job.dependencies.iter().filter(|dependency| !dependency.artifacts_file.filename.is_empty())
    }

    pub(crate) fn artifacts_to_upload(&self, outcome: Outcome) -> impl Iterator<Item = &Artifact> {
        self.job
            .artifacts
            .iter()
            .filter(move |artifact| outcome.wants(&artifact.when))
            .filter(|artifact| !artifact.paths.is_empty() || artifact.untracked)
    }
}

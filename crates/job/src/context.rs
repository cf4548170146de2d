//! A job in its place: the entry to everything else in this crate.

use std::borrow::Cow;
use std::time::Duration;

use job_payload::{Artifact, Dependency, Job, SecretString, Step};

use crate::cache::CacheEntry;
use crate::failure::go_duration;
use crate::flags::{FeatureFlag, FeatureFlags};
use crate::inputs;
use crate::paths::{self, Paths};
use crate::runner::{Helper, Placement, RunnerFacts};
use crate::settings::{BuildSettings, GitStrategy};
use crate::setup::{self, SetupError};
use crate::shell::export::{Prelude, STATUS};
use crate::shell::{Script, Shell, posix, pwsh};
use crate::stage::{JobStatus, Outcome, Stage, StagePlan};
use crate::variables::{self, Variable, Variables, relative};

/// A job on its runner, with every setting resolved.
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) job: Job,
    pub(crate) runner: RunnerFacts,
    pub(crate) placement: Placement,
    pub(crate) flags: FeatureFlags,
    pub(crate) settings: BuildSettings,
    pub(crate) paths: Paths,
    pub(crate) variables: Variables,
    pub(crate) caches: Vec<CacheEntry>,
    status: JobStatus,
    warnings: Vec<String>,
    pub(crate) prelude: Prelude,
}

/// The bounds of a job and its stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the secrets' resolution to the end of the job.
    pub job: Duration,
    /// Preparation: [`Stage::PrepareExecutor`] and [`Stage::PrepareScript`].
    pub prepare: Duration,
    /// [`Stage::GetSources`] with all its attempts.
    pub get_sources: Duration,
    /// All steps together; none means what is left of the job.
    pub script: Option<Duration>,
    /// [`Stage::AfterScript`].
    pub after_script: Duration,
}

// === impl Context ===

impl Context {
    /// Resolves everything about a job that can be known before it runs.
    ///
    /// # Errors
    /// [`SetupError`] if the job must fail at once.
    pub fn new(job: &Job, runner: &RunnerFacts, placement: &Placement) -> Result<Self, SetupError> {
        setup::check(job)?;
        let mut job = job.clone();
        let mut warnings = Vec::new();
        let environment: Vec<Variable> =
            runner.environment.iter().map(|entry| Variable::from_entry(entry)).collect();
        let flags = FeatureFlags::resolve(runner, &environment, &job.variables, &mut warnings);
        if flags.is_on(FeatureFlag::EnableJobInputsInterpolation) {
            inputs::interpolate(&mut job)?;
        }
        setup::native_run(&mut job);

        let status = JobStatus::Running;
        let mut paths = Paths::new(&job, runner, placement, GitStrategy::Fetch);
        let mut variables = variables::assemble(&job, runner, placement, &flags, &paths, status.as_str());
        let settings = BuildSettings::read(
            &variables,
            job.allow_git_fetch,
            job.git_info.depth,
            runner.debug_trace_disabled,
            &mut warnings,
        );
        let clone_path = variables
            .find("GIT_CLONE_PATH")
            .map(|variable| variable.value.clone())
            .filter(|path| !path.trim().is_empty());
        // Folders follow from settings, which are variables; variables name the folders.
        if settings.strategy == GitStrategy::Empty || clone_path.is_some() {
            paths = match clone_path {
                Some(path) => paths.with_clone_path(&path, runner.custom_build_dir, settings.strategy)?,
                None => Paths::new(&job, runner, placement, settings.strategy),
            };
            variables = variables::assemble(&job, runner, placement, &flags, &paths, status.as_str());
        }
        for variable in variables.iter().filter(|variable| !variable.is_exportable()) {
            warnings.push(format!("variable {:?} cannot be set in a shell and is left out", variable.key));
        }
        warnings.extend(without_effect(&flags));
        if job.suspend_options.suspend_on_success || job.suspend_options.suspend_on_failure {
            warnings.push("the job's environment is not kept: suspending is not supported".to_owned());
        }
        for (name, bound) in
            [("prepare_timeout", runner.prepare_timeout), ("get_sources_timeout", runner.get_sources_timeout)]
        {
            if let Some(bound) = bound.filter(|bound| !is_usable(*bound, job.timeout())) {
                warnings.push(format!(
                    "{name}: {} is not between zero and the job timeout, using the job timeout",
                    go_duration(bound)
                ));
            }
        }
        let caches = CacheEntry::of_job(&job, &variables, &flags);
        Ok(Self {
            job,
            runner: runner.clone(),
            placement: placement.clone(),
            flags,
            settings,
            paths,
            variables,
            caches,
            status,
            warnings,
            prelude: Prelude::default(),
        })
    }

    /// The job, with inputs in place.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The runner that runs the job.
    #[must_use]
    pub fn runner(&self) -> &RunnerFacts {
        &self.runner
    }

    /// The job's numbers and files.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Variables as the job sees them, in final order.
    #[must_use]
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// Feature flags as resolved for this job.
    #[must_use]
    pub fn flags(&self) -> &FeatureFlags {
        &self.flags
    }

    /// Settings that the job makes by variables.
    #[must_use]
    pub fn settings(&self) -> &BuildSettings {
        &self.settings
    }

    /// The job's caches; their keys are what [`Placement::remote_cache`] is asked for.
    #[must_use]
    pub fn caches(&self) -> &[CacheEntry] {
        &self.caches
    }

    /// What is odd about settings; to be shown as one warning before the preparation.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Texts that must not appear in the log: masked variables, secrets and every token that a script holds.
    #[must_use]
    pub fn masked_values(&self) -> Vec<SecretString> {
        let masked = self
            .variables
            .iter_all()
            .filter(|variable| variable.masked)
            .map(|variable| relative(&variable.value).into_owned());
        let tokens = std::iter::once(&self.job.token)
            .chain(self.job.dependencies.iter().map(|dependency| &dependency.token))
            .chain(self.job.credentials.iter().map(|credential| &credential.password))
            .map(|token| token.expose().to_owned());
        let mut values: Vec<String> = masked.chain(tokens).filter(|value| !value.trim().is_empty()).collect();
        values.sort_unstable();
        values.dedup();
        values.into_iter().map(SecretString::from).collect()
    }

    /// Whether the log may hold what is not for everybody, by `CI_DEBUG_TRACE` or `CI_DEBUG_SERVICES`: the server hides such
    /// logs from most users.
    #[must_use]
    pub fn hides_log(&self) -> bool {
        self.settings.debug_trace || self.settings.debug_services
    }

    /// Whether `CI_DEBUG_TRACE` is in force.
    #[must_use]
    pub fn debug_trace(&self) -> bool {
        self.settings.debug_trace
    }

    /// The bounds of the job and its stages.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        let job = self.job.timeout();
        let bound = |own: Option<Duration>| own.filter(|own| is_usable(*own, job)).unwrap_or(job);
        Timeouts {
            job,
            prepare: bound(self.runner.prepare_timeout),
            get_sources: bound(self.runner.get_sources_timeout),
            script: self.settings.script_timeout,
            after_script: self.settings.after_script_timeout,
        }
    }

    /// Whether the job's ref is protected; a server that does not say leaves it to `CI_COMMIT_REF_PROTECTED`.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.job.git_info.protected.unwrap_or_else(|| {
            self.job
                .variables
                .iter()
                .find(|variable| variable.key == "CI_COMMIT_REF_PROTECTED")
                .is_some_and(|variable| variables::parse_bool(&variable.value))
        })
    }

    /// Whether some stage of the job, however it ends, may call the helper.
    #[must_use]
    pub fn needs_helper(&self) -> bool {
        [
            Stage::RestoreCache,
            Stage::DownloadArtifacts,
            Stage::ArchiveCache(Outcome::Success),
            Stage::ArchiveCache(Outcome::Failure),
            Stage::UploadArtifacts(Outcome::Success),
            Stage::UploadArtifacts(Outcome::Failure),
        ]
        .into_iter()
        .any(|stage| self.is_needed(stage))
    }

    /// The helper for the scripts that are made from here on: the one of the place that the job got.
    pub fn set_helper(&mut self, helper: Helper) {
        self.runner.helper = helper;
    }

    /// A variable of the place that the job got, for the scripts that are made from here on. It wins over the job's own.
    pub fn set_variable(&mut self, key: &str, value: &str) {
        self.job.variables.push(job_payload::Variable {
            key: key.to_owned(),
            value: value.to_owned(),
            public: true,
            raw: true,
            ..job_payload::Variable::default()
        });
        self.assemble();
    }

    /// Puts the variables together anew.
    fn assemble(&mut self) {
        self.prelude = Prelude::default();
        self.variables = variables::assemble(
            &self.job,
            &self.runner,
            &self.placement,
            &self.flags,
            &self.paths,
            self.status.as_str(),
        );
    }

    /// `CI_JOB_STATUS` for the scripts that are made from here on.
    pub fn set_status(&mut self, status: JobStatus) {
        if self.status == status {
            return;
        }
        self.status = status;
        let is_referred_to = |text: &str| text.contains(STATUS);
        let job = self.job.variables.iter().any(|variable| is_referred_to(&variable.value));
        if job
            || self.runner.environment.iter().chain([&self.job.image.name]).any(|text| is_referred_to(text))
        {
            self.assemble();
        } else {
            self.variables.set_internal(STATUS, status.as_str());
        }
    }

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

    /// First lines of the log: who runs the job, and with which feature flags. The first is shown as information.
    #[must_use]
    pub fn header(&self) -> Vec<String> {
        let product = &self.runner.product;
        let mut lines =
            vec![format!("Running with {} {} ({})", product.name, product.version, product.revision)];
        if !self.runner.name.is_empty() || !self.runner.short_token.is_empty() {
            lines.push(format!(
                "  on {} {}, system ID: {}",
                self.runner.name, self.runner.short_token, self.runner.system_id
            ));
        }
        let flags = self.flags.changed();
        if !flags.is_empty() {
            lines.push(format!("  feature flags: {}", flags.join(", ")));
        }
        lines
    }

    /// Folder of the project. A relative one is below the folder that the shell starts in.
    #[must_use]
    pub fn project_dir(&self) -> String {
        relative(&self.paths.project).into_owned()
    }

    /// Folder of the job's temporary files, beside the project.
    #[must_use]
    pub fn temp_dir(&self) -> String {
        relative(&self.paths.temp).into_owned()
    }

    /// Folder of the project's cache archives.
    #[must_use]
    pub fn cache_dir(&self) -> String {
        relative(&self.paths.cache).into_owned()
    }

    /// Name for a network of this job alone, as in `CI_BUILD_NETWORK_NAME`.
    #[must_use]
    pub fn network_name(&self) -> String {
        paths::network_name(&self.job, &self.runner, &self.placement)
    }

    /// Name for what belongs to this job while it runs.
    #[must_use]
    pub fn unique_name(&self) -> String {
        paths::unique_name(&self.job, &self.runner, &self.placement)
    }

    /// Name for what later jobs of the project in this place shall find again.
    #[must_use]
    pub fn volume_name(&self) -> String {
        paths::volume_name(&self.job, &self.runner, &self.placement)
    }

    pub(crate) fn temp_file(&self, name: &str) -> String {
        format!("{}/{name}", self.paths.temp)
    }

    /// Whether the job wants a repository at all.
    pub(crate) fn has_repository(&self) -> bool {
        match self.settings.strategy {
            GitStrategy::Clone | GitStrategy::Fetch => true,
            GitStrategy::None | GitStrategy::Empty => false,
        }
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

// === impl Timeouts ===

impl Timeouts {
    /// The bound of the steps or of `after_script` when this much of the job is left, and a warning if that is less than
    /// the variable `name` asks for.
    #[must_use]
    pub fn within(asked: Option<Duration>, left: Duration, name: &str) -> (Duration, Option<String>) {
        match asked {
            Some(asked) if asked > left => {
                let asked = go_duration(asked);
                (
                    left,
                    Some(format!(
                        "{name} timeout: {asked} is longer than job timeout. Setting to job timeout"
                    )),
                )
            }
            Some(asked) => (asked, None),
            None => (left, None),
        }
    }
}

/// Settings of GitLab Runner that change nothing here, if the job or the runner asks for them.
fn without_effect(flags: &FeatureFlags) -> Vec<String> {
    let unsupported = [
        FeatureFlag::UseLegacyBashEval,
        FeatureFlag::ScriptToStepMigration,
        FeatureFlag::Concrete,
        FeatureFlag::SuspendableEnvironments,
    ];
    unsupported
        .into_iter()
        .filter(|flag| flags.is_on(*flag))
        .map(|flag| format!("{} is not supported and has no effect", flag.name()))
        .collect()
}

/// Whether a runner's own bound can hold inside of the job's.
fn is_usable(bound: Duration, job: Duration) -> bool {
    !bound.is_zero() && bound <= job
}

//! A job in its place: the entry to everything else in this crate.

mod stages;
mod timeouts;

use std::time::Duration;

use job_payload::{Job, SecretString};

pub use self::timeouts::Timeouts;

use self::timeouts::is_usable;

use crate::cache::CacheEntry;
use crate::flags::{FeatureFlag, FeatureFlags};
use crate::inputs;
use crate::paths::{self, Paths};
use crate::runner::{Helper, Placement, RunnerFacts};
use crate::settings::{BuildSettings, GitStrategy};
use crate::setup::{self, SetupError};
use crate::shell::export::{Prelude, STATUS};
use crate::stage::{JobStatus, Outcome, Stage};
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
                    go_duration::format(bound)
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
}

// === helpers ===

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

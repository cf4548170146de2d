//! What a runner says about itself: `info` and `features`.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::ClientError;

/// What a runner says about itself in each call. It is encoded once, when it is made; share it in an `Arc`.
#[derive(Debug, Clone)]
pub struct RunnerInfo {
    fields: InfoFields,
    encoded: Box<RawValue>,
}

/// The members of `info`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InfoFields {
    /// Name of the program, for example `drover`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its revision.
    pub revision: String,
    /// Operating system in Go's words; see [`InfoFields::of_this_build`].
    pub platform: String,
    /// Processor in Go's words.
    pub architecture: String,
    /// Executor of the runner; left out at the old kind of registration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub executor: String,
    /// Shell of the runner, `bash` by default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shell: String,
    /// What the runner can do.
    pub features: Features,
    /// Settings that GitLab wants to know.
    pub config: InfoConfig,
    /// Labels of the runner, global ones overlaid by its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// `info.config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InfoConfig {
    /// The `gpus` setting of the Docker executors.
    pub gpus: String,
}

/// What a runner can do. Every flag is always sent. A flag is a promise: GitLab hands out jobs by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Features {
    /// Exports job variables.
    pub variables: bool,
    /// Runs the job in `image`.
    pub image: bool,
    /// Starts `services`.
    pub services: bool,
    /// Uploads and downloads artifacts.
    pub artifacts: bool,
    /// Restores and saves caches.
    pub cache: bool,
    /// Honours `cache[].fallback_keys`.
    pub fallback_cache_keys: bool,
    /// The environment outlives a job.
    pub shared: bool,
    /// One upload per entry of `artifacts`. Reports need it.
    pub upload_multiple_artifacts: bool,
    /// Sends `raw` and `gzip` artifacts.
    pub upload_raw_artifacts: bool,
    /// Accepts a session object and serves it.
    pub session: bool,
    /// Interactive web terminal.
    pub terminal: bool,
    /// Fetches exactly `git_info.refspecs`. Merge request pipelines need it.
    pub refspecs: bool,
    /// Masks variables flagged `masked`.
    pub masking: bool,
    /// Proxies requests to service ports.
    pub proxy: bool,
    /// Does not expand variables flagged `raw`.
    pub raw_variables: bool,
    /// Honours `artifacts[].exclude`.
    pub artifacts_exclude: bool,
    /// Runs several `steps`.
    pub multi_build_steps: bool,
    /// Accepts a 416 that rewinds the log to 0.
    pub trace_reset: bool,
    /// Sends `output.checksum`.
    pub trace_checksum: bool,
    /// Sends `output.bytesize`.
    pub trace_size: bool,
    /// Resolves `secrets`.
    pub vault_secrets: bool,
    /// Reacts to `Job-Status`.
    pub cancelable: bool,
    /// Sends `exit_code`.
    pub return_exit_code: bool,
    /// Variables per service.
    pub service_variables: bool,
    /// Several aliases in one `alias`.
    pub service_multiple_aliases: bool,
    /// Honours `image.executor_opts` and refuses unknown keys.
    pub image_executor_opts: bool,
    /// Honours `services[].executor_opts` and refuses unknown keys.
    pub service_executor_opts: bool,
    /// `canceling` stops the script and still runs `after_script` and uploads.
    pub cancel_gracefully: bool,
    /// Runs `run:` jobs through a step runner.
    pub native_steps_integration: bool,
    /// Confirms a job with `PUT state=running` before any work.
    pub two_phase_job_commit: bool,
    /// Interpolates `inputs`.
    pub job_inputs: bool,
}

// === impl RunnerInfo ===

impl RunnerInfo {
    /// Encodes the members once.
    ///
    /// # Errors
    /// [`ClientError::Encode`], which the types rule out in practice.
    pub fn new(fields: InfoFields) -> Result<Self, ClientError> {
        let encoded = serde_json::value::to_raw_value(&fields).map_err(ClientError::Encode)?;
        Ok(Self { fields, encoded })
    }

    /// The members.
    #[must_use]
    pub fn fields(&self) -> &InfoFields {
        &self.fields
    }

    /// The JSON text that is sent.
    #[must_use]
    pub fn as_json(&self) -> &str {
        self.encoded.get()
    }
}

impl Serialize for RunnerInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.encoded.serialize(serializer)
    }
}

// === impl InfoFields ===

impl InfoFields {
    /// Platform and architecture of this build, in Go's words, which GitLab's pages and queries use (`linux`, `darwin`, `amd64`, `arm64`).
    #[must_use]
    pub fn of_this_build(name: &str, version: &str, revision: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            revision: revision.to_owned(),
            platform: go_platform(std::env::consts::OS).to_owned(),
            architecture: go_architecture(std::env::consts::ARCH).to_owned(),
            ..Self::default()
        }
    }
}

// === impl Features ===

impl Features {
    /// What the API client itself can do; the old kind of registration sends only these.
    pub const NETWORK: Self = Self {
        trace_reset: true,
        trace_checksum: true,
        trace_size: true,
        cancelable: true,
        cancel_gracefully: true,
        two_phase_job_commit: true,
        job_inputs: true,
        ..Self::NONE
    };

    /// What a POSIX shell adds.
    const SHELL: Self = Self {
        artifacts: true,
        cache: true,
        fallback_cache_keys: true,
        upload_multiple_artifacts: true,
        upload_raw_artifacts: true,
        refspecs: true,
        masking: true,
        raw_variables: true,
        artifacts_exclude: true,
        multi_build_steps: true,
        vault_secrets: true,
        return_exit_code: true,
        ..Self::NETWORK
    };

    /// The `instance` executor as GitLab Runner advertises it, but without `native_steps_integration`: `run:` jobs then arrive
    /// as scripts. Whoever lacks one of the abilities switches its flag off.
    pub const INSTANCE: Self = Self { variables: true, shared: true, ..Self::SHELL };

    /// The executors `docker`, `docker-autoscaler` and `docker+machine` as GitLab Runner advertises them, but without
    /// `native_steps_integration`, `session` and `terminal`.
    pub const DOCKER: Self = Self {
        variables: true,
        image: true,
        services: true,
        service_variables: true,
        service_multiple_aliases: true,
        image_executor_opts: true,
        service_executor_opts: true,
        ..Self::SHELL
    };

    const NONE: Self = Self {
        variables: false,
        image: false,
        services: false,
        artifacts: false,
        cache: false,
        fallback_cache_keys: false,
        shared: false,
        upload_multiple_artifacts: false,
        upload_raw_artifacts: false,
        session: false,
        terminal: false,
        refspecs: false,
        masking: false,
        proxy: false,
        raw_variables: false,
        artifacts_exclude: false,
        multi_build_steps: false,
        trace_reset: false,
        trace_checksum: false,
        trace_size: false,
        vault_secrets: false,
        cancelable: false,
        return_exit_code: false,
        service_variables: false,
        service_multiple_aliases: false,
        image_executor_opts: false,
        service_executor_opts: false,
        cancel_gracefully: false,
        native_steps_integration: false,
        two_phase_job_commit: false,
        job_inputs: false,
    };
}

fn go_platform(os: &str) -> &str {
    match os {
        "macos" => "darwin",
        other => other,
    }
}

fn go_architecture(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The `User-Agent` of API calls, in GitLab Runner's form: `drover 0.1.0 (main; rust; linux/amd64)`.
#[must_use]
pub fn user_agent(info: &InfoFields, branch: &str) -> String {
    format!("{} {} ({branch}; rust; {}/{})", info.name, info.version, info.platform, info.architecture)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn instance() -> InfoFields {
        InfoFields {
            executor: "instance".into(),
            shell: "bash".into(),
            features: Features::INSTANCE,
            ..InfoFields::of_this_build("drover", "1.2.3", "abc")
        }
    }

    #[test]
    fn every_feature_flag_is_always_sent() {
        let value = serde_json::to_value(Features::default()).unwrap();
        let flags = value.as_object().unwrap();
        assert_eq!(flags.len(), 31);
        assert!(flags.values().all(|flag| flag == &Value::Bool(false)));
    }

    #[test]
    fn the_instance_executor_advertises_what_the_table_says() {
        let value = serde_json::to_value(Features::INSTANCE).unwrap();
        let off: Vec<&String> = value
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, on)| **on == Value::Bool(false))
            .map(|(k, _)| k)
            .collect();
        assert_eq!(
            off,
            [
                "image",
                "image_executor_opts",
                "native_steps_integration",
                "proxy",
                "service_executor_opts",
                "service_multiple_aliases",
                "service_variables",
                "services",
                "session",
                "terminal",
            ]
        );
    }

    #[test]
    fn registration_advertises_the_network_features_only() {
        let value = serde_json::to_value(Features::NETWORK).unwrap();
        let on = value.as_object().unwrap().values().filter(|on| **on == Value::Bool(true)).count();
        assert_eq!(on, 7);
    }

    #[test]
    fn config_is_always_present_and_empty_labels_are_left_out() {
        let info = RunnerInfo::new(instance()).unwrap();
        let value: Value = serde_json::from_str(info.as_json()).unwrap();
        assert_eq!(value["config"], serde_json::json!({"gpus": ""}));
        assert_eq!(value.get("labels"), None);
        assert_eq!(value["executor"], "instance");
    }

    #[test]
    fn the_user_agent_has_the_form_of_gitlab_runner() {
        let fields = InfoFields { platform: "linux".into(), architecture: "amd64".into(), ..instance() };
        assert_eq!(user_agent(&fields, "main"), "drover 1.2.3 (main; rust; linux/amd64)");
    }

    #[test]
    fn platforms_have_the_names_that_go_uses() {
        assert_eq!((go_platform("macos"), go_platform("linux")), ("darwin", "linux"));
        assert_eq!((go_architecture("x86_64"), go_architecture("aarch64")), ("amd64", "arm64"));
    }
}

//! GitLab Runner's `config.toml`: every key typed, checked and explained.
//!
//! [`parse`] turns the text of a file into a [`Config`] and a list of [`Diagnostic`]s. Syntax and type errors refuse the
//! file; a runner entry that cannot work is refused alone ([`Loaded::verdicts`]); everything else that is odd is a warning
//! with its line and what to do. Fields hold what the file says; methods give the value in force.
//!
//! ```
//! use std::time::Duration;
//! use drover_config::{parse, ExecutorName};
//!
//! let text = r#"
//! concurrent = 10
//!
//! [[runners]]
//! name = "build"
//! url = "https://gitlab.example.com"
//! token = "$RUNNER_TOKEN"
//! executor = "instance"
//! request_concurrency = 4
//!
//! [runners.autoscaler]
//! plugin = "aws:1.2"
//! max_instances = 10
//! idle_cuont = 5
//!
//! [runners.autoscaler.plugin_config]
//! name = "my-group"
//! "#;
//! let loaded = parse(text, "config.toml", &|name| (name == "RUNNER_TOKEN").then(|| "glrt-secret".to_owned())).unwrap();
//! let runner = &loaded.config.runners[0];
//! assert_eq!(loaded.config.check_interval(), Duration::from_secs(3));
//! assert_eq!(runner.executor(), Some(ExecutorName::Instance));
//! assert_eq!(runner.autoscaler.as_ref().unwrap().plugin().unwrap().name, "aws");
//! assert!(loaded.diagnostics.iter().any(|found| found.rule == "unknown-key"));
//! ```
//!
//! The crate reads no clock and does no network traffic; it touches files only in [`load`], [`Loaded::check_files`] and
//! [`ConfigFile`], the editor that keeps comments and formatting.

mod capability;
mod check;
mod diagnostic;
mod diff;
mod edit;
mod load;
mod model;
mod path;
mod read;
mod reference;
mod scalars;
mod schema;
mod source;
mod values;
mod zone;

pub use capability::{Capabilities, ExecutorName, PluginReference, Verdict};
pub use diagnostic::{Diagnostic, Excerpt, Report, Severity};
pub use diff::{Change, Diff, RunnerChange};
pub use edit::{ConfigFile, EditError};
pub use load::{Invalid, LoadError, Loaded, load, parse};
pub use model::{
    Artifact, Autoscaler, AzureCache, BootVerify, Cache, CacheType, Config, Connector, ConnectorOs,
    ConnectorProtocol, CustomBuildDir, Docker, Experimental, GcsCache, Helper, HelperInstall, Instance,
    Isolation, JobQueuingDuration, LogFormat, LogLevel, Machine, MachineAutoscaling, MachineDefaults,
    MachineError, MetricsReferee, Monitoring, Policy, PolicyError, PullPolicy, Referees, Runner,
    RunnerExperimental, S3AuthType, S3Cache, S3Encryption, ScaleRate, ScaleThrottle, Service, SessionServer,
    Shell, ShutdownDrain, Ssh, StateStorage, Status, UsageLogger, VmIsolation,
};
pub use path::default_path;
pub use read::ListValue;
pub use reference::{reference, schema};
pub use schema::{Key, Kind, Reload, Table};
pub use secrecy::{ExposeSecret, SecretString};
pub use values::{Assignments, ByteSize, Expanded, ExpandedSecret, NanoCpus, PullPolicies, RawTable};
pub use zone::local_zone;

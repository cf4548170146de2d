//! The typed file. Every field is what the file says; methods give the value in force, with defaults resolved.

mod autoscaler;
mod cache;
mod connector;
mod docker;
mod global;
mod machine;
mod monitoring;
mod policy;
mod runner;

pub use autoscaler::{Autoscaler, Instance, ScaleRate, ScaleThrottle, StateStorage, VmIsolation};
pub use cache::{AzureCache, Cache, CacheType, GcsCache, S3AuthType, S3Cache, S3Encryption};
pub use connector::{Connector, ConnectorOs, ConnectorProtocol};
pub use docker::{Docker, Isolation, PullPolicy, Service};
pub use global::{
    Config, Experimental, LogFormat, LogLevel, MachineDefaults, SessionServer, ShutdownDrain, Status,
    UsageLogger,
};
pub use machine::{Machine, MachineAutoscaling, MachineError};
pub use monitoring::{JobQueuingDuration, MetricsReferee, Monitoring, Referees};
pub use policy::{Policy, PolicyError};
pub use runner::{
    Artifact, BootVerify, CustomBuildDir, Helper, HelperInstall, Runner, RunnerExperimental, Shell, Ssh,
};

//! The job that GitLab hands to a runner: every field of the answer to `POST jobs/request`, decoded so that no odd
//! member can lose a job.
//!
//! A job whose payload does not decode is gone for the runner and stuck on the server, so decoding is lenient: `null` and
//! missing members mean the default, unknown members are ignored, names are matched without regard to case, and a member or
//! list element of an unexpected shape is replaced by its default or dropped alone, and named in [`Job::oddities`].
//!
//! ```
//! let job = drover_job_payload::Job::from_json(br#"{"id": 7, "token": "t", "variables": null, "steps": [
//!     {"name": "script", "script": ["make"]}]}"#).unwrap();
//! assert_eq!(job.id, 7);
//! assert_eq!(job.steps[0].script, ["make"]);
//! ```

mod decode;
mod lenient;
mod model;
mod short_token;

pub use decode::{PayloadError, dig_credentials};
pub use model::{
    Artifact, Cache, Credential, Dependency, DependencyFile, DockerOptions, ExecutorOptions, Features,
    GitInfo, Hook, Image, Input, Job, JobInfo, KubernetesOptions, PolicyOptions, Port, RunnerInfo, Step,
    SuspendOptions, Token, Variable,
};
pub use secrecy::{ExposeSecret, SecretString};
pub use short_token::short_token;

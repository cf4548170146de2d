//! Instance groups that are AWS Auto Scaling groups.
//!
//! [`AwsGroup`] grows a group by its desired capacity and shrinks it by ending named instances, so that nobody else
//! chooses which. It is made from the table `plugin_config`:
//!
//! ```
//! use drover_fleeting_aws::AwsGroup;
//!
//! let group = AwsGroup::from_plugin_config(&serde_json::json!({ "name": "my-linux-asg", "region": "eu-west-1" }))?;
//! // `group.init(..)` finds the credentials and makes sure that the group exists.
//! # Ok::<(), fleeting::GroupError>(())
//! ```
//!
//! # Credentials
//!
//! Those of the SDK's chain: the profile that `plugin_config` names, the environment, the default profile (static keys,
//! single sign-on, an assumed role, a program), web identity, the container, the instance. They are had at the start, so
//! that a mistake is said there.
//!
//! # Logging in
//!
//! With `use_static_credentials`, only with what `connector_config` has. Otherwise a key (the one of `key_path`, or a fresh
//! one) is let in by EC2 Instance Connect for a minute, right before each login. Windows passwords are fetched and
//! decrypted with the RSA key of `key_path`.
//!
//! # What is asked of AWS
//!
//! One `DescribeAutoScalingGroups` per listing, one `DescribeInstances` per listing that shows new instances, and what
//! [`Intervals`] bounds. The mark of the manager that has the group is a tag, which the listings show; it is written by
//! `CreateOrUpdateTags`. An increase is a listing and one `SetDesiredCapacity`; a decrease is a listing and one
//! `TerminateInstanceInAutoScalingGroup` per instance, eight at a time.
//!
//! # What is not done
//!
//! Groups are not created, changed or repaired; [`diagnose`](fleeting::InstanceGroup::diagnose) says what should be.
//! What AWS tells an instance of its end is asked of the metadata service of spot instances with jobs; of the others, and
//! where that cannot be reached, only what EC2's calls tell is seen.

mod announced;
mod calls;
mod clients;
mod config;
mod connect;
mod diagnose;
mod error;
mod group;
mod inquiry;
mod keys;
mod lease;
mod lifecycle;
mod metadata;
mod policy;
mod settings;
mod size;
mod state;

pub use config::AwsConfig;
pub use group::{AwsGroup, Intervals};
pub use metadata::MetadataEndpoint;
pub use policy::{CALLS, Call, Need, Scope, policy};

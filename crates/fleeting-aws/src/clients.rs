//! Connections to the services, and where their credentials come from.

use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::ProvideCredentials;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use fleeting::{GroupError, with_causes};

use crate::config::AwsConfig;
use crate::error::no_credentials;

/// Attempts of one call, the first included. AWS throttles for seconds, and the scaler waits longer by itself.
const ATTEMPTS: u32 = 4;

/// One client per service.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) autoscaling: aws_sdk_autoscaling::Client,
    pub(crate) ec2: aws_sdk_ec2::Client,
    pub(crate) instance_connect: aws_sdk_ec2instanceconnect::Client,
    pub(crate) sts: aws_sdk_sts::Client,
    pub(crate) region: String,
}

// === impl Clients ===

impl Clients {
    /// Finds region and credentials. Both are had at once, so that a missing one is said at the start and not at the
    /// first job.
    pub(crate) async fn connect(config: &AwsConfig) -> Result<Self, GroupError> {
        config.check_files()?;
        let files = files(config);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::adaptive().with_max_attempts(ATTEMPTS))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    .operation_attempt_timeout(Duration::from_secs(15))
                    .operation_timeout(Duration::from_secs(45))
                    .build(),
            )
            .profile_files(files.clone());
        if let Some(profile) = &config.profile {
            loader = loader.profile_name(profile);
        }
        let region = match &config.region {
            Some(region) => Some(Region::new(region.clone())),
            None => region(config, &files).await,
        };
        let Some(region) = region else {
            let message =
                "no AWS region is known: set plugin_config.region, AWS_REGION, or `region` in the profile";
            return Err(GroupError::Configuration { message: message.to_owned() });
        };
        loader = loader.region(region.clone());
        if let Some(endpoint) = &config.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if config.profile.is_some() || config.credentials_file.is_some() || config.config_file.is_some() {
            // A profile that was asked for goes before the environment, as with the SDK that upstream uses.
            // Roles are assumed in the group's region.
            let there = ProviderConfig::without_region().with_region(Some(region.clone()));
            let mut own = ProfileFileCredentialsProvider::builder().configure(&there).profile_files(files);
            let mut others = DefaultCredentialsChain::builder().region(region.clone());
            if let Some(profile) = &config.profile {
                own = own.profile_name(profile);
                others = others.profile_name(profile);
            }
            let chain = CredentialsProviderChain::first_try("plugin_config", own.build())
                .or_else("Default", others.build().await);
            loader = loader.credentials_provider(chain);
        }
        let sdk = loader.load().await;
        let provider = sdk.credentials_provider().ok_or_else(|| no_credentials("none are configured"))?;
        provider.provide_credentials().await.map_err(|error| no_credentials(&with_causes(&error)))?;
        Ok(Self {
            autoscaling: aws_sdk_autoscaling::Client::new(&sdk),
            ec2: aws_sdk_ec2::Client::new(&sdk),
            instance_connect: aws_sdk_ec2instanceconnect::Client::new(&sdk),
            sts: aws_sdk_sts::Client::new(&sdk),
            region: region.to_string(),
        })
    }
}

/// The region of the SDK's chain: environment, profile, instance.
async fn region(config: &AwsConfig, files: &EnvConfigFiles) -> Option<Region> {
    let mut loader =
        aws_config::defaults(BehaviorVersion::latest()).no_credentials().profile_files(files.clone());
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await.region().cloned()
}

fn files(config: &AwsConfig) -> EnvConfigFiles {
    let mut files = EnvConfigFiles::builder();
    files = match &config.config_file {
        Some(file) => files.with_file(EnvConfigFileKind::Config, file),
        None => files.include_default_config_file(true),
    };
    files = match &config.credentials_file {
        Some(file) => files.with_file(EnvConfigFileKind::Credentials, file),
        None => files.include_default_credentials_file(true),
    };
    files.build()
}

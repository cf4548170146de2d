//! What AWS answers, as errors that a scaler can act on.

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_autoscaling::error::{ProvideErrorMetadata, SdkError};
use fleeting::{GroupError, with_causes};

/// How long to wait after a throttled call at least: the SDK has already tried again for some seconds.
const AFTER_THROTTLING: Duration = Duration::from_secs(5);

/// The error of a call of `action`, such as `autoscaling:SetDesiredCapacity`.
pub(crate) fn classify<E, R>(action: &'static str, error: &SdkError<E, R>) -> GroupError
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug + 'static,
{
    if let Some(service) = error.as_service_error()
        && let Some(code) = service.code()
    {
        return of_code(action, code, service.message().unwrap_or("no further words"));
    }
    if let Some(why) = credentials_error(error) {
        return no_credentials(&why);
    }
    GroupError::transient(action, error)
}

/// Credentials that could not be had.
pub(crate) fn no_credentials(why: &str) -> GroupError {
    let then = if why.contains("SSO token") {
        "log in with `aws sso login` as the user who runs drover; a service is better off with a role"
    } else {
        "set plugin_config.profile or credentials_file, environment variables, or an instance profile"
    };
    GroupError::Denied { message: format!("no AWS credentials: {why}; {then}") }
}

/// An error by the code and the words of AWS.
pub(crate) fn of_code(action: &'static str, code: &str, words: &str) -> GroupError {
    let said = || format!("{action}: {words} ({code})");
    match code {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "EC2ThrottledException"
        | "SlowDown" => GroupError::Throttled { message: said(), retry_after: Some(AFTER_THROTTLING) },
        "AccessDenied"
        | "AccessDeniedException"
        | "UnauthorizedOperation"
        | "Client.UnauthorizedOperation" => {
            GroupError::Denied { message: format!("the IAM policy lacks {action}: {words} ({code})") }
        }
        "AuthFailure" | "OptInRequired" => GroupError::Denied { message: said() },
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => GroupError::Denied {
            message: format!("the AWS credentials have expired: {words} ({code}, at {action})"),
        },
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationToken" => GroupError::Denied {
            message: format!("AWS does not accept the credentials: {words} ({code}, at {action})"),
        },
        "InvalidInstanceID.NotFound"
        | "InvalidInstanceID.Malformed"
        | "EC2InstanceNotFoundException"
        | "EC2InstanceStateInvalidException" => GroupError::NotFound { what: said() },
        "ValidationError" if is_limit(words) => GroupError::LimitReached { message: said() },
        "ValidationError" if words.contains("not found") => GroupError::NotFound { what: said() },
        _ => launch_failure(code, words).unwrap_or_else(|| GroupError::Transient { message: said() }),
    }
}

/// Why a launch failed, from the code or the text that a scaling activity has; `None` if it is no known reason.
pub(crate) fn launch_failure(code: &str, words: &str) -> Option<GroupError> {
    let has = |marks: &[&str]| marks.iter().any(|mark| code == *mark || words.contains(mark));
    let message = words.to_owned();
    if has(&[
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientFreeAddressesInSubnet",
        "UnfulfillableCapacity",
        "SpotMaxPriceTooLow",
        "do not have sufficient",
        "no Spot capacity available",
    ]) {
        return Some(GroupError::NoCapacity { message });
    }
    if has(&[
        "InstanceLimitExceeded",
        "VcpuLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "HostLimitExceeded",
        "LimitExceeded",
        "requested more vCPU capacity than",
        "instance limit",
    ]) {
        return Some(GroupError::LimitReached { message });
    }
    if has(&["UnauthorizedOperation", "not authorized", "AccessDenied"]) {
        return Some(GroupError::Denied { message });
    }
    if has(&[
        "InvalidAMIID",
        "InvalidKeyPair",
        "InvalidGroup.",
        "InvalidSubnetID",
        "InvalidParameter",
        "Unsupported",
        "does not exist",
        "invalid launch template",
    ]) {
        return Some(GroupError::Configuration { message: format!("the group cannot launch: {words}") });
    }
    None
}

/// The text of a failure to find credentials among the causes, with what led to it.
fn credentials_error(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(credentials) = cause.downcast_ref::<CredentialsError>() {
            return Some(with_causes(credentials));
        }
        next = cause.source();
    }
    None
}

fn is_limit(words: &str) -> bool {
    words.contains("above max value")
        || words.contains("min size constraint")
        || words.contains("below min value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_what_a_scaler_acts_on() {
        let kind = |code, words| match of_code("ec2:X", code, words) {
            GroupError::NotFound { .. } => "not found",
            GroupError::NoCapacity { .. } => "no capacity",
            GroupError::LimitReached { .. } => "limit",
            GroupError::Throttled { .. } => "throttled",
            GroupError::Denied { .. } => "denied",
            GroupError::Configuration { .. } => "configuration",
            GroupError::Unsupported { .. } => "unsupported",
            GroupError::Transient { .. } => "transient",
        };
        for (code, words, expected) in [
            ("RequestLimitExceeded", "", "throttled"),
            ("UnauthorizedOperation", "", "denied"),
            ("ExpiredToken", "", "denied"),
            ("InsufficientInstanceCapacity", "", "no capacity"),
            ("VcpuLimitExceeded", "", "limit"),
            (
                "ValidationError",
                "New SetDesiredCapacity value 1 is above max value 0 for the AutoScalingGroup.",
                "limit",
            ),
            (
                "ValidationError",
                "AutoScalingGroup name not found - AutoScalingGroup 'x' not found",
                "not found",
            ),
            ("InternalFailure", "", "transient"),
            ("InvalidAMIID.NotFound", "", "transient"),
        ] {
            let expected = if code.starts_with("InvalidAMIID") { "configuration" } else { expected };
            let words = if code.starts_with("InvalidAMIID") { "The image id InvalidAMIID" } else { words };
            assert_eq!(kind(code, words), expected, "{code} {words}");
        }
    }

    #[test]
    fn a_missing_permission_is_named() {
        let error = of_code("autoscaling:SetDesiredCapacity", "AccessDenied", "User x is not authorized");
        assert_eq!(
            error.to_string(),
            "not allowed: the IAM policy lacks autoscaling:SetDesiredCapacity: User x is not authorized (AccessDenied)"
        );
    }

    #[test]
    fn the_words_of_a_failed_activity_say_why_nothing_comes() {
        let no_capacity = "Could not launch Spot Instances. UnfulfillableCapacity - Unable to fulfill capacity due to \
                           your request configuration.";
        assert!(matches!(launch_failure("", no_capacity), Some(GroupError::NoCapacity { .. })));
        let quota = "You have requested more vCPU capacity than your current vCPU limit of 8 allows";
        assert!(matches!(launch_failure("", quota), Some(GroupError::LimitReached { .. })));
        let template = "The image id '[ami-1]' does not exist. Launching EC2 instance failed.";
        assert!(matches!(launch_failure("", template), Some(GroupError::Configuration { .. })));
        assert_eq!(launch_failure("", "Launching EC2 instance failed."), None);
    }
}

//! What goes wrong on purpose, and how AWS says it.

/// An answer that is an error, in AWS's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorAnswer {
    /// HTTP status.
    pub status: u16,
    /// AWS's code, for example `AccessDenied`.
    pub code: String,
    /// AWS's words.
    pub message: String,
}

/// What happens to calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The identity lacks the permission.
    AccessDenied,
    /// Too many calls.
    Throttled,
    /// The credentials have expired.
    ExpiredToken,
    /// The service fails.
    Internal,
    /// Any other answer.
    Answer(ErrorAnswer),
}

/// A fault that is in force.
#[derive(Debug, Clone)]
pub(crate) struct ActiveFault {
    pub(crate) action: String,
    pub(crate) fault: Fault,
    /// Calls that it still hits; `None`: all.
    pub(crate) left: Option<u32>,
}

// === impl ErrorAnswer ===

impl ErrorAnswer {
    /// An error of the caller.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { status: 400, code: code.to_owned(), message: message.into() }
    }
}

// === impl Fault ===

impl Fault {
    pub(crate) fn answer(&self, service: Service, action: &str) -> ErrorAnswer {
        let ec2 = matches!(service, Service::Ec2);
        match self {
            Self::AccessDenied if ec2 => ErrorAnswer {
                status: 403,
                ..ErrorAnswer::new(
                    "UnauthorizedOperation",
                    "You are not authorized to perform this operation.",
                )
            },
            Self::AccessDenied => ErrorAnswer {
                status: 403,
                ..ErrorAnswer::new(
                    if matches!(service, Service::InstanceConnect) {
                        "AccessDeniedException"
                    } else {
                        "AccessDenied"
                    },
                    format!(
                        "User: arn:aws:iam::123456789012:user/runner is not authorized to perform: {}:{action}",
                        service.prefix()
                    ),
                )
            },
            Self::Throttled if ec2 => ErrorAnswer {
                status: 503,
                ..ErrorAnswer::new("RequestLimitExceeded", "Request limit exceeded.")
            },
            Self::Throttled => ErrorAnswer::new(
                if matches!(service, Service::InstanceConnect) {
                    "ThrottlingException"
                } else {
                    "Throttling"
                },
                "Rate exceeded",
            ),
            Self::ExpiredToken => ErrorAnswer {
                status: 403,
                ..ErrorAnswer::new(
                    if matches!(service, Service::InstanceConnect) {
                        "ExpiredTokenException"
                    } else {
                        "ExpiredToken"
                    },
                    "The security token included in the request is expired",
                )
            },
            Self::Internal => ErrorAnswer {
                status: 500,
                ..ErrorAnswer::new(
                    "InternalFailure",
                    "The request processing has failed due to an internal error.",
                )
            },
            Self::Answer(answer) => answer.clone(),
        }
    }
}

/// The services that are stood in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    AutoScaling,
    Ec2,
    InstanceConnect,
    Sts,
}

// === impl Service ===

impl Service {
    fn prefix(self) -> &'static str {
        match self {
            Self::AutoScaling => "autoscaling",
            Self::Ec2 => "ec2",
            Self::InstanceConnect => "ec2-instance-connect",
            Self::Sts => "sts",
        }
    }
}

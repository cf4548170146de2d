//! What is wrong, or will go wrong, with credentials, permissions and the settings of a group.

use std::time::Duration;

use aws_sdk_autoscaling::types::{AutoScalingGroup, InstanceRefresh, LifecycleHook, Tag};
use aws_sdk_ec2::error::ProvideErrorMetadata as _;
use fleeting::{Finding, GroupError, Severity};

use crate::clients::Clients;
use crate::config::AwsConfig;
use crate::error::classify;
use crate::keys::Login;
use crate::settings::of_settings;
use crate::state::number;

/// The scaler gives up an instance that is not in service by then (its `creation_timeout`).
const CREATION_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// A name that no instance has.
const NOBODY: &str = "i-00000000000000000";

/// The finding that nothing else can be examined.
pub(crate) fn no_clients(error: &GroupError, config: &AwsConfig) -> Finding {
    let ask = "aws sts get-caller-identity   # as the user who runs drover; it must be answered";
    Finding::new(Severity::Error, "aws/credentials", error.to_string())
        .leads_to("no call to AWS is possible")
        .repair(located(ask, config.region.as_deref(), config))
}

/// Everything that can be examined without a change.
pub(crate) async fn all(clients: &Clients, config: &AwsConfig, drifts: u64) -> Vec<Finding> {
    let mut findings = examined(clients, config, drifts).await;
    for finding in &mut findings {
        finding.repair = located(&finding.repair, Some(&clients.region), config);
    }
    findings
}

/// A command of the AWS CLI for the group's region, and with the profile that finds it, whatever the person's own are.
pub(crate) fn located(command: &str, region: Option<&str>, config: &AwsConfig) -> String {
    let parts = command.strip_prefix("aws ").and_then(|rest| rest.split_once(' '));
    let Some((service, rest)) = parts else { return command.to_owned() };
    let option = |name: &str, value: Option<&str>| {
        let value = value.filter(|_| !rest.contains(&format!("--{name} ")));
        value.map_or_else(String::new, |value| format!(" --{name} {value}"))
    };
    let (region, profile) = (option("region", region), option("profile", config.profile.as_deref()));
    format!("aws {service}{region}{profile} {rest}")
}

async fn examined(clients: &Clients, config: &AwsConfig, drifts: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let credentials = clients.sts.get_caller_identity().send().await;
    findings.push(match credentials {
        Ok(identity) => {
            let arn = identity.arn().unwrap_or("an unnamed identity");
            Finding::good("aws/credentials", format!("AWS knows the credentials as {arn}"))
        }
        Err(error) => {
            let refused = no_clients(&classify("sts:GetCallerIdentity", &error), config);
            findings.push(refused);
            return findings;
        }
    });
    let group = match clients.group(&config.name).await {
        Ok(group) => group,
        Err(error @ GroupError::NotFound { .. }) => {
            findings.push(
                Finding::new(Severity::Error, "aws/group", error.to_string())
                    .leads_to("the runner entry is not used")
                    .repair(format!(
                        "aws autoscaling describe-auto-scaling-groups --region {} --query \
                         'AutoScalingGroups[].AutoScalingGroupName'",
                        clients.region
                    )),
            );
            return findings;
        }
        Err(error) => {
            findings.push(permission("autoscaling:DescribeAutoScalingGroups", Some(&error), true));
            return findings;
        }
    };
    findings.push(Finding::good(
        "aws/group",
        format!(
            "group `{}` has {} instances, desired capacity {}, sizes {} to {}",
            config.name,
            group.instances().len(),
            number(group.desired_capacity()),
            number(group.min_size()),
            number(group.max_size())
        ),
    ));
    findings.push(permission("autoscaling:DescribeAutoScalingGroups", None, true));
    findings.extend(permissions(clients, &group, &config.name).await);
    findings.extend(of_settings(&group));
    findings.extend(others(clients, &config.name, drifts).await);
    findings
}

/// Each action that is needed, by a dry run where AWS has one, else by a call that cannot succeed or changes nothing.
async fn permissions(clients: &Clients, group: &AutoScalingGroup, name: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let member = group.instances().iter().find_map(|instance| instance.instance_id());
    {
        const ACTION: &str = "autoscaling:SetDesiredCapacity";
        // One above the maximum is refused; without the permission for another reason.
        let set = async |capacity: i32| {
            let request = clients.autoscaling.set_desired_capacity().auto_scaling_group_name(name);
            request.desired_capacity(capacity).send().await
        };
        let asked = set(group.max_size().unwrap_or(0).saturating_add(1)).await;
        if asked.is_ok() {
            // The maximum was raised in between.
            let restored = set(group.desired_capacity().unwrap_or(0)).await;
            if let Err(error) = restored.map_err(|error| classify(ACTION, &error)) {
                tracing::warn!(
                    group = name,
                    error = &error as &dyn std::error::Error,
                    "the desired capacity is one too high"
                );
            }
        }
        findings.push(permission(ACTION, asked.err().map(|error| classify(ACTION, &error)).as_ref(), true));
    }
    {
        const ACTION: &str = "autoscaling:TerminateInstanceInAutoScalingGroup";
        let asked = clients
            .autoscaling
            .terminate_instance_in_auto_scaling_group()
            .instance_id(NOBODY)
            .should_decrement_desired_capacity(true)
            .send()
            .await;
        let error = asked.err().map(|error| classify(ACTION, &error));
        let mut finding = permission(ACTION, error.as_ref(), true);
        if finding.severity == Severity::Error {
            // A policy that allows it for this group only refuses an instance of no group.
            finding.severity = Severity::Notice;
            finding.leads_to =
                "if the policy lacks it also for this group, no instance is ever ended".to_owned();
        }
        findings.push(finding);
    }
    {
        const ACTION: &str = "autoscaling:CreateOrUpdateTags";
        // Keys that begin so are AWS's own: nobody can write them, and without the permission the reason is another.
        let tag = Tag::builder().resource_id(name).resource_type("auto-scaling-group").key("aws:drover");
        let asked = clients.autoscaling.create_or_update_tags().tags(tag.build()).send().await;
        let error = asked.err().filter(|error| error.code() != Some("ValidationError"));
        findings.push(permission(ACTION, error.map(|error| classify(ACTION, &error)).as_ref(), false));
    }
    {
        const ACTION: &str = "autoscaling:DeleteTags";
        // A tag that no group has.
        let tag = Tag::builder().resource_id(name).resource_type("auto-scaling-group").key("drover:none");
        let asked = clients.autoscaling.delete_tags().tags(tag.build()).send().await;
        let error = asked.err().filter(|error| error.code() != Some("ValidationError"));
        findings.push(permission(ACTION, error.map(|error| classify(ACTION, &error)).as_ref(), false));
    }
    {
        const ACTION: &str = "autoscaling:DescribeScalingActivities";
        let asked = clients.activities(name, 1).await;
        findings.push(permission(ACTION, asked.err().as_ref(), false));
    }
    {
        const ACTION: &str = "ec2:DescribeInstances";
        let asked = clients.ec2.describe_instances().dry_run(true).send().await;
        let error = asked.err().filter(|error| error.code() != Some("DryRunOperation"));
        findings.push(permission(ACTION, error.map(|error| classify(ACTION, &error)).as_ref(), true));
    }
    {
        const ACTION: &str = "ec2:DescribeInstanceStatus";
        let asked = clients.ec2.describe_instance_status().dry_run(true).send().await;
        let error = asked.err().filter(|error| error.code() != Some("DryRunOperation"));
        findings.push(permission(ACTION, error.map(|error| classify(ACTION, &error)).as_ref(), false));
    }
    {
        const ACTION: &str = "ec2:DescribeSpotInstanceRequests";
        let asked = clients.ec2.describe_spot_instance_requests().dry_run(true).send().await;
        let error = asked.err().filter(|error| error.code() != Some("DryRunOperation"));
        findings.push(permission(ACTION, error.map(|error| classify(ACTION, &error)).as_ref(), false));
    }
    if let Some(member) = member {
        const ACTION: &str = "ec2:GetPasswordData";
        let asked = clients.ec2.get_password_data().instance_id(member).dry_run(true).send().await;
        let error = asked.err().filter(|error| error.code() != Some("DryRunOperation"));
        let mut finding = permission(ACTION, error.map(|error| classify(ACTION, &error)).as_ref(), false);
        // Most groups have no Windows.
        finding.severity = finding.severity.min(Severity::Notice);
        findings.push(finding);
    }
    if let (Some(member), Ok(throwaway)) = (member, Login::fresh()) {
        const ACTION: &str = "ec2-instance-connect:SendSSHPublicKey";
        // Its private half is dropped here, so it lets nobody in.
        let asked = clients
            .instance_connect
            .send_ssh_public_key()
            .instance_id(member)
            .instance_os_user("ec2-user")
            .ssh_public_key(throwaway.public)
            .send()
            .await;
        findings.push(permission(ACTION, asked.err().map(|error| classify(ACTION, &error)).as_ref(), false));
    }
    findings
}

/// Others who steer the same group.
async fn others(clients: &Clients, name: &str, drifts: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let blind = |action: &'static str, error: GroupError, unseen: &str| {
        Finding::new(Severity::Notice, format!("aws/permission/{action}"), error.to_string())
            .leads_to(format!("{unseen} are not seen here"))
    };
    match clients.autoscaling.describe_policies().auto_scaling_group_name(name).send().await {
        Ok(answer) => {
            let policies = answer.scaling_policies().iter().filter_map(|policy| policy.policy_name());
            findings.extend(policies.map(|policy| scaling_policy(name, policy)));
        }
        Err(error) => {
            const ACTION: &str = "autoscaling:DescribePolicies";
            findings.push(blind(ACTION, classify(ACTION, &error), "scaling policies"));
        }
    }
    match clients.autoscaling.describe_scheduled_actions().auto_scaling_group_name(name).send().await {
        Ok(answer) => {
            let actions =
                answer.scheduled_update_group_actions().iter().filter_map(|a| a.scheduled_action_name());
            findings.extend(actions.map(|action| scheduled_action(name, action)));
        }
        Err(error) => {
            const ACTION: &str = "autoscaling:DescribeScheduledActions";
            findings.push(blind(ACTION, classify(ACTION, &error), "scheduled actions"));
        }
    }
    match clients.autoscaling.describe_lifecycle_hooks().auto_scaling_group_name(name).send().await {
        Ok(answer) => findings.extend(answer.lifecycle_hooks().iter().map(|hook| lifecycle_hook(name, hook))),
        Err(error) => {
            const ACTION: &str = "autoscaling:DescribeLifecycleHooks";
            findings.push(blind(ACTION, classify(ACTION, &error), "lifecycle hooks"));
        }
    }
    match clients.autoscaling.describe_instance_refreshes().auto_scaling_group_name(name).send().await {
        Ok(answer) => {
            let open = answer.instance_refreshes().iter().filter(|refresh| is_open(refresh));
            findings.extend(open.map(|refresh| instance_refresh(name, refresh)));
        }
        Err(error) => {
            const ACTION: &str = "autoscaling:DescribeInstanceRefreshes";
            findings.push(blind(ACTION, classify(ACTION, &error), "instance refreshes"));
        }
    }
    if drifts > 0 {
        findings.push(
            Finding::new(
                Severity::Warning,
                "aws/group/another-manager",
                format!(
                    "the desired capacity of `{name}` was changed from outside {drifts} times since the start"
                ),
            )
            .leads_to("two managers on one group end each other's instances")
            .repair("give each runner entry a group of its own"),
        );
    }
    findings
}

fn scaling_policy(name: &str, policy: &str) -> Finding {
    Finding::new(
        Severity::Warning,
        "aws/group/scaling-policy",
        format!("the scaling policy `{policy}` changes the size of `{name}` too"),
    )
    .leads_to("two scalers work against each other: instances come and go for no job")
    .repair(format!("aws autoscaling delete-policy --auto-scaling-group-name {name} --policy-name {policy}"))
}

fn scheduled_action(name: &str, action: &str) -> Finding {
    Finding::new(
        Severity::Warning,
        "aws/group/scheduled-action",
        format!("the scheduled action `{action}` changes the size of `{name}` too"),
    )
    .leads_to("instances come and go for no job")
    .repair(format!(
        "aws autoscaling delete-scheduled-action --auto-scaling-group-name {name} --scheduled-action-name {action}"
    ))
}

fn lifecycle_hook(name: &str, hook: &LifecycleHook) -> Finding {
    let transition = hook.lifecycle_transition().unwrap_or_default();
    let (title, seconds) = (hook.lifecycle_hook_name().unwrap_or_default(), number(hook.heartbeat_timeout()));
    let launching = transition.ends_with("LAUNCHING");
    let severity = if launching && u64::from(seconds) >= CREATION_TIMEOUT.as_secs() {
        Severity::Warning
    } else {
        Severity::Notice
    };
    let held = format!("each is held for up to {seconds} s, unless something completes the hook");
    let leads_to = match (launching, hook.default_result()) {
        (true, Some("CONTINUE")) => format!("{held}; it takes jobs only then"),
        (true, _) => {
            format!("{held}; what nobody completes is then ended, and another one started (ABANDON)")
        }
        (false, _) => {
            format!(
                "{held}; meanwhile it counts against `max_instances`, and a job on it goes on if AWS ended it"
            )
        }
    };
    Finding::new(
        severity,
        "aws/group/lifecycle-hook",
        format!("the lifecycle hook `{title}` holds instances of `{name}` at {transition}"),
    )
    .leads_to(leads_to)
    .repair(format!(
        "aws autoscaling delete-lifecycle-hook --auto-scaling-group-name {name} --lifecycle-hook-name {title}"
    ))
}

fn is_open(refresh: &InstanceRefresh) -> bool {
    let status = refresh.status().map_or("", |status| status.as_str());
    // Open are Pending, Baking, InProgress, Cancelling, RollbackInProgress, and what AWS may add.
    !matches!(status, "" | "Successful" | "Failed" | "Cancelled" | "RollbackSuccessful" | "RollbackFailed")
}

fn instance_refresh(name: &str, refresh: &InstanceRefresh) -> Finding {
    let status = refresh.status().map_or("", |status| status.as_str());
    Finding::new(
        Severity::Warning,
        "aws/group/instance-refresh",
        format!("an instance refresh of `{name}` is under way ({status})"),
    )
    .leads_to("AWS replaces instances that run jobs, or waits for their protection to end and never finishes")
    .repair(format!(
        "aws autoscaling cancel-instance-refresh --auto-scaling-group-name {name}   # a new launch template version needs \
         none: new instances have it"
    ))
}

/// Whether an action is allowed, by the error that it ended with.
fn permission(action: &'static str, error: Option<&GroupError>, needed: bool) -> Finding {
    let check = format!("aws/permission/{action}");
    match error {
        Some(GroupError::Denied { message }) => {
            let severity = if needed { Severity::Error } else { Severity::Warning };
            Finding::new(severity, check, message.clone()).leads_to(consequence(action)).repair(format!(
                "add to the IAM policy of these credentials: {{\"Effect\": \"Allow\", \"Action\": \"{action}\", \
                 \"Resource\": \"*\"}}"
            ))
        }
        Some(error @ (GroupError::Transient { .. } | GroupError::Throttled { .. })) => {
            Finding::new(Severity::Notice, check, format!("could not be told: {error}"))
        }
        // Refused for what was asked, not for who asked.
        Some(_) | None => Finding::good(check, format!("{action} is allowed")),
    }
}

fn consequence(action: &str) -> &'static str {
    match action {
        "autoscaling:SetDesiredCapacity" => "no instance is ever started",
        "autoscaling:TerminateInstanceInAutoScalingGroup" => "no instance is ever ended",
        "autoscaling:CreateOrUpdateTags" => {
            "another manager cannot see that the group is in use, and both end each other's instances"
        }
        "autoscaling:DeleteTags" => {
            "after an orderly end, another manager waits until the tag has lapsed before it takes the group over"
        }
        "ec2:GetPasswordData" => "Windows instances need connector_config.password",
        "autoscaling:DescribeScalingActivities" => {
            "it is not said why instances do not come, or what became of lost ones"
        }
        "ec2:DescribeInstances" => "no instance can be connected to",
        "ec2:DescribeInstanceStatus" => "scheduled maintenance ends instances under their jobs",
        "ec2:DescribeSpotInstanceRequests" => "spot interruptions are noticed only when the instance is gone",
        "ec2-instance-connect:SendSSHPublicKey" => "one can log in only with key_path, or a password",
        _ => "the group cannot be used",
    }
}

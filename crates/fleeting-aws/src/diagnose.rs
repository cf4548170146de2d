//! What is wrong, or will go wrong, with credentials, permissions and the settings of a group.

use aws_sdk_autoscaling::types::{AutoScalingGroup, Tag};
use aws_sdk_ec2::error::ProvideErrorMetadata as _;
use fleeting::{Finding, GroupError, Severity};

use crate::clients::Clients;
use crate::config::AwsConfig;
use crate::error::classify;
use crate::keys::Login;
use crate::state::number;

/// A name that no instance has.
const NOBODY: &str = "i-00000000000000000";

/// The finding that nothing else can be examined.
pub(crate) fn no_clients(error: &GroupError) -> Finding {
    Finding::new(Severity::Error, "aws/credentials", error.to_string())
        .leads_to("no call to AWS is possible")
        .repair("aws sts get-caller-identity   # with the same profile, as the user who runs drover")
}

/// Everything that can be examined without a change.
pub(crate) async fn all(clients: &Clients, config: &AwsConfig, drifts: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let credentials = clients.sts.get_caller_identity().send().await;
    findings.push(match credentials {
        Ok(identity) => {
            let arn = identity.arn().unwrap_or("an unnamed identity");
            Finding::good("aws/credentials", format!("AWS knows the credentials as {arn}"))
        }
        Err(error) => {
            let refused = no_clients(&classify("sts:GetCallerIdentity", &error));
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

/// What the settings of a group lead to.
pub(crate) fn of_settings(group: &AutoScalingGroup) -> Vec<Finding> {
    let name = group.auto_scaling_group_name().unwrap_or_default();
    let update = |rest: &str| {
        format!("aws autoscaling update-auto-scaling-group --auto-scaling-group-name {name} {rest}")
    };
    let warning =
        |check: &str, what: String| Finding::new(Severity::Warning, format!("aws/group/{check}"), what);
    let notice =
        |check: &str, what: String| Finding::new(Severity::Notice, format!("aws/group/{check}"), what);
    let mut findings = Vec::new();

    if group.new_instances_protected_from_scale_in() != Some(true) {
        findings.push(
            warning(
                "scale-in-protection",
                format!("new instances of `{name}` are not protected from scale-in"),
            )
            .leads_to("AWS may end instances that run jobs whenever it lowers the group's size")
            .repair(update("--new-instances-protected-from-scale-in")),
        );
    }
    let suspended = |process: &str| {
        group.suspended_processes().iter().any(|suspended| suspended.process_name() == Some(process))
    };
    if group.availability_zones().len() > 1 && !suspended("AZRebalance") {
        findings.push(
            warning("az-rebalance", format!("the process AZRebalance of `{name}` is not suspended"))
                .leads_to("AWS ends instances that run jobs to spread the group over its zones")
                .repair(format!(
                    "aws autoscaling suspend-processes --auto-scaling-group-name {name} --scaling-processes AZRebalance"
                )),
        );
    }
    for process in ["Launch", "Terminate"] {
        if suspended(process) {
            findings.push(
                Finding::new(
                    Severity::Error,
                    format!("aws/group/{}-suspended", process.to_lowercase()),
                    format!("the process {process} of `{name}` is suspended"),
                )
                .leads_to(if process == "Launch" { "no instance is ever started" } else { "no instance is ever ended" })
                .repair(format!(
                    "aws autoscaling resume-processes --auto-scaling-group-name {name} --scaling-processes {process}"
                )),
            );
        }
    }
    if group.capacity_rebalance() == Some(true) {
        findings.push(
            warning("capacity-rebalance", format!("capacity rebalancing of `{name}` is on"))
                .leads_to("AWS ends spot instances that run jobs as soon as it sees a risk of interruption")
                .repair(update("--no-capacity-rebalance")),
        );
    }
    let (min, max) = (number(group.min_size()), number(group.max_size()));
    if max == 0 {
        findings.push(
            Finding::new(Severity::Error, "aws/group/max-size", format!("the max size of `{name}` is 0"))
                .leads_to("no instance is ever started")
                .repair(update("--max-size 10   # at least max_instances")),
        );
    }
    if min > 0 {
        findings.push(
            warning("min-size", format!("the min size of `{name}` is {min}"))
                .leads_to(format!(
                    "the last {min} instances cannot be ended: used up ones stay, and cost money"
                ))
                .repair(update("--min-size 0")),
        );
    }
    if let Some(lifetime) = group.max_instance_lifetime().filter(|seconds| *seconds > 0) {
        findings.push(
            warning("max-instance-lifetime", format!("`{name}` replaces instances after {lifetime} s"))
                .leads_to("AWS ends instances at that age, also when they run jobs")
                .repair(update("--max-instance-lifetime 0")),
        );
    }
    if group.warm_pool_configuration().is_some() {
        findings.push(
            notice("warm-pool", format!("`{name}` has a warm pool"))
                .leads_to("its instances start faster; those that wait in it cost money and are not counted")
                .repair(format!("aws autoscaling delete-warm-pool --auto-scaling-group-name {name}")),
        );
    }
    if let Some(mixed) = group.mixed_instances_policy() {
        let on_demand = mixed
            .instances_distribution()
            .and_then(|spread| spread.on_demand_percentage_above_base_capacity())
            .unwrap_or(100);
        if on_demand < 100 {
            findings.push(
                notice("spot", format!("`{name}` starts {} % spot instances", 100 - on_demand)).leads_to(
                    "AWS may take them with two minutes' notice; their jobs then fail and can be retried",
                ),
            );
        }
        if group.instances().iter().any(|instance| instance.weighted_capacity().is_some()) {
            findings.push(
                warning("weights", format!("instance types of `{name}` have weights"))
                    .leads_to(
                        "the desired capacity does not count instances, so too few or too many are started",
                    )
                    .repair(
                        "remove WeightedCapacity from the overrides of the group's mixed instances policy",
                    ),
            );
        }
    }
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
    if let Ok(answer) = clients.autoscaling.describe_policies().auto_scaling_group_name(name).send().await {
        for policy in answer.scaling_policies().iter().filter_map(|policy| policy.policy_name()) {
            findings.push(
                Finding::new(
                    Severity::Warning,
                    "aws/group/scaling-policy",
                    format!("the scaling policy `{policy}` changes the size of `{name}` too"),
                )
                .leads_to("two scalers work against each other: instances come and go for no job")
                .repair(format!(
                    "aws autoscaling delete-policy --auto-scaling-group-name {name} --policy-name {policy}"
                )),
            );
        }
    }
    if let Ok(answer) =
        clients.autoscaling.describe_scheduled_actions().auto_scaling_group_name(name).send().await
    {
        for action in answer.scheduled_update_group_actions().iter().filter_map(|a| a.scheduled_action_name())
        {
            findings.push(
                Finding::new(
                    Severity::Warning,
                    "aws/group/scheduled-action",
                    format!("the scheduled action `{action}` changes the size of `{name}` too"),
                )
                .leads_to("instances come and go for no job")
                .repair(format!(
                    "aws autoscaling delete-scheduled-action --auto-scaling-group-name {name} --scheduled-action-name \
                     {action}"
                )),
            );
        }
    }
    if let Ok(answer) =
        clients.autoscaling.describe_lifecycle_hooks().auto_scaling_group_name(name).send().await
    {
        for hook in answer.lifecycle_hooks() {
            let transition = hook.lifecycle_transition().unwrap_or_default();
            let (hook, seconds) =
                (hook.lifecycle_hook_name().unwrap_or_default(), number(hook.heartbeat_timeout()));
            findings.push(
                Finding::new(
                    Severity::Notice,
                    "aws/group/lifecycle-hook",
                    format!("the lifecycle hook `{hook}` holds instances of `{name}` at {transition}"),
                )
                .leads_to(format!("each is held for up to {seconds} s, unless something completes the hook"))
                .repair(format!(
                    "aws autoscaling delete-lifecycle-hook --auto-scaling-group-name {name} --lifecycle-hook-name {hook}"
                )),
            );
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

#[cfg(test)]
mod tests {
    use aws_sdk_autoscaling::types::{
        Instance, InstancesDistribution, MixedInstancesPolicy, SuspendedProcess,
    };

    use super::*;

    fn checks(group: &AutoScalingGroup) -> Vec<(String, Severity)> {
        of_settings(group).into_iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn spot_instances_are_worth_knowing_and_weights_are_a_mistake() {
        let rebalance = SuspendedProcess::builder().process_name("AZRebalance").build();
        let spread = InstancesDistribution::builder().on_demand_percentage_above_base_capacity(20).build();
        let group = AutoScalingGroup::builder()
            .auto_scaling_group_name("build")
            .max_size(5)
            .new_instances_protected_from_scale_in(true)
            .suspended_processes(rebalance)
            .availability_zones("a")
            .availability_zones("b")
            .mixed_instances_policy(MixedInstancesPolicy::builder().instances_distribution(spread).build())
            .instances(Instance::builder().instance_id("i-1").weighted_capacity("2").build())
            .build();
        assert_eq!(
            checks(&group),
            [
                ("aws/group/spot".to_owned(), Severity::Notice),
                ("aws/group/weights".to_owned(), Severity::Warning)
            ]
        );
    }

    #[test]
    fn one_zone_needs_no_suspended_rebalancing_and_a_maximum_of_none_is_an_error() {
        let group = AutoScalingGroup::builder()
            .auto_scaling_group_name("build")
            .max_size(0)
            .max_instance_lifetime(86_400)
            .new_instances_protected_from_scale_in(true)
            .availability_zones("a")
            .build();
        assert_eq!(
            checks(&group),
            [
                ("aws/group/max-size".to_owned(), Severity::Error),
                ("aws/group/max-instance-lifetime".to_owned(), Severity::Warning)
            ]
        );
    }
}

//! What the settings of a group lead to. All of it is in the answer that lists the group, so it costs no call.

use aws_sdk_autoscaling::types::{AutoScalingGroup, LaunchTemplateOverrides, MixedInstancesPolicy};
use fleeting::{Finding, GroupError, Severity};

use crate::state::number;

/// Share of on-demand instances where a policy says none, in percent.
const ALL_ON_DEMAND: i32 = 100;

/// Everything that is worth knowing of the settings of a group.
pub(crate) fn of_settings(group: &AutoScalingGroup) -> Vec<Finding> {
    let mut findings = ends_by_others(group);
    findings.extend(sizes(group));
    findings.extend(warm_pool(group));
    if let Some(mixed) = group.mixed_instances_policy() {
        findings.extend(of_mixed(name(group), mixed));
    }
    findings.extend(units(group));
    findings
}

/// Why the group cannot be scaled at all: its desired capacity does not count instances.
pub(crate) fn unusable(group: &AutoScalingGroup) -> Option<GroupError> {
    let finding = units(group)?;
    let message = format!("{}: {}; {}", finding.what, finding.leads_to, finding.repair);
    Some(GroupError::Configuration { message })
}

/// What has AWS end instances by itself, or keeps it from doing what it is told.
fn ends_by_others(group: &AutoScalingGroup) -> Vec<Finding> {
    let name = name(group);
    let mut findings = Vec::new();
    if group.new_instances_protected_from_scale_in() != Some(true) {
        findings.push(
            warning(
                "scale-in-protection",
                format!("new instances of `{name}` are not protected from scale-in"),
            )
            .leads_to("AWS may end instances that run jobs whenever it lowers the group's size")
            .repair(update(name, "--new-instances-protected-from-scale-in")),
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
                .repair(update(name, "--no-capacity-rebalance")),
        );
    }
    if let Some(lifetime) = group.max_instance_lifetime().filter(|seconds| *seconds > 0) {
        findings.push(
            warning("max-instance-lifetime", format!("`{name}` replaces instances after {lifetime} s"))
                .leads_to("AWS ends instances at that age, also when they run jobs")
                .repair(update(name, "--max-instance-lifetime 0")),
        );
    }
    let checks = group.health_check_type().unwrap_or("EC2");
    if checks.split(',').any(|check| matches!(check.trim(), "ELB" | "VPC_LATTICE")) {
        findings.push(
            warning("health-check", format!("the health check of `{name}` is {checks}"))
                .leads_to("instances serve nothing, so a load balancer calls them unhealthy, and AWS ends them under their jobs")
                .repair(update(name, "--health-check-type EC2")),
        );
    }
    findings
}

fn sizes(group: &AutoScalingGroup) -> Vec<Finding> {
    let name = name(group);
    let (min, max) = (number(group.min_size()), number(group.max_size()));
    let mut findings = Vec::new();
    if max == 0 {
        findings.push(
            Finding::new(Severity::Error, "aws/group/max-size", format!("the max size of `{name}` is 0"))
                .leads_to("no instance is ever started")
                .repair(update(name, "--max-size 10   # at least max_instances")),
        );
    }
    if min > 0 {
        findings.push(
            warning("min-size", format!("the min size of `{name}` is {min}"))
                .leads_to(format!(
                    "the last {min} instances cannot be ended: used up ones stay, and cost money"
                ))
                .repair(update(name, "--min-size 0")),
        );
    }
    if let Some(cooldown) = group.default_cooldown().filter(|seconds| *seconds > 0) {
        findings.push(Finding::good(
            "aws/group/default-cooldown",
            format!(
                "the default cooldown of {cooldown} s delays nothing: sizes are set without honouring it"
            ),
        ));
    }
    findings
}

fn warm_pool(group: &AutoScalingGroup) -> Vec<Finding> {
    let name = name(group);
    let Some(pool) = group.warm_pool_configuration() else { return Vec::new() };
    let state = pool.pool_state().map_or("Stopped", |state| state.as_str()).to_lowercase();
    let bound = match pool.max_group_prepared_capacity().filter(|most| *most >= 0) {
        Some(most) => format!("as many as {most} leaves beside the desired capacity"),
        None => "as many as the max size leaves beside the desired capacity".to_owned(),
    };
    let mut findings = vec![
        Finding::new(
            Severity::Notice,
            "aws/group/warm-pool",
            format!("`{name}` has a warm pool of {state} instances, {bound}"),
        )
        .leads_to(
            "its instances start faster; those that wait in it cost money, take no job and are not counted",
        )
        .repair(format!("aws autoscaling delete-warm-pool --auto-scaling-group-name {name}")),
    ];
    let reuse = pool.instance_reuse_policy().and_then(|policy| policy.reuse_on_scale_in());
    if reuse == Some(true) {
        findings.push(
            Finding::new(
                Severity::Error,
                "aws/group/warm-pool-reuse",
                format!("instances of `{name}` that are ended go back to its warm pool (instance reuse policy)"),
            )
            .leads_to(
                "they come again with what their jobs left behind: they get no job, are ended again, and jobs wait meanwhile",
            )
            .repair(format!(
                "aws autoscaling put-warm-pool --auto-scaling-group-name {name} --instance-reuse-policy \
                 '{{\"ReuseOnScaleIn\": false}}'"
            )),
        );
    }
    findings
}

fn of_mixed(name: &str, mixed: &MixedInstancesPolicy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let spread = mixed.instances_distribution();
    let on_demand =
        spread.and_then(|spread| spread.on_demand_percentage_above_base_capacity()).unwrap_or(ALL_ON_DEMAND);
    if on_demand < ALL_ON_DEMAND {
        findings.push(
            Finding::new(
                Severity::Notice,
                "aws/group/spot",
                format!("`{name}` starts {} % spot instances", ALL_ON_DEMAND - on_demand),
            )
            .leads_to("AWS may take them with two minutes' notice; their jobs then fail and can be retried"),
        );
        if spread.and_then(|spread| spread.spot_allocation_strategy()) == Some("lowest-price") {
            findings.push(
                Finding::new(
                    Severity::Notice,
                    "aws/group/spot-allocation",
                    format!("`{name}` takes spot instances where they are cheapest (lowest-price)"),
                )
                .leads_to("they come from the fullest pools, so AWS takes more of them back under their jobs")
                .repair(update(
                    name,
                    "--mixed-instances-policy '{\"InstancesDistribution\": {\"SpotAllocationStrategy\": \
                     \"price-capacity-optimized\"}}'",
                )),
            );
        }
    }
    let types = overrides(mixed).iter().filter_map(|chosen| chosen.instance_type());
    let (arm, intel): (Vec<&str>, Vec<&str>) = types.partition(|name| is_arm(name));
    if let (Some(arm), Some(intel)) = (arm.first(), intel.first()) {
        findings.push(
            warning("architectures", format!("`{name}` has instances of two architectures ({intel} and {arm})"))
                .leads_to(
                    "a job lands on either: images and programs must exist for both, each type needs a launch template with \
                     an image of its own, and `connector_config.arch` is wrong for some",
                )
                .repair("make one group and one runner entry for each architecture, told apart by tags"),
        );
    }
    findings
}

/// What the desired capacity counts, where that is not instances.
fn units(group: &AutoScalingGroup) -> Option<Finding> {
    let name = name(group);
    let weighted = group.mixed_instances_policy().is_some_and(|mixed| {
        overrides(mixed).iter().any(|chosen| chosen.weighted_capacity().is_some_and(|weight| weight != "1"))
    }) || group
        .instances()
        .iter()
        .any(|instance| instance.weighted_capacity().is_some_and(|weight| weight != "1"));
    const LEADS_TO: &str = "the desired capacity does not count instances, so too few or too many would be started: the entry is not used";
    if weighted {
        return Some(
            Finding::new(Severity::Error, "aws/group/weights", format!("instance types of `{name}` have weights"))
                .leads_to(LEADS_TO)
                .repair(
                    "remove WeightedCapacity from the overrides of the group's mixed instances policy: aws autoscaling \
                     update-auto-scaling-group --mixed-instances-policy",
                ),
        );
    }
    let unit = group.desired_capacity_type().filter(|unit| !unit.is_empty() && *unit != "units")?;
    Some(
        Finding::new(
            Severity::Error,
            "aws/group/capacity-type",
            format!("the desired capacity of `{name}` is counted in {unit}"),
        )
        .leads_to(LEADS_TO)
        .repair(update(name, "--desired-capacity-type units")),
    )
}

fn overrides(mixed: &MixedInstancesPolicy) -> &[LaunchTemplateOverrides] {
    mixed.launch_template().map_or(&[], |template| template.overrides())
}

/// Whether an instance type has an Arm processor, by its name: the letters after the generation have a `g`, as in `c7gd.large`.
/// The first Arm family and those of Macs have names of their own.
fn is_arm(instance_type: &str) -> bool {
    let family = instance_type.split('.').next().unwrap_or_default();
    if family == "a1" || family.starts_with("mac2") || family.starts_with("mac-m") {
        return true;
    }
    let generation = family.find(|letter: char| letter.is_ascii_digit()).unwrap_or(family.len());
    let options = family[generation..].trim_start_matches(|letter: char| letter.is_ascii_digit());
    options.split('-').next().unwrap_or_default().contains('g')
}

fn name(group: &AutoScalingGroup) -> &str {
    group.auto_scaling_group_name().unwrap_or_default()
}

fn warning(check: &str, what: String) -> Finding {
    Finding::new(Severity::Warning, format!("aws/group/{check}"), what)
}

fn update(name: &str, rest: &str) -> String {
    format!("aws autoscaling update-auto-scaling-group --auto-scaling-group-name {name} {rest}")
}

#[cfg(test)]
mod tests {
    use aws_sdk_autoscaling::types::builders::AutoScalingGroupBuilder;
    use aws_sdk_autoscaling::types::{
        InstanceReusePolicy, InstancesDistribution, LaunchTemplate, SuspendedProcess, WarmPoolConfiguration,
    };
    use test_case::test_case;

    use super::*;

    /// As it should be.
    fn build() -> AutoScalingGroupBuilder {
        let rebalance = SuspendedProcess::builder().process_name("AZRebalance").build();
        AutoScalingGroup::builder()
            .auto_scaling_group_name("build")
            .max_size(5)
            .default_cooldown(300)
            .health_check_type("EC2")
            .new_instances_protected_from_scale_in(true)
            .suspended_processes(rebalance)
            .availability_zones("a")
            .availability_zones("b")
    }

    fn mixed(spread: InstancesDistribution, types: &[(&str, Option<&str>)]) -> MixedInstancesPolicy {
        let overrides = types.iter().map(|(name, weight)| {
            let weight = weight.map(str::to_owned);
            LaunchTemplateOverrides::builder().instance_type(*name).set_weighted_capacity(weight).build()
        });
        let template = LaunchTemplate::builder().set_overrides(Some(overrides.collect())).build();
        MixedInstancesPolicy::builder().instances_distribution(spread).launch_template(template).build()
    }

    fn spot(strategy: &str) -> InstancesDistribution {
        InstancesDistribution::builder()
            .on_demand_percentage_above_base_capacity(20)
            .spot_allocation_strategy(strategy)
            .build()
    }

    /// What is more than good.
    fn checks(group: &AutoScalingGroup) -> Vec<(String, Severity)> {
        let findings = of_settings(group).into_iter().filter(|finding| finding.severity > Severity::Good);
        findings
            .map(|finding| (finding.check.strip_prefix("aws/group/").unwrap().to_owned(), finding.severity))
            .collect()
    }

    fn found(check: &str, severity: Severity) -> (String, Severity) {
        (check.to_owned(), severity)
    }

    #[test]
    fn a_group_as_it_should_be_has_a_cooldown_that_does_not_matter() {
        let group = build().build();
        assert_eq!(checks(&group), []);
        assert_eq!(of_settings(&group)[0].check, "aws/group/default-cooldown");
        assert_eq!(unusable(&group), None);
    }

    #[test]
    fn spot_instances_are_worth_knowing_and_so_is_how_they_are_chosen() {
        let types = [("c7i.large", None), ("m7i.large", Some("1"))];
        let group = build().mixed_instances_policy(mixed(spot("price-capacity-optimized"), &types)).build();
        assert_eq!(checks(&group), [found("spot", Severity::Notice)]);
        let group = build().mixed_instances_policy(mixed(spot("lowest-price"), &types)).build();
        assert_eq!(
            checks(&group),
            [found("spot", Severity::Notice), found("spot-allocation", Severity::Notice)]
        );
        assert_eq!(unusable(&group), None, "a weight of one is none");
    }

    #[test]
    fn a_desired_capacity_that_does_not_count_instances_cannot_be_used() {
        let plain = InstancesDistribution::builder().build();
        let weighted = mixed(plain, &[("c7i.large", Some("1")), ("c7i.xlarge", Some("2"))]);
        let group = build().mixed_instances_policy(weighted).build();
        assert_eq!(checks(&group), [found("weights", Severity::Error)]);
        assert!(unusable(&group).unwrap().to_string().contains("remove WeightedCapacity"));
        let group = build().desired_capacity_type("vcpu").build();
        assert_eq!(checks(&group), [found("capacity-type", Severity::Error)]);
        assert!(unusable(&group).unwrap().to_string().contains("--desired-capacity-type units"));
        assert_eq!(unusable(&build().desired_capacity_type("units").build()), None);
    }

    #[test]
    fn two_architectures_in_one_group_are_a_mistake() {
        let plain = InstancesDistribution::builder().build();
        let group =
            build().mixed_instances_policy(mixed(plain, &[("c7i.large", None), ("c7g.large", None)])).build();
        assert_eq!(checks(&group), [found("architectures", Severity::Warning)]);
    }

    #[test_case("c7g.large", true)]
    #[test_case("m6gd.metal", true)]
    #[test_case("im4gn.large", true)]
    #[test_case("g5g.xlarge", true; "graphics with an arm processor")]
    #[test_case("a1.large", true)]
    #[test_case("mac2-m2pro.metal", true)]
    #[test_case("g4dn.xlarge", false; "graphics is the family")]
    #[test_case("c7i-flex.large", false)]
    #[test_case("x2iedn.large", false)]
    #[test_case("mac1.metal", false)]
    #[test_case("t3.large", false)]
    fn architectures_are_in_the_names(instance_type: &str, arm: bool) {
        assert_eq!(is_arm(instance_type), arm);
    }

    #[test]
    fn a_warm_pool_is_worth_knowing_and_one_that_takes_back_is_an_error() {
        let pool = |reuse| {
            let policy = InstanceReusePolicy::builder().reuse_on_scale_in(reuse).build();
            WarmPoolConfiguration::builder().instance_reuse_policy(policy).build()
        };
        let group = build().warm_pool_configuration(pool(false)).build();
        assert_eq!(checks(&group), [found("warm-pool", Severity::Notice)]);
        let group = build().warm_pool_configuration(pool(true)).build();
        assert_eq!(
            checks(&group),
            [found("warm-pool", Severity::Notice), found("warm-pool-reuse", Severity::Error)]
        );
    }

    #[test_case("EC2,EBS", 0)]
    #[test_case("ELB", 1)]
    #[test_case("EC2,ELB", 1)]
    fn a_load_balancers_health_check_ends_instances(checked: &str, warnings: usize) {
        let group = build().health_check_type(checked).build();
        assert_eq!(checks(&group).len(), warnings);
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
            [found("max-instance-lifetime", Severity::Warning), found("max-size", Severity::Error)]
        );
    }
    const MODULE: &str = include_str!("../../../fixtures/terraform/aws/main.tf");

    /// The group that the Terraform module makes, by the plain lines of its resource.
    fn of_module(text: &str) -> AutoScalingGroup {
        let (_, rest) = text.split_once("resource \"aws_autoscaling_group\" \"jobs\" {\n").unwrap();
        let (resource, _) = rest.split_once("\n}\n").unwrap();
        let value = |key: &str| {
            let mut lines = resource.lines().filter_map(|line| line.split_once('='));
            lines
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim().trim_matches('"').to_owned())
        };
        let suspended = value("suspended_processes").unwrap_or_default();
        let suspended = suspended.split(['[', ']', '"', ',']).filter(|name| !name.trim().is_empty());
        let suspended = suspended.map(|name| SuspendedProcess::builder().process_name(name).build());
        let weight = resource.contains("weighted_capacity").then_some("2");
        AutoScalingGroup::builder()
            .auto_scaling_group_name("build")
            .min_size(value("min_size").unwrap().parse().unwrap())
            .max_size(if value("max_size").as_deref() == Some("var.max_size") { 10 } else { 0 })
            .new_instances_protected_from_scale_in(value("protect_from_scale_in").as_deref() == Some("true"))
            .set_suspended_processes(Some(suspended.collect()))
            .capacity_rebalance(value("capacity_rebalance").as_deref() == Some("true"))
            .set_health_check_type(value("health_check_type"))
            .set_max_instance_lifetime(value("max_instance_lifetime").map(|seconds| seconds.parse().unwrap()))
            .mixed_instances_policy(mixed(spot("price-capacity-optimized"), &[("c7i.large", weight)]))
            .availability_zones("a")
            .availability_zones("b")
            .build()
    }

    #[test]
    fn the_terraform_module_makes_a_group_that_nothing_is_wrong_with() {
        assert_eq!(checks(&of_module(MODULE)), [found("spot", Severity::Notice)]);
        // What the manager writes is not taken back by the next `terraform apply`.
        assert!(MODULE.contains("ignore_changes = [desired_capacity, tag]"));
    }

    #[test_case("protect_from_scale_in = true", "protect_from_scale_in = false", "scale-in-protection")]
    #[test_case("[\"AZRebalance\"]", "[]", "az-rebalance")]
    #[test_case("capacity_rebalance    = false", "capacity_rebalance = true", "capacity-rebalance")]
    #[test_case("health_check_type     = \"EC2\"", "health_check_type = \"ELB\"", "health-check")]
    #[test_case("min_size              = 0", "min_size = 1", "min-size")]
    #[test_case("max_size              = var.max_size", "max_size = 0", "max-size")]
    #[test_case("instance_type = override.value", "weighted_capacity = 2", "weights")]
    fn a_module_that_was_changed_would_be_found_out(line: &str, changed: &str, check: &str) {
        assert!(MODULE.contains(line));
        let group = of_module(&MODULE.replace(line, changed));
        assert!(checks(&group).iter().any(|(found, _)| found == check), "{:?}", checks(&group));
    }
}

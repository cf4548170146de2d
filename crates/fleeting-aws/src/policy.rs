//! Every call that this crate makes, and the least IAM policy that lets a manager make them.

/// On what a permission can be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// AWS knows no narrower resource for the action than all.
    Everything,
    /// The one Auto Scaling group.
    Group,
    /// Instances that bear the tag of the group, which AWS sets and nobody else can.
    Members,
    /// The call needs no permission.
    Nothing,
}

/// What does not work without a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The group cannot be used.
    Always,
    /// Only some ways to use a group need it.
    Sometimes,
    /// Jobs run without it; less is known when something goes wrong.
    Advisable,
    /// Only `drover doctor` asks.
    Doctor,
}

/// One call of AWS's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The IAM action, for example `autoscaling:SetDesiredCapacity`.
    pub action: &'static str,
    /// On what it can be granted.
    pub scope: Scope,
    /// Whether jobs run without it.
    pub need: Need,
    /// What it is for.
    pub purpose: &'static str,
}

/// Every call that this crate makes.
pub const CALLS: [Call; 16] = [
    call(
        "autoscaling:DescribeAutoScalingGroups",
        Scope::Everything,
        Need::Always,
        "the group and its instances",
    ),
    call("autoscaling:SetDesiredCapacity", Scope::Group, Need::Always, "more instances"),
    call(
        "autoscaling:TerminateInstanceInAutoScalingGroup",
        Scope::Group,
        Need::Always,
        "fewer instances, by name",
    ),
    call("ec2:DescribeInstances", Scope::Everything, Need::Always, "addresses and systems of new instances"),
    call(
        "ec2-instance-connect:SendSSHPublicKey",
        Scope::Members,
        Need::Sometimes,
        "logging in without a key or password of one's own",
    ),
    call("ec2:GetPasswordData", Scope::Members, Need::Sometimes, "Windows instances without `password`"),
    call(
        "autoscaling:CreateOrUpdateTags",
        Scope::Group,
        Need::Advisable,
        "marking the group as this manager's, so that another one leaves it alone",
    ),
    call("autoscaling:DeleteTags", Scope::Group, Need::Advisable, "releasing the group at shutdown"),
    call(
        "autoscaling:DescribeScalingActivities",
        Scope::Everything,
        Need::Advisable,
        "why instances do not come, and what became of lost ones",
    ),
    call(
        "ec2:DescribeInstanceStatus",
        Scope::Everything,
        Need::Advisable,
        "scheduled maintenance: no new job goes there, a replacement starts at once",
    ),
    call(
        "ec2:DescribeSpotInstanceRequests",
        Scope::Everything,
        Need::Advisable,
        "spot interruptions: no new job goes there, a replacement starts at once",
    ),
    call("autoscaling:DescribePolicies", Scope::Everything, Need::Doctor, "scaling policies that interfere"),
    call(
        "autoscaling:DescribeScheduledActions",
        Scope::Everything,
        Need::Doctor,
        "scheduled actions that interfere",
    ),
    call(
        "autoscaling:DescribeLifecycleHooks",
        Scope::Everything,
        Need::Doctor,
        "lifecycle hooks that hold instances",
    ),
    call(
        "autoscaling:DescribeInstanceRefreshes",
        Scope::Everything,
        Need::Doctor,
        "instance refreshes that replace instances",
    ),
    call("sts:GetCallerIdentity", Scope::Nothing, Need::Doctor, "whose credentials these are"),
];

const fn call(action: &'static str, scope: Scope, need: Need, purpose: &'static str) -> Call {
    Call { action, scope, need, purpose }
}

/// The least policy for a manager with one group, as JSON. The ARN and the name may hold placeholders.
///
/// ```
/// use drover_fleeting_aws::policy;
///
/// let policy = policy("arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:*:autoScalingGroupName/build", "build");
/// let policy: serde_json::Value = serde_json::from_str(&policy)?;
/// assert_eq!(policy["Statement"][1]["Action"][0], "autoscaling:SetDesiredCapacity");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[must_use]
pub fn policy(group_arn: &str, group_name: &str) -> String {
    // Written by hand: the order of a JSON library's keys depends on how it was built.
    let statement = |sid: &str, scope: Scope, resource: &str, condition: &str| {
        let actions: Vec<String> = CALLS
            .iter()
            .filter(|call| call.scope == scope)
            .map(|call| format!("        \"{}\"", call.action))
            .collect();
        format!(
            "    {{\n      \"Sid\": \"{sid}\",\n      \"Effect\": \"Allow\",\n      \"Action\": [\n{}\n      ],\n      \
             \"Resource\": \"{resource}\"{condition}\n    }}",
            actions.join(",\n")
        )
    };
    let of_group = format!(
        ",\n      \"Condition\": {{\n        \"StringEquals\": {{\n          \
         \"ec2:ResourceTag/aws:autoscaling:groupName\": \"{group_name}\"\n        }}\n      }}"
    );
    let statements = [
        statement("Look", Scope::Everything, "*", ""),
        statement("Scale", Scope::Group, group_arn, ""),
        statement("LogIn", Scope::Members, "arn:aws:ec2:*:*:instance/*", &of_group),
    ];
    format!("{{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [\n{}\n  ]\n}}\n", statements.join(",\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    const DOCUMENT: &str = "../../docs/aws.md";
    const TEMPLATE: &str = "../../fixtures/terraform/aws/policy.json.tftpl";
    const BEGIN: &str =
        "<!-- made from the code: UPDATE_REFERENCE=1 cargo test -p drover-fleeting-aws policy -->\n";
    const END: &str = "<!-- end -->\n";

    /// `clients.ec2.describe_instances()` in any file of this crate makes `ec2:describeinstances`.
    fn calls_of_the_sources() -> BTreeSet<String> {
        const SERVICES: [(&str, &str); 4] = [
            (".autoscaling.", "autoscaling"),
            (".ec2.", "ec2"),
            (".instance_connect.", "ec2-instance-connect"),
            (".sts.", "sts"),
        ];
        let mut calls = BTreeSet::new();
        let mut paths = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                paths.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            if path.ends_with("policy.rs") {
                continue;
            }
            let text: String =
                std::fs::read_to_string(path).unwrap().chars().filter(|c| !c.is_whitespace()).collect();
            for (mark, service) in SERVICES {
                for rest in text.split(mark).skip(1) {
                    let name = rest.split('(').next().unwrap_or_default();
                    calls.insert(format!("{service}:{}", name.replace('_', "").to_lowercase()));
                }
            }
        }
        calls
    }

    #[test]
    fn every_call_of_the_sources_is_listed_and_no_other() {
        let listed: BTreeSet<String> = CALLS
            .iter()
            .map(|call| {
                let (service, action) = call.action.split_once(':').unwrap();
                format!("{service}:{}", action.to_lowercase())
            })
            .collect();
        assert_eq!(calls_of_the_sources(), listed);
    }

    #[test]
    fn the_policy_of_the_documents_is_the_one_of_the_code() {
        let mut made =
            format!("{BEGIN}\n| IAM action | On | Without it | For |\n| --- | --- | --- | --- |\n");
        for call in CALLS {
            let scope = match call.scope {
                Scope::Everything => "`*` (AWS knows nothing narrower)",
                Scope::Group => "the group",
                Scope::Members => "instances of the group",
                Scope::Nothing => "needs no permission",
            };
            let need = match call.need {
                Need::Always => "the group cannot be used",
                Need::Sometimes => "see the purpose",
                Need::Advisable => "jobs run, and lose more",
                Need::Doctor => "`drover doctor` sees less",
            };
            made.push_str(&format!("| `{}` | {scope} | {need} | {} |\n", call.action, call.purpose));
        }
        let arn = "arn:aws:autoscaling:REGION:ACCOUNT:autoScalingGroup:*:autoScalingGroupName/NAME";
        let example = policy(arn, "NAME");
        let _: serde_json::Value = serde_json::from_str(&example).expect("a policy is JSON");
        made.push_str(&format!("\n```json\n{example}```\n\n{END}"));
        let template = policy("${group_arn}", "${group_name}");

        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let document = std::fs::read_to_string(folder.join(DOCUMENT)).unwrap();
        let (head, rest) = document.split_once(BEGIN).expect("the page has a place for the policy");
        let (_, tail) = rest.split_once(END).expect("the place for the policy ends");
        let whole = format!("{head}{made}{tail}");
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(folder.join(DOCUMENT), &whole).unwrap();
            std::fs::write(folder.join(TEMPLATE), &template).unwrap();
            return;
        }
        assert_eq!(whole, document, "docs/aws.md: {BEGIN}");
        assert_eq!(template, std::fs::read_to_string(folder.join(TEMPLATE)).unwrap(), "{TEMPLATE}: {BEGIN}");
    }
}

//! What the lifecycle states of group members mean to a scaler.

use aws_sdk_autoscaling::types::LifecycleState;
use fleeting::{Doom, DoomKind, InstanceState};

/// One member's place in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) state: InstanceState,
    pub(crate) doomed: Option<Doom>,
}

/// What a member is to the scaler. `None`: it is not (or no longer) part of the group's capacity and is not listed.
///
/// `ordered` says that the scaler itself has asked for the end. A member that ends for another reason but is held by a
/// lifecycle hook still runs its job, so it is doomed, not gone.
pub(crate) fn standing(lifecycle: &LifecycleState, health: &str, ordered: bool) -> Option<Standing> {
    let doomed = |why: &str| {
        Some(Standing { state: InstanceState::Running, doomed: Some(Doom::new(DoomKind::Ending, why)) })
    };
    let plain = |state| Some(Standing { state, doomed: None });
    // By name: AWS adds states, and the SDK's list of them is open.
    match lifecycle.as_str() {
        "Detached" | "Standby" | "Terminating:Retained" => None,
        // Members of a warm pool are no capacity, and the group ends them by itself.
        _ if is_warm(lifecycle) => None,
        "InService" if ordered => plain(InstanceState::Deleting),
        "InService" if health.eq_ignore_ascii_case("unhealthy") => {
            doomed("the group holds it for unhealthy and will replace it")
        }
        "InService" => plain(InstanceState::Running),
        "Terminating:Wait" if !ordered => {
            doomed("the group is ending it; a lifecycle hook holds it until its timeout")
        }
        "Terminating" | "Terminating:Proceed" | "Terminating:Wait" | "Terminated" => {
            plain(InstanceState::Deleting)
        }
        "Detaching" => doomed("it is being detached from the group"),
        "EnteringStandby" => doomed("an operator puts it on standby"),
        "Quarantined" => doomed("the group has quarantined it"),
        // Pending, Pending:*, root volumes being replaced, and states that AWS may add.
        _ => plain(InstanceState::Creating),
    }
}

/// In the warm pool, on the way there, or ended from there.
pub(crate) fn is_warm(lifecycle: &LifecycleState) -> bool {
    lifecycle.as_str().starts_with("Warmed:")
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("Pending", "Healthy", Some((InstanceState::Creating, false)))]
    #[test_case("Pending:Wait", "Healthy", Some((InstanceState::Creating, false)))]
    #[test_case("Pending:Proceed", "Healthy", Some((InstanceState::Creating, false)))]
    #[test_case("InService", "Healthy", Some((InstanceState::Running, false)))]
    #[test_case("InService", "Unhealthy", Some((InstanceState::Running, true)))]
    #[test_case("Terminating", "Healthy", Some((InstanceState::Deleting, false)))]
    #[test_case("Terminating:Wait", "Healthy", Some((InstanceState::Running, true)); "a hook holds it")]
    #[test_case("Terminating:Proceed", "Healthy", Some((InstanceState::Deleting, false)))]
    #[test_case("Terminated", "Healthy", Some((InstanceState::Deleting, false)))]
    #[test_case("Detaching", "Healthy", Some((InstanceState::Running, true)))]
    #[test_case("EnteringStandby", "Healthy", Some((InstanceState::Running, true)))]
    #[test_case("Standby", "Healthy", None)]
    #[test_case("Warmed:Stopped", "Healthy", None)]
    #[test_case("Warmed:Running", "Healthy", None; "a warm one that runs is none")]
    #[test_case("Warmed:Pending:Wait", "Healthy", None)]
    #[test_case("Warmed:Terminating", "Healthy", None)]
    #[test_case("SomethingNew", "Healthy", Some((InstanceState::Creating, false)))]
    fn states(lifecycle: &str, health: &str, expected: Option<(InstanceState, bool)>) {
        let seen = standing(&LifecycleState::from(lifecycle), health, false);
        assert_eq!(seen.map(|seen| (seen.state, seen.doomed.is_some())), expected);
    }

    #[test]
    fn what_the_scaler_ended_itself_is_deleting_whatever_holds_it() {
        for state in ["InService", "Terminating:Wait", "Terminating"] {
            let seen = standing(&LifecycleState::from(state), "Healthy", true).unwrap();
            assert_eq!(seen, Standing { state: InstanceState::Deleting, doomed: None }, "{state}");
        }
    }
}

//! What a group may be beyond instances of one type: mixed instances, a warm pool, hooks that hold.

use std::time::Duration;

/// A mixed instances policy: several types, spot and on-demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixedPolicy {
    /// The types, used in turn.
    pub overrides: Vec<TypeOverride>,
    /// So many instances are on-demand before any is spot.
    pub on_demand_base: u32,
    /// Share of on-demand instances above the base, in percent.
    pub on_demand_percentage: u32,
    /// For example `price-capacity-optimized`.
    pub spot_allocation: String,
}

/// One instance type of a mixed instances policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeOverride {
    /// For example `c7i.large`.
    pub instance_type: String,
    /// What an instance counts for in the desired capacity, where it is not 1.
    pub weight: Option<u32>,
}

/// Instances that are booted beforehand and wait, stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmPool {
    /// How many wait.
    pub size: u32,
    /// Instances that are ended by name, or for a smaller size, go back to the pool.
    pub reuse: bool,
}

/// What a lifecycle hook does when nobody completes it in time, or what completes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HookResult {
    /// The instance goes on.
    #[default]
    Continue,
    /// A starting instance is ended; an ending one goes on.
    Abandon,
}

/// What one instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) instance_type: String,
    pub(crate) weight: u32,
    pub(crate) spot: bool,
}

// === impl MixedPolicy ===

impl MixedPolicy {
    /// These types without weights, all of them on-demand.
    #[must_use]
    pub fn of(types: &[&str]) -> Self {
        let overrides = types
            .iter()
            .map(|name| TypeOverride { instance_type: (*name).to_owned(), weight: None })
            .collect();
        Self {
            overrides,
            on_demand_base: 0,
            on_demand_percentage: 100,
            spot_allocation: "price-capacity-optimized".to_owned(),
        }
    }

    /// What the instance with this number is; so many on-demand ones, and ones in all, are there.
    pub(crate) fn kind(&self, number: u32, on_demand: u32, all: u32) -> Kind {
        let count = u32::try_from(self.overrides.len()).unwrap_or(u32::MAX).max(1);
        let chosen = self.overrides.get((number % count) as usize);
        let above = on_demand.saturating_sub(self.on_demand_base);
        let total = all.saturating_sub(self.on_demand_base);
        let fits = (above + 1) * 100 <= self.on_demand_percentage * (total + 1);
        Kind {
            instance_type: chosen.map_or("t3.large", |chosen| chosen.instance_type.as_str()).to_owned(),
            weight: chosen.and_then(|chosen| chosen.weight).unwrap_or(1),
            spot: on_demand >= self.on_demand_base && !fits,
        }
    }

    pub(crate) fn has_weights(&self) -> bool {
        self.overrides.iter().any(|chosen| chosen.weight.is_some())
    }
}

// === impl WarmPool ===

impl WarmPool {
    /// So many wait, and none comes back.
    #[must_use]
    pub fn of(size: u32) -> Self {
        Self { size, reuse: false }
    }
}

// === impl HookResult ===

impl HookResult {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Continue => "CONTINUE",
            Self::Abandon => "ABANDON",
        }
    }
}

/// A hook of a group: its name, its transition and for how long it holds.
pub(crate) struct Hook {
    pub(crate) name: &'static str,
    pub(crate) transition: &'static str,
    pub(crate) held: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_come_in_turn_and_on_demand_instances_first_and_in_their_share() {
        let policy = MixedPolicy {
            on_demand_base: 2,
            on_demand_percentage: 25,
            ..MixedPolicy::of(&["c7i.large", "m7i.large"])
        };
        let mut on_demand = 0;
        let mut made = Vec::new();
        for number in 0..10 {
            let kind = policy.kind(number, on_demand, number);
            on_demand += u32::from(!kind.spot);
            made.push((kind.instance_type, kind.spot));
        }
        let types: Vec<&str> = made.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(types[..3], ["c7i.large", "m7i.large", "c7i.large"]);
        let spot: Vec<bool> = made.iter().map(|(_, spot)| *spot).collect();
        assert_eq!(spot, [false, false, true, true, true, false, true, true, true, false]);
    }
}

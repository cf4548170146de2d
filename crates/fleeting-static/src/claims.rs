//! Machines that groups of this process use: jobs of two entries may get in each other's way there, which is said.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleeting::{ConnectInfo, GroupError};

/// By how many groups of which user each address is used.
static USED: Mutex<BTreeMap<Address, BTreeMap<User, u32>>> = Mutex::new(BTreeMap::new());

type Address = (String, u16);

/// A manager and its runner entry. Groups that are told none are all different.
type User = Option<(String, String)>;

/// Machines of one group, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    user: User,
    addresses: Vec<Address>,
}

// === impl Claims ===

impl Claims {
    /// Notes that a user's group has these machines, and names those that another user's group has as well. Two groups of one
    /// user are there while its settings change.
    ///
    /// # Errors
    /// [`GroupError::Configuration`] if two of them are one: it would be given twice the jobs that it is to have.
    pub(crate) fn take<'a>(
        machines: impl Iterator<Item = &'a ConnectInfo>,
        user: User,
    ) -> Result<(Self, Vec<String>), GroupError> {
        let mut own: BTreeMap<Address, &str> = BTreeMap::new();
        for machine in machines {
            let Ok(target) = machine.target(machine.settings.use_external_addr) else { continue };
            let (host, port) = (target.host, target.port);
            if let Some(other) = own.insert((host.clone(), port), &machine.instance) {
                return Err(GroupError::Configuration {
                    message: format!(
                        "plugin_config.instances: `{other}` and `{}` are the same machine, {host}:{port}; to run several jobs \
                         there, raise capacity_per_instance",
                        machine.instance
                    ),
                });
            }
        }
        let mut used = used();
        let mut shared = Vec::new();
        for (address, name) in &own {
            let users = used.entry(address.clone()).or_default();
            if users.keys().any(|other| is_shared(other, &user)) {
                shared.push((*name).to_owned());
            }
            *users.entry(user.clone()).or_default() += 1;
        }
        Ok((Self { user, addresses: own.into_keys().collect() }, shared))
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        let mut used = used();
        for address in &self.addresses {
            let Some(users) = used.get_mut(address) else { continue };
            if let Some(count) = users.get_mut(&self.user) {
                *count -= 1;
            }
            users.retain(|_, count| *count > 0);
            if users.is_empty() {
                used.remove(address);
            }
        }
    }
}

/// Whether a machine of one user is another entry's of the same manager. What other managers have, its lock tells.
fn is_shared(one: &User, other: &User) -> bool {
    match (one, other) {
        (Some((manager, entry)), Some((same, another))) => manager == same && entry != another,
        (None, _) | (_, None) => true,
    }
}

fn used() -> MutexGuard<'static, BTreeMap<Address, BTreeMap<User, u32>>> {
    // No code can panic while it holds the lock half-way through a change.
    USED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use fleeting::ConnectorSettings;

    use super::*;

    fn machines(names: &[&str], address: &str) -> Vec<ConnectInfo> {
        let machine = |name: &&str| {
            let mut info = ConnectInfo::new(*name, ConnectorSettings::default());
            info.internal_addr = Some(address.to_owned());
            info
        };
        names.iter().map(machine).collect()
    }

    #[test]
    fn two_names_for_one_machine_are_refused() {
        let same = Claims::take(machines(&["a", "b"], "192.0.2.1").iter(), None).unwrap_err().to_string();
        assert!(same.contains("`a` and `b` are the same machine, 192.0.2.1:22"), "{same}");
    }

    #[test]
    fn a_machine_of_another_group_is_named_while_that_is_there() {
        let take = || Claims::take(machines(&["a"], "192.0.2.2").iter(), None).unwrap();
        let (first, shared) = take();
        assert_eq!(shared, [""; 0]);
        let (second, shared) = take();
        assert_eq!(shared, ["a"]);
        drop((first, second));
        assert_eq!(take().1, [""; 0]);
    }

    #[test]
    fn a_group_that_replaces_one_of_the_same_entry_shares_nothing() {
        let take = |user: &str| {
            Claims::take(machines(&["a"], "192.0.2.3").iter(), Some(("m".to_owned(), user.to_owned())))
                .unwrap()
        };
        let (first, _) = take("x");
        let (second, shared) = take("x");
        assert_eq!(shared, [""; 0]);
        drop(first);
        assert_eq!(take("y").1, ["a"]);
        drop(second);
        assert_eq!(take("y").1, [""; 0]);
    }
}

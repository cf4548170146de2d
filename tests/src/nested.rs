//! Hosts of nested virtual machines: SSH servers with a nesting daemon, whose machines are SSH servers with a user of their own.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use nesting_mock::{Hypervisor, NestingMock, Options};

use crate::entry::Entry;
use crate::sshd::Sshd;

/// The user of the machines, as in the example of GitLab's documentation.
pub const NESTED_USER: &str = "nested-vm-username";
/// The password of that example.
pub const NESTED_PASSWORD: &str = "nested-vm-password";
/// The same as `crypt(3)` keeps it.
const HASH: &str =
    "$6$drovertest$VRuXuOTaQvuyAYftZrb2Ayn4wrqh/VnX9YwJFOmcDk176Ay5vRfSzQWnl0JCNyotB54JCGlzNNhFrp1Y2.WUC/";

/// An image whose machines never listen.
pub const NEVER_BOOTS: &str = "never-boots";
/// An image whose machines have another user.
pub const OTHER_LOGIN: &str = "other-login";

/// A host. Its daemon and its machines end with it.
pub struct NestedHost {
    /// The host's SSH server. It lets nobody in as the machines' user.
    pub sshd: Sshd,
    /// The daemon; none while it does not run.
    pub daemon: Option<NestingMock>,
    own: PathBuf,
    options: Options,
}

/// Each machine is an SSH server.
#[derive(Default)]
struct Machines(Mutex<BTreeMap<String, Sshd>>);

// === impl NestedHost ===

impl NestedHost {
    /// A host whose daemon listens at `nesting.sock` in `folder`, as whoever is logged in there sees it: hosts share the folder's
    /// name, and each has files of its own in it.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        Self::with(folder, Options::default())
    }

    /// The same with another kind of daemon.
    ///
    /// # Panics
    /// When OpenSSH does not start.
    #[must_use]
    pub fn with(folder: &Path, options: Options) -> Self {
        let sshd = Sshd::with_folder("support", folder);
        let own = sshd.home().join("support");
        let mut host = Self { sshd, daemon: None, own, options };
        host.restart_daemon();
        host
    }

    /// A host whose daemon listens at a port of the host alone, and that address as `nesting_host` has it.
    ///
    /// # Panics
    /// When OpenSSH does not start, or there is no free port.
    #[must_use]
    pub fn at_port() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = format!("tcp://{}", listener.local_addr().expect("it has an address"));
        let machines = Arc::new(Machines::default());
        let options = Options::default();
        let daemon = NestingMock::start_tcp(listener, machines, options.clone()).expect("it listens already");
        let sshd = Sshd::start();
        let own = sshd.home().to_owned();
        (Self { sshd, daemon: Some(daemon), own, options }, address)
    }

    /// Starts the daemon at its socket, which has no settings and no machines then.
    ///
    /// # Panics
    /// When its socket cannot be made.
    pub fn restart_daemon(&mut self) {
        self.daemon = None;
        let socket = self.own.join("nesting.sock");
        let daemon = NestingMock::start(&socket, Arc::new(Machines::default()), self.options.clone());
        self.daemon = Some(daemon.expect("the folder can be written to"));
    }

    /// The daemon, which runs.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn daemon(&self) -> &NestingMock {
        self.daemon.as_ref().expect("the daemon runs")
    }
}

impl Entry {
    /// Each job gets a virtual machine of its own, from the daemons of hosts with this folder.
    #[must_use]
    pub fn nested(self, folder: &Path) -> Self {
        self.set("autoscaler.vm_isolation.enabled", true)
            .set("autoscaler.vm_isolation.nesting_host", format!("unix://{}/nesting.sock", folder.display()))
            .set("autoscaler.vm_isolation.connector_config.username", NESTED_USER)
            .set("autoscaler.vm_isolation.connector_config.password", NESTED_PASSWORD)
            .set("autoscaler.vm_isolation.connector_config.timeout", "30s")
    }
}

// === impl Machines ===

#[async_trait]
impl Hypervisor for Machines {
    async fn start(&self, id: &str, image: &str) -> Result<String, String> {
        if image == NEVER_BOOTS {
            let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            return listener.map(|address| address.to_string()).map_err(|error| error.to_string());
        }
        let user = if image == OTHER_LOGIN { "somebody-else" } else { NESTED_USER };
        let sshd = Sshd::with_user(user, HASH);
        let address = sshd.address();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), sshd);
        Ok(address)
    }

    fn end(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

//! What a world is to consist of.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use gitlab_mock::Config as GitlabConfig;
use toml::{Table, Value};

use crate::engine::Engine;
use crate::program::bin;
use crate::sshd::Sshd;
use crate::world::World;

/// A runner entry of the configuration file.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(crate) table: Table,
    /// GitLab knows its token.
    pub(crate) known: bool,
    /// Its instances are local ones, in the world's own folder.
    pub(crate) local: bool,
}

/// Describes a world, and starts it.
#[derive(Debug, Clone)]
pub struct Setup {
    pub(crate) gitlab: GitlabConfig,
    pub(crate) global: Table,
    pub(crate) entries: Vec<Entry>,
    pub(crate) system_id: String,
}

// === impl Entry ===

impl Entry {
    /// An entry with instances on this machine: at most five, two jobs each, made as they are needed.
    #[must_use]
    pub fn local(name: &str) -> Self {
        let entry = Self::bare(name)
            .set("autoscaler.plugin", "local")
            .set("autoscaler.plugin_config.name", name)
            .set("autoscaler.plugin_config.program", bin("drover").display().to_string())
            .set("autoscaler.max_instances", 5)
            .set("autoscaler.capacity_per_instance", 2);
        Self { local: true, ..entry }
    }

    /// An entry whose instances are these machines: two jobs each.
    #[must_use]
    pub fn machines<'a>(name: &str, machines: impl IntoIterator<Item = &'a Sshd>) -> Self {
        let mut entry = Self::bare(name)
            .set("autoscaler.plugin", "static")
            .set("autoscaler.capacity_per_instance", 2)
            .set("autoscaler.connector_config.username", Sshd::user())
            .set("autoscaler.connector_config.timeout", "20s");
        let mut count = 0;
        for machine in machines {
            count += 1;
            let at = format!("autoscaler.plugin_config.instances.m{count}");
            entry = entry
                .set(&format!("{at}.internal_addr"), machine.address())
                .set(&format!("{at}.key_path"), machine.key_path().display().to_string());
        }
        entry.set("autoscaler.max_instances", count)
    }

    /// An entry of the `instance` executor that lacks a plugin. Instances go when the manager ends.
    #[must_use]
    pub fn bare(name: &str) -> Self {
        let entry = Self { table: Table::new(), known: true, local: false };
        entry
            .set("name", name)
            .set("token", format!("glrt-{name}-0123456789abcdef"))
            .set("executor", "instance")
            .set("autoscaler.delete_instances_on_shutdown", true)
            // Instances are ready in milliseconds here, and so is the next look at them.
            .set("autoscaler.update_interval", "1s")
            .set("autoscaler.update_interval_when_expecting", "100ms")
            .set("autoscaler.shutdown_deletion_interval", "100ms")
            .set("autoscaler.shutdown_deletion_retries", 200)
            .policy([("idle_count", 0.into()), ("idle_time", "10m".into())])
    }

    /// An entry of another executor: name and token.
    #[must_use]
    pub fn plain(name: &str) -> Self {
        let entry = Self { table: Table::new(), known: true, local: false };
        entry.set("name", name).set("token", format!("glrt-{name}-0123456789abcdef"))
    }

    /// Sets a key below `[[runners]]`; dots lead into tables.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.table, path, value.into());
        self
    }

    /// Makes this the one policy.
    #[must_use]
    pub fn policy<const N: usize>(self, keys: [(&str, Value); N]) -> Self {
        let policy: Table = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        self.set("autoscaler.policy", vec![Value::Table(policy)])
    }

    /// Its token is one that GitLab does not know.
    #[must_use]
    pub fn unknown(self) -> Self {
        Self { known: false, ..self }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.table.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Its token.
    #[must_use]
    pub fn token(&self) -> &str {
        self.table.get("token").and_then(Value::as_str).unwrap_or_default()
    }

    /// The table with what only the world knows.
    pub(crate) fn finish(&self, url: &str, folder: &Path) -> Table {
        let mut table = self.table.clone();
        if table.get("url").and_then(Value::as_str).is_none_or(str::is_empty) {
            set(&mut table, "url", url.into());
        }
        if self.local {
            let instances = folder.join("instances").display().to_string();
            set(&mut table, "autoscaler.plugin_config.work_dir", instances.into());
        } else if !table.contains_key("builds_dir") {
            // One logs in to the home of the user who runs the tests, which is nobody's to fill.
            set(&mut table, "builds_dir", folder.join("builds").display().to_string().into());
        }
        table
    }
}

// === impl Setup ===

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// Ten jobs at once, and a GitLab that wants news of a log every second.
    #[must_use]
    pub fn new() -> Self {
        let gitlab = GitlabConfig {
            trace_update_interval: Some(std::time::Duration::from_secs(1)),
            ..GitlabConfig::default()
        };
        let system_id = "s_0123456789ab".to_owned();
        Self { gitlab, global: Table::new(), entries: Vec::new(), system_id }
            .set("concurrent", 10)
            .set("check_interval", 1)
    }

    /// The system id of a manager in the test's own process.
    #[must_use]
    pub fn system_id(self, id: &str) -> Self {
        Self { system_id: id.to_owned(), ..self }
    }

    /// What a configuration file says; GitLab knows its entries. `change` gives each what only the test knows.
    ///
    /// # Panics
    /// When the text is no TOML.
    #[must_use]
    pub fn of_file(text: &str, change: impl Fn(Entry) -> Entry) -> Self {
        let mut global: Table = text.parse().expect("the file is TOML");
        let entries = match global.remove("runners") {
            Some(Value::Array(entries)) => entries,
            Some(_) | None => Vec::new(),
        };
        let tables = entries.iter().filter_map(Value::as_table).cloned();
        let entries = tables.map(|table| change(Entry { table, known: true, local: false })).collect();
        Self { entries, global, ..Self::new() }
    }

    /// Adds a runner entry.
    #[must_use]
    pub fn runner(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// Sets a global key.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.global, path, value.into());
        self
    }

    /// Changes how GitLab behaves.
    #[must_use]
    pub fn gitlab(mut self, change: impl FnOnce(&mut GitlabConfig)) -> Self {
        change(&mut self.gitlab);
        self
    }

    /// Lets GitLab listen where containers of the tests' engine reach it, whatever their network. For the entries so far.
    ///
    /// # Panics
    /// When the bridge of the engine has no address.
    #[must_use]
    pub fn for_containers(mut self) -> Self {
        let gateway = "{{(index .IPAM.Config 0).Gateway}}";
        let gateway = Engine::shared().docker(&["network", "inspect", "bridge", "--format", gateway]);
        let listener =
            TcpListener::bind((gateway.as_str(), 0)).expect("the bridge of the engine has an address");
        let address = listener.local_addr().expect("it listens");
        let url = format!("http://{address}");
        self.entries = self.entries.into_iter().map(|entry| entry.set("url", url.clone())).collect();
        self.gitlab(|gitlab| {
            gitlab.listen = address;
            gitlab.external_url = Some(url);
        })
    }

    /// Starts GitLab, and the manager in this process.
    pub async fn start(self) -> World {
        World::start(self).await
    }

    /// The text of the configuration file.
    ///
    /// # Panics
    /// When a key was set to something that TOML has not.
    #[must_use]
    pub fn text(&self, url: &str, folder: &Path) -> String {
        let mut file = self.global.clone();
        let entries: Vec<Value> =
            self.entries.iter().map(|entry| Value::Table(entry.finish(url, folder))).collect();
        file.insert("runners".to_owned(), Value::Array(entries));
        toml::to_string(&file).expect("a table can be written")
    }

    /// Writes the configuration file into a folder, for its owner alone, and returns its path.
    ///
    /// # Panics
    /// When the folder cannot be written to.
    #[must_use]
    pub fn write(&self, url: &str, folder: &Path) -> PathBuf {
        let path = folder.join("config.toml");
        crate::program::write(&path, &self.text(url, folder));
        path
    }
}

/// Sets a key; dots lead into tables, which are made as needed.
fn set(table: &mut Table, path: &str, value: Value) {
    let Some((first, rest)) = path.split_once('.') else {
        table.insert(path.to_owned(), value);
        return;
    };
    let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(inner) = inner {
        set(inner, rest, value);
    }
}

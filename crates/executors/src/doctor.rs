//! What an entry needs on the manager's own machine, examined before a job needs it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{ExecutorName, HelperInstall, Runner};
use fleeting::{Finding, Severity};

use crate::docker;
use crate::instance::{helper_binaries, read_key};

/// An engine that does not answer by then is taken for unreachable.
const ENGINE_PATIENCE: Duration = Duration::from_secs(10);

/// Architectures of instances for which a helper is looked for, where the entry does not fix one.
const USUAL: [&str; 2] = ["x86_64", "aarch64"];

/// Examines the key file, the state folder, the helpers and the engine of an entry, without a change. Relative paths start
/// from `base`, the folder of the configuration file.
pub async fn diagnose(runner: &Runner, base: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let autoscaled = runner.executor().is_some_and(ExecutorName::is_autoscaled);
    if let Some(autoscaler) = runner.autoscaler.as_ref().filter(|_| autoscaled) {
        let nested = autoscaler.vm_isolation.as_ref().filter(|isolation| isolation.enabled);
        let nested = nested.and_then(|isolation| isolation.connector_config.as_ref());
        for connector in [autoscaler.connector_config.as_ref(), nested].into_iter().flatten() {
            findings.extend(connector.key_path.as_deref().map(|path| key_file(&base.join(path))));
        }
        if autoscaler.keeps_state() {
            findings.push(state_folder(&base.join(autoscaler.state_dir())));
        }
    }
    if runner.executor() == Some(ExecutorName::Instance) {
        findings.push(helpers(runner, base));
    }
    if runner.executor() == Some(ExecutorName::Docker) {
        findings.push(engine(runner, base).await);
    }
    findings
}

fn key_file(path: &Path) -> Finding {
    const CHECK: &str = "connector/key";
    match read_key(path) {
        Ok(_) => {
            Finding::good(CHECK, format!("the key file `{}` can be read by its owner alone", path.display()))
        }
        Err(error) => Finding::new(Severity::Error, CHECK, error.to_string())
            .leads_to("the entry takes no jobs")
            .repair(format!(
                "chmod 600 {0}   # and: chown \"$(id -un)\" {0}, as the user who runs drover",
                path.display()
            )),
    }
}

fn state_folder(folder: &Path) -> Finding {
    const CHECK: &str = "state/folder";
    // A folder that is not there yet is made in the next one above.
    let existing = folder.ancestors().find(|above| above.exists()).unwrap_or_else(|| Path::new("."));
    // Asked of the kernel in the one way that is true for every file system: by making a file, which has no name.
    match tempfile::tempfile_in(existing) {
        Ok(_) => Finding::good(CHECK, format!("the state folder `{}` can be written to", folder.display())),
        Err(error) => {
            let what = format!("the state folder `{}` cannot be written to: {error}", folder.display());
            Finding::new(Severity::Error, CHECK, what)
                .leads_to("after a crash, instances are removed with what they know, and used ones cannot be told apart")
                .repair(format!(
                    "install -d -m 700 -o \"$(id -un)\" {}   # as the user who runs drover, or set state_storage.dir",
                    folder.display()
                ))
        }
    }
}

fn helpers(runner: &Runner, base: &Path) -> Finding {
    const CHECK: &str = "helper/binaries";
    if runner.helper.as_ref().and_then(|helper| helper.install) == Some(HelperInstall::Never) {
        return Finding::good(CHECK, "helpers come with the image of the instances (`install = \"never\"`)");
    }
    let fixed = runner.autoscaler.as_ref().and_then(|autoscaler| autoscaler.connector_config.as_ref());
    let fixed = fixed.and_then(|connector| connector.arch.as_deref()).map(machine_of);
    let wanted: Vec<&str> = fixed.map_or_else(|| USUAL.to_vec(), |machine| vec![machine]);
    let (found, looked_in) = helper_binaries(runner, base, &wanted);
    let missing: Vec<&str> =
        wanted.iter().zip(&found).filter(|(_, path)| path.is_none()).map(|(machine, _)| *machine).collect();
    let there: Vec<String> =
        found.iter().flatten().map(|path: &PathBuf| format!("`{}`", path.display())).collect();
    if missing.is_empty() {
        return Finding::good(CHECK, format!("helpers for instances: {}", there.join(", ")));
    }
    // Whoever has one architecture only needs no other helper.
    let severity = if there.is_empty() { Severity::Warning } else { Severity::Notice };
    Finding::new(severity, CHECK, format!("no drover-helper for {} in {looked_in}", missing.join(", ")))
        .leads_to("jobs on instances of that architecture have no artifacts and caches, unless their image has a helper")
        .repair(format!(
            "install -D -m 755 drover-helper /usr/lib/drover/helper/{}/drover-helper   # or set [runners.helper].binaries",
            missing[0]
        ))
}

async fn engine(runner: &Runner, base: &Path) -> Finding {
    const CHECK: &str = "docker/engine";
    let asked = tokio::time::timeout(ENGINE_PATIENCE, docker::examine(runner, base)).await;
    match asked.unwrap_or_else(|_| Err(format!("the Docker engine does not answer within {ENGINE_PATIENCE:?}"))) {
        Ok(what) => Finding::good(CHECK, what),
        Err(what) => Finding::new(Severity::Error, CHECK, what)
            .leads_to("every job of the entry fails")
            .repair("systemctl start docker; usermod -aG docker \"$(id -un)\"   # or correct [runners.docker].host"),
    }
}

/// What `uname -m` says on an architecture that is written as Go writes it.
fn machine_of(arch: &str) -> &str {
    match arch {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Runner {
        let text =
            format!("[[runners]]\nname = \"x\"\nurl = \"https://gitlab.example.com\"\ntoken = \"t\"\n{text}");
        config::parse(&text, "config.toml", &|_| None).unwrap().config.runners.remove(0)
    }

    fn autoscaled(more: &str) -> Runner {
        entry(&format!(
            "executor = \"instance\"\n[runners.autoscaler]\nplugin = \"static\"\n\
             [runners.autoscaler.plugin_config.instances.m]\ninternal_addr = \"h\"\n{more}"
        ))
    }

    fn severity(findings: &[Finding], check: &str) -> Option<Severity> {
        findings.iter().find(|finding| finding.check == check).map(|finding| finding.severity)
    }

    #[tokio::test]
    async fn a_key_file_that_others_can_read_is_an_error() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("id");
        std::fs::write(&key, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        let runner = autoscaled("[runners.autoscaler.connector_config]\nkey_path = \"id\"\n");
        let mode = |mode| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert_eq!(severity(&diagnose(&runner, folder.path()).await, "connector/key"), Some(Severity::Error));
        mode(0o600);
        assert_eq!(severity(&diagnose(&runner, folder.path()).await, "connector/key"), Some(Severity::Good));
    }

    #[tokio::test]
    async fn a_state_folder_is_looked_for_where_it_will_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let there = diagnose(&autoscaled(""), folder.path()).await;
        assert_eq!(severity(&there, "state/folder"), Some(Severity::Good));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made");
        // Not a folder, so that nothing can be made in it, whoever asks.
        std::fs::write(folder.path().join("file"), "").unwrap();
        let nowhere = diagnose(&autoscaled(""), &folder.path().join("file")).await;
        assert_eq!(severity(&nowhere, "state/folder"), Some(Severity::Error));
    }

    #[tokio::test]
    async fn helpers_are_looked_for_by_architecture() {
        let folder = tempfile::tempdir().unwrap();
        let runner = autoscaled("[runners.helper]\nbinaries = \"helpers\"\n");
        let of = async || severity(&diagnose(&runner, folder.path()).await, "helper/binaries");
        assert_eq!(of().await, Some(Severity::Warning));
        let put = |machine: &str| {
            let place = folder.path().join("helpers").join(machine);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("drover-helper"), "").unwrap();
        };
        put("x86_64");
        assert_eq!(of().await, Some(Severity::Notice));
        put("aarch64");
        assert_eq!(of().await, Some(Severity::Good));
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_an_error_with_its_address() {
        let runner = entry(
            "executor = \"docker\"\n[runners.docker]\nimage = \"a\"\nhost = \"unix:///nowhere/docker.sock\"\n",
        );
        let findings = diagnose(&runner, Path::new("/")).await;
        let found = findings.iter().find(|finding| finding.check == "docker/engine").unwrap();
        assert_eq!(found.severity, Severity::Error);
        assert!(found.what.contains("/nowhere/docker.sock"), "{found:?}");
    }
}

//! The configuration file of the demonstration.

use std::path::Path;

use config::{Invalid, Loaded};

use crate::engine::Docker;

const TEMPLATE: &str = include_str!("../../../fixtures/demo/config.toml");

/// Slots of one instance, as the configuration has it.
pub(crate) const CAPACITY: u32 = 2;
/// Most instances, as the configuration has it.
pub(crate) const MAX_INSTANCES: u32 = 5;
/// Jobs after which an instance is replaced, as the configuration has it.
pub(crate) const MAX_USES: u32 = 8;

/// The text of the configuration. `program` becomes an instance; none is the running program. With `docker`, jobs run in containers.
pub(crate) fn text(
    url: &str,
    token: &str,
    work_dir: &Path,
    program: Option<&Path>,
    docker: Option<&Docker>,
) -> String {
    let program = program.map(|path| format!("      program = {}", quoted(path))).unwrap_or_default();
    TEMPLATE
        .replace("@URL@", url)
        .replace("@TOKEN@", token)
        .replace("\"@WORK_DIR@\"", &quoted(work_dir))
        .replace("@PROGRAM@\n", &program)
        .replace("@EXECUTOR@", if docker.is_some() { "docker-autoscaler" } else { "instance" })
        .replace("@DOCKER@\n\n", &docker.map(containers).unwrap_or_default())
}

/// Containers share the host's network, where the stand-in for GitLab listens on loopback alone.
fn containers(docker: &Docker) -> String {
    format!(
        "  [runners.docker]\n    host = {}\n    image = {}\n    network_mode = \"host\"\n    pull_policy = \"if-not-present\"\n    disable_cache = true\n\n",
        quoted(Path::new(&format!("unix://{}", docker.socket.display()))),
        quoted(Path::new(&docker.image)),
    )
}

/// Reads it.
pub(crate) fn load(text: &str) -> Result<Loaded, Invalid> {
    config::parse(text, "demo.toml", &|_| None)
}

/// A path as a TOML string.
fn quoted(path: &Path) -> String {
    let mut text = String::from("\"");
    for character in path.to_string_lossy().chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            control if control.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(control))),
            plain => text.push(plain),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_configuration_has_no_fault_and_says_what_the_picture_shows() {
        let program = PathBuf::from("/opt/my \"tools\"/drover");
        let text = text("http://127.0.0.1:8080", "glrt-demo", Path::new("/tmp/demo"), Some(&program), None);
        let loaded = load(&text).unwrap();
        assert_eq!(loaded.diagnostics, []);
        let autoscaler = loaded.config.runners[0].autoscaler.as_ref().unwrap();
        assert_eq!(autoscaler.capacity_per_instance(), CAPACITY);
        assert_eq!(autoscaler.max_use_count(), Some(MAX_USES));
        assert_eq!(autoscaler.max_instances(), Some(MAX_INSTANCES));
        let plugin = autoscaler.plugin_config();
        assert_eq!(plugin["program"], "/opt/my \"tools\"/drover");
        fleeting_local::Config::from_plugin_config(&plugin).unwrap();
    }

    #[test]
    fn with_containers_the_engine_is_reached_through_the_instances() {
        let docker = Docker { socket: PathBuf::from("/run/my engine.sock"), image: "alpine:3".to_owned() };
        let text = text("http://127.0.0.1:8080", "glrt-demo", Path::new("/tmp/demo"), None, Some(&docker));
        let loaded = load(&text).unwrap();
        assert_eq!(loaded.diagnostics, []);
        let runner = &loaded.config.runners[0];
        assert_eq!(runner.executor(), Some(config::ExecutorName::DockerAutoscaler));
        let docker = runner.docker.as_ref().unwrap();
        assert_eq!(docker.image.as_deref(), Some("alpine:3"));
        assert_eq!(docker.host.as_deref(), Some("unix:///run/my engine.sock"));
    }
}

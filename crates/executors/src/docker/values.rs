//! Values of `[runners.docker]` in the engine's terms.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use bollard::models::{DeviceMapping, DeviceRequest, ResourcesUlimits};

/// A value that makes no sense; names key and value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ValueError(String);

/// `host[:container[:permissions]]`.
pub(crate) fn device(text: &str) -> Result<DeviceMapping, ValueError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, container] => (host, container, "rwm"),
        [host, container, permissions] => (host, container, permissions),
        _ => return Err(ValueError(format!("failed to parse device string \"{text}\": too many colons"))),
    };
    Ok(DeviceMapping {
        path_on_host: Some(host.to_owned()),
        path_in_container: Some(container.to_owned()),
        cgroup_permissions: Some(permissions.to_owned()),
    })
}

/// The grammar of `docker run --gpus`: fields as in a line of CSV. A blank text asks for none.
pub(crate) fn gpus(text: &str) -> Result<Option<DeviceRequest>, ValueError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let bad = |why: &str| ValueError(format!("parsing gpus string \"{text}\": {why}"));
    let mut request = DeviceRequest::default();
    let mut capabilities = Vec::new();
    let mut seen = BTreeSet::new();
    let count = |value: &str| match value {
        "all" => Ok(-1),
        value => value.parse::<i64>().map_err(|_| bad("the count is neither a number nor \"all\"")),
    };
    for field in csv(text) {
        let field = field.trim();
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim(), value.trim()),
            None => ("count", field),
        };
        if !seen.insert(key.to_owned()) {
            return Err(bad(&format!("`{key}` is given twice")));
        }
        let list = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
        match key {
            "count" => request.count = Some(count(value)?),
            "device" => request.device_ids = Some(list()),
            "driver" => request.driver = Some(value.to_owned()),
            "capabilities" => capabilities = list(),
            "options" => {
                let pairs = list();
                let options = pairs.iter().filter_map(|pair| pair.split_once('='));
                request.options =
                    Some(options.map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
            }
            _ => return Err(bad(&format!("there is no `{key}`"))),
        }
    }
    if request.count.is_none() && request.device_ids.is_none() {
        request.count = Some(1);
    }
    if !capabilities.iter().any(|capability| capability == "gpu") {
        capabilities.push("gpu".to_owned());
    }
    request.capabilities = Some(vec![capabilities]);
    Ok(Some(request))
}

/// Fields of one line; quotes keep commas together.
fn csv(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => {
                if let Some(field) = fields.last_mut() {
                    field.push(other);
                }
            }
        }
    }
    fields
}

/// `soft[:hard]` by name.
pub(crate) fn ulimits(limits: &BTreeMap<String, String>) -> Result<Vec<ResourcesUlimits>, ValueError> {
    limits
        .iter()
        .map(|(name, value)| {
            let (soft, hard) = value.split_once(':').unwrap_or((value, value));
            let number = |text: &str, which: &str| {
                text.parse::<i64>().map_err(|_| {
                    ValueError(format!("ulimit {name}: invalid {which} limit value: \"{text}\""))
                })
            };
            Ok(ResourcesUlimits {
                name: Some(name.clone()),
                soft: Some(number(soft, "soft")?),
                hard: Some(number(hard, "hard")?),
            })
        })
        .collect()
}

/// Security options; profiles that are files of the manager are read and sent whole.
pub(crate) fn security_options(options: &[String], base: &Path) -> Result<Vec<String>, ValueError> {
    options
        .iter()
        .map(|option| {
            let Some((key, value)) = option.split_once('=') else { return Ok(option.clone()) };
            if key != "seccomp" || value.starts_with('{') || matches!(value, "unconfined" | "builtin") {
                return Ok(option.clone());
            }
            let path = base.join(value);
            let text = std::fs::read_to_string(&path).map_err(|error| {
                ValueError(format!("failed to read seccomp profile from {}: {error}", path.display()))
            })?;
            let profile: serde_json::Value = serde_json::from_str(&text)
                .map_err(|_| ValueError(format!("seccomp profile {} is not valid JSON", path.display())))?;
            Ok(format!("seccomp={profile}"))
        })
        .collect()
}

/// Capabilities as the engine's own client sends them: upper case, with `CAP_`, each once.
pub(crate) fn capabilities(names: &[String]) -> Option<Vec<String>> {
    let names: BTreeSet<String> = names
        .iter()
        .map(|name| name.trim().to_ascii_uppercase())
        .map(|name| if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") })
        .collect();
    (!names.is_empty()).then(|| names.into_iter().collect())
}

/// A map for the engine, or nothing.
pub(crate) fn map(map: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then(|| map.clone().into_iter().collect())
}

/// A list for the engine, or nothing.
pub(crate) fn list(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("/dev/a", "/dev/a", "rwm"; "one part")]
    #[test_case("/dev/a:/dev/b", "/dev/b", "rwm"; "two parts")]
    #[test_case("/dev/a:/dev/b:r", "/dev/b", "r"; "three parts")]
    fn devices_are_completed(text: &str, container: &str, permissions: &str) {
        let device = device(text).unwrap();
        assert_eq!(device.path_in_container.as_deref(), Some(container));
        assert_eq!(device.cgroup_permissions.as_deref(), Some(permissions));
    }

    #[test]
    fn a_device_of_four_parts_is_refused() {
        assert!(device("a:b:c:d").unwrap_err().to_string().contains("too many colons"));
    }

    #[test_case("all", Some(-1), None, &["gpu"]; "all of them")]
    #[test_case("2", Some(2), None, &["gpu"]; "two")]
    #[test_case("\"device=0,1\"", None, Some(&["0", "1"]), &["gpu"]; "named ones")]
    #[test_case("count=1,\"capabilities=utility,compute\"", Some(1), None, &["utility", "compute", "gpu"]; "capabilities")]
    #[test_case("driver=nvidia", Some(1), None, &["gpu"]; "a driver alone")]
    fn gpus_are_asked_for_as_on_the_command_line(
        text: &str,
        count: Option<i64>,
        devices: Option<&[&str]>,
        capabilities: &[&str],
    ) {
        let request = gpus(text).unwrap().unwrap();
        assert_eq!(request.count, count);
        let own = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(request.device_ids, devices.map(own));
        assert_eq!(request.capabilities, Some(vec![own(capabilities)]));
    }

    #[test]
    fn blank_gpus_are_none_and_wrong_ones_are_refused() {
        assert_eq!(gpus(" ").unwrap(), None);
        assert!(gpus("count=1,2").unwrap_err().to_string().contains("given twice"));
        assert!(gpus("many").unwrap_err().to_string().contains("neither a number"));
        assert!(gpus("colour=red").unwrap_err().to_string().contains("there is no `colour`"));
    }

    #[test]
    fn capabilities_are_written_one_way() {
        let names = ["net_admin", "CAP_NET_ADMIN", "all"].map(str::to_owned);
        assert_eq!(capabilities(&names), Some(vec!["ALL".to_owned(), "CAP_NET_ADMIN".to_owned()]));
    }

    #[test]
    fn seccomp_profiles_are_read_where_they_are_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.json"), "{ \"defaultAction\":\n \"SCMP_ACT_ALLOW\" }").unwrap();
        std::fs::write(folder.path().join("bad"), "{").unwrap();
        let read = |option: &str| security_options(&[option.to_owned()], folder.path());
        assert_eq!(read("seccomp=p.json").unwrap(), ["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]);
        assert_eq!(read("seccomp=unconfined").unwrap(), ["seccomp=unconfined"]);
        assert!(read("seccomp=bad").unwrap_err().to_string().contains("not valid JSON"));
        assert!(read("seccomp=none").unwrap_err().to_string().contains("failed to read seccomp profile"));
    }
}

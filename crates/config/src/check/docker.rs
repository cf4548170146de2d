//! Rules for `[runners.docker]`.

use std::net::IpAddr;

use super::Findings;
use crate::model::{Docker, Runner};
use crate::read::KeyPath;

pub(super) fn check(runner: &Runner, docker: &Docker, at: &KeyPath, findings: &mut Findings) {
    for (index, server) in docker.dns.iter().enumerate() {
        if server.parse::<IpAddr>().is_err() {
            let message = format!("invalid DNS server address \"{server}\"");
            findings.error("dns", &at.key("dns").index(index), message, "write an IP address");
        }
    }
    if let Some(address) = docker.mac_address.as_deref().filter(|address| !is_mac(address)) {
        let message = format!("invalid MAC address \"{address}\"");
        findings.error(
            "mac-address",
            &at.key("mac_address"),
            message,
            "write six bytes, such as 92:d0:c6:0a:29:33",
        );
    }
    for name in docker.log_options.keys() {
        if !matches!(name.as_str(), "env" | "labels") {
            let message = format!(
                "invalid log options: only [\"env\" \"labels\"] are allowed, but found: [\"{name}\"]"
            );
            findings.error("log-options", &at.key("log_options").key(name), message, "remove it");
        }
    }
    for (name, limits) in &docker.ulimit {
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        if soft.parse::<i64>().is_err() || hard.parse::<i64>().is_err() {
            let message = format!("limit \"{limits}\" for `{name}` is not of the form soft or soft:hard");
            findings.error(
                "ulimit",
                &at.key("ulimit").key(name),
                message,
                "write whole numbers, such as \"1024:2048\"",
            );
        }
    }
    for (index, device) in docker.devices.iter().enumerate() {
        if device.split(':').count() > 3 {
            let message = format!("failed to parse device string \"{device}\": too many colons");
            findings.error(
                "device",
                &at.key("devices").index(index),
                message,
                "write host[:container[:permissions]]",
            );
        }
    }
    for (index, volume) in docker.volumes.iter().enumerate() {
        if matches!(volume.as_str(), "/" | "") || volume.split(':').nth(1) == Some("/") {
            let message = format!("volume \"{volume}\" would hide the root of the container");
            findings.error(
                "volume",
                &at.key("volumes").index(index),
                message,
                "name a directory below the root",
            );
        }
    }
    for (index, service) in docker.services.iter().enumerate() {
        if service.name.is_none() {
            let at = at.key("services").index(index);
            findings.error(
                "service",
                &at.key("name"),
                "a service has no `name`",
                "write the image of the service",
            );
        }
    }
    let allowed = docker.allowed_pull_policies();
    if let Some(policy) = docker.pull_policies().iter().find(|policy| !allowed.contains(policy)) {
        findings.warning(
            "pull-policy",
            &at.key("allowed_pull_policies"),
            format!("`pull_policy` {policy} is not among the `allowed_pull_policies`"),
            "jobs that choose no policy are refused; add it",
        );
    }
    paths(runner, findings, at);
}

/// Directories of jobs in containers must be absolute and not a root.
fn paths(runner: &Runner, findings: &mut Findings, at: &KeyPath) {
    if !runner.executor().is_some_and(|executor| executor.uses_docker()) {
        return;
    }
    let at = at.parent().unwrap_or_default();
    if let Some(dir) = runner.builds_dir.as_deref() {
        let windows = dir.as_bytes().get(1) == Some(&b':');
        let is_root = dir.trim_end_matches(['/', '\\']).is_empty() || (windows && dir.len() <= 3);
        if is_root || !(dir.starts_with('/') || windows) {
            let message =
                format!("`builds_dir` is \"{dir}\", but in containers it must be absolute and not the root");
            findings.error("builds-dir", &at.key("builds_dir"), message, "write a path such as \"/builds\"");
        }
    }
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    parts.len() == 6
        && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

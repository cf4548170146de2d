//! Keys of `[runners.docker]`, seen from inside of the containers and by what the engine says of them.

use drover_tests::{Engine, World};
use gitlab_mock::{CacheSpec, Job, JobBuilder};
use serde_json::{Value, json};

use crate::{nothing_is_left, world};

/// A job that stays until [`release`] lets it go.
pub(crate) fn patient(before: &[&str]) -> JobBuilder {
    let mut script = before.to_vec();
    script.extend(["echo ready", "until [ -e /tmp/go ]; do sleep 0.1; done"]);
    JobBuilder::new("patient").variable("GIT_STRATEGY", "none").script(script)
}

/// The name of a job's container of this kind (`build`, `predefined`, `service`), when the job's script runs.
pub(crate) async fn container(world: &World, job: &Job, kind: &str) -> String {
    world.says(job, "ready\n").await;
    let id = format!("label=com.gitlab.gitlab-runner.job.id={}", job.view().id);
    let kind = format!("label=com.gitlab.gitlab-runner.type={kind}");
    let names =
        Engine::shared().docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &id, "--filter", &kind]);
    let mine = Engine::shared().belongings(&world.runners[0].token(), job.view().id);
    let name = names.lines().find(|name| mine.iter().any(|own| own == name));
    name.unwrap_or_else(|| panic!("no such container: {kind} among {mine:?}")).to_owned()
}

/// Lets a patient job go.
pub(crate) fn release(build: &str) {
    Engine::shared().docker(&["exec", build, "touch", "/tmp/go"]);
}

#[track_caller]
fn says(container: &Value, expected: &[(&str, Value)]) {
    for (pointer, value) in expected {
        assert_eq!(container.pointer(pointer), Some(value), "{pointer}");
    }
}

#[tokio::test]
async fn resources_are_those_of_the_file_for_jobs_and_for_services() {
    let profile = tempfile::NamedTempFile::new().unwrap();
    let rules = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO"}]});
    std::fs::write(profile.path(), rules.to_string()).unwrap();
    let seccomp = format!("seccomp={}", profile.path().display());
    let world = world(|entry| {
        entry
            .set("docker.memory", "64m")
            .set("docker.memory_reservation", "32m")
            .set("docker.cpus", "1/2")
            .set("docker.cpu_shares", 512)
            .set("docker.cpuset_cpus", "0")
            .set("docker.cpuset_mems", "0")
            .set("docker.oom_score_adjust", 500)
            .set("docker.sysctls", toml::toml! { "net.core.somaxconn" = "77" })
            .set("docker.group_add", vec!["777"])
            .set("docker.security_opt", vec!["no-new-privileges", &seccomp])
            .set("docker.ipcmode", "shareable")
            .set("docker.runtime", "runc")
            .set("docker.dns_search", vec!["harbour.test"])
            .set("docker.volume_keep", true)
            .set("docker.service_memory", "48m")
            .set("docker.service_cpus", "0.25")
            .set("docker.service_cpu_shares", 128)
            .set("docker.service_cpuset_cpus", "0")
            .set("docker.services_security_opt", vec!["no-new-privileges"])
            .set("docker.services_tmpfs./ram", "size=1m")
            .set("docker.extra_hosts", vec!["quay:10.9.8.7"])
            .set("docker.services", vec![toml::toml! { name = "box:1" command = ["sleep", "1000"] }])
            .set("docker.wait_for_services_timeout", -1)
    })
    .await;
    let job = world.enqueue(patient(&[
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true",
        "grep Cpus_allowed_list /proc/self/status",
        "cat /proc/self/oom_score_adj /proc/sys/net/core/somaxconn",
        "id -G",
        "grep NoNewPrivs /proc/self/status",
        "ln -s a /tmp/b || echo no links",
        "cat /etc/resolv.conf",
    ]));
    let (build, service) = (container(&world, &job, "build").await, container(&world, &job, "service").await);
    let (own, beside) =
        (Engine::shared().inspect("container", &build), Engine::shared().inspect("container", &service));
    says(
        &own,
        &[
            ("/HostConfig/MemoryReservation", json!(32 << 20)),
            ("/HostConfig/NanoCpus", json!(500_000_000)),
            ("/HostConfig/CpuShares", json!(512)),
            ("/HostConfig/CpusetMems", json!("0")),
            ("/HostConfig/IpcMode", json!("shareable")),
            ("/HostConfig/Runtime", json!("runc")),
            ("/HostConfig/RestartPolicy/Name", json!("no")),
            ("/HostConfig/LogConfig/Type", json!("json-file")),
        ],
    );
    says(
        &beside,
        &[
            ("/HostConfig/Memory", json!(48 << 20)),
            ("/HostConfig/NanoCpus", json!(250_000_000)),
            ("/HostConfig/CpuShares", json!(128)),
            ("/HostConfig/CpusetCpus", json!("0")),
            ("/HostConfig/SecurityOpt", json!(["no-new-privileges"])),
            ("/HostConfig/Tmpfs", json!({"/ram": "size=1m"})),
            ("/HostConfig/ExtraHosts", json!(["quay:10.9.8.7"])),
            // What is never for services.
            ("/HostConfig/GroupAdd", Value::Null),
            ("/HostConfig/OomScoreAdj", json!(0)),
            ("/HostConfig/IpcMode", json!("private")),
        ],
    );
    assert!(beside.pointer("/HostConfig/Sysctls").is_none_or(Value::is_null), "{beside}");
    release(&build);
    let job = world.finished(&job).await.succeeded();
    let job = job
        .has_line("67108864")
        .has_line("500")
        .has_line("77")
        .has_line("no links")
        .has_line("search harbour.test")
        .says("volume_keep is set");
    let log = job.log.replace('\t', " ");
    assert!(log.contains("Cpus_allowed_list: 0\n") && log.contains("NoNewPrivs: 1\n"), "{log}");
    assert!(log.lines().any(|line| line.split(' ').any(|group| group == "777")), "{log}");
    nothing_is_left(&world, job.view.id).await;
    world.stop().await;
}

#[tokio::test]
async fn devices_and_their_rules_are_given() {
    // The runtime lets nobody open a device that neither the file nor the engine names.
    let open = "mknod /tmp/loop c 10 237 && (exec 3</tmp/loop) 2>&1 | grep -c 'not permitted' || true";
    let with = world(|entry| {
        entry
            .set("docker.devices", vec!["/dev/null:/dev/naught"])
            .set("docker.device_cgroup_rules", vec!["c 10:* rwm"])
    })
    .await;
    let job =
        |script: &[&str]| JobBuilder::new("devices").variable("GIT_STRATEGY", "none").script(script.to_vec());
    with.run(job(&["[ -c /dev/naught ] && echo there is naught", &format!("echo \"refused: $({open})\"")]))
        .await
        .succeeded()
        .has_line("there is naught")
        .has_line("refused: 0");
    with.stop().await;
    let without = world(|entry| entry).await;
    without.run(job(&[&format!("echo \"refused: $({open})\"")])).await.succeeded().has_line("refused: 1");
    without.stop().await;
}

#[tokio::test]
async fn graphics_processors_are_asked_for_and_the_engines_answer_is_shown() {
    let world = world(|entry| entry.set("docker.gpus", "all")).await;
    let job = JobBuilder::new("gpus").variable("GIT_STRATEGY", "none").script(["true"]);
    let job = world.run(job).await.failed("runner_system_failure", None);
    // The words of engines that know no driver for them, of 20.10 and of today.
    let said = ["could not select device driver", "no known GPU vendor found"];
    assert!(said.iter().any(|words| job.log.contains(words)), "{}", job.log);
    world.stop().await;
}

#[tokio::test]
async fn the_process_space_is_the_one_that_the_file_names() {
    let mine = std::fs::read_link("/proc/self/ns/pid").unwrap().display().to_string();
    let job = || {
        JobBuilder::new("processes")
            .variable("GIT_STRATEGY", "empty")
            .service(json!({"name": "box:1", "alias": "box", "command": ["sh", "-c", "readlink /proc/self/ns/pid; sleep 1000"]}))
            .script(["echo \"<$(readlink /proc/self/ns/pid)>\""])
    };
    for privileged in [false, true] {
        for mode in ["", "host"] {
            let world = world(|entry| {
                entry
                    .set("docker.pid_mode", mode)
                    .set("docker.privileged", privileged)
                    .set("docker.runtime", "lenient")
                    .set("docker.wait_for_services_timeout", -1)
            })
            .await;
            let job = world.run(job().variable("CI_DEBUG_SERVICES", "true")).await.succeeded();
            assert_eq!(job.count(&format!("<{mine}>")), usize::from(mode == "host"), "{mode}: {}", job.log);
            // The service has its own in any case.
            let job = job.says("pid:[");
            assert!(!job.log.lines().any(|line| line.ends_with(&format!("] {mine}"))), "{}", job.log);
            world.stop().await;
        }
    }
}

#[tokio::test]
async fn privileges_are_for_the_images_and_services_on_their_lists() {
    Engine::shared().docker(&["tag", "box:1", "harbour/good:1"]);
    Engine::shared().docker(&["tag", "box:1", "harbour/other:1"]);
    let world = world(|entry| {
        entry
            .set("docker.privileged", true)
            .set("docker.runtime", "lenient")
            .set("docker.allowed_privileged_images", vec!["harbour/good:*"])
            .set("docker.allowed_privileged_services", vec!["harbour/good*"])
            .set("docker.wait_for_services_timeout", -1)
    })
    .await;
    // Only who has all capabilities has this one, of the administrator of networks.
    let script = "c=$(sed -n 's/^CapEff:.*\\(........\\)$/\\1/p' /proc/self/status); [ $((0x$c & 0x1000)) = 0 ] && echo confined || echo free";
    let service = |name: &str| json!({"name": name, "alias": "a", "command": ["sleep", "1000"]});
    let good = world.enqueue(
        patient(&[script])
            .image("harbour/good:1")
            // For the helper.
            .cache(CacheSpec::new("key", ["nothing"]))
            .service(service("harbour/good:1"))
            .service(service("harbour/other:1")),
    );
    let build = container(&world, &good, "build").await;
    let unique = build.trim_end_matches("-build");
    for (name, privileged) in [
        (build.clone(), true),
        // Not on the list either.
        (format!("{unique}-predefined"), false),
        (format!("{unique}-harbour__good-0"), true),
        (format!("{unique}-harbour__other-1"), false),
    ] {
        let inspected = Engine::shared().inspect("container", &name);
        assert_eq!(inspected.pointer("/HostConfig/Privileged"), Some(&json!(privileged)), "{name}");
    }
    release(&build);
    world.finished(&good).await.succeeded().has_line("free");
    let plain = || JobBuilder::new("other").variable("GIT_STRATEGY", "none").script([script]);
    let other = world.enqueue(plain().image("harbour/other:1"));
    // The image of the file counts as no name.
    let default = world.enqueue(plain());
    world.finished(&other).await.succeeded().has_line("confined");
    world.finished(&default).await.succeeded().has_line("confined");
    world.stop().await;
}

#[tokio::test]
async fn services_get_the_devices_that_match_their_name() {
    Engine::shared().docker(&["tag", "box:1", "harbour/deviced:latest"]);
    let world = world(|entry| {
        entry
            .set("docker.services_devices", toml::toml! { "harbour/deviced:*" = ["/dev/null:/dev/naught"] })
            .set("docker.wait_for_services_timeout", -1)
    })
    .await;
    let look = ["sh", "-c", "[ -c /dev/naught ] && echo a device || echo no device; sleep 1000"];
    let job = |name: &str| {
        JobBuilder::new(name)
            .variable("GIT_STRATEGY", "none")
            .variable("CI_DEBUG_SERVICES", "true")
            .service(json!({"name": name, "alias": "s", "command": look}))
            .script(["sleep 1"])
    };
    let (with, without) = (world.enqueue(job("harbour/deviced")), world.enqueue(job("box:1")));
    world.finished(&with).await.succeeded().says("] a device");
    world.finished(&without).await.succeeded().says("] no device");
    world.stop().await;
}

#[tokio::test]
async fn containers_outside_of_the_job_lend_their_names_and_volumes() {
    let engine = Engine::shared();
    let outside = format!("outside-{}", std::process::id());
    engine.docker(&[
        "run",
        "-d",
        "--name",
        &outside,
        "-v",
        "/lent",
        "box:1",
        "sh",
        "-c",
        "echo lent >/lent/file; sleep 1000",
    ]);
    let world = world(|entry| {
        entry
            .set("docker.links", vec![format!("{outside}:neighbour")])
            .set("docker.volumes_from", vec![outside.clone()])
    })
    .await;
    let job = JobBuilder::new("borrows").variable("GIT_STRATEGY", "none");
    let job = world.run(job.script(["cat /lent/file", "grep neighbour /etc/hosts"])).await.succeeded();
    job.has_line("lent").says(&outside);
    world.stop().await;
    engine.docker(&["rm", "-fv", &outside]);
}

#[tokio::test]
async fn options_of_the_log_driver_reach_every_container() {
    let world = world(|entry| {
        entry
            .set("docker.log_options.env", "CI_JOB_ID")
            .set("docker.log_options.labels", "com.example.of")
            .set("docker.services", vec![toml::toml! { name = "box:1" command = ["sleep", "1000"] }])
            .set("docker.wait_for_services_timeout", -1)
    })
    .await;
    let job = world.enqueue(patient(&[]));
    let build = container(&world, &job, "build").await;
    for name in Engine::shared().belongings(&world.runners[0].token(), job.view().id) {
        let found = Engine::shared().docker(&["inspect", &name, "--format", "{{json .}}"]);
        let found: Value = serde_json::from_str(&found).unwrap();
        if let Some(log) = found.pointer("/HostConfig/LogConfig") {
            let expected =
                json!({"Type": "json-file", "Config": {"env": "CI_JOB_ID", "labels": "com.example.of"}});
            assert_eq!(log, &expected, "{name}");
        }
    }
    release(&build);
    world.finished(&job).await.succeeded();
    world.stop().await;
}

#[tokio::test]
async fn a_hardware_address_that_the_engine_is_too_old_for_is_left_out_with_a_word() {
    for (mode, per_job) in [("", false), ("", true), ("bridge", false)] {
        let world = world(|entry| {
            let entry = entry.set("docker.mac_address", "92:d0:c6:0a:29:33").set("docker.network_mode", mode);
            entry.set("feature_flags.FF_NETWORK_PER_BUILD", per_job)
        })
        .await;
        let job = JobBuilder::new("mac").variable("GIT_STRATEGY", "none");
        let job = world.run(job.script(["cat /sys/class/net/eth0/address"])).await.succeeded();
        let new = Engine::shared().docker(&["version", "--format", "{{.Server.APIVersion}}"]);
        let minor: u32 = new.split_once('.').and_then(|(_, minor)| minor.parse().ok()).unwrap();
        if minor >= 44 {
            job.has_line("92:d0:c6:0a:29:33");
        } else {
            job.lacks_line("92:d0:c6:0a:29:33")
                .says("mac_address is not applied: the engine is too old for it");
        }
        world.stop().await;
    }
}

//! What can go wrong between a slot and its machine.

use drover_tests::{NEVER_BOOTS, OTHER_LOGIN, Setup};
use gitlab_mock::JobBuilder;
use nesting_mock::Fault;

use crate::world::{Hosts, gated, job, runs};

#[tokio::test]
async fn a_machine_that_is_not_made_at_first_is_asked_for_again_on_the_same_host() {
    let hosts = Hosts::start(1);
    let daemon = hosts.hosts[0].daemon();
    let world = Setup::new().runner(hosts.entry()).start().await;
    daemon.fault("Create", Fault::Fail("no address within 60s".to_owned()), 1);
    world
        .run(job("macos"))
        .await
        .succeeded()
        .says("WARNING: Preparation failed: creating instance environment: creating vm tunnel: creating nesting vm: image \"macos\" on instance m1#1")
        .says("the nesting daemon failed to create a virtual machine: no address within 60s (Unknown)\nWill be retried in 3 seconds ...");
    world.stop().await;
}

#[tokio::test]
async fn an_image_that_is_not_there_fails_its_job_and_costs_no_host() {
    let hosts = Hosts::start(1);
    let daemon = hosts.hosts[0].daemon();
    let world = Setup::new().runner(hosts.entry()).start().await;
    daemon.fault("Create", Fault::Fail("image not found".to_owned()), 3);
    world
        .run(job("macos-99"))
        .await
        .failed("runner_system_failure", None)
        .says("creating nesting vm: image \"macos-99\" on instance m1#1")
        .says("image not found (Unknown)")
        .says_not("is given up");
    world.run(job("macos")).await.succeeded();
    assert!(!world.log.has_line(&["cannot be used"]), "the host is still the same");
    assert_eq!(daemon.calls_of("Create"), 4);
    hosts.empty().await;
    world.stop().await;
}

#[tokio::test]
async fn a_machine_that_does_not_boot_or_lets_nobody_in_is_removed() {
    let hosts = Hosts::start(1);
    let entry = hosts.entry().set("autoscaler.vm_isolation.connector_config.timeout", "2s");
    let world = Setup::new().runner(entry).start().await;
    world
        .run(job(NEVER_BOOTS))
        .await
        .failed("runner_system_failure", None)
        .says("creating vm tunnel: dialing nesting vm: vm1 on instance m1#1")
        .says("during 2s timeout: dial tcp 127.0.0.1:")
        .says("connect failed")
        .says("see that the image starts an SSH server");
    hosts.empty().await;
    world
        .run(job(OTHER_LOGIN))
        .await
        .failed("runner_system_failure", None)
        .says("authentication refused for user `nested-vm-username`");
    hosts.empty().await;
    world.run(job("macos")).await.succeeded();
    world.stop().await;
}

#[tokio::test]
async fn a_slot_whose_machine_somebody_removed_serves_the_next_job() {
    let hosts = Hosts::start(1);
    let daemon = hosts.hosts[0].daemon();
    let world = Setup::new().runner(hosts.entry().set("autoscaler.capacity_per_instance", 1)).start().await;
    let first = world.enqueue(gated(&world));
    runs(&world, &first).await;
    assert!(daemon.vanish("vm1"));
    world.finished(&first).await.failed("runner_system_failure", None);
    world.run(job("macos")).await.succeeded().says_not("Preparation failed");
    world.logs(&["asked for a virtual machine without a slot", "clearing slot: no vm (vm1) found"]).await;
    hosts.empty().await;
    world.stop().await;
}

#[tokio::test]
async fn what_the_daemons_programs_say_is_one_line_of_the_log() {
    let hosts = Hosts::start(1);
    let world = Setup::new().runner(hosts.entry()).start().await;
    let said = "starting vm: run vm1: exit status 3 (VM crashed at boot\n)";
    hosts.hosts[0].daemon().fault("Create", Fault::Fail(said.to_owned()), 1);
    let ended = world.run(job("macos")).await.succeeded();
    ended.says("exit status 3 (VM crashed at boot) (Unknown)\n");
    world.stop().await;
}

#[tokio::test]
async fn a_host_without_its_daemon_is_given_up_and_another_one_taken() {
    let mut hosts = Hosts::start(2);
    let world = Setup::new().runner(hosts.entry().set("autoscaler.capacity_per_instance", 1)).start().await;
    world.run(job("macos")).await.succeeded();
    hosts.hosts[0].daemon = None;
    world
        .run(job("macos"))
        .await
        .succeeded()
        .says(
            "WARNING: Preparation failed: dialing nesting daemon: ssh: rejected: connect failed (tunnel to ",
        )
        .says("see that the daemon runs there and listens at unix://")
        .says("is given up; another one is taken.");
    assert_eq!(hosts.hosts[1].daemon().images(), ["macos"]);
    hosts.hosts[0].restart_daemon();
    world.stop().await;
}

#[tokio::test]
async fn a_daemon_that_was_restarted_gets_its_settings_again() {
    let hosts = Hosts::start(1);
    let daemon = hosts.hosts[0].daemon();
    let world = Setup::new().runner(hosts.entry()).start().await;
    world.run(job("macos")).await.succeeded();
    daemon.forget();
    world.run(job("macos")).await.succeeded();
    assert_eq!(daemon.settings(), ["{}", "{}"]);
    world.stop().await;
}

#[tokio::test]
async fn a_host_whose_settings_the_daemon_does_not_take_never_becomes_ready() {
    let hosts = Hosts::start(1);
    hosts.hosts[0].daemon().fault("Init", Fault::Fail("no such image folder".to_owned()), 1000);
    let entry = hosts
        .entry()
        .set("autoscaler.connector_config.timeout", "2s")
        .set("autoscaler.instance_acquire_timeout", "8s");
    let world = Setup::new().runner(entry).start().await;
    world
        .run(JobBuilder::new("waits").image("macos").script(["true"]))
        .await
        .failed("runner_system_failure", None);
    world.logs(&["initializing the nesting daemon with `nesting_config`", "no such image folder"]).await;
    world.stop().await;
}

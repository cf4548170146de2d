//! Jobs that go well, and images that are chosen for them.

use drover_tests::{Entry, Finished, NESTED_USER, NestedHost, Setup};
use gitlab_mock::JobBuilder;
use nesting_mock::{Fault, Options};

use crate::world::{Hosts, gated, job, open_gate, runs};

/// The home folder that a job found itself in.
fn home(finished: &Finished) -> &str {
    let home = finished.log.lines().find_map(|line| line.strip_prefix("home /"));
    home.unwrap_or_else(|| panic!("the job says where it is:\n{}", finished.log))
}

#[tokio::test]
async fn each_job_has_a_machine_of_the_image_that_it_asks_for() {
    let hosts = Hosts::start(1);
    let daemon = hosts.hosts[0].daemon();
    let settings: toml::Table = "image_dir = \"/images\"\nlimits = [1, 2]\n".parse().unwrap();
    let entry = hosts.entry().set("autoscaler.vm_isolation.nesting_config", settings);
    let world = Setup::new().runner(entry.set("instance.allowed_images", vec!["macos-*"])).start().await;

    let first = world.run(job("macos-$VERSION").variable("VERSION", "15")).await.succeeded();
    let first = first
        .has_line(NESTED_USER)
        .says("Enforcing VM Isolation\nDialing nesting daemon\nCreating nesting VM tunnel\n")
        .says("Creating nesting VM macos-15\nCreated nesting VM vm1 127.0.0.1:")
        .says_not("Stomped");
    let second = world.run(job("macos-14")).await.succeeded();
    assert_ne!(home(&first), home(&second), "a machine is for one job");
    assert_eq!(daemon.images(), ["macos-15", "macos-14"]);
    assert_eq!(daemon.settings(), [r#"{"image_dir":"/images","limits":[1,2]}"#]);
    hosts.empty().await;
    world.stop().await;
}

#[tokio::test]
async fn as_many_jobs_as_a_host_has_slots_run_side_by_side() {
    let hosts = Hosts::start(1);
    let daemon = hosts.hosts[0].daemon();
    let world = Setup::new().runner(hosts.entry()).start().await;
    let jobs = world.gitlab.enqueue_many(&world.runners[0], gated(&world), 3).unwrap();
    drover_tests::eventually("two jobs run", || {
        jobs.iter().filter(|job| job.log_text().contains("begun\n")).count() == 2
    })
    .await;
    let mut slots: Vec<Option<i32>> = daemon.machines().into_iter().map(|machine| machine.slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, [Some(0), Some(1)]);
    open_gate(&world);
    for job in &jobs {
        world.finished(job).await.succeeded().has_line("done");
    }
    // The third had a slot only when the machine of the job before it was gone.
    assert_eq!(daemon.images().len(), 3);
    hosts.empty().await;
    world.stop().await;
}

#[tokio::test]
async fn a_job_without_an_image_gets_that_of_the_entry() {
    let hosts = Hosts::start(1);
    let entry = hosts.entry().set("autoscaler.vm_isolation.image", "macos-${KIND}");
    let entry = entry.set("instance.allowed_images", vec!["other"]);
    let world = Setup::new().runner(entry).start().await;
    let plain = JobBuilder::new("plain").variable("KIND", "small").script(["id -un"]);
    world.run(plain).await.succeeded().has_line(NESTED_USER).says("Creating nesting VM macos-small\n");
    world.stop().await;
}

#[tokio::test]
async fn what_a_job_may_not_choose_or_nobody_chose_is_refused_before_an_instance_is_taken() {
    let hosts = Hosts::start(1);
    let entry = hosts.entry().set("instance.allowed_images", vec!["macos-*", "registry.example.com/*"]);
    let world = Setup::new().runner(entry).start().await;
    // As it is used, not as it is written.
    let hidden = job("$IMAGE").variable("IMAGE", "registry.example.com/evil/macos");
    world
        .run(hidden)
        .await
        .failed("runner_configuration_error", None)
        .says("The \"registry.example.com/evil/macos\" image is not present on list of allowed images:")
        .says("- macos-*")
        .says_not("Preparing instance");
    let none = JobBuilder::new("none").script(["echo hello"]);
    world
        .run(none)
        .await
        .failed("runner_configuration_error", None)
        .says("no nesting VM image specified to run the job in: set `image` in the job or `image` in [runners.autoscaler.vm_isolation]");
    assert_eq!(hosts.hosts[0].daemon().images(), Vec::<String>::new());
    world.stop().await;
}

#[tokio::test]
async fn a_daemon_without_slots_serves_as_well() {
    let hosts = Hosts::with(1, &Options { without_slots: true, ..Options::default() });
    let world = Setup::new().runner(hosts.entry()).start().await;
    world.run(job("macos")).await.succeeded().has_line(NESTED_USER).says("Created nesting VM vm1 127.0.0.1:");
    hosts.empty().await;
    world.stop().await;
}

#[tokio::test]
async fn what_an_earlier_run_left_on_a_host_is_removed_or_gives_way() {
    let hosts = Hosts::with(1, &Options { initialized: true, ..Options::default() });
    let daemon = hosts.hosts[0].daemon();
    daemon.plant("leftover", Some(1));
    let world = Setup::new().runner(hosts.entry()).start().await;
    world.run(job("macos")).await.succeeded().says_not("Stomped");
    // A host that becomes ready has no machines.
    hosts.empty().await;
    daemon.plant("late", Some(0));
    world.run(job("macos")).await.succeeded().says("\nStomped nesting VM: late\n");
    assert_eq!(daemon.settings(), Vec::<String>::new(), "it had its settings");
    hosts.empty().await;
    world.stop().await;
}

#[tokio::test]
async fn a_machine_is_logged_in_to_with_a_key_as_well() {
    let hosts = Hosts::start(1);
    // Machines let in their own key alone, so a key that none of them knows shows that it is offered, and the password after it.
    let key = hosts.hosts[0].sshd.key_path().display().to_string();
    let entry = hosts.entry().set("autoscaler.vm_isolation.connector_config.key_path", key);
    let world = Setup::new().runner(entry).start().await;
    let running = world.enqueue(gated(&world));
    runs(&world, &running).await;
    open_gate(&world);
    world.finished(&running).await.succeeded();
    world.stop().await;
}

#[tokio::test]
async fn a_daemon_at_a_port_of_its_host_is_reached_as_one_at_a_socket() {
    let (host, address) = NestedHost::at_port();
    let entry = Entry::machines("mac", [&host.sshd]).nested(host.sshd.home());
    let entry = entry.set("autoscaler.vm_isolation.nesting_host", address);
    let world = Setup::new().runner(entry).start().await;
    world.run(job("macos")).await.succeeded().has_line(NESTED_USER);
    drover_tests::eventually("no virtual machine is left", || host.daemon().machines().is_empty()).await;
    assert_eq!(host.daemon().images(), ["macos"]);
    world.stop().await;
}

#[tokio::test]
async fn a_machine_that_takes_long_to_boot_is_in_no_other_jobs_way() {
    let hosts = Hosts::start(1);
    let daemon = hosts.hosts[0].daemon();
    let world = Setup::new().runner(hosts.entry()).start().await;
    daemon.fault("Create", Fault::Hold, 1);
    let slow = world.enqueue(job("macos-slow"));
    drover_tests::eventually("it boots", || daemon.images() == ["macos-slow"]).await;
    world.run(job("macos")).await.succeeded().says_not("given up");
    daemon.release();
    world.finished(&slow).await.succeeded();
    hosts.empty().await;
    world.stop().await;
}

#[tokio::test]
async fn machines_that_do_not_run_are_removed_from_a_host_before_it_takes_jobs() {
    let hosts = Hosts::with(1, &Options { initialized: true, ..Options::default() });
    let daemon = hosts.hosts[0].daemon();
    // As many as a host can have, so that nothing is made while one is there.
    daemon.plant_stopped("stopped1");
    daemon.plant_stopped("stopped2");
    let world = Setup::new().runner(hosts.entry()).start().await;
    world.run(job("macos")).await.succeeded();
    world.logs(&["a virtual machine of an earlier run was removed", "stopped2"]).await;
    world.stop().await;
}

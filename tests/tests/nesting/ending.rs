//! Jobs that are stopped, and hosts that go.

use drover_tests::{Setup, eventually};
use gitlab_mock::JobState;
use nesting_mock::Fault;

use crate::world::{Hosts, gated, job, runs};

#[tokio::test]
async fn a_job_that_is_canceled_leaves_no_machine() {
    let hosts = Hosts::start(1);
    let daemon = hosts.hosts[0].daemon();
    let world = Setup::new().runner(hosts.entry().set("autoscaler.capacity_per_instance", 1)).start().await;
    let running = world.enqueue(gated(&world));
    runs(&world, &running).await;
    running.cancel();
    world.finished(&running).await.canceled();
    hosts.empty().await;

    // While its machine is being made.
    daemon.fault("Create", Fault::Hold, 1);
    let waiting = world.enqueue(gated(&world));
    world.says(&waiting, "Creating nesting VM macos").await;
    eventually("the daemon is asked", || daemon.calls_of("Create") == 2).await;
    assert_eq!(waiting.cancel(), JobState::Canceling);
    world.finished(&waiting).await.canceled();
    let next = world.enqueue(job("macos-next"));
    daemon.release();
    world.finished(&next).await.succeeded().says_not("Stomped");
    hosts.empty().await;
    // The slot was taken until the machine was gone that nobody wanted any more.
    let calls: Vec<String> =
        daemon.calls().into_iter().filter(|call| call != "List" && call != "Init").collect();
    assert_eq!(calls, ["Create", "Delete"].repeat(3));
    world.stop().await;
}

#[tokio::test]
async fn a_host_that_goes_takes_its_jobs_along_and_no_other() {
    let mut hosts = Hosts::start(2);
    let world = Setup::new().runner(hosts.entry().set("autoscaler.capacity_per_instance", 1)).start().await;
    let jobs = [world.enqueue(gated(&world)), world.enqueue(gated(&world))];
    for job in &jobs {
        runs(&world, job).await;
    }
    hosts.hosts[0].sshd.stop();
    eventually("one job has failed", || jobs.iter().any(|job| job.state() == JobState::Failed)).await;
    let [first, second] = &jobs;
    let (lost, kept) = if first.state() == JobState::Failed { (first, second) } else { (second, first) };
    world.finished(lost).await.failed("runner_system_failure", None).says(
        "the connection to instance m1#1 broke, and with it that to virtual machine vm1 on instance m1#1",
    );
    crate::world::open_gate(&world);
    world.finished(kept).await.succeeded();
    hosts.hosts[0].sshd.launch();
    world.stop().await;
}

#[tokio::test]
async fn a_machine_that_breaks_down_costs_its_own_job_only() {
    let hosts = Hosts::start(1);
    let daemon = hosts.hosts[0].daemon();
    let world = Setup::new().runner(hosts.entry()).start().await;
    let first = world.enqueue(gated(&world));
    runs(&world, &first).await;
    let second = world.enqueue(gated(&world));
    runs(&world, &second).await;
    assert!(daemon.crash("vm1"));
    world
        .finished(&first)
        .await
        .failed("runner_system_failure", None)
        .says("the connection to virtual machine vm1 on instance m1#1 broke");
    crate::world::open_gate(&world);
    world.finished(&second).await.succeeded();
    // The host is not to blame.
    world.run(job("macos")).await.succeeded().says_not("given up");
    world.stop().await;
}

#[tokio::test]
async fn a_host_that_goes_while_it_makes_a_machine_gives_its_job_to_another_one() {
    let mut hosts = Hosts::start(2);
    let world = Setup::new().runner(hosts.entry().set("autoscaler.capacity_per_instance", 1)).start().await;
    for host in &hosts.hosts {
        host.daemon().fault("Create", Fault::Hold, 1);
    }
    let waiting = world.enqueue(job("macos"));
    let asked = |hosts: &Hosts| hosts.hosts.iter().position(|host| host.daemon().calls_of("Create") == 1);
    eventually("a machine is made", || asked(&hosts).is_some()).await;
    let [goes, stays] = if asked(&hosts) == Some(0) { [0, 1] } else { [1, 0] };
    hosts.hosts[stays].daemon().release();
    hosts.hosts[goes].sshd.stop();
    world
        .finished(&waiting)
        .await
        .succeeded()
        .says("the connection to the nesting daemon broke when it was to create a virtual machine")
        .says("is given up; another one is taken.");
    hosts.hosts[goes].daemon().release();
    hosts.hosts[goes].sshd.launch();
    world.stop().await;
}

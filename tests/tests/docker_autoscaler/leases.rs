//! Several managers and one group of an engine: one of them works.

use std::process::Command;
use std::time::Duration;

use chrono::{DateTime, Utc};
use drover_tests::{Drover, Engine, Entry, Instances, PATIENCE, Setup};
use fleeting::lease::{GroupLease, Lease, Owner};
use fleeting::{ConnectorSettings, GroupError, InstanceGroup, Severity};
use fleeting_docker::{Config, DockerGroup};
use gitlab_mock::{GitlabMock, JobState};
use nix::sys::signal::Signal;

use crate::plain;

const FIRST: &str = "s_aaaaaaaaaaaa";
const SECOND: &str = "s_bbbbbbbbbbbb";

fn lease(manager: &str, generation: u64) -> Lease {
    let since: DateTime<Utc> = "2026-08-24T10:00:00Z".parse().expect("a time");
    Lease {
        owner: Owner::new(manager, "https://gitlab.example.com", "7", "build", "host"),
        generation,
        since,
        until: since + Duration::from_secs(900),
        valid: Duration::from_secs(900),
    }
}

/// A group of this test that one manager scales.
async fn group(name: &str) -> DockerGroup {
    let group = DockerGroup::new(Config {
        host: Engine::shared().host(),
        command: vec!["sleep".to_owned(), "100000".to_owned()],
        ..Config::new(&format!("{name}-{}", std::process::id()), "box:1")
    });
    group.used_by(&lease("any", 1).owner, Duration::from_secs(900));
    group.init(&ConnectorSettings::default()).await.expect("there is an engine");
    group
}

fn place(group: &DockerGroup) -> &dyn GroupLease {
    group.lease().expect("there is a place for marks")
}

async fn seen(group: &DockerGroup) -> Option<Lease> {
    group.update().await.expect("a listing");
    place(group).seen()
}

/// The volumes with marks of a group, with their labels.
fn volumes(name: &str) -> Vec<String> {
    let filter = format!("label=drover.lease-group={name}");
    let format = "{{.Name}} {{.Label \"drover.lease\"}}";
    let listed = Engine::shared().docker(&["volume", "ls", "--format", format, "--filter", &filter]);
    listed.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_mark_is_a_volume_at_the_engine() {
    let (one, other) = (group("marked").await, group("marked").await);
    let name = format!("marked-{}", std::process::id());
    assert_eq!(seen(&one).await, None);
    place(&one).mark(&lease("a", 1)).await.unwrap();
    assert_eq!(place(&one).seen(), None, "it counts when a listing shows it");
    assert_eq!(seen(&one).await, Some(lease("a", 1)));
    assert_eq!(seen(&other).await, Some(lease("a", 1)));
    assert_eq!(volumes(&name), [format!("drover.lease.{name}.1 {}", lease("a", 1))]);
    assert_eq!(seen(&group("marked-too").await).await, None, "another group is not concerned");

    place(&other).mark(&lease("b", 2)).await.unwrap();
    assert_eq!(seen(&one).await, Some(lease("b", 2)));
    assert_eq!(volumes(&name).len(), 1, "there is one at a time");

    // The command that people are told removes it, and nothing else.
    let told = Command::new("sh").args(["-c", &place(&one).removal()]).output().expect("a shell");
    assert!(told.status.success(), "{told:?}");
    assert_eq!(seen(&one).await, None);
    assert_eq!(volumes(&name), [""; 0]);
    // What is not there can be removed.
    place(&other).unmark().await.unwrap();
    place(&one).mark(&lease("a", 3)).await.unwrap();
    assert_eq!(seen(&one).await, Some(lease("a", 3)));
    place(&one).unmark().await.unwrap();
    assert_eq!(volumes(&name), [""; 0]);
}

#[tokio::test]
async fn of_managers_that_write_their_marks_at_the_same_time_one_succeeds() {
    let groups: Vec<DockerGroup> = futures_util::future::join_all((0..8).map(|_| group("raced"))).await;
    for round in 1..4 {
        for group in &groups {
            group.update().await.unwrap();
        }
        let managers = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let writes = groups.iter().zip(managers).map(|(group, manager)| async move {
            place(group).mark(&lease(manager, round)).await.map(|()| manager)
        });
        let written = futures_util::future::join_all(writes).await;
        let winners: Vec<&str> = written.iter().filter_map(|outcome| outcome.clone().ok()).collect();
        let [winner] = winners[..] else { panic!("round {round}: {written:?}") };
        for outcome in &written {
            let refused = matches!(outcome, Err(GroupError::Transient { message }) if message.contains("another manager"));
            assert!(outcome.is_ok() || refused, "{outcome:?}");
        }
        assert_eq!(seen(&groups[0]).await, Some(lease(winner, round)));
    }
    for group in &groups {
        group.update().await.unwrap();
        place(group).unmark().await.unwrap();
    }
}

#[tokio::test]
async fn two_processes_that_are_the_same_cannot_both_write_one_mark() {
    let (one, twin) = (group("twins").await, group("twins").await);
    for group in [&one, &twin] {
        group.update().await.unwrap();
    }
    place(&one).mark(&lease("a", 1)).await.unwrap();
    assert!(place(&twin).mark(&lease("a", 1)).await.is_err());
    one.update().await.unwrap();
    place(&one).unmark().await.unwrap();
}

#[tokio::test]
async fn a_group_that_was_taken_over_since_the_last_listing_is_not_changed() {
    let (one, other) = (group("taken").await, group("taken").await);
    place(&one).mark(&lease("a", 1)).await.unwrap();
    let grown = one.increase(1).await;
    assert_eq!((grown.done, grown.error), (1, None));
    let ids: Vec<_> = one.update().await.unwrap().into_iter().map(|line| line.id).collect();
    other.update().await.unwrap();
    place(&other).mark(&lease("b", 2)).await.unwrap();
    let grown = one.increase(1).await;
    let Some(GroupError::Transient { message }) = &grown.error else { panic!("{grown:?}") };
    assert!(message.contains("taken over by entry `build` of manager b"), "{message}");
    let shrunk = one.decrease(&ids).await;
    assert!(shrunk.error.is_some() && shrunk.done.is_empty(), "{shrunk:?}");
    let listed: Vec<_> = other.update().await.unwrap().into_iter().map(|line| line.id).collect();
    assert_eq!(listed, ids);
    assert_eq!(other.decrease(&ids).await.done, ids);
    place(&other).unmark().await.unwrap();
    while !other.update().await.unwrap().is_empty() {
        other.changed().await;
    }
}

#[tokio::test]
async fn the_doctor_sees_the_engine_the_image_and_whose_the_group_is() {
    let one = group("examined").await;
    place(&one).mark(&lease("a", 1)).await.unwrap();
    let doctor = DockerGroup::new(Config {
        host: Engine::shared().host(),
        ..Config::new(&format!("examined-{}", std::process::id()), "nobody/has-this:1")
    });
    let findings = doctor.diagnose().await;
    let said: Vec<_> = findings.iter().map(|found| (found.check.as_str(), found.severity)).collect();
    assert_eq!(said, [("docker/engine", Severity::Good), ("docker/image", Severity::Notice)]);
    assert!(findings[1].repair.ends_with(" pull nobody/has-this:1"), "{findings:?}");
    assert_eq!(doctor.lease().and_then(GroupLease::seen), Some(lease("a", 1)));
    one.update().await.unwrap();
    place(&one).unmark().await.unwrap();

    let absent =
        DockerGroup::new(Config { host: "unix:///nowhere/engine.sock".into(), ..Config::new("x", "box:1") });
    let findings = absent.diagnose().await;
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Error), "{findings:?}");
}

/// A GitLab with one runner that several managers serve, each in a folder of its own.
struct Stage {
    gitlab: GitlabMock,
    runner: gitlab_mock::Runner,
}

impl Stage {
    async fn runs_a_job(&self) {
        let job = self.gitlab.enqueue(&self.runner, plain("job").script(["echo hello"]));
        let view = job.finished(PATIENCE).await.expect("the job ends");
        assert_eq!(view.state, JobState::Success, "{}", job.log_text());
    }

    fn manager(&self, system_id: &str, entry: Entry) -> Drover {
        Drover::start_as(&Setup::new().runner(entry), self.gitlab.url(), system_id)
    }
}

#[tokio::test]
async fn a_second_manager_of_one_group_stands_by_until_the_first_stops() {
    let instances = Instances::new("two");
    let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
    let runner = gitlab.add_runner(&format!("glrt-{}-0123456789abcdef", instances.group()));
    let stage = Stage { gitlab, runner };
    let entry = || {
        instances
            .entry()
            .set("autoscaler.group_lease_ttl", "2m")
            .set("autoscaler.delete_instances_on_shutdown", true)
    };
    let mut first = stage.manager(FIRST, entry());
    stage.runs_a_job().await;
    let made = instances.names();
    let mark = volumes(instances.group());
    assert!(mark.len() == 1 && mark[0].contains(FIRST), "{mark:?}");

    let mut second = stage.manager(SECOND, entry());
    second.program.says(&["another manager holds the instance group", FIRST]).await;
    stage.runs_a_job().await;
    assert!(!second.program.said().contains("Checking for jobs... received"), "{}", second.program.said());
    assert_eq!(instances.names(), made, "nobody has scaled but the first");

    first.program.signal(Signal::SIGQUIT);
    assert_eq!(first.program.ends().await, Some(0));
    second.program.says(&["the instance group is taken over from entry", FIRST]).await;
    stage.runs_a_job().await;
    second.program.signal(Signal::SIGQUIT);
    assert_eq!(second.program.ends().await, Some(0));
    assert_eq!((instances.names().len(), volumes(instances.group()).len()), (0, 0));
}

//! The helper gets onto the instance: once, whole, checked, and only for jobs that need it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use drover_tests::{Sshd, World, bin};
use gitlab_mock::JobBuilder;

use crate::world::{Binaries, files, with_artifact};

/// The command of the helper whose first `--version` says that it is another program.
const INSTALLING: &str = "installing drover-helper";

fn uploads(world: &World) -> usize {
    world.log.text().lines().filter(|line| line.contains(INSTALLING) && line.contains("from=")).count()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_job_that_needs_no_helper_does_not_pay_for_one() {
    let (sshd, binaries) = (Sshd::start(), Binaries::new());
    let world = binaries.world(&sshd).await;

    world.run(JobBuilder::new("plain").script(["true"])).await.succeeded().says_not("drover-helper");

    assert!(!sshd.home().join(".drover").exists());
    assert_eq!(uploads(&world), 0);
    world.stop().await;
}

#[tokio::test]
async fn jobs_that_start_at_once_share_one_upload_and_later_ones_find_it() {
    let (sshd, binaries) = (Sshd::start(), Binaries::new());
    let world = binaries.world(&sshd).await;

    let jobs: Vec<_> = (0..5).map(|number| world.enqueue(with_artifact(&format!("job-{number}")))).collect();
    let mut said = 0;
    for job in &jobs {
        let finished = world.finished(job).await.succeeded().says_not("Missing");
        said += usize::from(finished.log.contains("Installed drover-helper 0.1.0 ("));
        assert_eq!(job.artifacts().len(), 1);
    }

    assert_eq!((said, uploads(&world)), (1, 1));
    let folder = sshd.home().join(".drover");
    let installed = files(&folder);
    assert_eq!(installed.len(), 1, "{installed:?}");
    assert_eq!((mode(&folder) & 0o022, mode(&installed[0])), (0, 0o755));
    assert!(std::fs::read(&installed[0]).unwrap() == std::fs::read(binaries.path()).unwrap());

    // What one job has made, another one gets.
    let later = JobBuilder::new("later").needs(&jobs[3]).script(["cat made.txt"]);
    world.run(later).await.succeeded().has_line("made by job-3").says_not("Installed");
    assert_eq!(uploads(&world), 1);
    world.stop().await;

    // A manager that is started again finds it as well.
    let again = binaries.world(&sshd).await;
    again.run(with_artifact("again")).await.succeeded().says_not("Installed");
    assert_eq!(uploads(&again), 0);
    again.stop().await;
}

#[tokio::test]
async fn a_helper_that_was_tampered_with_is_replaced() {
    let (sshd, binaries) = (Sshd::start(), Binaries::new());
    let world = binaries.world(&sshd).await;
    world.run(with_artifact("first")).await.succeeded();
    world.stop().await;
    let installed = files(&sshd.home().join(".drover")).remove(0);
    std::fs::write(&installed, "#!/bin/sh\nexit 0\n").unwrap();

    let world = binaries.world(&sshd).await;
    world.run(with_artifact("second")).await.succeeded().says("Installed drover-helper");
    assert!(std::fs::read(&installed).unwrap() == std::fs::read(binaries.path()).unwrap());
    world.stop().await;
}

#[tokio::test]
async fn a_helper_that_does_not_run_there_leaves_nothing_and_the_job_says_what_it_lacks() {
    let sshd = Sshd::start();
    let binaries = Binaries::with(|path| {
        std::fs::write(path, "#!/bin/sh\necho no such processor >&2; exit 1\n").unwrap()
    });
    let world = binaries.world(&sshd).await;

    let job = world.enqueue(with_artifact("job"));
    world
        .finished(&job)
        .await
        .succeeded()
        .says("drover-helper cannot be installed on instance")
        .says("no such processor")
        .says("Missing gitlab-runner. Uploading artifacts is disabled.");

    assert_eq!(files(&sshd.home().join(".drover")), Vec::<std::path::PathBuf>::new());
    assert!(job.artifacts().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_folder_that_is_only_a_link_is_not_used() {
    let (sshd, binaries) = (Sshd::start(), Binaries::new());
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), sshd.home().join(".drover")).unwrap();
    let world = binaries.world(&sshd).await;

    world.run(with_artifact("job")).await.succeeded().says("is not a folder of this user");

    assert!(files(elsewhere.path()).is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_configured_helper_is_used_as_it_is() {
    let (sshd, binaries) = (Sshd::start(), Binaries::new());
    let entry = binaries.entry(&sshd).set("helper.command", bin("drover").display().to_string());
    let world = drover_tests::Setup::new().runner(entry).start().await;

    let job = world.enqueue(with_artifact("job"));
    world.finished(&job).await.succeeded().says_not("Missing");

    assert_eq!(job.artifacts().len(), 1);
    assert_eq!(uploads(&world), 0);
    assert!(!sshd.home().join(".drover").exists());
    world.stop().await;
}

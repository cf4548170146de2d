//! Artifacts from one job to another, by the helper beside each.

use gitlab_mock::{ArtifactSpec, JobBuilder};

use crate::s3::Fleet;

#[tokio::test]
async fn artifacts_and_reports_reach_gitlab_and_the_job_that_needs_them() {
    let fleet = Fleet::start().await;
    let binaries = ArtifactSpec {
        exclude: vec!["out/**/*.o".into()],
        expire_in: Some("1 week".into()),
        ..ArtifactSpec::archive("binaries-$CI_JOB_ID", ["out/"])
    };
    let failed = ArtifactSpec { when: "on_failure".into(), ..ArtifactSpec::archive("never", ["out/"]) };
    let build = JobBuilder::new("build")
        .script([
            "mkdir -p out/deep",
            "echo made > out/deep/tool",
            "echo half > out/deep/tool.o",
            "ln -s deep/tool out/link",
            "ln -s /etc/hostname out/away",
            "echo '<testsuite/>' > junit.xml",
            "echo NAME=value > build.env",
        ])
        .artifact(binaries)
        .artifact(failed)
        .artifact(ArtifactSpec::report("junit", ["junit.xml"]))
        .artifact(ArtifactSpec::report("dotenv", ["build.env"]))
        .variable("RUNNER_GENERATE_ARTIFACTS_METADATA", "true");
    let first = fleet.world.gitlab.enqueue(&fleet.world.runners[0], build);
    fleet
        .world
        .finished(&first)
        .await
        .succeeded()
        .says("Uploading artifacts as \"junit\" to coordinator... 201 Created")
        .says("out/**/*.o: excluded 1 files");
    let stored = first.artifacts();
    let named: Vec<_> =
        stored.iter().map(|one| (one.view.artifact_type.as_str(), one.view.filename.clone())).collect();
    let archive = format!("binaries-{}.zip", first.id());
    assert_eq!(
        named,
        [("archive", archive), ("junit", "artifacts.gz".to_owned()), ("dotenv", "artifacts.gz".to_owned())]
    );

    let test = JobBuilder::new("test")
        .script([
            "cat out/link",
            "test ! -e out/deep/tool.o",
            "readlink out/away",
            "grep -c sha256 binaries-*-metadata.json",
        ])
        .needs(&first);
    let second = fleet.world.gitlab.enqueue(&fleet.world.runners[1], test);
    fleet
        .world
        .finished(&second)
        .await
        .succeeded()
        .has_line(&format!("Downloading artifacts for build ({})...", first.id()))
        .has_line("made")
        .has_line("/etc/hostname")
        .has_line("1");
    fleet.world.stop().await;
}

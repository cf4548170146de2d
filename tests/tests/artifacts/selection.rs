//! Which files become artifacts, of which jobs.

use drover_tests::Finished;
use gitlab_mock::{ArtifactSpec, Job, JobBuilder};

use crate::world::{Bench, artifact, stored, zip_names};

async fn run(bench: &Bench, job: JobBuilder) -> (Job, Finished) {
    let job = bench.world.enqueue(job);
    let finished = bench.world.finished(&job).await;
    (job, finished)
}

fn names(job: &Job) -> Vec<String> {
    zip_names(&artifact(job, "archive").data)
}

#[tokio::test]
async fn patterns_choose_and_excludes_take_away() {
    let bench = Bench::start().await;
    let spec = ArtifactSpec {
        exclude: vec!["**/*.o".into(), "out/private/**/*".into()],
        ..ArtifactSpec::archive("", ["out/", "log/**/*.txt", "*.{md,rst}"])
    };
    let script = [
        "mkdir -p out/private log/deep",
        "touch out/a.c out/a.o out/private/key log/one.txt log/deep/two.txt log/deep/two.bin",
        "touch READ.md READ.rst READ.html",
    ];
    let (job, ended) = run(&bench, JobBuilder::new("choose").script(script).artifact(spec)).await;
    ended.succeeded().says("**/*.o: excluded 1 files").says("*.{md,rst}: found 2 matching");
    let found: Vec<_> = names(&job).into_iter().filter(|name| !name.ends_with('/')).collect();
    assert_eq!(found, ["READ.md", "READ.rst", "log/deep/two.txt", "log/one.txt", "out/a.c"]);
    bench.world.stop().await;
}

#[tokio::test]
async fn what_git_does_not_track_is_one_word() {
    let bench = Bench::start().await;
    let repository = bench.world.gitlab.create_repository("harbour/ferry").await.unwrap();
    let files = [("tracked", "1\n"), (".gitignore", "*.log\n")];
    repository.commit("main", files, "first").await.unwrap();
    let spec = ArtifactSpec {
        untracked: true,
        exclude: vec!["secret".into()],
        ..ArtifactSpec::archive("", Vec::<String>::new())
    };
    let script = ["mkdir new; touch new/file ignored.log secret", "echo 2 >tracked"];
    let job = JobBuilder::new("untracked").repository(&repository).script(script).artifact(spec);
    let (job, ended) = run(&bench, job).await;
    ended.succeeded().says("untracked: found 2 files").says("secret: excluded 1 files");
    let found: Vec<_> = names(&job).into_iter().filter(|name| !name.ends_with('/')).collect();
    assert_eq!(found, ["ignored.log", "new/file"]);
    bench.world.stop().await;
}

#[tokio::test]
async fn each_result_has_the_artifacts_that_are_meant_for_it() {
    let bench = Bench::start().await;
    for (end, reason, expected) in [
        ("exit 0", None, &["archive", "sast"][..]),
        ("exit 9", Some(("script_failure", Some(9))), &["junit", "sast"][..]),
    ] {
        let when = |when: &str, kind: &str, format: &str| ArtifactSpec {
            when: when.into(),
            artifact_type: kind.into(),
            artifact_format: format.into(),
            ..ArtifactSpec::archive("", ["file"])
        };
        let job = JobBuilder::new(end)
            .script(["echo 1 >file", end])
            .artifact(when("on_success", "archive", "zip"))
            .artifact(when("on_failure", "junit", "gzip"))
            .artifact(when("always", "sast", "raw"));
        let (job, ended) = run(&bench, job).await;
        match reason {
            None => ended.succeeded(),
            Some((reason, code)) => ended.failed(reason, code),
        };
        let kinds: Vec<_> = stored(&job).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, expected, "{end}");
    }
    bench.world.stop().await;
}

#[tokio::test]
async fn files_that_are_not_there_are_named_and_fail_nothing() {
    let bench = Bench::start().await;
    let job = JobBuilder::new("half").script(["echo 1 >there", "echo 2 >other"]);
    let (half, ended) = run(&bench, job.artifact(ArtifactSpec::archive("", ["there", "absent/*.txt"]))).await;
    ended.succeeded().says(
        "WARNING: absent/*.txt: no matching files. Ensure that the artifact path is relative to the working directory",
    );
    assert_eq!(names(&half), ["there"]);

    let none = JobBuilder::new("none").script(["true"]).artifact(ArtifactSpec::archive("", ["absent"]));
    let (none, ended) = run(&bench, none).await;
    ended.succeeded().says("ERROR: No files to upload");
    assert_eq!(none.artifacts().len(), 0);
    bench.world.stop().await;
}

#[tokio::test]
async fn what_is_outside_of_the_project_stays_there() {
    let bench = Bench::start().await;
    let outside = bench.world.folder().join("outside");
    std::fs::write(&outside, "not yours\n").unwrap();
    let paths = ["inside", "../outside", &outside.display().to_string()].map(str::to_owned);
    let script = ["echo 1 >inside", "mkdir -p .ssh", "pwd"];
    let (job, ended) =
        run(&bench, JobBuilder::new("out").script(script).artifact(ArtifactSpec::archive("", paths))).await;
    ended.succeeded().says("artifact path is not a subpath of project directory");
    assert_eq!(names(&job), ["inside"]);
    bench.world.stop().await;
}

#[tokio::test]
async fn an_after_script_can_still_make_and_a_cancelled_job_still_leaves_artifacts() {
    let bench = Bench::start().await;
    let job = JobBuilder::new("after").script(["true"]).after_script(["echo late >late"]);
    let (late, ended) = run(&bench, job.artifact(ArtifactSpec::archive("", ["late"]))).await;
    ended.succeeded();
    assert_eq!(names(&late), ["late"]);

    let always = ArtifactSpec { when: "always".into(), ..ArtifactSpec::archive("", ["early"]) };
    let script = ["echo early >early", "while true; do echo tick; sleep 0.3; done"];
    let job = bench.world.enqueue(JobBuilder::new("canceled").script(script).artifact(always));
    bench.world.says(&job, "tick").await;
    job.cancel();
    bench.world.finished(&job).await.canceled();
    assert_eq!(names(&job), ["early"]);
    bench.world.stop().await;
}

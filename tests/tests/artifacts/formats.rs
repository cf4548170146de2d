//! What an artifact is made of, and what GitLab is told about it.

use gitlab_mock::{ArtifactSpec, JobBuilder};

use crate::world::{Bench, artifact, gunzip, stored, zip_names};

fn format(format: &str, kind: &str, paths: &[&str]) -> ArtifactSpec {
    ArtifactSpec {
        artifact_format: format.to_owned(),
        artifact_type: kind.to_owned(),
        ..ArtifactSpec::archive("", paths.to_vec())
    }
}

#[tokio::test]
async fn a_zip_archive_keeps_folders_modes_and_links() {
    let bench = Bench::start().await;
    let script = [
        "mkdir -p out/empty 'out/two words'",
        "echo tool >out/tool; chmod 750 out/tool",
        "echo ä >'out/two words/ä.txt'; ln -s tool out/link",
    ];
    let make = JobBuilder::new("make").script(script).artifact(ArtifactSpec::archive("tree", ["out"]));
    let make = bench.world.enqueue(make);
    bench
        .world
        .finished(&make)
        .await
        .succeeded()
        .says("out: found 6 matching artifact files and directories");
    let archive = artifact(&make, "archive");
    assert_eq!(archive.view.filename, "tree.zip");
    let names = ["out/", "out/empty/", "out/link", "out/tool", "out/two words/", "out/two words/ä.txt"];
    assert_eq!(zip_names(&archive.data), names);

    let look = ["stat -c '%A %n' out/tool", "readlink out/link", "ls -d out/empty", "cat out/two*/*"];
    let look = JobBuilder::new("look").script(look).needs(&make);
    let look = bench.world.run(look.variable("GIT_STRATEGY", "empty")).await.succeeded();
    look.has_line("-rwxr-x--- out/tool").has_line("tool").has_line("out/empty").has_line("ä");
    bench.world.stop().await;
}

#[tokio::test]
async fn other_formats_of_archives_are_read_back() {
    let bench = Bench::start().await;
    for (name, extension) in [("zipzstd", "zip"), ("tarzstd", "tar.zst")] {
        let make = JobBuilder::new(name).script(["mkdir -p out", "echo in $CI_JOB_NAME >out/file"]);
        let make = bench.world.enqueue(make.artifact(format(name, "archive", &["out"])));
        bench.world.finished(&make).await.succeeded();
        assert_eq!(stored(&make), [("archive".to_owned(), format!("artifacts.{extension}"))]);
        let look = JobBuilder::new("look").script(["cat out/file"]).needs(&make);
        let look = bench.world.run(look.variable("GIT_STRATEGY", "empty")).await.succeeded();
        look.has_line(&format!("in {name}"));
    }
    bench.world.stop().await;
}

#[tokio::test]
async fn a_report_of_several_files_is_all_of_them_compressed() {
    let bench = Bench::start().await;
    let script = ["for n in 1 2; do echo \"<testsuite id='$n'/>\" >TEST-$n.xml; done", "echo A=b >build.env"];
    let job = JobBuilder::new("reports").script(script);
    let job = job.artifact(ArtifactSpec::report("junit", ["TEST-*.xml"]));
    let job = bench.world.enqueue(job.artifact(ArtifactSpec::report("dotenv", ["build.env"])));
    let ended = bench.world.finished(&job).await.succeeded();
    ended
        .says("Uploading artifacts as \"junit\" to coordinator... 201 Created")
        .says("Uploading artifacts as \"dotenv\" to coordinator... 201 Created");
    assert_eq!(gunzip(&artifact(&job, "junit").data), "<testsuite id='1'/>\n<testsuite id='2'/>\n");
    assert_eq!(gunzip(&artifact(&job, "dotenv").data), "A=b\n");
    bench.world.stop().await;
}

#[tokio::test]
async fn a_raw_artifact_is_the_file_itself_under_its_own_name() {
    let bench = Bench::start().await;
    let job = JobBuilder::new("raw").script(["printf '{}' >gl-sast.json"]);
    let job = bench.world.enqueue(job.artifact(format("raw", "sast", &["gl-sast.json"])));
    bench.world.finished(&job).await.succeeded();
    let raw = artifact(&job, "sast");
    assert_eq!((raw.view.filename.as_str(), &raw.data[..]), ("gl-sast.json", &b"{}"[..]));

    // One file is all that this format can hold.
    let two = JobBuilder::new("two").script(["echo 1 >a; echo 2 >b"]);
    let two = bench.world.enqueue(two.artifact(format("raw", "sast", &["a", "b"])));
    bench.world.finished(&two).await.failed("script_failure", Some(1)).says("FATAL");
    assert_eq!(two.artifacts().len(), 0);
    bench.world.stop().await;
}

#[tokio::test]
async fn a_report_that_fails_its_job_is_uploaded_all_the_same() {
    let bench = Bench::start().await;
    let job = JobBuilder::new("tests").script(["echo '<testsuite/>' >junit.xml", "exit 5"]);
    let job = job.artifact(ArtifactSpec::report("junit", ["junit.xml"]));
    let job = bench.world.enqueue(job.artifact(ArtifactSpec::archive("never", ["junit.xml"])));
    let ended = bench.world.finished(&job).await.failed("script_failure", Some(5));
    ended.says("Uploading artifacts for failed job").ends_with("ERROR: Job failed: exit code 5");
    assert_eq!(stored(&job), [("junit".to_owned(), "artifacts.gz".to_owned())]);
    bench.world.stop().await;
}

#[tokio::test]
async fn gitlab_is_told_name_and_expiry_and_names_are_filled_in() {
    let bench = Bench::start().await;
    let named = |name: &str, expire_in: Option<&str>| {
        let spec = ArtifactSpec {
            expire_in: expire_in.map(str::to_owned),
            ..ArtifactSpec::archive(name, ["$WHAT.txt"])
        };
        let job = JobBuilder::new("named").variable("WHAT", "chart").script(["echo 1 >chart.txt"]);
        bench.world.enqueue(job.artifact(spec))
    };
    let full = named("$WHAT-of-$CI_JOB_NAME", Some("3 mins 4 sec"));
    let path = named("a/b/$WHAT", None);
    let empty = named("$NO_SUCH_VARIABLE", None);
    for (job, name, expire_in) in [
        (&full, "chart-of-named.zip", Some("3 mins 4 sec")),
        (&path, "chart.zip", None),
        (&empty, "default.zip", None),
    ] {
        bench.world.finished(job).await.succeeded();
        let view = artifact(job, "archive").view;
        assert_eq!((view.filename.as_str(), view.expire_in.as_deref()), (name, expire_in));
    }
    bench.world.stop().await;
}

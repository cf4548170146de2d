//! `helper_image`: images of GitLab Runner's layout, without anything of Drover's in them.

use std::process::Command;

use drover_tests::{Engine, Moto};
use gitlab_mock::{ArtifactSpec, CacheSpec, JobBuilder};
use serde_json::json;

use crate::{nothing_is_left, world};

const IMAGE: &str = "gitlab-runner-helper:x86_64-v19.3.0";
const BUCKET: &str = "caches";
const SAYS: &str = "as GitLab Runner's helper does it: ";

/// Makes the image: its entrypoint prepares and runs what it is given, its one program knows GitLab Runner's command line alone.
fn image() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let script = "mkdir root && tar -xf \"$0\" -C root && mkdir root/opt && mv root/usr/bin/drover-helper root/opt/mover && \
                  rm root/usr/bin/gitlab-runner-helper && install -m 755 \"$1\" root/usr/bin/gitlab-runner-helper && \
                  printf '#!/bin/bash\\numask 0000\\nexec /bin/bash\\n' >root/usr/bin/gitlab-runner-build && \
                  printf '#!/bin/bash\\nexport PREPARED=yes\\nexec \"$@\"\\n' >root/entrypoint && \
                  chmod 755 root/usr/bin/gitlab-runner-build root/entrypoint && \
                  tar -C root --owner=0 --group=0 --numeric-owner -cf image.tar .";
    let program = root.join("program");
    std::fs::write(&program, include_str!("foreign_helper.sh")).unwrap();
    let archive = Engine::shared().helper_archive();
    let made = Command::new("sh")
        .args(["-ec", script])
        .args([archive, &program])
        .current_dir(root)
        .status()
        .unwrap();
    assert!(made.success());
    let layers = root.join("image.tar").display().to_string();
    let changes = ["--change", "ENTRYPOINT [\"/entrypoint\"]", "--change", "CMD [\"sh\"]"];
    Engine::shared().docker(&[&["import"], &changes[..], &[&layers, IMAGE]].concat());
}

#[tokio::test]
async fn gitlab_runners_helper_is_called_as_gitlab_runner_calls_it() {
    image();
    let moto = Moto::start().await;
    moto.put(BUCKET, &[]).await;
    let world = world(|entry| {
        entry
            .set("docker.network_mode", "host")
            .set("docker.helper_image", IMAGE)
            .set("cache.Type", "s3")
            .set("cache.s3.ServerAddress", moto.address())
            .set("cache.s3.Insecure", true)
            .set("cache.s3.AccessKey", "AKIAOFTHEMANAGER")
            .set("cache.s3.SecretKey", "s3cr3t-of-the-manager")
            .set("cache.s3.BucketName", BUCKET)
            .set("cache.s3.BucketLocation", "us-east-1")
            .set("cache.MaxUploadedArchiveSize", 1_000_000)
    })
    .await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let cache = || CacheSpec { untracked: true, ..CacheSpec::new("key", ["store/"]) };
    let makes = world.enqueue(
        JobBuilder::new("makes")
            .repository(&repository)
            .variable("RUNNER_GENERATE_ARTIFACTS_METADATA", "true")
            .script([
                "cat number",
                "mkdir out store",
                "echo built >out/file",
                "echo kept >store/file",
                "echo '<x/>' >t.xml",
            ])
            .artifact(ArtifactSpec {
                exclude: vec!["out/*.o".to_owned()],
                expire_in: Some("1 week".to_owned()),
                ..ArtifactSpec::archive("made in $CI_JOB_NAME", ["out/"])
            })
            .artifact(ArtifactSpec::report("junit", ["t.xml"]))
            .cache(cache()),
    );
    let made = world.finished(&makes).await.succeeded().has_line("1").has_line("Created cache");
    assert_eq!(made.count(&format!("{SAYS}artifacts-uploader")), 2, "{}", made.log);
    let kinds: Vec<_> = made.view.artifacts.iter().map(|artifact| artifact.artifact_type.as_str()).collect();
    assert_eq!(kinds, ["archive", "junit"]);
    let archive = &makes.artifacts()[0];
    let names: Vec<_> = [&b"out/file"[..], b"made in makes-metadata.json"]
        .into_iter()
        .filter(|name| archive.data.windows(name.len()).any(|window| window == *name))
        .collect();
    assert_eq!(names.len(), 2, "the archive has the file and the statement about it");
    let uses = JobBuilder::new("uses")
        .repository(&repository)
        .variable("GIT_STRATEGY", "clone")
        .script(["cat out/file", "cat store/file"])
        .cache(cache())
        .needs(&makes);
    let used = world.run(uses).await.succeeded().has_line("built").has_line("kept");
    for command in ["artifacts-downloader", "cache-extractor", "cache-archiver"] {
        assert_eq!(used.count(&format!("{SAYS}{command}")), 1, "{command}: {}", used.log);
    }
    nothing_is_left(&world, used.view.id).await;
    world.stop().await;
}

#[tokio::test]
async fn gitlab_runners_helper_checks_services() {
    image();
    Engine::shared()
        .import(&["EXPOSE 8080", "CMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/etc\"]"], "served:1");
    let world = world(|entry| entry.set("docker.helper_image", IMAGE)).await;
    let job = JobBuilder::new("service")
        .service(json!({"name": "served:1", "alias": "site"}))
        .script(["wget -qO- http://site:8080/passwd | head -n 1"]);
    let job = world.run(job).await.succeeded().says_not("probably didn't start properly").says("root:x:0:0");
    nothing_is_left(&world, job.view.id).await;
    world.stop().await;
}

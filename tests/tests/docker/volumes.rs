//! `volumes` and the keys around it.

use drover_tests::{Engine, World};
use gitlab_mock::{CacheSpec, JobBuilder};
use serde_json::{Value, json};

use crate::{nothing_is_left, world};

fn job(script: &[&str]) -> JobBuilder {
    JobBuilder::new("volumes").variable("GIT_STRATEGY", "none").script(script.to_vec())
}

/// What the engine says of the volumes that a job of this world's runner made.
fn made(world: &World, job: u64) -> Vec<Value> {
    let token = world.runners[0].token();
    let short = token.trim_start_matches("glrt-").get(..9).unwrap();
    let runner = format!("label=com.gitlab.gitlab-runner.runner.id={short}");
    let id = format!("label=com.gitlab.gitlab-runner.job.id={job}");
    let names = Engine::shared().docker(&["volume", "ls", "-q", "--filter", &runner, "--filter", &id]);
    names.lines().map(|name| Engine::shared().inspect("volume", name)).collect()
}

#[tokio::test]
async fn variables_in_destinations_are_expanded_and_the_volume_survives_to_the_next_job() {
    let world =
        world(|entry| entry.set("docker.volumes", vec!["/store/$CI_JOB_NAME/deep", "relative"])).await;
    world
        .run(job(&[
            "echo kept >/store/volumes/deep/file",
            "echo in the project >\"$CI_PROJECT_DIR/relative/file\"",
        ]))
        .await
        .succeeded();
    let again = world.run(job(&["cat /store/volumes/deep/file relative/file"])).await.succeeded();
    again.has_line("kept").has_line("in the project");
    world.stop().await;
}

#[tokio::test]
async fn jobs_of_protected_refs_have_cache_volumes_of_their_own() {
    let world = world(|entry| entry.set("docker.volumes", vec!["/cache"])).await;
    let with_key = |key: &str| job(&["true"]).cache(CacheSpec::new(key, ["nothing"]));
    let cases = [
        (job(&["true"]).with_member("/git_info/protected", json!(true)), true),
        (job(&["true"]).with_member("/git_info/protected", json!(false)), false),
        (
            job(&["true"]).without_member("/git_info/protected").variable("CI_COMMIT_REF_PROTECTED", "true"),
            true,
        ),
        (with_key("key-protected").with_member("/git_info/protected", json!(false)), true),
        (with_key("key-non_protected").with_member("/git_info/protected", json!(false)), false),
        // GitLab's word on the ref counts more than a variable.
        (
            job(&["true"])
                .with_member("/git_info/protected", json!(false))
                .variable("CI_COMMIT_REF_PROTECTED", "true"),
            false,
        ),
    ];
    let jobs: Vec<_> = cases.into_iter().map(|(job, protected)| (world.enqueue(job), protected)).collect();
    for (job, protected) in jobs {
        let id = world.finished(&job).await.succeeded().view.id;
        let volumes = made(&world, id);
        let volume = volumes.iter().find(|volume| {
            volume.pointer("/Labels/com.gitlab.gitlab-runner.destination") == Some(&json!("/cache"))
        });
        let volume = volume.unwrap_or_else(|| panic!("job {id}: {volumes:?}"));
        let name = volume["Name"].as_str().unwrap();
        assert_eq!(name.ends_with("-protected"), protected, "job {id}: {name}");
        let label = volume.pointer("/Labels/com.gitlab.gitlab-runner.protected");
        assert_eq!(label, Some(&json!(protected.to_string())), "job {id}");
    }
    world.stop().await;
}

#[tokio::test]
async fn the_driver_of_volumes_and_its_options_reach_the_engine() {
    let world = world(|entry| {
        entry
            .set("docker.volumes", vec!["/cache"])
            .set("docker.volume_driver", "local")
            .set("docker.volume_driver_ops.type", "tmpfs")
            .set("docker.volume_driver_ops.device", "tmpfs")
            .set("docker.volume_driver_ops.o", "size=2m,mode=1777")
    })
    .await;
    let finished = world.run(job(&["grep ' /cache ' /proc/mounts"])).await.succeeded().says("size=2048k");
    let volumes = made(&world, finished.view.id);
    let options = json!({"type": "tmpfs", "device": "tmpfs", "o": "size=2m,mode=1777"});
    assert_eq!(volumes[0]["Driver"], "local");
    assert_eq!(volumes[0]["Options"], options);
    world.stop().await;
}

#[tokio::test]
async fn a_user_who_is_not_root_may_write_to_every_kind_of_cache_volume() {
    Engine::shared().import(&["USER user"], "user:1");
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().display().to_string();
    for (cache_dir, disable_cache) in [("", false), (below.as_str(), false), ("", true)] {
        let world = world(|entry| {
            entry
                .set("docker.volumes", vec!["/cache"])
                .set("docker.cache_dir", cache_dir)
                .set("docker.disable_cache", disable_cache)
        })
        .await;
        let job =
            || job(&["[ -e /cache/file ] && echo found it", "echo mine >/cache/file; stat -c %a /cache"]);
        let first = world.run(job().image("user:1")).await.succeeded().lacks_line("found it").has_line("777");
        nothing_is_left(&world, first.view.id).await;
        let second = world.run(job().image("user:1")).await.succeeded();
        assert_eq!(second.count("found it"), usize::from(!disable_cache), "{cache_dir} {disable_cache}");
        nothing_is_left(&world, second.view.id).await;
        world.stop().await;
    }
    // cache_dir/<owner>/<md5 of /cache>[-protected]/file
    let owner = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    assert!(owner.file_name().unwrap().to_str().unwrap().starts_with("runner-"), "{owner:?}");
    let file = owner.join("3c3f060a0374fc8bc39395164f415a70-protected/file");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine\n");
}

#[tokio::test]
async fn anonymous_volumes_go_with_their_containers_unless_they_are_kept() {
    let engine = Engine::shared();
    engine.import(&["VOLUME /data"], "data:1");
    for keep in [false, true] {
        let world = world(|entry| entry.set("docker.volume_keep", keep)).await;
        let marker = format!("kept-{keep}-{}", std::process::id());
        let job = job(&[&format!("echo {marker} >/data/{marker}"), "grep ' /data ' /proc/self/mountinfo"]);
        let finished = world.run(job.image("data:1")).await.succeeded();
        nothing_is_left(&world, finished.view.id).await;
        // .../volumes/<name>/_data /data ...
        let name = finished.log.split("/volumes/").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
        assert_eq!(engine.try_docker(&["volume", "inspect", name]), keep, "{name}");
        world.stop().await;
    }
}

#[tokio::test]
async fn specifications_that_make_no_sense_are_refused_with_the_entry() {
    let world = world(|entry| entry.set("docker.volumes", vec!["/a", "/x/../a"])).await;
    let why = "volume for container path \\\"/a\\\" is already defined";
    world.logs(&["this runner entry takes no jobs", why]).await;
    world.stop().await;
}

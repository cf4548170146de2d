//! What the helper container does: checkouts, caches, artifacts.

use drover_tests::Engine;
use gitlab_mock::{ArtifactSpec, CacheSpec, JobBuilder};

use crate::{nothing_is_left, world};

#[tokio::test]
async fn a_checkout_is_kept_for_the_next_job_and_belongs_to_everybody() {
    Engine::shared().import(&["USER user"], "user:1");
    let world = world(|entry| entry.set("docker.network_mode", "host")).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let job = |strategy: &str| {
        let script = ["cat number", "ls -A", "touch litter", "echo changed >number"];
        let job = JobBuilder::new(strategy).repository(&repository).image("user:1").script(script);
        world.run(job.variable("GIT_STRATEGY", strategy))
    };
    job("fetch").await.succeeded().says("Running on runner-").has_line("1").lacks_line("litter");
    job("fetch").await.succeeded().says("Removing litter").has_line("1");
    let cloned = job("clone").await.succeeded().says_not("Removing litter").has_line("1");
    nothing_is_left(&world, cloned.view.id).await;
    world.stop().await;
}

/// What Git LFS keeps beside the repository, and its name there.
const BALLAST: (&str, &str) =
    ("ballast\n", "b35b903d7184ce23c41558c96937f685e436b864f032c3ef4628ff61b8080476");

#[tokio::test]
async fn files_of_git_lfs_are_there_as_files() {
    // A store that git-lfs reaches without a server: a repository that the helper has mounted.
    let store = tempfile::tempdir().unwrap();
    drover_tests::git(store.path(), &["init", "--quiet", "--bare", "."]);
    let (content, oid) = BALLAST;
    let object = store.path().join("lfs/objects").join(&oid[..2]).join(&oid[2..4]);
    std::fs::create_dir_all(&object).unwrap();
    std::fs::write(object.join(oid), content).unwrap();
    let volume = format!("{}:/store:ro", store.path().display());
    let world =
        world(|entry| entry.set("docker.network_mode", "host").set("docker.volumes", vec![volume])).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n", content.len());
    let files = [
        (".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n"),
        (".lfsconfig", "[lfs]\n\turl = file:///store\n"),
        ("hold.bin", &pointer),
    ];
    repository.commit("main", files, "ballast").await.unwrap();
    let job = JobBuilder::new("lfs")
        .repository(&repository)
        .variable("GIT_STRATEGY", "clone")
        .script(["cat hold.bin"]);
    world.run(job.clone()).await.succeeded().has_line("ballast").says_not("oid sha256");
    let unwanted = job.variable("GIT_LFS_SKIP_SMUDGE", "1");
    world.run(unwanted).await.succeeded().lacks_line("ballast").says(&format!("oid sha256:{oid}"));
    world.stop().await;
}

#[tokio::test]
async fn the_helper_goes_when_the_commands_begin_unless_it_saves_something_after_them() {
    let world = world(|entry| entry.set("docker.network_mode", "host")).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let job = |name: &str| {
        JobBuilder::new(name)
            .repository(&repository)
            .variable("GIT_STRATEGY", "clone")
            .script(["cat number", "echo started; sleep 1000"])
    };
    let plain = world.enqueue(job("plain"));
    let saves = world.enqueue(job("saves").artifact(ArtifactSpec::archive("made", ["number"])));
    let has_helper = |id: u64| {
        let belongings = Engine::shared().belongings(&world.runners[0].token(), id);
        belongings.iter().any(|name| name.ends_with("-predefined"))
    };
    world.says(&plain, "started\n").await;
    world.says(&saves, "started\n").await;
    drover_tests::eventually("the helper with nothing left to do is gone", || !has_helper(plain.id())).await;
    assert!(has_helper(saves.id()));
    for job in [&plain, &saves] {
        job.cancel();
        let job = world.finished(job).await.canceled().has_line("1");
        nothing_is_left(&world, job.view.id).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn caches_and_artifacts_pass_through_the_helper() {
    let world =
        world(|entry| entry.set("docker.network_mode", "host").set("docker.volumes", vec!["/cache"])).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let first = world.enqueue(
        JobBuilder::new("makes")
            .repository(&repository)
            .script(["mkdir -p out store", "echo built >out/file", "echo kept >store/file"])
            .artifact(ArtifactSpec::archive("made", ["out/"]))
            .cache(CacheSpec::new("key", ["store/"])),
    );
    world.finished(&first).await.succeeded();
    world
        .run(
            JobBuilder::new("uses")
                .repository(&repository)
                .variable("GIT_STRATEGY", "clone")
                .script(["cat out/file", "cat store/file"])
                .cache(CacheSpec::new("key", ["store/"]))
                .needs(&first),
        )
        .await
        .succeeded()
        .has_line("built")
        .has_line("kept");
    world.stop().await;
}

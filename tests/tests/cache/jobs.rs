//! What users see of caches: saved by one job, restored by the next, on another machine.

use drover_tests::{Entry, Finished};
use gitlab_mock::{CacheSpec, Job, JobBuilder};

use crate::s3::{ACCESS, Fleet, SECRET};

/// Makes `deps/` with a file, as one that installs does.
fn saves(cache: CacheSpec) -> JobBuilder {
    let script = [
        "mkdir -p deps/bin",
        "echo from the first job > deps/file",
        "echo tool > deps/bin/tool",
        "chmod 755 deps/bin/tool",
    ];
    JobBuilder::new("saves").script(script).cache(cache)
}

/// Says what it finds in `deps/`, and all of its environment.
fn restores(cache: CacheSpec) -> JobBuilder {
    let script =
        ["cat deps/file || echo nothing is there", "test ! -e deps/file || test -x deps/bin/tool", "env"];
    JobBuilder::new("restores").script(script).cache(cache)
}

fn deps(key: &str) -> CacheSpec {
    CacheSpec::new(key, ["deps/"])
}

// === impl Fleet ===

impl Fleet {
    async fn on_first(&self, job: JobBuilder) -> Finished {
        self.on(0, job).await
    }

    async fn on_second(&self, job: JobBuilder) -> Finished {
        self.on(1, job).await
    }

    async fn on(&self, machine: usize, job: JobBuilder) -> Finished {
        let job: Job = self.world.gitlab.enqueue(&self.world.runners[machine], job);
        self.world.finished(&job).await
    }
}

#[tokio::test]
async fn a_cache_is_restored_on_another_machine_without_a_credential() {
    let fleet = Fleet::start().await;
    fleet
        .on_first(saves(deps("main")))
        .await
        .succeeded()
        .has_line("Checking cache for main...")
        .says("Failed to extract cache")
        .has_line("Creating cache main...")
        .has_line("Created cache");
    assert!(fleet.moto.get(&Fleet::object("main")).await.is_some(), "{}", fleet.moto.requests());

    fleet
        .on_second(restores(deps("main")))
        .await
        .succeeded()
        .has_line("Checking cache for main...")
        .says("Downloading cache.zip from http://")
        .has_line("Successfully extracted cache")
        .has_line("from the first job")
        .says_not(SECRET)
        .says_not(ACCESS)
        .says_not("X-Amz-");
    // What is up to date is not sent over the network again.
    let before = fleet.moto.requests();
    fleet.on_second(restores(deps("main"))).await.succeeded().has_line("cache.zip is up to date");
    let after = fleet.moto.requests();
    assert_eq!(before.matches("PUT /caches/ci").count(), after.matches("PUT /caches/ci").count(), "{after}");
    fleet.world.stop().await;
}

#[tokio::test]
async fn fallback_keys_are_tried_in_their_order_and_protected_ones_are_not_reached_by_a_variable() {
    let fleet = Fleet::start().await;
    fleet.on_first(saves(deps("main-protected"))).await.succeeded();
    fleet.on_first(saves(deps("main-non_protected"))).await.succeeded();

    let fallback = CacheSpec {
        fallback_keys: vec!["nothing".into(), "main-non_protected".into(), "main-protected".into()],
        ..deps("branch-non_protected")
    };
    fleet
        .on_second(restores(fallback))
        .await
        .succeeded()
        .has_line("Checking cache for branch-non_protected...")
        .has_line("Checking cache for nothing...")
        .has_line("Checking cache for main-non_protected...")
        .lacks_line("Checking cache for main-protected...")
        .has_line("from the first job");

    let trick = restores(deps("another-non_protected")).variable("CACHE_FALLBACK_KEY", "main-protected. ");
    fleet
        .on_second(trick)
        .await
        .succeeded()
        .says("CACHE_FALLBACK_KEY \"main-protected. \" not allowed to end in \"-protected\"")
        .lacks_line("Checking cache for main-protected...");
    let allowed = restores(deps("third-non_protected")).variable("CACHE_FALLBACK_KEY", "main-non_protected");
    fleet.on_second(allowed).await.succeeded().has_line("Checking cache for main-non_protected...");
    fleet.world.stop().await;
}

#[tokio::test]
async fn a_corrupted_object_is_a_warning() {
    let fleet = Fleet::start().await;
    fleet.on_first(saves(deps("main"))).await.succeeded();
    let object = Fleet::object("main");
    let mut data = fleet.moto.get(&object).await.unwrap();
    data.truncate(data.len() / 2);
    fleet.moto.put(&object, &data).await;
    let corrupted = restores(deps("main"));
    fleet
        .on_second(corrupted)
        .await
        .succeeded()
        .says("cache.zip is damaged and has been removed")
        .says("Failed to extract cache")
        .has_line("nothing is there");
    fleet.world.stop().await;
}

#[tokio::test]
async fn policies_restore_only_or_save_only() {
    let fleet = Fleet::start().await;
    let push = CacheSpec { policy: "push".into(), ..deps("main") };
    fleet
        .on_first(saves(push))
        .await
        .succeeded()
        .has_line("Not downloading cache main due to policy")
        .has_line("Created cache");
    let before = fleet.moto.get(&Fleet::object("main")).await;
    let pull = CacheSpec { policy: "pull".into(), ..deps("main") };
    fleet
        .on_second(restores(pull).script(["cat deps/file", "echo changed > deps/file"]))
        .await
        .succeeded()
        .has_line("from the first job")
        .has_line("Not uploading cache main due to policy");
    assert_eq!(fleet.moto.get(&Fleet::object("main")).await, before);
    fleet.world.stop().await;
}

#[tokio::test]
async fn caches_of_failed_jobs_are_saved_when_asked_for() {
    let fleet = Fleet::start().await;
    for (when, saved) in [("on_success", false), ("on_failure", true), ("always", true)] {
        let cache = CacheSpec { when: when.into(), ..deps(when) };
        let job =
            JobBuilder::new("fails").script(["mkdir -p deps", "echo x > deps/file", "exit 3"]).cache(cache);
        fleet.on_first(job).await.failed("script_failure", Some(3));
        assert_eq!(fleet.moto.get(&Fleet::object(when)).await.is_some(), saved, "{when}");
    }
    fleet.world.stop().await;
}

#[tokio::test]
async fn hashed_keys_have_folders_and_find_what_was_saved_under_plain_ones() {
    let fleet = Fleet::with(|entry| match entry.name() {
        "second" => entry.set("feature_flags.FF_HASH_CACHE_KEYS", true),
        _ => entry,
    })
    .await;
    fleet.on_first(saves(deps("main"))).await.succeeded();
    fleet.on_second(restores(deps("main"))).await.succeeded().has_line("from the first job");
    // sha256 of `main`.
    let hash = "0d6e4079e36703ebd37c00722f5891d28b0e2811dc114b129215123adcce3605";
    assert_eq!(python_sha256("main"), hash);
    let object = Fleet::object(&format!("0d/{hash}"));
    assert!(fleet.moto.get(&object).await.is_some(), "{}", fleet.moto.requests());
    fleet.world.stop().await;
}

fn python_sha256(text: &str) -> String {
    let program = "import sys, hashlib; print(hashlib.sha256(sys.argv[1].encode()).hexdigest())";
    drover_tests::python(program, &[text]).trim().to_owned()
}

#[tokio::test]
async fn zstd_archives_are_saved_and_restored() {
    let fleet = Fleet::start().await;
    let job = saves(deps("main")).variable("CACHE_COMPRESSION_FORMAT", "tarzstd");
    fleet.on_first(job).await.succeeded();
    let data = fleet.moto.get(&Fleet::object("main")).await.unwrap();
    assert_eq!(data[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    fleet.on_second(restores(deps("main"))).await.succeeded().has_line("from the first job");
    fleet.world.stop().await;
}

#[tokio::test]
async fn an_archive_above_the_limit_stays_on_its_machine() {
    let fleet = Fleet::with(|entry| entry.set("cache.MaxUploadedArchiveSize", 100)).await;
    fleet.on_first(saves(deps("main"))).await.succeeded().says("is too big (Limit is set to 100)");
    assert!(fleet.moto.get(&Fleet::object("main")).await.is_none());
    fleet.world.stop().await;
}

/// Both jobs succeed without a cache between them; the logs say what the texts are.
async fn goes_without(change: impl Fn(Entry) -> Entry, saved: &str, restored: &str) {
    let fleet = Fleet::with(change).await;
    fleet.on_first(saves(deps("main"))).await.succeeded().says(saved);
    fleet.on_second(restores(deps("main"))).await.succeeded().says(restored).has_line("nothing is there");
    // The archive on the machine is of use all the same.
    fleet.on_first(restores(deps("main")).script(["rm -rf deps"])).await.succeeded();
    fleet.world.stop().await;
}

#[tokio::test]
async fn a_bucket_that_is_missing_fails_no_job() {
    let change = |entry: Entry| entry.set("cache.s3.BucketName", "nowhere");
    goes_without(
        change,
        "received: 404 Not Found. Request failed with code: NoSuchBucket",
        "file does not exist",
    )
    .await;
}

#[tokio::test]
async fn a_bucket_that_is_addressed_in_the_wrong_style_fails_no_job() {
    let change = |entry: Entry| entry.set("cache.s3.PathStyle", false);
    let warning =
        "The runner's cache store cannot be used: `PathStyle` in [runners.cache.s3] cannot be used: ";
    goes_without(change, warning, warning).await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_fails_no_job() {
    // Nobody has this port.
    let change = |entry: Entry| entry.set("cache.s3.ServerAddress", "127.0.0.1:1");
    goes_without(change, "Failed to create cache", "Failed to extract cache").await;
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_a_warning_that_names_the_key() {
    let change = |entry: Entry| entry.set("cache.s3.SecretKey", "");
    let warning = "The runner's cache store cannot be used: `SecretKey` is missing in [runners.cache.s3]. \
                   Only caches on this machine are used.";
    goes_without(change, warning, warning).await;
}

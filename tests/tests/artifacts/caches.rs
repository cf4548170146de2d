//! Caches that stay on their machine: keys, policies, results, formats.

use std::path::PathBuf;

use drover_tests::Finished;
use gitlab_mock::{CacheSpec, JobBuilder};

use crate::world::{Bench, zip_names};

const NO_STORE: &str =
    "No URL provided, cache will not be uploaded to shared cache server. Cache will be stored only locally.";

fn deps(key: &str) -> CacheSpec {
    CacheSpec::new(key, ["deps/"])
}

fn saves(cache: CacheSpec) -> JobBuilder {
    JobBuilder::new("saves").script(["mkdir -p deps", "echo of $CI_JOB_NAME >deps/file"]).cache(cache)
}

/// Says what a job that starts with an empty folder gets.
fn restores(cache: CacheSpec) -> JobBuilder {
    let job = JobBuilder::new("restores").variable("GIT_STRATEGY", "empty").cache(cache);
    job.script(["cat deps/file || echo nothing came"])
}

// === impl Bench ===

impl Bench {
    async fn run(&self, job: JobBuilder) -> Finished {
        self.world.run(job).await
    }

    async fn restored(&self, cache: CacheSpec) -> Finished {
        self.run(restores(cache)).await.succeeded()
    }

    /// The archives of the machine, by their keys.
    fn archives(&self) -> Vec<(String, PathBuf)> {
        let root = self.caches();
        let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.ends_with("cache.zip") {
                    let key = path.parent().unwrap().strip_prefix(&root).unwrap();
                    // Namespace and project come first.
                    let key: PathBuf = key.components().skip(2).collect();
                    found.push((key.display().to_string(), path));
                }
            }
        }
        found.sort();
        found
    }

    fn keys(&self) -> Vec<String> {
        self.archives().into_iter().map(|(key, _)| key).collect()
    }
}

#[tokio::test]
async fn a_cache_without_a_store_is_kept_on_the_machine_and_says_so() {
    let bench = Bench::start().await;
    let first = bench.run(saves(deps("main"))).await.succeeded();
    first.has_line("Checking cache for main...").says("Failed to extract cache").says(NO_STORE);
    let second = bench.restored(deps("main")).await;
    second
        .says("Instead a local version of cache will be extracted.")
        .has_line("Successfully extracted cache")
        .has_line("of saves");
    bench.restored(deps("other")).await.has_line("nothing came").says("Failed to extract cache");
    bench.world.stop().await;
}

#[tokio::test]
async fn keys_are_filled_in_and_cannot_leave_their_folder() {
    let bench = Bench::start().await;
    for (key, name, warns) in [
        ("$CI_JOB_NAME-of-${PORT}", "saves-of-Emden", false),
        ("../../../../escaped", "escaped", true),
        ("a/../b", "b", true),
        ("%2e%2e%2fdots", "dots", true),
    ] {
        let ended = bench.run(saves(deps(key)).variable("PORT", "Emden")).await.succeeded();
        let ended = ended.has_line(&format!("Creating cache {name}..."));
        assert_eq!(ended.log.contains("sanitized to"), warns, "{key}: {}", ended.log);
    }
    assert_eq!(bench.keys(), ["b", "dots", "escaped", "saves-of-Emden"]);
    let nothing = bench.run(saves(deps("../.."))).await.succeeded();
    nothing
        .has_line("Skipping cache extraction due to empty cache key")
        .has_line("Skipping cache archiving due to empty cache key");
    bench.world.stop().await;
}

#[tokio::test]
async fn a_cache_without_a_key_belongs_to_job_and_branch() {
    let bench = Bench::start().await;
    let repository = bench.world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("file", "1\n")], "first").await.unwrap();
    bench
        .run(saves(deps("")).repository(&repository))
        .await
        .succeeded()
        .has_line("Creating cache saves/main...");
    assert_eq!(bench.keys(), ["saves/main"]);
    bench.world.stop().await;
}

#[tokio::test]
async fn several_caches_of_a_job_are_apart() {
    let bench = Bench::start().await;
    let script = ["mkdir -p deps tools", "echo 1 >deps/file", "echo 2 >tools/file"];
    let two = || [CacheSpec::new("deps", ["deps/"]), CacheSpec::new("tools", ["tools/*"])];
    let [first, second] = two();
    bench.run(JobBuilder::new("both").script(script).cache(first).cache(second)).await.succeeded();
    assert_eq!(bench.keys(), ["deps", "tools"]);
    let archives = bench.archives();
    assert_eq!(zip_names(&std::fs::read(&archives[0].1).unwrap()), ["deps/", "deps/file"]);
    assert_eq!(zip_names(&std::fs::read(&archives[1].1).unwrap()), ["tools/file"]);
    let [_, second] = two();
    let ended = bench.restored(second).await.has_line("nothing came");
    ended.says_not("Checking cache for deps");
    bench.world.stop().await;
}

#[tokio::test]
async fn fallbacks_are_tried_after_the_key_and_the_first_that_is_there_wins() {
    let bench = Bench::start().await;
    bench.run(saves(deps("second"))).await.succeeded();
    bench.run(saves(deps("third")).script(["mkdir -p deps", "echo third >deps/file"])).await.succeeded();
    let keys = ["first", "second", "third"].map(str::to_owned).to_vec();
    let ended = bench.restored(CacheSpec { fallback_keys: keys, ..deps("own") }).await;
    ended
        .has_line("Checking cache for own...")
        .has_line("Checking cache for first...")
        .has_line("Checking cache for second...")
        .lacks_line("Checking cache for third...")
        .has_line("of saves")
        // It is saved under the job's own key.
        .has_line("Creating cache own...");
    bench.world.stop().await;
}

#[tokio::test]
async fn policies_say_whether_a_cache_is_read_and_written_and_others_are_refused() {
    let bench = Bench::start().await;
    let policy = |policy: &str| CacheSpec { policy: policy.into(), ..deps("main") };
    let pull = bench.run(saves(policy("pull"))).await.succeeded();
    pull.has_line("Not uploading cache main due to policy");
    assert_eq!(bench.keys(), Vec::<String>::new());
    let push = bench.run(saves(policy("$HOW")).variable("HOW", "push")).await.succeeded();
    push.has_line("Not downloading cache main due to policy").has_line("Created cache");
    assert_eq!(bench.keys(), ["main"]);
    let other = bench.run(saves(policy("sometimes"))).await.failed("script_failure", Some(1));
    other.says("unknown cache policy sometimes").lacks_line("$ mkdir -p deps");
    bench.world.stop().await;
}

#[tokio::test]
async fn results_say_which_caches_are_saved() {
    let bench = Bench::start().await;
    for end in ["true", "exit 3"] {
        let mut job = JobBuilder::new("ends").script(["mkdir -p deps", "echo 1 >deps/file", end]);
        for when in ["on_success", "on_failure", "always"] {
            job = job.cache(CacheSpec { when: when.into(), ..deps(&format!("{when}-{}", end.len())) });
        }
        let ended = bench.run(job).await;
        if end == "true" {
            ended.succeeded().says("Saving cache for successful job");
        } else {
            ended.failed("script_failure", Some(3)).says("Saving cache for failed job");
        }
    }
    assert_eq!(bench.keys(), ["always-4", "always-6", "on_failure-6", "on_success-4"]);
    bench.world.stop().await;
}

#[tokio::test]
async fn files_that_git_does_not_track_are_a_cache() {
    let bench = Bench::start().await;
    let repository = bench.world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("tracked", "1\n")], "first").await.unwrap();
    let untracked = CacheSpec { untracked: true, ..CacheSpec::new("main", Vec::<String>::new()) };
    let job = JobBuilder::new("saves").repository(&repository).script(["echo 2 >new", "echo 3 >tracked"]);
    bench.run(job.cache(untracked)).await.succeeded().says("untracked: found 1 files");
    let archives = bench.archives();
    assert_eq!(zip_names(&std::fs::read(&archives[0].1).unwrap()), ["new"]);
    bench.world.stop().await;
}

#[tokio::test]
async fn a_cache_of_nothing_and_one_without_changes_are_not_written() {
    let bench = Bench::start().await;
    let nothing = JobBuilder::new("nothing").script(["true"]).cache(CacheSpec::new("main", ["absent/"]));
    bench.run(nothing).await.succeeded().says("absent/: no matching files").says("No files to cache.");
    assert_eq!(bench.keys(), Vec::<String>::new());
    bench.run(saves(deps("main"))).await.succeeded();
    let before = std::fs::metadata(&bench.archives()[0].1).unwrap().modified().unwrap();
    bench
        .run(JobBuilder::new("same").script(["true"]).cache(deps("main")))
        .await
        .succeeded()
        .has_line("Successfully extracted cache");
    assert_eq!(std::fs::metadata(&bench.archives()[0].1).unwrap().modified().unwrap(), before);
    bench.world.stop().await;
}

#[tokio::test]
async fn formats_and_levels_are_what_the_job_says() {
    let bench = Bench::start().await;
    for (format, level, magic) in [
        ("zip", "slowest", &b"PK"[..]),
        ("zip", "fastest", b"PK"),
        ("zipzstd", "fast", b"PK"),
        ("tarzstd", "slow", b"\x28\xb5\x2f\xfd"),
    ] {
        let key = format!("{format}-{level}");
        let job = saves(deps(&key)).variable("CACHE_COMPRESSION_FORMAT", format);
        bench.run(job.variable("CACHE_COMPRESSION_LEVEL", level)).await.succeeded();
        let archives = bench.archives();
        let (_, archive) = archives.iter().find(|(found, _)| *found == key).unwrap();
        assert!(std::fs::read(archive).unwrap().starts_with(magic), "{key}");
        bench.restored(deps(&key)).await.has_line("of saves");
    }
    bench.world.stop().await;
}

#[tokio::test]
async fn a_damaged_cache_is_a_warning_and_what_came_of_it_goes_if_the_flag_says_so() {
    let bench = Bench::start().await;
    let damage = async || {
        bench.run(saves(deps("main"))).await.succeeded();
        let archive = bench.archives().remove(0).1;
        let whole = std::fs::read(&archive).unwrap();
        std::fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
    };
    damage().await;
    bench.restored(deps("main")).await.says("Failed to extract cache").has_line("nothing came");
    damage().await;
    let job = restores(deps("main")).variable("FF_CLEAN_UP_FAILED_CACHE_EXTRACT", "true");
    bench.run(job).await.succeeded().has_line("Removing deps/").has_line("nothing came");
    bench.world.stop().await;
}

#[tokio::test]
async fn without_a_helper_caches_and_artifacts_are_left_out_with_a_warning() {
    let bench = Bench::with(|entry| entry.set("helper.command", "no-such-helper"), |_| {}).await;
    let job = saves(deps("main")).artifact(gitlab_mock::ArtifactSpec::archive("", ["deps"]));
    bench
        .run(job)
        .await
        .succeeded()
        .says("Missing gitlab-runner. Extracting cache is disabled.")
        .says("Missing gitlab-runner. Creating cache is disabled.")
        .says("Missing gitlab-runner. Uploading artifacts is disabled.");
    bench.world.logs(&["no helper is on this instance", "[runners.helper]"]).await;
    bench.world.stop().await;
}

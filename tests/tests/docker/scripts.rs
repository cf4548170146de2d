//! What jobs of every executor do, where one of its parts runs in another container than the next.

use std::path::Path;
use std::sync::Arc;

use drover_tests::{Engine, Setup};
use gitlab_mock::{CacheSpec, JobBuilder};
use rcgen::ExtendedKeyUsagePurpose;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::options::{container, patient, release};
use crate::{nothing_is_left, world};

fn plain(script: &[&str]) -> JobBuilder {
    JobBuilder::new("scripts").variable("GIT_STRATEGY", "none").script(script.to_vec())
}

/// A step of a job in the words of the payload.
fn step(name: &str, when: &str, script: &[&str]) -> Value {
    json!({"name": name, "script": script, "timeout": 3600, "when": when, "allow_failure": false})
}

#[tokio::test]
async fn every_step_runs_as_it_is_meant_to_and_what_one_writes_for_later_is_there() {
    let world = world(|entry| entry.set("docker.volumes", vec!["/cache"])).await;
    let job =
        |last: &str| {
            plain(&[]).cache(CacheSpec::new("key", ["$FOLDER/"])).with_member(
            "/steps",
            json!([
                step("script", "on_success", &[
                    "mkdir -p kept; echo cached >kept/file",
                    "echo 'FOLDER=kept' >>\"$GITLAB_ENV\"",
                    "echo 'EVIL=$(touch /tmp/evil) `touch /tmp/evil`' >>\"$GITLAB_ENV\"",
                    last,
                ]),
                step("second", "on_success", &["echo \"the second has $FOLDER\""]),
                step("release", "on_success", &["echo released"]),
                step("after_script", "always", &[
                    "echo \"after has $FOLDER\"; echo \"$EVIL\"; [ ! -e /tmp/evil ] && echo nothing evil",
                ]),
            ]),
        )
        };
    let good = world.run(job("true")).await.succeeded();
    good.has_line("the second has kept")
        .has_line("released")
        .has_line("after has kept")
        .has_line("$(touch /tmp/evil) `touch /tmp/evil`")
        .has_line("nothing evil")
        .says("kept/: found 2 matching");
    let again = world.run(plain(&["cat kept/file"]).cache(CacheSpec::new("key", ["kept/"]))).await;
    again.succeeded().has_line("cached");
    let bad = world.run(job("exit 1")).await.failed("script_failure", Some(1));
    bad.lacks_line("the second has kept").lacks_line("released").has_line("after has kept");
    world.stop().await;
}

#[tokio::test]
async fn values_of_variables_are_what_the_job_says_and_secrets_are_masked() {
    let world = world(|entry| entry).await;
    let mut raw = gitlab_mock::JobVariable::new("RAW", "$FIRST and $$FIRST");
    raw.raw = true;
    let finished = world
        .run(
            plain(&[
                "echo \"raw: $RAW\"",
                "cat \"$CONTENT\"; [ \"$REFERS\" = \"$CONTENT\" ] && echo the same path",
                "echo \"short: $SHORT; long: $LONG\"",
                "echo \"https://x.test/?private_token=$(echo abc)&x=1\"",
                "echo \"glpat-$(echo 01234567890123456789)\"",
                "pwd",
                "echo to stderr >&2",
            ])
            .variable("FIRST", "first")
            .push_variable(raw)
            .file_variable("CONTENT", "a $FIRST content, 'as' \"it\" is\n")
            .variable("REFERS", "$CONTENT")
            .masked_variable("SHORT", "a-secret-of-mine")
            .masked_variable("LONG", "a-secret-of-mine-and-more"),
        )
        .await
        .succeeded()
        .has_line("raw: $FIRST and $$FIRST")
        .has_line("the same path")
        .has_line("short: [MASKED]; long: [MASKED]")
        .says("private_token=[MASKED]&x=1")
        .has_line("to stderr");
    let finished = finished.has_line("a $FIRST content, 'as' \"it\" is").says_not("glpat-0123");
    // As GitLab Runner has it: <builds_dir>/<namespace>/<project>, and each line with its time and its stream.
    let finished = finished.has_line("/builds/mock/no-repository");
    let raw = String::from_utf8_lossy(&finished.raw).into_owned();
    let stream = |text: &str| {
        let line = raw.lines().find(|line| line.ends_with(text)).unwrap_or_else(|| panic!("{text}: {raw}"));
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.len() == 27 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{line}");
        rest.get(..4).unwrap().to_owned()
    };
    assert_eq!(stream("the same path"), "01O ");
    assert_eq!(stream("to stderr"), "01E ");
    world.stop().await;
}

#[tokio::test]
async fn a_clone_path_inside_of_the_builds_folder_is_used_and_another_is_refused() {
    let world = world(|entry| entry.set("docker.network_mode", "host")).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let job = |path: &str| {
        JobBuilder::new("path")
            .repository(&repository)
            .variable("GIT_CLONE_PATH", path)
            .script(["pwd; cat number"])
    };
    let (inside, outside) =
        (world.enqueue(job("$CI_BUILDS_DIR/go/src/ferry")), world.enqueue(job("/elsewhere/ferry")));
    world.finished(&inside).await.succeeded().has_line("/builds/go/src/ferry").has_line("1");
    let outside = world.finished(&outside).await;
    outside.failed("runner_configuration_error", None).says("the GIT_CLONE_PATH has to be within `/builds`");
    world.stop().await;
}

#[tokio::test]
async fn a_gitlab_with_a_certificate_of_its_own_is_trusted_in_containers() {
    let authority = Authority::new();
    let server = authority.folder("server", ExtendedKeyUsagePurpose::ServerAuth);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let entry = Engine::shared()
        .entry("docker")
        .set("url", url.clone())
        .set("tls-ca-file", server.join("ca.pem").display().to_string())
        .set("docker.network_mode", "host");
    let world = Setup::new().gitlab(|gitlab| gitlab.external_url = Some(url)).runner(entry).start().await;
    let target = world.gitlab.address();
    tokio::spawn(async move {
        let acceptor = acceptor(&server);
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut gitlab = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut gitlab).await;
            });
        }
    });
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let job = JobBuilder::new("clone").repository(&repository).script(["cat number"]);
    world.run(job).await.succeeded().has_line("1");
    world.stop().await;
}

#[tokio::test]
async fn an_authority_that_is_mounted_for_the_helper_is_trusted_there() {
    let authority = Authority::new();
    let file = authority.folder("server", ExtendedKeyUsagePurpose::ServerAuth).join("ca.pem");
    let line = authority.pem.lines().nth(2).unwrap();
    let world = world(|entry| {
        entry
            .set("docker.network_mode", "host")
            .set("docker.volumes", vec![format!("{}:/etc/gitlab-runner/certs/ca.crt:ro", file.display())])
            .set(
                "pre_get_sources_script",
                format!(
                    "if grep -qF '{line}' /etc/ssl/certs/ca-certificates.crt; then echo it is trusted; fi"
                ),
            )
    })
    .await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let job = JobBuilder::new("clone").repository(&repository).script(["cat number"]);
    world.run(job).await.succeeded().has_line("it is trusted");
    world.stop().await;
}

fn acceptor(folder: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn what_a_job_cleans_up_is_gone_from_the_volume_that_stays() {
    let world = world(|entry| entry.set("docker.network_mode", "host")).await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let job = |cleaned: bool| {
        JobBuilder::new("fetch")
            .repository(&repository)
            .variable("FF_ENABLE_JOB_CLEANUP", cleaned.to_string())
            .script(["echo x >untracked; echo y >>number"])
    };
    let token = world.runners[0].token();
    let runner = token.trim_start_matches("glrt-").get(..9).unwrap();
    for cleaned in [false, true] {
        world.run(job(cleaned)).await.succeeded();
        let filter = format!("label=com.gitlab.gitlab-runner.runner.id={runner}");
        let volume = Engine::shared().docker(&["volume", "ls", "-q", "--filter", &filter]);
        let look = "cd /builds/harbour/ferry; ls; cat number";
        let mount = format!("{volume}:/builds");
        let found = Engine::shared().docker(&["run", "--rm", "-v", &mount, "box:1", "sh", "-c", look]);
        assert_eq!(found, if cleaned { "number\n1" } else { "number\nuntracked\n1\ny" });
    }
    world.stop().await;
}

#[tokio::test]
async fn a_removed_container_is_made_again_as_often_as_the_job_says() {
    let world = world(|entry| entry.set("docker.volumes", vec!["/cache"])).await;
    let job = world.enqueue(
        plain(&["if [ -e /cache/again ]; then echo the second time; else touch /cache/again; echo started; sleep 1000; fi"])
            .variable("EXECUTOR_JOB_SECTION_ATTEMPTS", "999"),
    );
    world.says(&job, "started\n").await;
    let mine = Engine::shared().belongings(&world.runners[0].token(), job.view().id);
    let build = mine.iter().find(|name| name.ends_with("-build")).unwrap();
    Engine::shared().docker(&["rm", "-f", build]);
    let finished = world.finished(&job).await.succeeded().has_line("the second time");
    let finished =
        finished.says("EXECUTOR_JOB_SECTION_ATTEMPTS: 999 is outside of the range 1 to 10, using 10");
    nothing_is_left(&world, finished.view.id).await;
    world.stop().await;
}

#[tokio::test]
async fn whoever_removes_containers_that_have_ended_is_not_in_the_way() {
    let world = world(|entry| entry).await;
    let job = patient(&[]).variable("GIT_STRATEGY", "empty").after_script(["echo after all the same"]);
    let job = world.enqueue(job.cache(CacheSpec::new("key", ["nothing"])));
    let build = container(&world, &job, "build").await;
    let token = world.runners[0].token();
    let runner = token.trim_start_matches("glrt-").get(..9).unwrap();
    let filter = format!("label=com.gitlab.gitlab-runner.runner.id={runner}");
    Engine::shared().docker(&["container", "prune", "-f", "--filter", &filter]);
    release(&build);
    world.finished(&job).await.succeeded().has_line("after all the same");
    world.stop().await;
}

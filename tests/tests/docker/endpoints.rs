//! Ways to an engine: TCP, TLS with certificates on both sides, and the manager's environment.

use std::path::Path;

use drover_tests::{Drover, Engine, PATIENCE, Setup, free_port};
use gitlab_mock::{GitlabMock, JobBuilder};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::net::{TcpListener, UnixStream};

use crate::authority::Authority;

fn job() -> JobBuilder {
    JobBuilder::new("hello").variable("GIT_STRATEGY", "none").script(["echo from afar"])
}

#[tokio::test]
async fn an_engine_behind_tls_is_used_by_those_whom_it_knows_and_who_know_it() {
    let site = Authority::new();
    let server = site.folder("server", ExtendedKeyUsagePurpose::ServerAuth);
    let client = site.folder("client", ExtendedKeyUsagePurpose::ClientAuth);
    let anonymous = site.folder("anonymous", ExtendedKeyUsagePurpose::ClientAuth);
    std::fs::remove_file(anonymous.join("cert.pem")).unwrap();
    let elsewhere = Authority::new();
    let stranger = site.folder("stranger", ExtendedKeyUsagePurpose::ClientAuth);
    std::fs::write(stranger.join("ca.pem"), &elsewhere.pem).unwrap();

    let host = format!("tcp://127.0.0.1:{}", free_port());
    let file = |name: &str| server.join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let arguments = ["-H", &host, "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
    let engine = Engine::another(1, &arguments);

    let entry = |name: &str, folder: &Path| {
        let entry = engine.entry(name).set("docker.host", host.as_str()).set("docker.tls_verify", true);
        entry.set("docker.tls_cert_path", folder.display().to_string())
    };
    let world = Setup::new()
        .runner(entry("known", &client).set("docker.network_mode", "host"))
        .runner(entry("anonymous", &anonymous))
        .runner(entry("stranger", &stranger))
        .runner(entry("plain", &client).set("docker.tls_verify", false))
        .start()
        .await;
    // Two jobs at once on an engine that has no helper image yet.
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "1\n")], "one").await.unwrap();
    let clone = || JobBuilder::new("clone").repository(&repository).script(["cat number", "sleep 1"]);
    let known = [(); 2].map(|()| world.gitlab.enqueue(&world.runners[0], clone()));
    let others: Vec<_> = (1..4).map(|index| world.gitlab.enqueue(&world.runners[index], job())).collect();
    let mut loaded = 0;
    for job in &known {
        let finished = world.finished(job).await.succeeded().has_line("1");
        loaded += finished.log.matches("Loading helper image drover-helper:").count();
    }
    assert_eq!(loaded, 1, "the helper image is loaded once for all jobs");
    let failed = |index: usize| {
        let job = &others[index];
        async { world.finished(job).await.failed("runner_system_failure", None).says(&host) }
    };
    failed(0).await.says("the engine wants a client certificate");
    failed(1).await.says("invalid peer certificate").says("must be of the authority");
    world
        .finished(&others[2])
        .await
        .failed("runner_configuration_error", None)
        .says("HTTP request to an HTTPS server")
        .says("tls_verify");
    world.stop().await;

    // The same by the manager's environment, as the engine's own client reads it.
    let gitlab = GitlabMock::start(gitlab_mock::Config::default()).await.unwrap();
    let entry = engine.entry("environment").set("docker.host", "");
    let runner = gitlab.add_runner(entry.token());
    let job = gitlab.enqueue(&runner, job());
    let certificates = client.display().to_string();
    let mut drover = Drover::start_with(
        &Setup::new().runner(entry),
        gitlab.url(),
        &[("DOCKER_HOST", &host), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", &certificates)],
    );
    job.finished(PATIENCE).await.unwrap();
    assert!(job.log_text().contains("from afar"), "{}", job.log_text());
    drover.stop().await;
}

#[tokio::test]
async fn an_engine_on_a_plain_port_is_used_and_one_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut engine = UnixStream::connect(Engine::shared().socket()).await.unwrap();
                // Ends of both directions pass one by one, as on a port of the engine's own.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
            });
        }
    });
    let nowhere = format!("tcp://127.0.0.1:{}", free_port());
    let entry = |name: &str, host: &str| Engine::shared().entry(name).set("docker.host", host);
    let world = Setup::new().runner(entry("plain", &host)).runner(entry("nowhere", &nowhere)).start().await;
    let gone = world.gitlab.enqueue(&world.runners[1], job());
    let job = job().after_script(["echo and back"]);
    world.run(job).await.succeeded().has_line("from afar").has_line("and back");
    world
        .finished(&gone)
        .await
        .failed("runner_system_failure", None)
        .says(&format!("the Docker engine at {nowhere} cannot be reached"))
        .says("is the engine running there?");
    world.stop().await;
}

//! A service that is an engine of its own, used by the job over TLS.

use drover_tests::{Engine, Setup, instance_archive};
use gitlab_mock::JobBuilder;
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::json;

use crate::authority::Authority;
use crate::nothing_is_left;

/// Starts an engine that wants certificates, and gives it an image. Control groups of the second version let nobody start
/// containers beside processes of their own group.
const ENGINE: &str = r"
set -eu
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p /sys/fs/cgroup/init
    xargs -rn1 </sys/fs/cgroup/cgroup.procs >/sys/fs/cgroup/init/cgroup.procs || :
    sed -e 's/ / +/g' -e 's/^/+/' </sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
fi
(
    until docker version >/dev/null 2>&1; do sleep 0.1; done
    docker import /images/box:1.tar box:1
) &
exec dockerd -H unix:///var/run/docker.sock -H tcp://0.0.0.0:2376 --bip 172.31.0.1/24 \
    --default-address-pool base=172.30.0.0/16,size=27 \
    --tlsverify --tlscacert /certs/server/ca.pem --tlscert /certs/server/cert.pem --tlskey /certs/server/key.pem
";

#[tokio::test]
async fn an_engine_beside_the_job_is_reached_over_tls_and_sees_the_project() {
    let engine = Engine::shared();
    let archive = instance_archive().display().to_string();
    let changes =
        ["--change", "VOLUME /var/lib/docker", "--change", "EXPOSE 2375", "--change", "EXPOSE 2376"];
    let mut import = vec!["import"];
    import.extend(changes);
    import.extend([archive.as_str(), "docker:dind"]);
    engine.docker(&import);
    let authority = Authority::new();
    authority.folder("server", ExtendedKeyUsagePurpose::ServerAuth);
    authority.folder("client", ExtendedKeyUsagePurpose::ClientAuth);
    let certificates = format!("{}:/certs:ro", authority.home().display());

    let entry = engine
        .entry("docker")
        .set("environment", vec!["ENGINE_IMAGE=docker", "ENGINE_NAME=docker"])
        .set("feature_flags.FF_NETWORK_PER_BUILD", true)
        .set("docker.services_privileged", true)
        .set("docker.runtime", "lenient")
        .set("docker.volumes", vec![certificates]);
    let world = Setup::new().runner(entry).for_containers().start().await;
    let repository = world.gitlab.create_repository("harbour/ferry").await.unwrap();
    repository.commit("main", [("number", "one of the project\n")], "one").await.unwrap();
    let job = |strategy: &str| {
        JobBuilder::new(strategy)
            .repository(&repository)
            .variable("GIT_STRATEGY", strategy)
            .service(json!({
                "name": "${ENGINE_IMAGE}:dind", "alias": "$ENGINE_NAME-of-the-job",
                "entrypoint": ["sh", "-c"], "command": [ENGINE],
                "variables": [{"key": "HEALTHCHECK_TCP_PORT", "value": "2376", "public": true}],
            }))
            .with_member("/image", json!({"name": "$ENGINE_IMAGE:dind", "entrypoint": ["sh", "-c", "exec \"$@\"", "-"]}))
            .script([
                "c=/certs/client; export DOCKER_HOST=tcp://docker:2376",
                "d=\"docker --tlsverify --tlscacert $c/ca.pem --tlscert $c/cert.pem --tlskey $c/key.pem\"",
                "i=0; until $d image inspect box:1 >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 300 ]; sleep 0.1; done",
                "$d run --rm -v \"$PWD:/project\" box:1 cat /project/number",
                "DOCKER_HOST=tcp://docker-of-the-job:2376 $d version >/dev/null 2>&1 || echo that name is in no certificate",
            ])
    };
    let jobs = ["fetch", "clone"].map(|strategy| world.enqueue(job(strategy)));
    for job in &jobs {
        let finished = world.finished(job).await.succeeded();
        let id = finished.view.id;
        finished
            .has_line("one of the project")
            .has_line("that name is in no certificate")
            .says_not("probably didn't start");
        nothing_is_left(&world, id).await;
    }
    world.stop().await;
}

//! Services beside a job.

use drover_tests::Engine;
use gitlab_mock::JobBuilder;
use serde_json::json;

use crate::{nothing_is_left, world};

fn server(name: &str) {
    Engine::shared().import(
        &["EXPOSE 8080", "CMD [\"sh\", \"-c\", \"echo \\\"hello from $NAME\\\" >/tmp/index.html; echo listening; exec httpd -f -p 8080 -h /tmp\"]"],
        name,
    );
}

#[tokio::test]
async fn a_service_is_reached_by_all_of_its_names() {
    server("harbour/web:1");
    for network in ["false", "true"] {
        let world = world(|entry| entry.set("feature_flags.FF_NETWORK_PER_BUILD", network == "true")).await;
        let job = world
            .run(
                JobBuilder::new("service")
                    .variable("GIT_STRATEGY", "none")
                    .service(json!({
                        "name": "harbour/web:1", "alias": "site, page",
                        "variables": [{"key": "NAME", "value": "$CI_JOB_NAME", "public": true}],
                    }))
                    .script([
                        "for n in harbour__web harbour-web site page; do wget -qO- http://$n:8080/; done",
                    ]),
            )
            .await
            .succeeded()
            .says("Waiting for services to be up and running")
            .says_not("probably didn't start properly");
        assert_eq!(job.count("hello from service"), 4);
        nothing_is_left(&world, job.view.id).await;
        world.stop().await;
    }
}

#[tokio::test]
async fn a_service_that_does_not_listen_is_shown_and_the_job_goes_on() {
    Engine::shared()
        .import(&["EXPOSE 9", "CMD [\"sh\", \"-c\", \"echo why it fails; sleep 1000\"]"], "deaf:1");
    let world = world(|entry| entry.set("docker.wait_for_services_timeout", 1)).await;
    world
        .run(
            JobBuilder::new("deaf")
                .variable("GIT_STRATEGY", "none")
                .service(json!({"name": "deaf:1", "alias": "deaf"}))
                .script(["echo all the same"]),
        )
        .await
        .succeeded()
        .says("probably didn't start properly")
        .says("timeout")
        .says("why it fails")
        .has_line("all the same");
    world.stop().await;
}

#[tokio::test]
async fn the_logs_of_services_are_in_the_log_where_the_job_asks_for_them() {
    server("harbour/web:1");
    let world = world(|entry| entry).await;
    let job = |value: &str| {
        JobBuilder::new("logs")
            .variable("GIT_STRATEGY", "none")
            .variable("CI_DEBUG_SERVICES", value)
            .service(json!({"name": "harbour/web:1", "alias": "site"}))
            .script(["sleep 1"])
    };
    world
        .run(job("true"))
        .await
        .succeeded()
        .says("listening")
        .says("[service:harbour__web-harbour-web-site]");
    world.run(job("false")).await.succeeded().says_not("listening");
    world.run(job("perhaps")).await.succeeded().says_not("listening").says("expected bool got \"perhaps\"");
    world.stop().await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_left_out_and_a_service_without_names_is_not_started() {
    server("harbour/web:1");
    let world = world(|entry| entry).await;
    world
        .run(
            JobBuilder::new("twins")
                .variable("GIT_STRATEGY", "none")
                .service(json!({"name": "harbour/web:1", "alias": "one"}))
                .service(json!({"name": "harbour/web:1", "alias": "two"}))
                .service(json!({"name": "harbour/web:1"}))
                .script(["wget -qO- http://one:8080/ >&2", "wget -qO- http://two:8080/ >&2"]),
        )
        .await
        .succeeded()
        .says("Skipping alias \"harbour__web\" for service \"harbour/web:1\" (services[1])")
        .says("(services[2]) is not started");
    world.stop().await;
}

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
async fn an_image_may_say_at_which_port_its_service_is_to_be_checked() {
    Engine::shared().import(
        &[
            "ENV HEALTHCHECK_TCP_PORT=8081",
            "EXPOSE 8080",
            "CMD [\"httpd\", \"-f\", \"-p\", \"8081\", \"-h\", \"/tmp\"]",
        ],
        "elsewhere:1",
    );
    let world = world(|entry| entry.set("docker.wait_for_services_timeout", 10)).await;
    let job =
        JobBuilder::new("port").variable("GIT_STRATEGY", "none").service(json!({"name": "elsewhere:1"}));
    world.run(job.script(["true"])).await.succeeded().says_not("probably didn't start properly");
    world.stop().await;
}

#[tokio::test]
async fn images_are_in_the_managers_log_where_the_flag_says_so() {
    let world = world(|entry| entry.set("docker.wait_for_services_timeout", -1)).await;
    let job = |flag: &str| {
        let job = JobBuilder::new("images").variable("GIT_STRATEGY", "none");
        let job = job.variable("NAME", "box").image("$NAME:1").script(["true"]);
        let service = json!({"name": "box:1", "alias": "beside", "command": ["sleep", "1000"]});
        job.service(service).variable("FF_LOG_IMAGES_CONFIGURED_FOR_JOB", flag)
    };
    world.run(job("false")).await.succeeded();
    assert!(!world.log.has_line(&["mage configured for job"]));
    world.run(job("true")).await.succeeded();
    world.logs(&["Image configured for job", "image_name=\"box:1\""]).await;
    world.logs(&["Service image configured for job", "image_name=\"box:1\""]).await;
    world.stop().await;
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

#[tokio::test]
async fn services_of_the_file_have_variables_in_their_names_and_an_environment_of_their_own() {
    server("harbour/web:1");
    let world = world(|entry| {
        entry
            .set("environment", vec!["OWNER=harbour", "SITE=site", "IMAGE=box", "OF_THE_RUNNER=yes"])
            .set("docker.image", "$IMAGE:1")
            .set("docker.allowed_images", vec!["nothing"])
            .set("docker.allowed_services", vec!["nothing"])
            .set(
                "docker.services",
                vec![toml::toml! {
                    name = "$OWNER/web:1"
                    alias = "the-$SITE"
                    environment = ["NAME=$SITE of ${CI_JOB_NAME}", "PLAIN=1=2"]
                    entrypoint = ["sh", "-c"]
                    command = ["env >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
                }],
            )
    })
    .await;
    let private = json!({"key": "PRIVATE", "value": "not for services", "public": false});
    let job = JobBuilder::new("job")
        .variable("GIT_STRATEGY", "none")
        .push_variable(serde_json::from_value(private).unwrap())
        .script(["wget -qO- http://the-site:8080/ >&2"]);
    let job = world.run(job).await.succeeded().says("Using Docker executor with image box:1 ...");
    job.has_line("NAME=site of job")
        .has_line("PLAIN=1=2")
        .has_line("OF_THE_RUNNER=yes")
        .has_line("CI_JOB_NAME=job")
        .lacks_line("PRIVATE=not for services");
    world.stop().await;
}

#[tokio::test]
async fn a_service_with_many_ports_is_checked_by_the_lowest_and_one_with_much_to_say_is_cut() {
    let engine = Engine::shared();
    let ports: Vec<String> = (8080..8105).map(|port| format!("EXPOSE {port}")).collect();
    let mut changes: Vec<&str> = ports.iter().map(String::as_str).collect();
    changes.push("CMD [\"httpd\", \"-f\", \"-p\", \"8080\"]");
    engine.import(&changes, "ports:1");
    engine.import(
        &["EXPOSE 9", "CMD [\"sh\", \"-c\", \"yes much to say | head -c 300000; sleep 1000\"]"],
        "talkative:1",
    );
    let world = world(|entry| entry.set("docker.wait_for_services_timeout", 2)).await;
    let job = |image: &str| {
        let job = JobBuilder::new(image).variable("GIT_STRATEGY", "none").script(["echo all the same"]);
        job.service(json!({"name": image, "alias": "s"}))
    };
    let (ports, talkative) = (world.enqueue(job("ports:1")), world.enqueue(job("talkative:1")));
    world.finished(&ports).await.succeeded().says_not("probably didn't start properly");
    let talkative = world.finished(&talkative).await.succeeded().says("probably didn't start properly");
    let shown = talkative.log.matches("much to say\n").count();
    // Each line has its time before it: 31 characters more.
    assert!((1400..=65_536 / 12).contains(&shown), "{shown}");
    let block = talkative.log.split("Service container logs:\n").nth(1).unwrap();
    let block = block.split("\n*********").next().unwrap();
    assert!((65_000..=65_536).contains(&block.len()), "{}", block.len());
    world.stop().await;
}

//! Registration, verification, removal, rotation.

use drover_gitlab_mock::{Config, Rule};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::*;

async fn send(bench: &Bench, method: Method, path: &str, token: &str, body: &Value) -> Response {
    bench.call(method, path).header("RUNNER-TOKEN", token).json(body).send().await.unwrap()
}

fn registration(token: &str) -> Value {
    json!({
        "token": token, "description": "fast one", "run_untagged": true, "locked": true, "paused": false,
        "info": info(&[]),
    })
}

#[tokio::test]
async fn registration_gives_a_token_that_works() {
    let bench = Bench::new().await;
    let token = Config::default().registration_token.unwrap();
    let reply = send(&bench, Method::POST, "runners", &token, &registration(&token)).await;
    assert_eq!(reply.status(), 201);
    let reply: Value = reply.json().await.unwrap();
    let runner = bench.mock.runner(reply["token"].as_str().unwrap()).unwrap();
    assert_eq!(runner.view().description, "fast one");
    assert_eq!(reply["id"], runner.id());
    assert!(reply["token_expires_at"].is_null());
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn registration_is_refused_as_gitlab_does() {
    let bench = Bench::new().await;
    assert_eq!(send(&bench, Method::POST, "runners", "nope", &registration("nope")).await.status(), 403);
    bench.expect_violations(&[Rule::WrongToken]);
    let mut body = registration("nope");
    body["access_level"] = json!("everything");
    assert_eq!(send(&bench, Method::POST, "runners", "nope", &body).await.status(), 400);
    bench.expect_violations(&[Rule::BadValue]);
    let bench = Bench::with(Config { registration_token: None, ..Config::default() }).await;
    assert_eq!(send(&bench, Method::POST, "runners", "nope", &registration("nope")).await.status(), 410);
}

#[tokio::test]
async fn verify_remembers_the_manager() {
    let bench = Bench::new().await;
    let body = request_body(&FEATURES);
    let reply = send(&bench, Method::POST, "runners/verify", TOKEN, &body).await;
    assert_eq!(reply.status(), 200);
    let reply: Value = reply.json().await.unwrap();
    assert_eq!((&reply["id"], &reply["token"]), (&json!(bench.runner.id()), &json!(TOKEN)));
    let managers = bench.runner.view().managers;
    assert!(managers["s_0123456789ab"].features.contains("cancel_gracefully"));
    bench.mock.assert_no_violations();
    let mut stranger = body.clone();
    stranger["token"] = json!("glrt-stranger");
    assert_eq!(send(&bench, Method::POST, "runners/verify", "glrt-stranger", &stranger).await.status(), 403);
    bench.expect_violations(&[Rule::WrongToken]);
    let mut silent = body;
    silent.as_object_mut().unwrap().remove("info");
    assert_eq!(send(&bench, Method::POST, "runners/verify", TOKEN, &silent).await.status(), 400);
    bench.expect_violations(&[Rule::MissingField]);
}

#[tokio::test]
async fn manager_can_be_removed_once() {
    let bench = Bench::new().await;
    bench.request().await;
    let body = json!({ "token": TOKEN, "system_id": "s_0123456789ab" });
    assert_eq!(send(&bench, Method::DELETE, "runners/managers", TOKEN, &body).await.status(), 204);
    assert_eq!(send(&bench, Method::DELETE, "runners/managers", TOKEN, &body).await.status(), 404);
    assert_eq!(bench.request().await.status(), 204);
    let without = json!({ "token": TOKEN });
    assert_eq!(send(&bench, Method::DELETE, "runners/managers", TOKEN, &without).await.status(), 400);
    bench.expect_violations(&[Rule::MissingField]);
}

#[tokio::test]
async fn removed_runner_is_gone() {
    let bench = Bench::new().await;
    let body = json!({ "token": TOKEN });
    assert_eq!(send(&bench, Method::DELETE, "runners", TOKEN, &body).await.status(), 204);
    assert!(bench.mock.runner(TOKEN).is_none());
    assert_eq!(bench.request().await.status(), 403);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn rotation_replaces_the_token() {
    let lifetime = std::time::Duration::from_secs(3600);
    let bench = Bench::with(Config { token_lifetime: Some(lifetime), ..Config::default() }).await;
    let path = "runners/reset_authentication_token";
    let reply = bench.call(Method::POST, path).json(&json!({ "token": TOKEN })).send().await.unwrap();
    assert_eq!(reply.status(), 201);
    let reply: Value = reply.json().await.unwrap();
    let rotated = reply["token"].as_str().unwrap();
    assert!(rotated.starts_with("glrt-") && rotated != TOKEN);
    assert!(reply["token_expires_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(bench.runner.token(), rotated);
    assert_eq!(bench.request().await.status(), 403);
    bench.mock.assert_no_violations();
}

#[tokio::test]
async fn rotation_with_a_personal_access_token_names_the_runner_by_id() {
    let bench = Bench::new().await;
    let call = |id: u64, pat: &str, body: &Value| {
        let path = format!("runners/{id}/reset_authentication_token");
        bench.call(Method::POST, &path).header("PRIVATE-TOKEN", pat).json(body).send()
    };
    let id = bench.runner.id();
    assert_eq!(call(id, "glpat-mock", &Value::Null).await.unwrap().status(), 201);
    assert_eq!(call(id, "glpat-other", &Value::Null).await.unwrap().status(), 401);
    assert_eq!(call(99, "glpat-mock", &Value::Null).await.unwrap().status(), 404);
    bench.mock.assert_no_violations();
    assert_eq!(call(id, "glpat-mock", &json!({})).await.unwrap().status(), 201);
    bench.expect_violations(&[Rule::MalformedBody]);
}

#[tokio::test]
async fn there_is_no_job_router() {
    let bench = Bench::new().await;
    let call = || bench.call(Method::GET, "runners/router/discovery");
    assert_eq!(call().header("RUNNER-TOKEN", TOKEN).send().await.unwrap().status(), 501);
    assert_eq!(call().send().await.unwrap().status(), 403);
    bench.expect_violations(&[Rule::WrongToken]);
}

//! Decoding of whole payloads: the expected, the odd and the broken.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use drover_job_payload::{Job, PayloadError, dig_credentials};
use proptest::prelude::*;
use serde_json::{Value, json};
use test_case::test_case;

const FULL: &str = include_str!("../../../fixtures/payloads/full.json");

#[test]
fn every_member_of_a_full_payload_is_read() {
    let job = decode(&full());
    assert_eq!(job.oddities, Vec::<String>::new());
    assert_eq!((job.id, job.token.expose()), (73120, "glcbt-64_fixtureJobToken"));
    assert_eq!(job.timeout().as_secs(), 5400);
    assert_eq!(job.variable("SIGNING_KEY").unwrap().value, "-----BEGIN KEY-----\n...");
    assert_eq!((job.git_info.ref_name.as_str(), job.git_info.protected), ("feature/beam", Some(false)));
    assert_eq!(job.image.executor_opts.docker.user, "1000");
    assert_eq!(job.credentials[0].kind, "registry");
    assert_eq!(job.secrets["DB_PASSWORD"]["vault"]["field"], "password");
    assert_eq!(job.inputs[0].value["content"], "fresnel");
    insta::assert_debug_snapshot!(job);
}

#[test]
fn null_and_missing_are_alike_everywhere() {
    let full = full();
    for pointer in pointers(&full) {
        let mut nulled = full.clone();
        *nulled.pointer_mut(&pointer).unwrap() = Value::Null;
        if pointer == "/id" || pointer == "/token" {
            assert!(matches!(Job::from_json(nulled.to_string().as_bytes()), Err(PayloadError::Missing(_))));
            continue;
        }
        let job = decode(&nulled);
        assert_eq!(job.oddities, Vec::<String>::new(), "{pointer}");
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let mut missing = full.clone();
        match missing.pointer_mut(parent).unwrap() {
            Value::Object(members) => drop(members.remove(name)),
            Value::Array(elements) => drop(elements.remove(name.parse().unwrap())),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => unreachable!(),
        }
        assert_eq!(format!("{:#?}", decode(&missing)), format!("{job:#?}"), "{pointer}");
    }
}

#[test]
fn names_are_matched_without_regard_to_case() {
    let mut shouted = full();
    uppercase_names(&mut shouted, "");
    assert_eq!(format!("{:#?}", decode(&shouted)), format!("{:#?}", decode(&full())));
}

#[test]
fn one_odd_element_does_not_drop_the_others() {
    let job = decode(&json!({
        "id": 1, "token": "t",
        "variables": [7, {"key": "A", "value": 5}, null, {"key": "B", "masked": [true]}, "x"],
        "steps": [{"name": "script", "script": ["one", {}, 2, ["three"], "four"]}],
    }));
    let keys: Vec<(&str, &str)> = job.variables.iter().map(|v| (v.key.as_str(), v.value.as_str())).collect();
    assert_eq!(keys, [("A", "5"), ("B", "")]);
    assert_eq!(job.steps[0].script, ["one", "2", "four"]);
    assert_eq!(
        job.oddities,
        [
            "steps[0].script[1]: expected text, found an object",
            "steps[0].script[3]: expected text, found a list",
            "variables[0]: expected an object, found a number",
            "variables[3].masked: expected true or false, found a list",
            "variables[4]: expected an object, found text",
        ]
    );
}

#[test]
fn oddities_name_the_member_and_never_its_value() {
    let job = decode(&json!({
        "id": 1, "token": "t", "image": "sesame-1", "git_info": ["sesame-2"], "variables": {"sesame": "sesame-3"},
        "secrets": "sesame-4", "credentials": [{"password": ["sesame-5"]}],
    }));
    assert_eq!(job.oddities.len(), 5);
    assert!(job.oddities.contains(&"image: expected an object, found text".to_owned()));
    assert!(job.oddities.contains(&"credentials[0].password: expected text, found a list".to_owned()));
    assert!(!format!("{:?}", job.oddities).contains("sesame"));
}

#[test_case(json!("3600"), 3600; "text")]
#[test_case(json!(3600.0), 3600; "float")]
#[test_case(json!(-1), 7200; "negative means the default")]
#[test_case(json!(0), 7200; "zero means the default")]
#[test_case(json!(1e300), 7200; "too large")]
fn timeouts_of_any_kind(timeout: Value, seconds: u64) {
    let job = decode(&json!({"id": 1, "token": "t", "runner_info": {"timeout": timeout}}));
    assert_eq!(job.timeout().as_secs(), seconds);
}

#[test]
fn a_scalar_in_place_of_a_list_is_its_only_element() {
    let job = decode(&json!({"id": 1, "token": "t", "image": {"pull_policy": "always"}}));
    assert_eq!(job.image.pull_policy, ["always"]);
    assert_eq!(job.oddities, ["image.pull_policy: expected a list, found text"]);
}

#[test]
fn unknown_executor_options_are_kept_by_name() {
    let job = decode(&json!({"id": 1, "token": "t", "image": {"executor_opts": {
        "podman": {}, "docker": {"platform": "p", "privileged": true}, "kubernetes": {"user": 0, "pod": 1}}}}));
    let options = &job.image.executor_opts;
    assert_eq!(options.unknown.keys().collect::<Vec<_>>(), ["podman"]);
    assert_eq!(options.docker.unknown.keys().collect::<Vec<_>>(), ["privileged"]);
    assert_eq!(options.kubernetes.unknown.keys().collect::<Vec<_>>(), ["pod"]);
    assert_eq!(options.kubernetes.user, "0");
}

#[test_case(json!(null), ""; "null")]
#[test_case(json!("[]"), "[]"; "text")]
#[test_case(json!([{"name": "x"}]), r#"[{"name":"x"}]"#; "unwrapped")]
fn run_is_json_text(run: Value, wanted: &str) {
    let job = decode(&json!({"id": 1, "token": "t", "run": run}));
    assert_eq!((job.run.as_str(), job.oddities.len()), (wanted, 0));
}

#[test_case(b"{\"id\": 1, \"token\": \"t\", \"git_info\": {\"sha\": \"a\xffb\"}}", "a\u{fffd}b"; "not utf 8")]
#[test_case(br#"{"id": 1, "token": "t", "git_info": {"sha": "a\ud800b"}}"#, "a\u{fffd}b"; "high half alone")]
#[test_case(br#"{"id": 1, "token": "t", "git_info": {"sha": "a\udc00\ud83d\ude00"}}"#, "a\u{fffd}\u{1f600}"; "low half alone before a pair")]
#[test_case(b"{\"id\": 1, \"token\": \"t\", \"git_info\": {\"sha\": \"a\nb\\\\\"}}", "a\nb\\"; "control character")]
#[test_case(b"\xef\xbb\xbf{\"id\": 1, \"token\": \"t\", \"git_info\": {\"sha\": \"a\"}}", "a"; "byte order mark")]
fn characters_that_json_forbids_lose_no_job(body: &[u8], sha: &str) {
    let job = Job::from_json(body).unwrap();
    assert_eq!(job.git_info.sha, sha);
    assert_eq!(job.oddities, ["characters that JSON does not allow were replaced"]);
}

#[test]
fn what_is_no_job_is_refused() {
    assert!(matches!(Job::from_json(b"<html>"), Err(PayloadError::NotJson(_))));
    assert!(matches!(Job::from_json(b"[]"), Err(PayloadError::NotAnObject)));
    assert!(matches!(Job::from_json(br#"{"token": "t"}"#), Err(PayloadError::Missing("id"))));
    assert!(matches!(Job::from_json(br#"{"id": 4}"#), Err(PayloadError::Missing("token"))));
}

#[test_case(r#"{"id": 5, "token": "t", "variables": [{"key": "A"#, Some(5); "broken off")]
#[test_case(r#"{"job_info": {"id": 9, "token": "no"}, "note": "\"id\": 8", "token": "t", "ID": "5", "x": }"#, Some(5); "only the top level counts")]
#[test_case(r#"{"id": 5, "variables": [{"token": "t"}], "x""#, None; "no token")]
#[test_case(r#"{"id": {}, "token": "t", "x""#, None; "odd id")]
#[test_case(r#"["id", 5, "token", "t"]"#, None; "a list")]
#[test_case("", None; "nothing")]
fn id_and_token_are_dug_out_of_a_broken_job(body: &str, id: Option<u64>) {
    assert!(Job::from_json(body.as_bytes()).is_err());
    let found = dig_credentials(body.as_bytes());
    assert_eq!(found.as_ref().map(|(id, _)| *id), id);
    assert!(found.is_none_or(|(_, token)| token.expose() == "t"));
}

#[test]
fn a_job_that_is_nested_too_deeply_is_refused_but_can_be_failed() {
    let deep =
        format!(r#"{{"id": 5, "secrets": {}1{}, "token": "t"}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(Job::from_json(deep.as_bytes()).is_err());
    assert_eq!(dig_credentials(deep.as_bytes()).unwrap().0, 5);
}

#[test]
fn debug_output_of_a_job_holds_no_secret() {
    let shown = format!("{:?}", decode(&full()));
    for secret in ["fixtureJobToken", "otherFixtureToken", "BEGIN KEY", "fixtureJwt", "fresnel"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

proptest! {
    #[test]
    fn any_value_in_any_member_decodes_and_leaves_the_others_alone(
        index in any::<prop::sample::Index>(),
        value in any_json(),
    ) {
        let full = full();
        let pointers = pointers(&full);
        let pointer = &pointers[index.index(pointers.len())];
        let mut odd = full.clone();
        *odd.pointer_mut(pointer).unwrap() = value;
        let decoded = Job::from_json(odd.to_string().as_bytes());
        if pointer != "/id" && pointer != "/token" {
            let job = decoded.unwrap();
            let usual = decode(&full);
            prop_assert_eq!((job.id, job.token.expose()), (usual.id, usual.token.expose()));
            if !pointer.starts_with("/variables") {
                prop_assert_eq!(&job.variables, &usual.variables);
            }
            if !pointer.starts_with("/steps") {
                prop_assert_eq!(format!("{:?}", job.steps), format!("{:?}", usual.steps));
            }
        }
    }

    #[test]
    fn any_bytes_are_a_job_or_an_error(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Job::from_json(&body);
        let _ = dig_credentials(&body);
    }

    #[test]
    fn a_job_that_breaks_off_anywhere_is_dug_out(cut in 52_usize..FULL.len() - 2) {
        prop_assume!(FULL.is_char_boundary(cut));
        let (id, token) = dig_credentials(&FULL.as_bytes()[..cut.max(70)]).unwrap();
        prop_assert_eq!((id, token.expose()), (73120, "glcbt-64_fixtureJobToken"));
    }
}

fn full() -> Value {
    serde_json::from_str(FULL).unwrap()
}

fn decode(payload: &Value) -> Job {
    Job::from_json(payload.to_string().as_bytes()).unwrap()
}

/// Every place in a value, but not the insides of what is kept as sent.
fn pointers(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        let kept_as_sent = ["/secrets", "/inputs/0/value", "/features/tracing"];
        let inside: Vec<(String, &Value)> = match value {
            Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
            Value::Array(elements) => {
                elements.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        for (name, value) in inside {
            let here = format!("{at}/{name}");
            if !kept_as_sent.contains(&here.as_str()) {
                walk(value, &here, found);
            }
            found.push(here);
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

fn uppercase_names(value: &mut Value, at: &str) {
    // Names of secrets are data.
    if at == "/secrets" || at.ends_with("/value") {
        return;
    }
    match value {
        Value::Object(members) => {
            *members = std::mem::take(members)
                .into_iter()
                .map(|(name, mut value)| {
                    uppercase_names(&mut value, &format!("{at}/{name}"));
                    (name.to_uppercase(), value)
                })
                .collect();
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| uppercase_names(element, at)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,8}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

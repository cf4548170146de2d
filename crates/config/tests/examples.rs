//! The documented example configurations are read without a stumble.

#![expect(clippy::unwrap_used, reason = "functions made by test_case are tests")]

use std::path::PathBuf;

use drover_config::{Capabilities, ExecutorName, Loaded, Report, Verdict, parse};
use test_case::test_case;

#[test_case("docker-autoscaler-aws.toml")]
#[test_case("docker-autoscaler-googlecloud.toml")]
#[test_case("docker-autoscaler-azure.toml")]
#[test_case("instance-aws.toml")]
#[test_case("instance-aws-windows.toml")]
#[test_case("instance-aws-macos.toml")]
#[test_case("instance-googlecloud.toml")]
#[test_case("instance-googlecloud-windows.toml")]
#[test_case("instance-azure.toml")]
#[test_case("instance-azure-windows.toml")]
#[test_case("docker-machine-ec2-spot.toml")]
fn documented_examples_can_run(name: &str) {
    let mut loaded = load(name);
    let known: Vec<_> =
        loaded.diagnostics.iter().filter(|found| found.rule != "unknown-key").cloned().collect();
    assert!(known.iter().all(|found| !found.is_error()), "{}", report(name, &known));
    if name != "docker-machine-ec2-spot.toml" {
        assert_eq!(known.len(), loaded.diagnostics.len(), "{}", report(name, &loaded.diagnostics));
    }
    let everything = Capabilities {
        executors: vec![ExecutorName::Instance, ExecutorName::DockerAutoscaler, ExecutorName::DockerMachine],
        plugins: ["aws", "googlecloud", "azure"].map(Into::into).into(),
    };
    assert_eq!(loaded.verdicts(&everything), [Verdict::Runnable]);
    loaded.config.runners.clear();
    assert_eq!(loaded.verdicts(&everything), []);
}

#[test]
fn the_tutorial_for_ec2_lacks_only_its_address() {
    let loaded = load("docker-machine-ec2.toml");
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|found| found.is_error()).collect();
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].rule, errors[0].line), ("url", Some(6)));
    assert!(loaded.diagnostics.iter().all(|found| found.rule != "unknown-key"));
    let machine = loaded.config.runners[0].machine.as_ref().unwrap();
    assert_eq!(machine.autoscaling[0].idle_count(), 50);
    assert_eq!(machine.machine_options.len(), 9);
}

#[test]
fn volumes_of_the_cache_section_are_sent_to_the_docker_section() {
    let loaded = load("docker-machine-ec2-spot.toml");
    let unknown: Vec<_> =
        loaded.diagnostics.iter().filter(|found| found.rule == "unknown-key").cloned().collect();
    insta::assert_snapshot!(report("config.toml", &unknown), @r#"
    config.toml:19:5: warning: unknown key `volumes` in [runners.cache]
      19 |     volumes = [
         |     ^^^^^^^
      key: runners[0].cache.volumes
      hint: `volumes` belongs to [runners.docker]; here it has no effect
    "#);
}

#[test]
fn an_unrendered_template_is_named_as_such() {
    let invalid = parse(&text("invalid/unrendered-template.toml"), "config.toml", &|_| None).unwrap_err();
    insta::assert_snapshot!(invalid.to_string(), @r#"
    `config.toml` has 1 error
    config.toml:8:11: error: not valid TOML: the value looks like an unexpanded template
      8 |   token = $${RUNNER_TOKEN}
        |           ^^^^^^^^^^^^^^^^
      hint: render the template before the file is used, or put the value in quotes; `$${...}` is how a template writes `${...}`, which is read from the environment inside of quotes
    "#);
}

#[test_case("fragments/docker.toml")]
#[test_case("fragments/cache-s3.toml")]
#[test_case("fragments/machine.toml")]
fn sections_are_read_below_a_runner_and_refused_alone(name: &str) {
    let fragment = text(name);
    let whole = format!("{}\n{fragment}", text("fragments/runner.toml"));
    let loaded = parse(&whole, name, &|_| None).unwrap();
    assert!(loaded.diagnostics.iter().all(|found| found.rule != "unknown-key"), "{loaded:?}");

    let invalid = parse(&fragment, name, &|_| None).unwrap_err();
    assert!(invalid.to_string().contains("write each as [[runners]], with double brackets"), "{invalid}");
}

#[test_case("fragments/spot.toml")]
#[test_case("fragments/spot-price.toml")]
fn driver_options_at_the_top_are_sent_to_their_section(name: &str) {
    let loaded = parse(&text(name), name, &|_| None).unwrap();
    assert_eq!(loaded.diagnostics.len(), 1);
    assert_eq!(
        loaded.diagnostics[0].hint.as_deref(),
        Some("`MachineOptions` belongs to [runners.machine]; here it has no effect")
    );
}

#[test]
fn the_smallest_fragment_is_a_configuration() {
    let loaded = load("fragments/global.toml");
    assert_eq!(loaded.config.concurrent(), 10);
    assert!(loaded.diagnostics.is_empty());
}

fn load(name: &str) -> Loaded {
    match parse(&text(name), name, &|_| None) {
        Ok(loaded) => loaded,
        Err(invalid) => panic!("{invalid}"),
    }
}

fn text(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/config").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn report(file: &str, diagnostics: &[drover_config::Diagnostic]) -> String {
    Report { file, diagnostics }.to_string()
}

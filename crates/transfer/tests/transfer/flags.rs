//! The command line, as GitLab Runner's scripts write it.

use clap::{CommandFactory as _, Parser as _};
use drover_transfer::Command;
use test_case::test_case;

use crate::support::Line;

#[test_case("artifacts-uploader --url https://g --token t --id 1 --timeout 1h0m0s --response-header-timeout 10m0s --path a --path -b \
    --exclude c --untracked --verbose --name $CI_JOB_NAME --expire-in 1_week --artifact-format zip --artifact-type archive \
    --compression-level fast --ci-debug-trace --transfer-meter-frequency 1s --tls-ca-file a --tls-cert-file b --tls-key-file c"; "uploader")]
#[test_case("artifacts-uploader --generate-artifacts-metadata --runner-id 1 --repo-url u --repo-digest d --job-name j --executor-name e \
    --runner-name r --metadata-parameter A --metadata-parameter B --started-at x --ended-at y --schema-version v1"; "provenance")]
#[test_case("artifacts-downloader --url https://g --token t --id 1 --direct-download --archiver-staging-dir /tmp --retry 5 --retry-time 2s"; "downloader")]
#[test_case("cache-archiver --file f --alternate-file g --timeout 10 --path a --untracked --url https://s3/x --header A:_b --header C:d \
    --check-url https://s3/y --max-uploaded-archive-size 100 --env-file e --compression-level slow --compression-format tarzstd"; "archiver")]
#[test_case("cache-archiver --gocloud-url s3://b/k --file f"; "archiver with a cloud url")]
#[test_case("cache-extractor --file f --timeout 10 --url u --head-url h --alternate-url a --alternate-head-url b --env-file e \
    --gocloud-url x --alternate-gocloud-url y"; "extractor")]
#[test_case("health-check"; "health check by environment")]
#[test_case("health-check --port 80 --port 81"; "health check by ports")]
fn lines_of_the_reference_are_taken(line: &str) {
    Line::try_parse_from(["helper"].into_iter().chain(line.split_whitespace())).unwrap();
}

fn untracked(arguments: &[&str]) -> bool {
    let line = Line::try_parse_from([&["helper", "cache-archiver"], arguments].concat()).unwrap();
    let Command::CacheArchiver(options) = line.command else { panic!("{line:?}") };
    options.selection.untracked
}

#[test]
fn switches_may_have_a_value() {
    assert!(!untracked(&[]));
    assert!(untracked(&["--untracked"]));
    assert!(untracked(&["--untracked=true"]));
    assert!(!untracked(&["--untracked=false"]));
    // What follows a switch is not its value.
    assert!(untracked(&["--untracked", "--file", "false"]));
}

#[test]
fn every_variable_of_the_reference_stands_for_a_flag() {
    let mut command = Line::command();
    command.build();
    let variables = |name: &str| {
        let command = command.find_subcommand(name).unwrap();
        let mut names: Vec<String> = command
            .get_arguments()
            .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        names
    };
    let both = [
        "CI_JOB_ID",
        "CI_JOB_TOKEN",
        "CI_SERVER_TLS_CA_FILE",
        "CI_SERVER_TLS_CERT_FILE",
        "CI_SERVER_TLS_KEY_FILE",
        "CI_SERVER_URL",
    ];
    for name in both {
        assert!(variables("artifacts-uploader").iter().any(|variable| variable == name), "{name}");
        assert!(variables("artifacts-downloader").iter().any(|variable| variable == name), "{name}");
    }
    for name in ["ARTIFACT_COMPRESSION_LEVEL", "CI_DEBUG_TRACE", "TRANSFER_METER_FREQUENCY"] {
        assert!(variables("artifacts-uploader").iter().any(|variable| variable == name), "{name}");
    }
    for name in ["FF_USE_DIRECT_DOWNLOAD", "ARCHIVER_STAGING_DIR"] {
        assert!(variables("artifacts-downloader").iter().any(|variable| variable == name), "{name}");
    }
    for name in ["CACHE_COMPRESSION_FORMAT", "CACHE_COMPRESSION_LEVEL", "CACHE_REQUEST_TIMEOUT"] {
        assert!(variables("cache-archiver").iter().any(|variable| variable == name), "{name}");
    }
}

#[test]
fn help_does_not_show_a_token() {
    let mut command = Line::command();
    command.build();
    let uploader = command.find_subcommand("artifacts-uploader").unwrap();
    let token = uploader.get_arguments().find(|argument| argument.get_id() == "token").unwrap();
    assert!(token.is_hide_env_values_set());
    let line =
        Line::try_parse_from(["helper", "artifacts-uploader", "--token", "glcbt-64_secret", "--url", "u"]);
    assert!(!format!("{line:?}").contains("secret"));
}

#[test]
fn values_that_mean_nothing_are_refused() {
    for wrong in [
        &["artifacts-uploader", "--timeout", "soon"][..],
        &["artifacts-uploader", "--artifact-format", "rar"],
        &["cache-archiver", "--untracked=perhaps"],
    ] {
        assert!(Line::try_parse_from([&["helper"], wrong].concat()).is_err(), "{wrong:?}");
    }
}

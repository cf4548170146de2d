//! `drover register`.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use gitlab_mock::{Config, Endpoint, Fault, GitlabMock};
use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStderr;

use crate::support::{Home, PATIENCE, finish};

const TOKEN: &str = "glrt-aBcDeFgHiJkLmNoPqRsT";
const REGISTRATION: &str = "GR1348941registration";

const TEMPLATE: &str = r#"
[[runners]]
  limit = 5
  token = "of somebody else"
  executor = "docker-autoscaler"
  [runners.autoscaler]
    plugin = "local"
    max_instances = 3
"#;

#[tokio::test]
async fn an_authentication_token_is_verified_and_written_with_the_template() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let runner = gitlab.add_runner(TOKEN);
    let home = Home::empty();
    let template = home.write("template.toml", TEMPLATE);
    let said = home
        .drover(&[
            "register",
            "--non-interactive",
            "--url",
            gitlab.url(),
            "--token",
            TOKEN,
            "--name",
            "build",
            "--executor",
            "instance",
            "--template-config",
            template.to_str().unwrap(),
            "--request-concurrency=3",
            "--env",
            "A=1",
            "--env",
            "B=2",
            "--cache-type",
            "s3",
            "--cache-s3-bucket-name",
            "bucket",
            "--cache-s3-bucket-location",
            "eu-west-1",
        ])
        .await
        .code(0);

    assert_eq!(said.stdout, "");
    assert!(!said.stderr.contains(TOKEN), "{}", said.stderr);
    assert_eq!(runner.view().managers.len(), 1, "GitLab knows the manager");
    gitlab.assert_no_violations();
    let mode = std::fs::metadata(home.config()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let file: toml::Table = home.text().parse().unwrap();
    let entry = &file["runners"][0];
    assert_eq!(entry["token"].as_str(), Some(TOKEN));
    assert_eq!(entry["executor"].as_str(), Some("instance"), "the command line wins");
    assert_eq!(entry["limit"].as_integer(), Some(5), "the template fills");
    assert_eq!(entry["request_concurrency"].as_integer(), Some(3));
    assert_eq!(entry["environment"].as_array().unwrap().len(), 2);
    assert_eq!(entry["autoscaler"]["max_instances"].as_integer(), Some(3));
    assert_eq!(entry["cache"]["s3"]["BucketName"].as_str(), Some("bucket"));
    assert!(entry["id"].as_integer().unwrap() > 0);
    assert!(entry["token_obtained_at"].is_datetime());
    home.drover(&["config", "check"]).await.code(0);
}

#[tokio::test]
async fn an_entry_for_containers_has_an_image_and_a_cache() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    gitlab.add_runner(TOKEN);
    let home = Home::empty();
    let url = gitlab.url().to_owned();
    let register = async |more: &[&str]| {
        let base = ["register", "--non-interactive", "--url", &url, "--token", TOKEN, "--executor", "docker"];
        home.drover(&base.iter().chain(more).copied().collect::<Vec<_>>()).await
    };
    let without = register(&[]).await.code(2);
    assert!(without.stderr.contains("pass --docker-image"), "{}", without.stderr);
    let wrong = register(&["--docker-image", "alpine", "--docker-host", "/run/docker.sock"]).await.code(2);
    assert!(wrong.stderr.contains("is not an address of an engine"), "{}", wrong.stderr);
    assert!(!home.config().exists(), "nothing is written before all is right");

    for (more, volumes) in [
        (&["--docker-image", "alpine", "--docker-volumes", "/data"][..], &["/data", "/cache"][..]),
        (&["--docker-image", "alpine", "--docker-volumes", "/srv/cache:/cache"], &["/srv/cache:/cache"]),
        (&["--docker-image", "alpine", "--docker-disable-cache"], &[]),
    ] {
        register(more).await.code(0);
        let file: toml::Table = home.text().parse().unwrap();
        let docker = &file["runners"].as_array().unwrap().last().unwrap()["docker"];
        assert_eq!(docker["image"].as_str(), Some("alpine"));
        let found: Vec<&str> =
            docker["volumes"].as_array().unwrap().iter().map(|volume| volume.as_str().unwrap()).collect();
        assert_eq!(found, volumes);
    }
}

#[tokio::test]
async fn variables_work_like_flags_and_the_rest_of_the_file_stays() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    gitlab.add_runner(TOKEN);
    let before = "concurrent = 7 # as many as seats\n\n# the old one\n[[runners]]\n  name = \"old\"\n  \
        url = \"https://gitlab.example.com\"\n  token = \"glrt-old\"\n  executor = \"shell\"\n";
    let home = Home::with(before);
    let template = home.write("template.toml", TEMPLATE);
    let mut command = home.command(&["register"]);
    command.envs([
        ("REGISTER_NON_INTERACTIVE", "true"),
        ("CI_SERVER_URL", gitlab.url()),
        ("CI_SERVER_TOKEN", TOKEN),
        ("RUNNER_NAME", "new"),
        ("RUNNER_EXECUTOR", "instance"),
        ("RUNNER_LIMIT", "9"),
        ("REGISTER_LOCKED", ""),
        ("TEMPLATE_CONFIG_FILE", template.to_str().unwrap()),
    ]);
    finish(command).await.code(0);
    let text = home.text();
    assert!(text.starts_with(before), "{text}");
    let file: toml::Table = text.parse().unwrap();
    assert_eq!(file["runners"][1]["name"].as_str(), Some("new"));
    assert_eq!(file["runners"][1]["limit"].as_integer(), Some(9));
}

#[tokio::test]
async fn at_a_terminal_it_asks_and_does_not_show_the_token() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    gitlab.add_runner(TOKEN);
    let home = Home::empty();
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut keyboard = std::fs::File::from(terminal.master);
    let mut command = home.command(&["register"]);
    command.stdin(terminal.slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut screen = child.stderr.take().unwrap();
    let mut said = String::new();
    for (question, answer) in [
        ("Address of GitLab", gitlab.url()),
        ("Token", TOKEN),
        ("Name of the runner", ""),
        ("Executor", "shell"),
    ] {
        see(&mut screen, &mut said, question).await;
        keyboard.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();

    assert_eq!(ended.status.code(), Some(0), "{said}");
    let mut echoed = vec![0; 4096];
    let length = keyboard.read(&mut echoed).unwrap();
    let echoed = String::from_utf8_lossy(&echoed[..length]).into_owned();
    assert!(echoed.contains(gitlab.url()) && !echoed.contains(TOKEN), "{echoed}");
    let file: toml::Table = home.text().parse().unwrap();
    let entry = &file["runners"][0];
    assert_eq!((entry["token"].as_str(), entry["executor"].as_str()), (Some(TOKEN), Some("shell")));
    let host = nix::unistd::gethostname().unwrap();
    assert_eq!(entry["name"].as_str(), host.to_str(), "an empty answer takes the proposal");
}

#[tokio::test]
async fn a_registration_token_makes_a_new_runner_with_a_warning() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let home = Home::empty();
    let template = home.write("template.toml", TEMPLATE);
    let said = home
        .drover(&[
            "register",
            "-n",
            "-u",
            gitlab.url(),
            "-r",
            REGISTRATION,
            "--executor",
            "instance",
            "--tag-list",
            "linux,ssd",
            "--locked=false",
            "--template-config",
            template.to_str().unwrap(),
        ])
        .await
        .code(0);
    assert!(said.stderr.contains("deprecated"), "{}", said.stderr);
    let file: toml::Table = home.text().parse().unwrap();
    let token = file["runners"][0]["token"].as_str().unwrap();
    assert_ne!(token, REGISTRATION);
    assert!(gitlab.runner(token).is_some());
    gitlab.assert_no_violations();
}

#[tokio::test]
async fn a_bad_token_leaves_no_file() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let home = Home::empty();
    let template = home.write("template.toml", TEMPLATE);
    let said = home
        .drover(&[
            "register",
            "-n",
            "-u",
            gitlab.url(),
            "-t",
            TOKEN,
            "--executor",
            "instance",
            "--template-config",
            template.to_str().unwrap(),
        ])
        .await
        .code(1);
    assert!(said.stderr.contains("error: GitLab refused the token"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: create a runner in GitLab"), "{}", said.stderr);
    assert!(!said.stderr.contains(TOKEN), "{}", said.stderr);
    assert!(!home.config().exists());
}

#[tokio::test]
async fn a_gitlab_out_of_reach_is_said_with_its_cause() {
    let home = Home::empty();
    let template = home.write("template.toml", TEMPLATE);
    let template = template.to_str().unwrap();
    let said = home
        .drover(&[
            "register",
            "-n",
            "-u",
            "http://127.0.0.1:1",
            "-t",
            TOKEN,
            "--executor",
            "instance",
            "--template-config",
            template,
        ])
        .await
        .code(1);
    assert!(said.stderr.starts_with("error: failed to verify the runner\n  caused by: "), "{}", said.stderr);
    assert!(said.stderr.to_lowercase().contains("connection refused"), "{}", said.stderr);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let home = Home::empty();
    let url = "http://127.0.0.1:1";
    for (arguments, wanted) in [
        (&["register", "-n"][..], "--url"),
        (&["register", "-n", "-u", url], "--token"),
        (&["register", "-n", "-u", url, "-t", TOKEN], "--executor"),
        (&["register", "-n", "-u", url, "-t", TOKEN, "--executor", "shel"], "not known"),
        (&["register", "-n", "-u", url, "-t", TOKEN, "--executor", "instance"], "autoscaler"),
        (
            &["register", "-n", "-u", url, "-t", TOKEN, "--executor", "shell", "--limit", "many"],
            "whole number",
        ),
        (&["register", "-n", "-u", "gitlab", "-t", TOKEN, "--executor", "shell"], "url"),
    ] {
        let said = home.drover(arguments).await.code(2);
        assert!(said.stderr.to_lowercase().contains(wanted), "{arguments:?}: {}", said.stderr);
        assert!(!home.config().exists());
    }
}

#[tokio::test]
async fn what_gitlab_keeps_cannot_be_set_for_a_created_runner() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    gitlab.add_runner(TOKEN);
    let home = Home::empty();
    let url = gitlab.url();
    let refused = home
        .drover(&["register", "-n", "-u", url, "-t", TOKEN, "--executor", "shell", "--tag-list", "a"])
        .await;
    assert!(refused.code(2).stderr.contains("--tag-list cannot be set"));
    let ignored = home
        .drover(&["register", "-n", "-u", url, "-r", TOKEN, "--executor", "shell", "--paused"])
        .await
        .code(0);
    assert!(ignored.stderr.contains("--paused has no effect"), "{}", ignored.stderr);
    assert!(ignored.stderr.contains("takes no jobs yet"), "{}", ignored.stderr);
}

#[tokio::test]
async fn a_runner_that_cannot_be_written_is_removed_from_gitlab_again() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let home = Home::with("concurrent = 1\n");
    let before = gitlab.runners().len();
    // Another program changes the file while GitLab is asked.
    let path = home.config();
    let pause = Duration::from_secs(2);
    gitlab.inject(Fault::delay(pause).on([Endpoint::Register]));
    let url = gitlab.url();
    let arguments = ["register", "-n", "-u", url, "-r", REGISTRATION, "--executor", "shell"];
    let running = tokio::spawn(finish(home.command(&arguments)));
    let changed = async {
        while gitlab.faults().iter().all(|fault| fault.hits == 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::fs::write(&path, "concurrent = 2\n").unwrap();
    };
    tokio::time::timeout(PATIENCE, changed).await.unwrap();
    let said = running.await.unwrap().code(1);
    assert!(said.stderr.contains("changed by someone else"), "{}", said.stderr);
    assert!(said.stderr.contains("removed from GitLab again"), "{}", said.stderr);
    assert_eq!(gitlab.runners().len(), before);
    assert_eq!(home.text(), "concurrent = 2\n");
}

/// Reads until the last line on the screen holds this question.
async fn see(screen: &mut ChildStderr, said: &mut String, question: &str) {
    let read = async {
        while !said.lines().last().is_some_and(|line| line.contains(question) && line.ends_with(": ")) {
            let mut bytes = [0; 512];
            let length = screen.read(&mut bytes).await.unwrap();
            assert!(length > 0, "`{question}` is not asked:\n{said}");
            said.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    };
    assert!(tokio::time::timeout(PATIENCE, read).await.is_ok(), "`{question}` is not asked");
}

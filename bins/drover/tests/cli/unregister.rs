//! `drover unregister`.

use gitlab_mock::{Config, GitlabMock};

use crate::support::{Home, entry};

const CREATED: &str = "glrt-cReAtEdCrEaTeDcReAtEd";
const LEGACY: &str = "lEgAcYlEgAcYlEgAcYlE";

#[tokio::test]
async fn a_created_runner_stays_in_gitlab_without_this_manager() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let runner = gitlab.add_runner(CREATED);
    let home = Home::with(&format!("concurrent = 2 # two cores\n\n{}", entry("a", gitlab.url(), CREATED)));
    home.drover(&["verify"]).await.code(0);
    assert_eq!(runner.view().managers.len(), 1);

    let gone = home.drover(&["unregister", "--name", "a"]).await.code(0);

    assert_eq!(gone.stdout, "a (cReAtEdCr): unregistered\n");
    assert_eq!(runner.view().managers.len(), 0);
    assert!(gitlab.runner(CREATED).is_some());
    assert_eq!(home.text(), "concurrent = 2 # two cores\n");
    gitlab.assert_no_violations();
}

#[tokio::test]
async fn all_go_but_those_that_gitlab_does_not_let_go() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    gitlab.add_runner(LEGACY);
    let url = gitlab.url();
    let home = Home::with(&format!("{}\n{}", entry("unknown", url, CREATED), entry("legacy", url, LEGACY)));
    let said = home.drover(&["unregister", "--all-runners"]).await.code(1);
    assert!(said.stdout.contains("unknown (cReAtEdCr): still registered: forbidden"), "{}", said.stdout);
    assert!(said.stdout.contains("legacy (lEgAcYlEg): unregistered"), "{}", said.stdout);
    assert!(gitlab.runner(LEGACY).is_none());
    let text = home.text();
    assert!(text.contains(CREATED) && !text.contains(LEGACY), "{text}");
}

#[tokio::test]
async fn a_runner_that_is_not_in_the_file_goes_by_url_and_token() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    gitlab.add_runner(LEGACY);
    let home = Home::empty();
    home.drover(&["unregister", "--url", gitlab.url(), "--token", LEGACY]).await.code(0);
    assert!(gitlab.runner(LEGACY).is_none());
    assert!(!home.config().exists());
}

#[tokio::test]
async fn somebody_must_be_named() {
    let home = Home::with(&entry("a", "https://gitlab.example.com", CREATED));
    let said = home.drover(&["unregister"]).await.code(2);
    assert!(said.stderr.contains("--all-runners"), "{}", said.stderr);
}

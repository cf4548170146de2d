//! `drover verify` and `drover reset-token`.

use gitlab_mock::{Config, GitlabMock};

use crate::support::{Home, entry};

const GOOD: &str = "glrt-gOoDgOoDgOoDgOoDgOoD";
const BAD: &str = "glrt-bAdBbAdBbAdBbAdBbAdB";

#[tokio::test]
async fn good_tokens_are_good() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    let runner = gitlab.add_runner(GOOD);
    let home = Home::with(&entry("good", gitlab.url(), GOOD));
    let verified = home.drover(&["verify"]).await.code(0);
    assert_eq!(verified.stdout, "good (gOoDgOoDg): good\n");
    let managers = runner.view().managers;
    let id = std::fs::read_to_string(home.path().join(".runner_system_id")).unwrap();
    let manager = managers.get(id.trim()).expect("GitLab knows this manager");
    assert_eq!((manager.name.as_str(), manager.executor.as_str()), ("drover", "instance"));
    gitlab.assert_no_violations();
}

#[tokio::test]
async fn a_refused_token_fails_and_is_removed_only_on_request() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    gitlab.add_runner(GOOD);
    let head = "# the file of this host\nconcurrent = 2\n";
    let good = entry("good", gitlab.url(), GOOD);
    let home = Home::with(&format!("{head}\n{}\n{good}", entry("bad", gitlab.url(), BAD)));

    let before = home.text();
    let failed = home.drover(&["verify"]).await.code(1);
    assert!(failed.stdout.contains("bad (bAdBbAdBb): refused by GitLab"), "{}", failed.stdout);
    assert!(failed.stdout.contains("good (gOoDgOoDg): good"), "{}", failed.stdout);
    assert!(failed.stderr.contains("hint: `drover verify --delete`"), "{}", failed.stderr);
    assert_eq!(home.text(), before);

    home.drover(&["verify", "--delete"]).await.code(0);
    let after = home.text();
    assert!(after.starts_with(head), "{after}");
    assert!(after.contains(GOOD) && !after.contains(BAD), "{after}");
}

#[tokio::test]
async fn only_the_named_entry_is_asked_about() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    gitlab.add_runner(GOOD);
    let url = gitlab.url();
    let home = Home::with(&format!("{}\n{}", entry("bad", url, BAD), entry("good", url, GOOD)));
    let by_name = home.drover(&["verify", "--name", "good"]).await.code(0);
    assert_eq!(by_name.stdout.lines().count(), 1);
    home.drover(&["verify", "--url", url, "--token", GOOD]).await.code(0);
    let none = home.drover(&["verify", "-n", "nobody"]).await.code(1);
    assert!(none.stderr.contains("no runner entry fits"), "{}", none.stderr);
}

#[tokio::test]
async fn a_gitlab_out_of_reach_is_no_reason_to_delete() {
    let home = Home::with(&entry("far", "http://127.0.0.1:1", GOOD));
    let before = home.text();
    let failed = home.drover(&["verify", "--delete"]).await.code(1);
    assert!(failed.stdout.contains("far (gOoDgOoDg): cannot tell: "), "{}", failed.stdout);
    assert_eq!(home.text(), before);
}

#[tokio::test]
async fn a_reset_token_replaces_the_old_one_in_the_file() {
    let gitlab = GitlabMock::start(Config::default()).await.unwrap();
    gitlab.add_runner(GOOD);
    let home = Home::with(&entry("good", gitlab.url(), GOOD));
    let reset = home.drover(&["reset-token", "--name", "good"]).await.code(0);
    let text = home.text();
    assert!(!text.contains(GOOD), "{text}");
    assert!(text.contains("token_obtained_at = 20"), "{text}");
    assert!(!reset.stdout.contains("glrt-"), "{}", reset.stdout);
    home.drover(&["verify"]).await.code(0);
    gitlab.assert_no_violations();
}

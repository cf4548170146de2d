//! Words that a job announces as secret: `proxy_exec`.

use drover_tests::{Entry, Setup, Sshd};
use gitlab_mock::JobBuilder;

use crate::world;

fn announcing() -> JobBuilder {
    JobBuilder::new("announces")
        .script(["w=$(printf 'mag%s' ic); printf '::add-mask::%s\\nthe word is %s\\n' \"$w\" \"$w\""])
        .after_script(["echo \"after mag$(echo ic)\"", "echo \"still mag$(echo ic)\" >&2"])
}

#[tokio::test]
async fn announced_words_are_masked_from_then_on_in_containers() {
    let world = world(|entry| entry.set("proxy_exec", true)).await;
    let job = announcing().variable("GIT_STRATEGY", "none");
    let finished = world.run(job).await.succeeded();
    let finished =
        finished.has_line("the word is [MASKED]").has_line("still [MASKED]").has_line("after [MASKED]");
    finished.says_not("magic").says_not("::add-mask::[MASKED]");
    world.stop().await;
}

#[tokio::test]
async fn announced_words_are_masked_from_then_on_on_instances() {
    let sshd = Sshd::start();
    let world = Setup::new().runner(Entry::machines("ssh", [&sshd]).set("proxy_exec", true)).start().await;
    let finished = world.run(announcing()).await.succeeded();
    finished.has_line("the word is [MASKED]").has_line("after [MASKED]").says_not("magic");
    world.stop().await;
}

#[tokio::test]
async fn without_proxy_exec_an_announcement_is_a_line_like_others() {
    let world = world(|entry| entry).await;
    let job = announcing().variable("GIT_STRATEGY", "none");
    world.run(job).await.succeeded().has_line("::add-mask::magic").has_line("the word is magic");
    world.stop().await;
}

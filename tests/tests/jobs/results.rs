//! How a script ends is how the job ends.

use drover_tests::{Entry, Setup, Sshd};
use gitlab_mock::JobBuilder;

#[tokio::test]
async fn hello_local() {
    let world = Setup::new().runner(Entry::local("fleet")).start().await;
    world.run(JobBuilder::new("hello").script(["echo hello"])).await.succeeded().has_line("hello");
    world.stop().await;
}

#[tokio::test]
async fn hello_sshd() {
    let sshd = Sshd::start();
    let world = Setup::new().runner(Entry::machines("fleet", [&sshd])).start().await;
    world.run(JobBuilder::new("hello").script(["echo hello"])).await.succeeded().has_line("hello");
    world.stop().await;
}

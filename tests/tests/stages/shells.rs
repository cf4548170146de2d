//! Shells that are not there, or not served.

use gitlab_mock::JobBuilder;

use crate::world::with;

/// PowerShell is not among the programs of the tests: the folder of the programs of this machine holds none.
#[tokio::test]
async fn a_powershell_that_is_not_there_is_named() {
    let world = with(|entry| entry.set("shell", "pwsh")).await;
    let ended = world.run(JobBuilder::new("pwsh").script(["Write-Output hello"])).await;
    ended
        .failed("runner_system_failure", None)
        .says("the shell `pwsh` was not found")
        .says("install it there")
        .lacks_line("hello");
    world.stop().await;
}

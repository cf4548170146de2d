//! `drover completion`.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use crate::support::Home;

#[tokio::test]
async fn bash_takes_the_script() {
    let home = Home::empty();
    let script = home.drover(&["completion", "bash"]).await.code(0).stdout;
    let check = format!("{script}\ncomplete -p drover\n");
    let mut bash = tokio::process::Command::new("bash")
        .args(["--norc", "-e"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin.take().unwrap().write_all(check.as_bytes()).await.unwrap();
    let output = bash.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("drover"));
}

#[tokio::test]
async fn every_shell_has_a_script_that_knows_the_commands() {
    let home = Home::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.drover(&["completion", shell]).await.code(0).stdout;
        assert!(script.contains("unregister"), "{shell}");
    }
}

#[tokio::test]
async fn an_unknown_command_is_a_usage_error_with_a_suggestion() {
    let home = Home::empty();
    let said = home.drover(&["registr"]).await.code(2);
    assert!(said.stderr.contains("register"), "{}", said.stderr);
}

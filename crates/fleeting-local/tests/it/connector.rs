//! The connector of the executors uses local instances like any others.

use crate::common::{PATIENCE, World, eventually, is_alive};
use ::connector::{Client, DialOptions, ExitStatus, Output};
use bytes::Bytes;
use fleeting::InstanceGroup;

async fn dial(world: &World) -> Client {
    let info = world.group.connect_info(&world.ids[0]).await.unwrap();
    ::connector::dial(&info, &DialOptions::default(), &mut |_| {}).await.unwrap()
}

async fn run(client: &Client, command: &str, stdin: &'static str) -> (String, ExitStatus) {
    let mut process = client.exec(command, Bytes::from_static(stdin.as_bytes())).await.unwrap();
    let mut all = Vec::new();
    while let Some(output) = process.next().await.unwrap() {
        match output {
            Output::Stdout(bytes) | Output::Stderr(bytes) => all.extend_from_slice(&bytes),
        }
    }
    (String::from_utf8(all).unwrap(), process.wait().await.unwrap())
}

#[tokio::test]
async fn stages_run_one_after_the_other_and_at_once() {
    let world = World::with(1).await;
    let client = dial(&world).await;
    for _ in 0..4 {
        let (output, status) = run(&client, "bash", "echo stage; exit 3").await;
        assert_eq!((output.as_str(), status), ("stage\n", ExitStatus::Code(3)));
    }
    let stages = (0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { run(&client, "sh", "echo one of many").await.0 })
    });
    for stage in stages.collect::<Vec<_>>() {
        assert_eq!(tokio::time::timeout(PATIENCE, stage).await.unwrap().unwrap(), "one of many\n");
    }
    assert_eq!(run(&client, "kill -TERM $$", "").await.1, ExitStatus::Signal("TERM".into()));
}

#[tokio::test]
async fn the_client_notices_the_death_of_its_instance() {
    let world = World::with(1).await;
    let client = dial(&world).await;
    let mut process = client.exec("sh", Bytes::from_static(b"echo $$; sleep 600")).await.unwrap();
    let Some(Output::Stdout(pid)) = process.next().await.unwrap() else { panic!("no output") };
    let pid: i32 = String::from_utf8_lossy(&pid).trim().parse().unwrap();

    world.group.kill(&world.ids[0]);

    tokio::time::timeout(PATIENCE, client.closed()).await.unwrap();
    let rest = tokio::time::timeout(PATIENCE, process.next()).await.unwrap();
    assert!(rest.is_err(), "{rest:?}");
    eventually("its processes end", || !is_alive(pid)).await;
}

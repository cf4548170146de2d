//! Hundreds of jobs on a few instances: limits hold, and whatever dies, each job gets its one result.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drover_tests::{Entry, Finished, PATIENCE, Setup, Sshd, World, processes_in};
use gitlab_mock::{JobBuilder, JobState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CONCURRENT: usize = 10;
const INSTANCES: usize = 5;
const CAPACITY: usize = 2;

/// When a job's script ran, and where.
#[derive(Debug, Clone)]
struct Run {
    instance: String,
    begin: u128,
    end: u128,
}

/// A job that says when it began and ended, on the clock of this machine.
fn job(seconds: &str) -> JobBuilder {
    let script = ["echo \"begin=$(date +%s%N)\"", &format!("sleep {seconds}"), "echo \"end=$(date +%s%N)\""];
    JobBuilder::new("timed").script(script)
}

impl Run {
    /// What the log says; nothing for a job whose script did not begin. A job that was cut off has no end.
    fn of(job: &Finished) -> Option<Self> {
        let number = |line: &str, key| line.strip_prefix(key)?.parse::<u128>().ok();
        let begin = job.log.lines().find_map(|line| number(line, "begin="))?;
        let end = job.log.lines().find_map(|line| number(line, "end=")).unwrap_or(begin);
        Some(Self { instance: instance(job)?, begin, end })
    }
}

/// The last instance that the job was connected to.
fn instance(job: &Finished) -> Option<String> {
    let connected = |line: &str| Some(line.strip_prefix("Instance ")?.strip_suffix(" connected")?.to_owned());
    job.log.lines().filter_map(connected).next_back()
}

/// The most intervals that hold at the same time.
fn most_at_once<'a>(runs: impl IntoIterator<Item = &'a Run>) -> usize {
    let mut edges: Vec<(u128, i32)> =
        runs.into_iter().flat_map(|run| [(run.begin, 1), (run.end, -1)]).collect();
    edges.sort_unstable();
    let mut now = 0;
    edges
        .into_iter()
        .map(|(_, change)| {
            now += change;
            now
        })
        .max()
        .unwrap_or(0)
        .try_into()
        .unwrap()
}

/// Runs by instance; fails the test when a limit was exceeded.
fn check_limits(runs: &[Run], uses: usize) -> BTreeMap<String, Vec<Run>> {
    let mut by_instance: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    for run in runs {
        by_instance.entry(run.instance.clone()).or_default().push(run.clone());
    }
    assert!(most_at_once(runs) <= CONCURRENT, "above `concurrent`");
    for (instance, runs) in &by_instance {
        assert!(most_at_once(runs) <= CAPACITY, "above `capacity_per_instance` on {instance}: {runs:?}");
        assert!(runs.len() <= uses, "above `max_use_count` on {instance}: {} jobs", runs.len());
    }
    let lives = by_instance.iter().map(|(instance, runs)| Run {
        instance: instance.clone(),
        begin: runs.iter().map(|run| run.begin).min().unwrap_or(0),
        end: runs.iter().map(|run| run.end).max().unwrap_or(0),
    });
    let lives: Vec<Run> = lives.collect();
    assert!(most_at_once(&lives) <= INSTANCES, "above `max_instances`: {lives:?}");
    by_instance
}

async fn two_hundred_jobs(entry: Entry) {
    const JOBS: usize = 200;
    const USES: usize = 25;
    let entry = entry
        .set("autoscaler.max_instances", INSTANCES as i64)
        .set("autoscaler.capacity_per_instance", CAPACITY as i64)
        .set("autoscaler.max_use_count", USES as i64)
        .set("request_concurrency", 5);
    let world = Setup::new().set("concurrent", CONCURRENT as i64).runner(entry).start().await;
    world.gitlab.enqueue_many(&world.runners[0], job("0.1"), JOBS).unwrap();

    let jobs = world.all_finished().await;
    let runs: Vec<Run> = jobs.into_iter().filter_map(|job| Run::of(&job.succeeded())).collect();
    assert_eq!(runs.len(), JOBS);
    let by_instance = check_limits(&runs, USES);
    assert!(
        by_instance.len() >= JOBS / USES,
        "instances are replaced when they are used up: {by_instance:?}"
    );
    assert!(most_at_once(&runs) > CAPACITY, "instances work beside each other");
    world.stop().await;
}

#[tokio::test]
async fn two_hundred_jobs_succeed_within_the_limits_on_local_instances() {
    two_hundred_jobs(Entry::local("fleet")).await;
}

#[tokio::test]
async fn two_hundred_jobs_succeed_within_the_limits_over_ssh() {
    let machines: Vec<Sshd> = (0..INSTANCES).map(|_| Sshd::start()).collect();
    two_hundred_jobs(Entry::machines("fleet", &machines)).await;
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// Every job has its one result; those that died with their instance say so, and nobody was sent to a dead instance.
fn check_deaths(jobs: Vec<Finished>, deaths: &[(String, u128)]) {
    let mut lost = 0;
    let mut runs = Vec::new();
    for job in jobs {
        runs.extend(Run::of(&job));
        if job.view.state == JobState::Success {
            job.succeeded();
            continue;
        }
        lost += 1;
        let place = instance(&job).expect("the log names the instance");
        let job = job.failed("runner_system_failure", None);
        let last = job.log.trim_end().rsplit('\n').next().unwrap().to_owned();
        assert!(last.contains(&place), "the last line does not name `{place}`: {last}");
        let why = last.strip_prefix("ERROR: Job failed (system failure): ").unwrap();
        assert!(why.len() > place.len() + 12, "the last line does not say why: {last}");
    }
    assert!(lost > 0, "no job was hit, so this test has shown nothing");
    for (instance, died) in deaths {
        let late = runs.iter().find(|run| run.instance == *instance && run.begin > *died);
        assert!(late.is_none(), "a job began on {instance}, which was dead: {late:?}");
    }
}

/// Waits until jobs run, so that a death hits one.
async fn busy(world: &World) {
    drover_tests::eventually("jobs run", || {
        let running = |line: &manager::JobLine| line.stage == "step_script";
        world.view.jobs.list().iter().filter(|line| running(line)).count() >= CONCURRENT / 2
    })
    .await;
}

#[tokio::test]
async fn jobs_on_a_local_instance_that_is_killed_fail_and_the_others_go_on() {
    let entry = Entry::local("fleet").set("request_concurrency", 5);
    let world = Setup::new().set("concurrent", CONCURRENT as i64).runner(entry).start().await;
    world.gitlab.enqueue_many(&world.runners[0], job("0.7"), 60).unwrap();

    let mut deaths = Vec::new();
    for _ in 0..4 {
        busy(&world).await;
        let (pid, instance) = victim(&world.instances()).expect("jobs run somewhere");
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        // What was on its way when it died may still arrive in the log.
        deaths.push((instance, now() + Duration::from_millis(300).as_nanos()));
    }
    assert!(world.gitlab.all_finished(PATIENCE).await);
    check_deaths(world.all_finished().await, &deaths);
    world.stop().await;
}

/// A local instance: its process and its name. Those that are dying have no folder to be found in any more.
fn victim(instances: &Path) -> Option<(i32, String)> {
    processes_in(instances).into_iter().filter(|(_, line)| line.contains("local-instance")).find_map(
        |(pid, _)| {
            let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
            let name = folder.strip_prefix(instances).ok()?.iter().next()?.to_str()?.to_owned();
            (!name.contains(' ')).then_some((pid, name))
        },
    )
}

#[tokio::test]
async fn jobs_on_a_machine_that_goes_off_fail_and_the_others_go_on() {
    let mut machines: Vec<Sshd> = (0..INSTANCES).map(|_| Sshd::start()).collect();
    let entry = Entry::machines("fleet", &machines).set("request_concurrency", 5);
    let world = Setup::new().set("concurrent", CONCURRENT as i64).runner(entry).start().await;
    world.gitlab.enqueue_many(&world.runners[0], job("0.7"), 60).unwrap();

    for round in 0..4 {
        busy(&world).await;
        let machine = &mut machines[round % INSTANCES];
        machine.stop();
        machine.launch();
    }
    check_deaths(world.all_finished().await, &[]);
    world.stop().await;
    for machine in &machines {
        drover_tests::eventually("no session is left", || machine.children().is_empty()).await;
    }
}

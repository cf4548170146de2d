//! The whole way over HTTP to the mock of GitLab, which is strict: every test ends without a violation of the protocol.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::sync::Arc;
use std::time::Duration;

use drover_trace::{
    Delivery, GitLab, JobLog, JobResult, LineKind, LogOptions, RemoteState, UploadOptions, Uploader,
};
use gitlab_api::{
    Client, ClientOptions, Features, InfoFields, JobCredentials, JobRequest, JobRequestOutcome, JobUpdate,
    RunnerInfo, SecretString,
};
use gitlab_mock::{Config, Endpoint, Fault, GitlabMock, Job, JobBuilder, JobState, JobView};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_short_job_costs_one_patch_and_one_update() {
    let scene = Scene::new(SOON).await;
    scene.log.line(LineKind::Info, "Preparing");
    scene.log.stdout().write("glpat-0123456789abcdef and caf\u{e9} \n".as_bytes());
    let (delivery, view, text) = scene.finish(JobResult::Success).await;
    assert_eq!((delivery, view.state), (Delivery::Accepted, JobState::Success));
    // The update that confirmed the job counts as a keep-alive.
    assert_eq!((view.calls.patches, view.calls.final_updates, view.calls.keep_alives), (1, 1, 1));
    assert!(view.checksum_verified);
    assert!(
        text.contains(" 00O \x1b[32;1mPreparing") && text.contains(" 01O glpat-[MASKED] and caf\u{e9}"),
        "{text}"
    );
}

#[tokio::test]
async fn a_failed_job_is_accepted_with_reason_and_exit_code() {
    let scene = Scene::new(SOON).await;
    let reason = "script_failure".to_owned();
    let result = JobResult::Failed { reason: reason.clone(), sent_reason: reason, exit_code: 7 };
    let (delivery, view, _) = scene.finish(result).await;
    assert_eq!((delivery, view.state), (Delivery::Accepted, JobState::Failed));
    assert_eq!((view.failure_reason.as_deref(), view.exit_code), (Some("script_failure"), Some(7)));
}

#[tokio::test]
async fn ten_mebibytes_arrive_whole_through_errors_resets_and_lost_answers() {
    let scene = Scene::new(Duration::from_millis(20)).await;
    let fault = |fault: Fault| fault.on([Endpoint::PatchTrace]).times(1);
    scene.gitlab.inject(fault(Fault::status(502)).after(1));
    scene.gitlab.inject(fault(Fault::lose_answer()).after(3));
    scene.gitlab.inject(fault(Fault::reset()).after(5));
    let mut stdout = scene.log.stdout();
    for n in 0..10_u32 {
        stdout.write(format!("{n} {}\n", "x".repeat(1000)).repeat(1040).as_bytes());
        tokio::task::yield_now().await;
    }
    drop(stdout);
    let (delivery, view, _) = scene.finish(JobResult::Success).await;
    assert_eq!((delivery, view.state), (Delivery::Accepted, JobState::Success));
    assert!(view.checksum_verified && view.log_bytes > 10 * 1024 * 1024);
}

#[tokio::test]
async fn a_log_that_gitlab_lost_in_part_or_spoiled_is_sent_again() {
    let scene = Scene::new(Duration::from_millis(20)).await;
    scene.log.stdout().write(b"one\n");
    let all = scene.log.written();
    scene.job.wait_until(SOON, |view| view.log_bytes == all).await.unwrap();
    assert!(scene.job.truncate_log(5));
    scene.log.stdout().write(b"two\n");
    let all = scene.log.written();
    scene.job.wait_until(SOON, |view| view.log_bytes == all).await.unwrap();
    scene.job.corrupt_log();
    let (delivery, view, text) = scene.finish(JobResult::Success).await;
    assert_eq!((delivery, view.log_resets), (Delivery::Accepted, 2));
    assert!(view.checksum_verified);
    assert_eq!(
        text.lines().map(|line| &line[28..]).collect::<Vec<_>>(),
        ["00O \x1b[0Kbegun\x1b[0;m", "01O one", "01O two"]
    );
}

#[tokio::test]
async fn a_delayed_final_update_is_repeated() {
    let scene = Scene::new(Duration::from_millis(20)).await;
    scene.job.delay_final_updates(3);
    let (delivery, view, _) = scene.finish(JobResult::Success).await;
    assert_eq!((delivery, view.calls.final_updates), (Delivery::Accepted, 4));
}

#[tokio::test]
async fn a_lost_answer_to_the_final_update_is_understood() {
    let scene = Scene::new(Duration::from_millis(20)).await;
    scene.gitlab.inject(Fault::lose_answer().on([Endpoint::UpdateJob]).times(1));
    let (delivery, view, _) = scene.finish(JobResult::Success).await;
    assert_eq!((delivery, view.state), (Delivery::AcceptedUnheard, JobState::Success));
}

#[tokio::test]
async fn a_gitlab_that_comes_back_gets_everything() {
    let scene = Scene::new(Duration::from_millis(20)).await;
    scene.gitlab.refuse_connections().await;
    scene.log.stdout().write(b"said while GitLab was away\n");
    let (gitlab, job) = (scene.gitlab.clone(), scene.job.clone());
    let finishing = tokio::spawn(scene.uploader.finish(JobResult::Success));
    assert!(job.finished(Duration::from_millis(300)).await.is_err());
    gitlab.accept_connections().await;
    assert_eq!(timeout(SOON, finishing).await.unwrap().unwrap().unwrap(), Delivery::Accepted);
    assert!(job.log_text().ends_with("01O said while GitLab was away\n"));
    gitlab.assert_no_violations();
}

#[tokio::test]
async fn a_cancel_is_signalled_and_the_result_is_accepted() {
    let scene = Scene::new(Duration::from_millis(20)).await;
    scene.job.cancel();
    scene.log.line(LineKind::Plain, "x");
    let mut remote = scene.uploader.remote();
    timeout(SOON, remote.wait_for(|&state| state == RemoteState::CancelRequested)).await.unwrap().unwrap();
    scene.log.line(LineKind::Plain, "after_script");
    let (delivery, view, text) = scene.finish(JobResult::system_failure()).await;
    assert_eq!((delivery, view.state), (Delivery::Accepted, JobState::Canceled));
    assert!(text.contains("after_script") && !view.ended_by_server);
}

#[tokio::test]
async fn an_abort_is_signalled_and_the_job_is_left_alone() {
    let scene = Scene::new(Duration::from_millis(20)).await;
    scene.job.force_cancel();
    scene.log.line(LineKind::Plain, "x");
    let mut remote = scene.uploader.remote();
    timeout(SOON, remote.wait_for(|&state| state == RemoteState::Aborted)).await.unwrap().unwrap();
    let (delivery, view, _) = scene.finish(JobResult::system_failure()).await;
    assert_eq!((delivery, view.state), (Delivery::JobWasOver, JobState::Canceled));
    assert_eq!((view.calls.patches_refused, view.calls.updates_refused), (1, 1));
}

/// A job that was taken and confirmed, and its log.
struct Scene {
    gitlab: Arc<GitlabMock>,
    job: Job,
    log: JobLog,
    uploader: Uploader,
}

impl Scene {
    async fn new(interval: Duration) -> Self {
        let gitlab =
            GitlabMock::start(Config { trace_update_interval: None, ..Config::default() }).await.unwrap();
        let runner = gitlab.add_runner("glrt-trace");
        let job = gitlab.enqueue(&runner, JobBuilder::new("job").script(["true"]));
        let client = Client::new(ClientOptions::new(gitlab.url())).unwrap();
        let info = Arc::new(
            RunnerInfo::new(InfoFields {
                executor: "instance".into(),
                shell: "bash".into(),
                features: Features::INSTANCE,
                ..InfoFields::of_this_build("drover", "0.1.0", "unknown")
            })
            .unwrap(),
        );
        let request = JobRequest {
            token: runner.token().into(),
            system_id: "s_0123456789ab".into(),
            info: Arc::clone(&info),
            session: None,
            long_poll: false,
        };
        let JobRequestOutcome::Job(received) = client.request_job(&request).await.outcome else {
            panic!("no job");
        };
        let credentials =
            JobCredentials { id: received.job.id, token: SecretString::from(received.job.token.expose()) };
        let confirmation = JobUpdate {
            state: gitlab_api::JobState::Running,
            failure_reason: None,
            checksum: None,
            bytesize: None,
            exit_code: None,
            info: Arc::clone(&info),
        };
        client.update_job(&credentials, &confirmation).await;
        let log = JobLog::new(LogOptions { job: job.id(), output_limit: 64 * 1024, ..LogOptions::default() });
        let api = GitLab { client, job: credentials, debug_trace: false, info };
        let options = UploadOptions { job: job.id(), interval, ..UploadOptions::default() };
        let uploader = Uploader::start(log.clone(), api, options);
        log.line(LineKind::Plain, "begun");
        Self { gitlab: Arc::new(gitlab), job, log, uploader }
    }

    /// Ends the job; what GitLab has then.
    async fn finish(self, result: JobResult) -> (Delivery, JobView, String) {
        let delivery = timeout(SOON, self.uploader.finish(result)).await.unwrap().unwrap();
        self.gitlab.assert_no_violations();
        (delivery, self.job.view(), self.job.log_text())
    }
}

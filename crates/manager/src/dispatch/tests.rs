use super::*;

const INTERVAL: Duration = Duration::from_secs(3);
const A: RunnerIndex = RunnerIndex(1);
const B: RunnerIndex = RunnerIndex(2);

fn limits() -> RunnerLimits {
    RunnerLimits {
        limit: 0,
        request_concurrency: 1,
        adaptive: true,
        strict_check_interval: false,
        unhealthy_requests_limit: 3,
        unhealthy_interval: Duration::from_secs(3600),
    }
}

fn dispatcher(concurrent: usize, runners: &[(RunnerIndex, RunnerLimits)]) -> Dispatcher {
    let mut dispatcher = Dispatcher::new(concurrent, INTERVAL);
    for (index, limits) in runners {
        dispatcher.set_runner(*index, *limits);
    }
    dispatcher
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const JOB: Answer = Answer::Job { retried: false };
const NOTHING: Answer = Answer::Nothing { retried: false, again: false };
const AGAIN: Answer = Answer::Nothing { retried: false, again: true };

#[test]
fn a_job_is_followed_by_another_request_at_once() {
    let mut d = dispatcher(2, &[(A, limits())]);
    assert_eq!(d.next(at(1)), Some(Ask { runner: A, may_wait: true }));
    assert_eq!(d.next(at(1)), None, "request_concurrency is 1");
    d.answered(A, JOB, at(1));
    assert!(d.next(at(1)).is_some());
    d.answered(A, JOB, at(1));
    assert_eq!(d.next(at(1)), None, "concurrent is 2");
    d.job_ended(A);
    assert!(d.next(at(1)).is_some(), "a place came free while the queue was not empty");
}

#[test]
fn no_job_is_followed_by_the_check_interval() {
    let mut d = dispatcher(1, &[(A, limits())]);
    d.next(at(1)).unwrap();
    d.answered(A, NOTHING, at(2));
    assert_eq!(d.next(at(3)), None);
    assert_eq!(d.wake_at(at(3)), Some(at(4)));
    assert!(d.next(at(4)).is_some());
    d.answered(A, NOTHING, at(54));
    assert!(d.next(at(54)).is_some(), "a request that waited longer than the interval is repeated at once");
}

#[test]
fn a_strict_runner_waits_even_after_a_job() {
    let mut d = dispatcher(2, &[(A, RunnerLimits { strict_check_interval: true, ..limits() })]);
    d.next(at(1)).unwrap();
    d.answered(A, JOB, at(1));
    assert_eq!(d.next(at(3)), None);
    assert!(d.next(at(4)).is_some());
}

#[test]
fn requests_and_jobs_together_stay_below_concurrent_and_limit() {
    let mut d = dispatcher(
        10,
        &[(A, RunnerLimits { limit: 2, request_concurrency: 5, adaptive: false, ..limits() })],
    );
    assert!(d.next(at(1)).is_some());
    assert!(d.next(at(1)).is_some());
    assert_eq!(d.next(at(1)), None);
    d.answered(A, JOB, at(1));
    d.answered(A, JOB, at(1));
    assert_eq!(d.next(at(1)), None);
    assert_eq!(d.load(), (2, 0));
}

#[test]
fn scarce_places_go_round_and_are_not_held_at_gitlab() {
    let mut d = dispatcher(1, &[(A, limits()), (B, limits())]);
    assert_eq!(d.next(at(1)), Some(Ask { runner: A, may_wait: false }));
    assert_eq!(d.next(at(1)), None);
    d.answered(A, NOTHING, at(1));
    assert_eq!(d.next(at(1)), Some(Ask { runner: B, may_wait: false }));
    d.answered(B, JOB, at(1));
    assert_eq!(d.next(at(9)), None);
    d.job_ended(B);
    assert_eq!(d.next(at(9)).map(|ask| ask.runner), Some(A), "the one that waited longer comes first");
}

#[test]
fn with_places_to_spare_every_runner_may_wait_at_gitlab() {
    let mut d = dispatcher(4, &[(A, limits()), (B, limits())]);
    assert_eq!(d.next(at(1)), Some(Ask { runner: A, may_wait: true }));
    assert_eq!(d.next(at(1)), Some(Ask { runner: B, may_wait: true }));
}

#[test]
fn a_runner_without_room_waits_for_room_and_does_not_keep_others_from_waiting() {
    let mut d = dispatcher(2, &[(A, limits()), (B, limits())]);
    let first = d.next(at(1)).unwrap();
    assert_eq!(first.runner, A);
    d.refused(A, at(1));
    assert_eq!(d.next(at(1)), Some(Ask { runner: B, may_wait: true }));
    d.answered(B, NOTHING, at(1));
    assert_eq!(d.next(at(2)), None);
    d.room(A);
    assert_eq!(d.next(at(2)).map(|ask| ask.runner), Some(A), "the request was due all the time");
    d.refused(A, at(2));
    assert_eq!(d.next(at(4)).map(|ask| ask.runner), Some(B));
    assert_eq!(
        d.next(at(5)).map(|ask| ask.runner),
        Some(A),
        "without a word from the executor, after the interval"
    );
}

#[test]
fn three_refusals_silence_a_runner_for_the_interval_and_one_success_clears() {
    let mut d = dispatcher(1, &[(A, limits())]);
    for round in 0..3 {
        d.next(at(10 * round)).unwrap();
        d.answered(A, Answer::Refused, at(10 * round));
    }
    assert_eq!(d.next(at(3000)), None);
    assert!(d.next(at(3700)).is_some(), "one request after the interval");
    d.answered(A, NOTHING, at(3700));
    d.next(at(3710)).unwrap();
    d.answered(A, Answer::Refused, at(3710));
    assert!(d.next(at(3720)).is_some());
    d.answered(A, NOTHING, at(3720));
    d.clear_health();
    assert!(d.next(at(3730)).is_some());
}

#[test]
fn request_concurrency_adapts_between_one_and_its_limit() {
    let mut d = dispatcher(100, &[(A, RunnerLimits { request_concurrency: 4, ..limits() })]);
    let mut most = 0;
    for _ in 0..60 {
        let mut open = 0;
        while d.next(at(1)).is_some() {
            open += 1;
        }
        most = most.max(open);
        for _ in 0..open {
            d.answered(A, JOB, at(1));
            d.job_ended(A);
        }
    }
    assert_eq!(most, 4);
}

#[test]
fn a_removed_runner_asks_no_more_and_gives_its_places_back() {
    let mut d = dispatcher(1, &[(A, limits()), (B, limits())]);
    d.next(at(1)).unwrap();
    d.answered(A, JOB, at(1));
    d.remove_runner(A);
    assert_eq!(d.next(at(9)), None);
    d.job_ended(A);
    assert_eq!(d.next(at(9)).map(|ask| ask.runner), Some(B));
    assert_eq!(d.load(), (0, 1));
}

#[test]
fn a_held_request_is_repeated_at_once_but_not_in_a_loop() {
    let mut d = dispatcher(1, &[(A, limits())]);
    for _ in 0..3 {
        assert!(d.next(at(10)).is_some());
        d.answered(A, AGAIN, at(10));
    }
    assert!(d.next(at(10)).is_some());
    d.answered(A, AGAIN, at(10));
    assert_eq!(d.next(at(12)), None, "a server that never holds a request is asked once per interval");
    d.next(at(13)).unwrap();
    d.answered(A, AGAIN, at(60));
    assert!(d.next(at(60)).is_some(), "a request that was held for long costs no credit");
    d.answered(A, JOB, at(60));
    assert_eq!(d.load(), (1, 0));
}

#[test]
fn requests_that_came_too_late_for_a_job_cost_no_credit() {
    let mut d = dispatcher(100, &[(A, RunnerLimits { request_concurrency: 10, ..limits() })]);
    d.next(at(10)).unwrap();
    for _ in 0..12 {
        d.answered(A, JOB, at(10));
        while d.next(at(10)).is_some() {}
    }
    let (_, late) = d.load();
    assert_eq!(late, 4, "several requests are made while there are jobs");
    for _ in 0..late {
        d.answered(A, AGAIN, at(10));
    }
    assert!(d.next(at(10)).is_some(), "one request waits at GitLab for the next job");
    assert_eq!(d.next(at(10)), None, "and only one");
    d.answered(A, AGAIN, at(10));
    assert!(d.next(at(10)).is_some(), "another one fetches that job at once");
}

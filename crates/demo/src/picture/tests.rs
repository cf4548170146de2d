use chrono::{DateTime, Utc};
use taskscaler::InstanceLine;
use taskscaler_core::{Fate, Origin, Reason};

use super::*;
use crate::model::Event;

fn at(second: f64) -> Duration {
    Duration::from_secs_f64(second)
}

fn line(id: &str, phase: PhaseName, fate: Fate, use_count: u32) -> InstanceLine {
    InstanceLine {
        id: id.into(),
        phase,
        origin: Origin::Requested,
        slots_used: 0,
        capacity: CAPACITY,
        use_count,
        created: DateTime::<Utc>::UNIX_EPOCH,
        idle_since: None,
        fate,
    }
}

/// A busy moment: three instances in different states, jobs in every condition.
fn busy() -> Model {
    let mut model = Model::new(12);
    let names = ["build", "deploy", "audit", "integration", "unit-tests 1/3", "lint", "docs", "package"];
    for (job, name) in (1..).zip(names) {
        model.apply(at(0.2), Event::Arrived { job, name: name.to_owned() });
    }
    let creating = |id| line(id, PhaseName::Creating, Fate::ReadyingUp, 0);
    let why = vec!["launching 3 for waiting jobs".to_owned()];
    model.apply(
        at(0.3),
        Event::Looked {
            instances: vec![creating("demo-1f-1"), creating("demo-1f-2"), creating("demo-1f-3")],
            why,
        },
    );
    model.apply(at(0.5), Event::Sample);
    let instances = vec![
        line("demo-1f-1", PhaseName::Ready, Fate::Busy, 2),
        line("demo-1f-2", PhaseName::Ready, Fate::LastJobs, 8),
        line("demo-1f-3", PhaseName::Booting, Fate::ReadyingUp, 0),
    ];
    let why = vec![
        "at the maximum of 3, would want 5".to_owned(),
        "waiting for 1 instances on their way".to_owned(),
    ];
    model.apply(at(1.8), Event::Looked { instances, why });
    for (job, instance, stage) in
        [(1, "demo-1f-1", "step_script"), (2, "demo-1f-1", "get_sources"), (3, "demo-1f-2", "after_script")]
    {
        model.apply(at(1.9), Event::Received { job });
        model.apply(at(1.9), Event::Placed { job, instance: instance.to_owned() });
        model.apply(at(2.0), Event::Stage { job, stage: stage.to_owned() });
    }
    model.apply(at(2.0), Event::Sample);
    model.apply(at(2.5), Event::Ended { job: 3, failure: Some("script_failure".to_owned()) });
    model.apply(at(2.5), Event::Sample);
    model
}

fn drawn(model: &Model, now: f64, width: usize, height: usize) -> String {
    render(model, at(now), width, height).text().join("\n")
}

#[test]
fn a_busy_moment_on_a_usual_terminal() {
    insta::assert_snapshot!(drawn(&busy(), 2.6, 100, 24));
}

#[test]
fn a_busy_moment_on_a_small_terminal() {
    insta::assert_snapshot!(drawn(&busy(), 2.6, 60, 16));
}

#[test]
fn before_anything_has_happened() {
    insta::assert_snapshot!(drawn(&Model::new(40), 0.0, 80, 20));
}

#[test]
fn colours_follow_the_meaning() {
    let ansi = render(&busy(), at(2.6), 100, 24).ansi();
    assert!(ansi[0].contains("\u{1b}[31m   1 failed\u{1b}[0m"));
    assert!(ansi[3].contains("\u{1b}[32mready"));
    assert!(ansi[5].contains("\u{1b}[33mbooting"));
}

#[test]
fn nothing_is_drawn_beyond_the_edges() {
    let model = busy();
    for (width, height) in [(1, 1), (7, 3), (20, 8), (40, 12), (100, 32), (300, 90)] {
        let picture = render(&model, at(75.0), width, height);
        assert!(picture.lines.len() <= height);
        let widths = picture.lines.iter().map(|line| line.iter().map(|span| span.text.chars().count()).sum());
        assert!(widths.max().is_none_or(|widest: usize| widest <= width), "{width} x {height}");
    }
}

#[test]
fn the_moving_parts_keep_their_lines() {
    let position = |model: &Model| {
        let picture = render(model, at(3.0), 100, 32).text();
        ["WAITING", "WHY", "instances", "running"]
            .map(|word| picture.iter().position(|line| line.starts_with(word)).unwrap())
    };
    assert_eq!(position(&Model::new(3)), position(&busy()));
}

#[test]
fn a_job_on_a_full_instance_takes_the_box_of_one_that_is_finishing() {
    let mut model = busy();
    model.apply(at(3.0), Event::Stage { job: 2, stage: "cleanup_file_variables".to_owned() });
    model.apply(at(4.0), Event::Stage { job: 1, stage: "after_script".to_owned() });
    model.apply(at(5.0), Event::Placed { job: 4, instance: "demo-1f-1".to_owned() });
    let picture = render(&model, at(5.1), 100, 24).text();
    assert!(picture[3].contains("[1 build · after"), "{}", picture[3]);
    assert!(picture[3].contains("[4 integration"), "{}", picture[3]);
}

#[test]
fn an_instance_that_goes_says_why_in_the_news() {
    let mut model = busy();
    let reason = Reason::Idle;
    let going = line("demo-1f-1", PhaseName::Deleting, Fate::Deleting { reason }, 2);
    model.apply(at(9.0), Event::Looked { instances: vec![going], why: Vec::new() });
    let news = model.apply(at(9.5), Event::Looked { instances: Vec::new(), why: Vec::new() });
    let news: Vec<String> = news.iter().map(ToString::to_string).collect();
    assert_eq!(news, ["instance demo-1f-1 removed: instance exceeded max idle time (ran 2 jobs in 9.2 s)"]);
}

#[test]
fn only_jobs_on_the_killed_instance_are_its_victims() {
    let mut model = busy();
    model.apply(at(3.0), Event::Killed { instance: "demo-1f-1".to_owned() });
    model.apply(at(3.1), Event::Placed { job: 5, instance: "demo-1f-2".to_owned() });
    let victims: Vec<u64> = (1..=8).filter(|job| model.is_victim(*job)).collect();
    assert_eq!(victims, [1, 2]);
}

#[test]
fn bars_show_the_largest_of_the_values_that_share_a_column() {
    assert_eq!(sparkline(&[0, 1, 4, 8], 8, 10), " ▁▄█");
    assert_eq!(sparkline(&[0, 8, 1, 0, 0, 0], 8, 3), "█▁ ");
    assert_eq!(sparkline(&[], 8, 3), "");
}

#[test]
fn waiting_jobs_that_do_not_fit_are_counted() {
    let mut model = Model::new(99);
    for job in 1..=30 {
        model.apply(at(0.1), Event::Arrived { job, name: "unit-tests 1/3".to_owned() });
    }
    let text = render(&model, at(1.0), 80, 20).text();
    let waiting = text.iter().find(|line| line.starts_with("WAITING")).unwrap();
    assert_eq!(waiting, "WAITING  1 unit-tests 1/3 · 2 unit-tests 1/3 · 3 unit-tests 1/3 · and 27 more");
}

//! Groups over time.

use super::*;
use crate::kinds::{MixedPolicy, WarmPool};

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn options() -> Options {
    let (boot_delay, terminate_delay) = (Duration::from_secs(10), Duration::from_secs(5));
    Options { boot_delay, terminate_delay, launch_retry: Duration::from_secs(30), ..Options::default() }
}

fn world(desired: u32) -> World {
    let mut world = World::default();
    world.groups.insert("g".to_owned(), Group { desired, ..Group::new(GroupOptions::new("g")) });
    world
}

fn states(world: &World) -> Vec<&'static str> {
    world.members("g").map(|instance| instance.stage.lifecycle()).collect()
}

#[test]
fn what_is_missing_boots_and_what_is_ended_from_outside_is_replaced() {
    let (mut world, options) = (world(2), options());
    assert_eq!(world.step(at(0), &options).len(), 2);
    assert_eq!(states(&world), ["Pending", "Pending"]);
    world.step(at(10), &options);
    assert_eq!(states(&world), ["InService", "InService"]);
    let first = world.members("g").next().unwrap().id.clone();
    world.terminate(&first, "for a test", at(11), &options);
    assert_eq!(world.step(at(11), &options), [Effect::Start("i-00000000000000003".to_owned())]);
    assert_eq!(states(&world), ["Terminating", "InService", "Pending"]);
    assert_eq!(world.step(at(16), &options), [Effect::Stop(first)]);
    assert_eq!(states(&world), ["InService", "Pending"]);
}

#[test]
fn protected_instances_survive_a_lower_size_and_others_do_not() {
    let (mut world, options) = (world(2), options());
    world.step(at(0), &options);
    world.instances.values_mut().next().unwrap().protected = false;
    world.groups.get_mut("g").unwrap().desired = 0;
    world.step(at(1), &options);
    assert_eq!(states(&world), ["Terminating", "Pending"]);
}

#[test]
fn a_launch_without_room_is_an_activity_and_is_tried_again() {
    let (mut world, options) = (world(2), options());
    world.capacity = Some(1);
    world.step(at(0), &options);
    let failed = |world: &World| world.groups["g"].activities.iter().filter(|a| a.status == "Failed").count();
    assert_eq!((states(&world).len(), failed(&world)), (1, 1));
    world.step(at(29), &options);
    assert_eq!(failed(&world), 1);
    world.step(at(30), &options);
    assert_eq!(failed(&world), 2);
    world.capacity = None;
    world.step(at(60), &options);
    assert_eq!(states(&world).len(), 2);
}

fn group(world: &mut World) -> &mut GroupOptions {
    &mut world.groups.get_mut("g").unwrap().options
}

#[test]
fn a_warm_pool_fills_serves_first_and_is_filled_again() {
    let (mut world, options) = (world(0), options());
    group(&mut world).warm_pool = Some(WarmPool::of(2));
    assert_eq!(world.step(at(0), &options), [], "nothing has to answer in the pool");
    assert_eq!(states(&world), ["Warmed:Pending", "Warmed:Pending"]);
    world.step(at(10), &options);
    assert_eq!(states(&world), ["Warmed:Stopped", "Warmed:Stopped"]);
    world.groups.get_mut("g").unwrap().desired = 1;
    assert_eq!(world.step(at(20), &options), [Effect::Start("i-00000000000000001".to_owned())]);
    assert_eq!(states(&world), ["Pending", "Warmed:Stopped", "Warmed:Pending"]);
    world.step(at(30), &options);
    assert_eq!(states(&world), ["InService", "Warmed:Stopped", "Warmed:Stopped"]);
    assert!(!world.is_unsettled("g"));
}

#[test]
fn with_a_reuse_policy_what_is_retired_comes_again_under_its_name() {
    let (mut world, options) = (world(1), options());
    group(&mut world).warm_pool = Some(WarmPool { size: 0, reuse: true });
    world.step(at(0), &options);
    world.step(at(10), &options);
    let only = world.members("g").next().unwrap().id.clone();
    world.instances.get_mut(&only).unwrap().address = Some("10.0.0.1".to_owned());
    world.groups.get_mut("g").unwrap().desired = 0;
    world.retire(&only, "for a test", at(11), &options);
    assert_eq!(world.step(at(16), &options), [Effect::Stop(only.clone())]);
    assert_eq!(states(&world), ["Warmed:Stopped"]);
    world.groups.get_mut("g").unwrap().desired = 1;
    assert_eq!(world.step(at(17), &options), [Effect::Start(only)]);
}

#[test]
fn a_hook_holds_until_it_is_completed_or_its_time_is_over() {
    let (mut world, options) = (world(2), options());
    group(&mut world).launching_hook = Some(Duration::from_secs(60));
    group(&mut world).launching_default = HookResult::Abandon;
    world.step(at(0), &options);
    world.step(at(10), &options);
    assert_eq!(states(&world), ["Pending:Wait", "Pending:Wait"]);
    let first = world.members("g").next().unwrap().id.clone();
    assert!(world.complete_hook(&first, HookResult::Continue, at(11), &options));
    assert!(!world.complete_hook(&first, HookResult::Continue, at(12), &options), "nothing is held");
    assert_eq!(states(&world), ["InService", "Pending:Wait"]);
    // The other one is given up and another is launched.
    world.step(at(70), &options);
    assert_eq!(states(&world), ["InService", "Terminating", "Pending"]);
    group(&mut world).terminating_hook = Some(Duration::from_secs(60));
    world.terminate(&first, "for a test", at(71), &options);
    assert_eq!(states(&world)[0], "Terminating:Wait");
    assert!(world.complete_hook(&first, HookResult::Continue, at(72), &options));
    assert_eq!(states(&world)[0], "Terminating");
}

#[test]
fn weights_are_what_the_desired_capacity_counts() {
    let (mut world, options) = (world(5), options());
    let mut policy = MixedPolicy::of(&["c7i.large", "c7i.xlarge"]);
    policy.overrides[1].weight = Some(2);
    group(&mut world).mixed = Some(policy);
    world.step(at(0), &options);
    let weights: Vec<u32> = world.members("g").map(|instance| instance.kind.weight).collect();
    assert_eq!(weights, [1, 2, 1, 2], "the last one may be too much");
    assert_eq!(world.live_weight("g"), 6);
}

#[test]
fn the_same_steps_give_the_same_names() {
    let run = || {
        let (mut world, options) = (world(3), options());
        world.step(at(0), &options);
        world.members("g").map(|instance| (instance.id.clone(), instance.zone.clone())).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
    assert_eq!(run()[1], ("i-00000000000000002".to_owned(), "eu-west-1b".to_owned()));
}

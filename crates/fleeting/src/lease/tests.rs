use std::sync::{Arc, Mutex};

use super::*;

const TERMS: Terms = Terms { valid: Duration::from_secs(900) };

fn owner(manager: &str) -> Owner {
    Owner::new(manager, "https://gitlab.example.com/", "17", "build", "host-1")
}

fn wall(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn at(seconds: i64) -> Moment {
    Moment { mono: Duration::from_secs(seconds.unsigned_abs()), wall: wall(seconds) }
}

/// A mark that was written at this second.
fn mark(manager: &str, generation: u64, written: i64) -> Lease {
    Lease {
        owner: owner(manager),
        generation,
        since: wall(written),
        until: wall(written + 900),
        valid: TERMS.valid,
    }
}

#[test]
fn a_mark_leads_to_one_decision() {
    let (wait, secs) = ("wait", Duration::from_secs);
    // Whose mark, its generation and when it was written; since when it was seen; one's own generation and last writing.
    let table = [
        ("nobody has it", None, 0, 0, None, "take over"),
        ("one's own was removed", None, 0, 3, Some(10), "renew"),
        ("it was released while one stood by", None, 0, 3, None, "take over"),
        ("another's, just seen", Some(("b", 1, 0)), 0, 0, None, wait),
        ("another's, nearly over by my watch", Some(("b", 1, 0)), 899, 0, None, wait),
        ("another's, over by my watch", Some(("b", 1, 0)), 900, 0, None, "take over"),
        ("another's, over by its clock, just seen", Some(("b", 1, -1000)), 0, 0, None, wait),
        ("another's, over by far by its clock", Some(("b", 1, -2200)), 0, 0, None, "take over"),
        ("another's over one's own", Some(("b", 9, 0)), 0, 3, Some(10), wait),
        ("one's own, of the process before", Some(("a", 7, 0)), 0, 0, None, "take over"),
        ("one's own", Some(("a", 3, 0)), 10, 3, Some(10), "hold"),
        ("one's own, to be renewed", Some(("a", 3, 0)), 300, 3, Some(300), "renew"),
        ("a later process of one's own identity", Some(("a", 4, 0)), 0, 3, Some(10), wait),
        ("the same, which has ended", Some(("a", 4, 0)), 900, 3, None, "take over"),
        ("a listing from before one's writing", Some(("a", 2, 0)), 0, 3, Some(1), "hold"),
        ("an earlier process has written again", Some(("a", 2, 0)), 0, 3, Some(5), "renew"),
    ];
    let me = owner("a");
    for (what, seen, unchanged, generation, written, expected) in table {
        let lease = seen.map(|(manager, generation, at)| mark(manager, generation, at));
        let sight = lease.as_ref().map(|lease| Sight { lease, unchanged: secs(unchanged) });
        let claimant = Claimant { owner: &me, generation, written: written.map(secs), terms: TERMS };
        let decision = match decide(sight, &claimant, wall(0)) {
            Decision::Hold => "hold",
            Decision::Renew => "renew",
            Decision::Wait { until, owner } => {
                let lease = lease.unwrap();
                assert_eq!((until, owner), (lease.until, lease.owner));
                wait
            }
            Decision::TakeOver => "take over",
        };
        assert_eq!(decision, expected, "{what}");
    }
}

#[test]
fn a_mark_is_read_as_it_was_written() {
    let long = "n".repeat(200);
    let owner = Owner::new("s_0123456789ab", "https://gitlab.example.com", "17", &long, "host ü=1");
    let lease = Lease { owner, generation: u64::MAX, ..mark("a", 1, 0) };
    let text = lease.to_string();
    assert!(text.len() <= 256, "{}", text.len());
    assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || " +-=._:/@".contains(c)), "{text}");
    assert_eq!(Lease::parse(&text), Some(lease.clone()));
    assert_eq!(Lease::parse(&format!("{text} later=word")), Some(lease));
    for other in ["", "v2 manager=a", "v1", "yes", &text.replace("valid=900", "valid=x")] {
        assert_eq!(Lease::parse(other), None, "{other}");
    }
}

#[test]
fn an_identity_is_the_manager_the_address_and_the_runner_and_no_name() {
    let of = |manager, url, runner, name| Owner::new(manager, url, runner, name, "h");
    let one = of("a", "https://gitlab.example.com/", "17", "build");
    assert!(one.is_same(&of("a", "https://gitlab.example.com", "17", "renamed")));
    for other in [
        of("b", "https://gitlab.example.com", "17", "build"),
        of("a", "https://gitlab.example.org", "17", "build"),
        of("a", "https://gitlab.example.com", "18", "build"),
    ] {
        assert!(!one.is_same(&other), "{other:?}");
    }
    // It is in marks of earlier versions.
    assert_eq!(one.entry, of("x", "https://gitlab.example.com", "17", "").entry);
    assert_eq!(one.entry, "81d5101f229d681e");
}

/// The place for the mark, with listings that may lag behind.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<Option<Lease>>>);

struct Manager {
    keeper: Keeper,
    place: Place,
}

impl Place {
    fn manager(&self, name: &str, chance: f64) -> Manager {
        Manager { keeper: Keeper::new(owner(name), TERMS, chance), place: self.clone() }
    }

    fn get(&self) -> Option<Lease> {
        self.0.lock().unwrap().clone()
    }

    fn set(&self, lease: Option<Lease>) {
        *self.0.lock().unwrap() = lease;
    }
}

impl Manager {
    /// Lists, and writes at once.
    fn look(&mut self, now: i64) -> bool {
        let write = self.reads(now);
        self.writes(write, now)
    }

    fn reads(&mut self, now: i64) -> Option<Lease> {
        self.keeper.look(self.place.get(), at(now))
    }

    fn writes(&mut self, write: Option<Lease>, now: i64) -> bool {
        if let Some(lease) = write {
            self.place.set(Some(lease));
            self.keeper.wrote(at(now));
        }
        self.keeper.may_act(at(now))
    }

    fn stands_by(&self) -> bool {
        matches!(self.keeper.standing(), Standing::StandingBy { .. })
    }
}

#[test]
fn a_group_without_a_mark_is_used_once_a_later_listing_shows_ones_own() {
    let place = Place::default();
    let mut a = place.manager("a", 0.0);
    assert!(!a.look(0));
    assert_eq!(a.keeper.look_again(), Some(Duration::from_secs(3)));
    assert!(!a.look(2));
    assert!(a.look(3));
    assert_eq!(a.keeper.look_again(), None);
    // Renewed every five minutes with listings every minute: twelve writings an hour.
    let mut marks = std::collections::BTreeSet::new();
    for minute in 1..=60 {
        assert!(a.look(3 + minute * 60));
        marks.insert(place.get().unwrap().until);
    }
    assert_eq!(marks.len(), 13, "the first one and twelve more");
    assert_eq!(place.get().unwrap().since, wall(0));
}

#[test]
fn of_two_that_start_at_once_the_last_one_to_write_has_the_group() {
    let place = Place::default();
    let (mut a, mut b) = (place.manager("a", 0.0), place.manager("b", 1.0));
    let (first, second) = (a.reads(0), b.reads(0));
    a.writes(first, 0);
    b.writes(second, 1);
    assert!(!a.look(3));
    assert!(a.stands_by());
    assert!(!b.look(6));
    assert!(b.look(7));
    for minute in 1..40 {
        assert!(!a.look(minute * 60) && b.look(minute * 60 + 1));
    }
}

#[test]
fn a_second_manager_waits_for_the_release_and_for_the_end_of_a_dead_one() {
    let place = Place::default();
    let (mut a, mut b) = (place.manager("a", 0.0), place.manager("b", 0.0));
    a.look(0);
    assert!(a.look(3) && !b.look(4));
    let Standing::StandingBy { lease, lost: false } = b.keeper.standing() else { panic!("{:?}", b.keeper) };
    assert!(lease.is_of(&owner("a")));
    // Released.
    place.set(None);
    b.look(64);
    assert!(b.look(68));
    // Dead: the other one takes over when the mark was unchanged for as long as it is valid.
    let mut c = place.manager("c", 0.0);
    let written = place.get();
    assert!(!c.look(100));
    assert!(!c.look(999));
    assert_eq!(place.get(), written);
    c.look(1000);
    assert!(c.look(1003));
    assert!(!b.look(1060));
    assert!(matches!(b.keeper.standing(), Standing::StandingBy { lost: true, .. }));
}

#[test]
fn a_manager_that_starts_again_goes_on_at_once_and_its_twin_stands_by() {
    let place = Place::default();
    let mut before = place.manager("a", 0.0);
    before.look(0);
    assert!(before.look(3));
    let mut after = place.manager("a", 0.5);
    assert!(after.look(10));
    assert_eq!(place.get().unwrap().since, wall(0));
    // If the process before it lives after all, it notices that it is not the last one.
    assert!(!before.look(70));
    assert!(before.stands_by());
    for minute in 2..40 {
        assert!(after.look(minute * 60) && !before.look(minute * 60 + 1));
    }
}

#[test]
fn a_manager_that_was_down_for_longer_than_its_mark_claims_the_group_anew() {
    let place = Place::default();
    place.set(Some(mark("a", 4, 0)));
    let mut a = place.manager("a", 0.0);
    assert!(!a.look(901), "a manager that stood by may be about to take over");
    assert!(a.look(904));
    assert_eq!(place.get().unwrap().generation, 5);
}

#[test]
fn who_cannot_list_the_group_for_as_long_as_its_mark_is_valid_stops() {
    let place = Place::default();
    let mut a = place.manager("a", 0.0);
    a.look(0);
    assert!(a.look(3));
    assert!(a.keeper.may_act(at(902)));
    assert!(!a.keeper.may_act(at(903)));
    // Also when the machine slept, and only its wall clock went on.
    assert!(!a.keeper.may_act(Moment { mono: Duration::from_secs(10), wall: wall(1000) }));
    assert!(a.look(1000));
}

#[test]
fn without_the_permission_to_write_a_group_is_used_while_nobody_else_marks_it() {
    let place = Place::default();
    let mut a = place.manager("a", 0.0);
    let denied = |a: &mut Manager, now| {
        let write = a.reads(now);
        if write.is_some() {
            a.keeper.not_written(true, at(now));
        }
        (write.is_some(), a.keeper.may_act(at(now)))
    };
    assert_eq!(denied(&mut a, 0), (true, true));
    for minute in 1..60 {
        assert_eq!(denied(&mut a, minute * 60), (false, true), "it is not asked again and again");
    }
    assert_eq!(denied(&mut a, 3600), (true, true));
    // Marks of others can be seen all the same.
    place.set(Some(mark("b", 1, 3600)));
    assert_eq!(denied(&mut a, 3660), (false, false));
    place.set(None);
    assert_eq!(denied(&mut a, 3720), (false, true));
}

#[test]
fn a_writing_that_fails_for_the_moment_is_repeated() {
    let place = Place::default();
    let mut a = place.manager("a", 0.0);
    assert!(a.reads(0).is_some());
    a.keeper.not_written(false, at(0));
    assert!(!a.look(60));
    assert!(a.look(64));
    assert_eq!(place.get().unwrap().generation, 1);
}

#[test]
fn a_listing_that_lags_behind_neither_ends_nor_repeats_a_claim() {
    let place = Place::default();
    place.set(Some(mark("b", 8, -3000)));
    let mut a = place.manager("a", 0.0);
    a.look(0);
    let written = place.get();
    let lagging = |a: &mut Manager, now| a.keeper.look(Some(mark("b", 8, -3000)), at(now));
    assert_eq!(lagging(&mut a, 1), None);
    // After a while it is written again, as the same claim.
    let again = lagging(&mut a, 4).unwrap();
    assert_eq!(again.generation, written.unwrap().generation);
    a.writes(Some(again), 4);
    assert!(!a.look(5));
    assert!(a.look(8));
    // A mark that somebody removes is written again, and the group stays one's own meanwhile.
    place.set(None);
    assert!(a.look(68));
    assert!(place.get().is_some());
}

/// Managers that start, list at their own times, are killed and end: at most one acts, once all have listed.
#[test]
fn whatever_managers_do_one_at_a_time_has_the_group_after_everybody_has_listed() {
    let mut acted = 0;
    for seed in 0..300_u64 {
        let mut state = seed;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let place = Place::default();
        let names = ["a", "b", "c"];
        let mut managers: Vec<Option<Manager>> = names.map(|name| Some(place.manager(name, 0.3))).into();
        let mut now = 0;
        for _ in 0..200 {
            let which = usize::try_from(draw(3)).unwrap();
            match draw(20) {
                0 => managers[which] = None,
                1 => managers[which] = Some(place.manager(names[which], 0.6)),
                2 => {
                    let holds = |manager: &Manager| *manager.keeper.standing() == Standing::Holding;
                    let ours = place.get().is_some_and(|lease| lease.is_of(&owner(names[which])));
                    if managers[which].as_ref().is_some_and(holds) && ours {
                        place.set(None);
                        managers[which] = None;
                    }
                }
                _ => now += i64::try_from(1 + draw(90)).unwrap(),
            }
            // Listing and writing are one step: writings that come late are the window that is documented.
            for manager in managers.iter_mut().flatten() {
                manager.look(now);
            }
            let acting = managers.iter().flatten().filter(|manager| manager.keeper.may_act(at(now))).count();
            assert!(acting <= 1, "seed {seed}: {acting} act at {now}");
            acted += acting;
        }
    }
    assert!(acted > 30_000, "in {acted} of 60000 moments somebody acts");
}

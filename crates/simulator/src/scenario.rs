//! Scenarios as text: what happens to a scaler, and what it decides and why. A user can paste one into a bug report.

use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use taskscaler_core::{
    Acquire, ClaimKey, Config, Event, Inputs, InstanceId, Plan, Report, ScaleFactor, Why, Zone,
};

use crate::cloud::{Cloud, CloudModel, Fate, Span};
use crate::setups::{Base, SetupError};
use crate::world::{Intervals, Millis, World, millis};

/// What can be said in a scenario.
pub const LANGUAGE: &str = "\
start TIME              the clock shows this, for example 2026-08-03T08:00:00Z
boot SPAN               how long instances take until they run; ready SPAN: until they take jobs; delete SPAN: to go
settings ... end        keys of [runners.autoscaler], one a line; later ones change those in force
machine ... end         keys of [runners.machine], in place of [runners.autoscaler]
job NAME...             jobs come, in this order
finish NAME...          jobs end
wait SPAN               time passes; until TIME: up to a moment
vanish INSTANCE         somebody else deletes an instance
doom INSTANCE WHY       the cloud announces that it takes an instance away
appear                  an instance that nobody asked for
refuse WHY              the next request for instances is refused
fail COUNT              so many of the next instances cannot be made ready
restart                 the manager is killed and begins anew
show                    the instances
formula KEY=NUMBER...   the scaling formula alone; keys are those of the log line `required scaling change`
# ...                   a remark";

/// Why a scenario cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A line says nothing that is known.
    #[error("{file}:{line}: {what}")]
    Line {
        /// Name of the file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// A block of settings is wrong.
    #[error("{file}:{line}: the settings that begin here are wrong")]
    Settings {
        /// Name of the file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        #[source]
        source: Box<SetupError>,
    },
}

struct Player {
    cloud: CloudModel,
    start: DateTime<Utc>,
    /// The settings that blocks change.
    base: Option<Base>,
    config: Config,
    intervals: Intervals,
    /// It begins with the first thing that happens.
    world: Option<World<()>>,
    out: String,
    /// When the last line was.
    said_at: Option<Millis>,
    said: Vec<Why>,
}

const AUTOSCALER: &str = "concurrent = 100000\n[[runners]]\nname = \"scenario\"\nurl = \"https://gitlab.example.com\"\n\
    token = \"none\"\nexecutor = \"instance\"\n[runners.autoscaler]\nplugin = \"static\"\n";
const MACHINE: &str = "concurrent = 100000\n[[runners]]\nname = \"scenario\"\nurl = \"https://gitlab.example.com\"\n\
    token = \"none\"\nexecutor = \"docker+machine\"\n[runners.machine]\nMachineName = \"m-%s\"\nMachineDriver = \"none\"\n";

/// Plays a scenario. The result repeats each line and says what came of it. `file` is its name in messages.
///
/// # Errors
/// [`ScenarioError`] names the line.
pub fn play(text: &str, file: &str) -> Result<String, ScenarioError> {
    let mut player = Player::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let fault = |what: String| ScenarioError::Line { file: file.to_owned(), line: index + 1, what };
        let line = line.trim_end();
        player.echo(line);
        let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        match word {
            "settings" | "machine" => {
                let mut block = String::new();
                loop {
                    let Some((_, line)) = lines.next() else {
                        return Err(fault(format!("`{word}` has no `end`")));
                    };
                    player.echo(line.trim_end());
                    if line.trim() == "end" {
                        break;
                    }
                    let _ = writeln!(block, "{line}");
                }
                player.settings(word, &block).map_err(|source| ScenarioError::Settings {
                    file: file.to_owned(),
                    line: index + 1,
                    source: Box::new(source),
                })?;
            }
            "" => {}
            word if word.starts_with('#') => {}
            word => player.command(word, rest.trim()).map_err(fault)?,
        }
    }
    Ok(player.out)
}

// === impl Player ===

impl Player {
    fn new() -> Self {
        Self {
            cloud: CloudModel {
                boot: Span::Constant(Duration::from_secs(40)),
                ready: Span::Constant(Duration::ZERO),
                ..CloudModel::default()
            },
            start: DateTime::from_timestamp(1_785_744_000, 0).unwrap_or_default(),
            base: None,
            config: Config { heartbeat_interval: Duration::ZERO, ..Config::default() },
            intervals: Intervals::default(),
            world: None,
            out: String::new(),
            said_at: None,
            said: Vec::new(),
        }
    }

    fn settings(&mut self, word: &str, block: &str) -> Result<(), SetupError> {
        let fresh = if word == "machine" { MACHINE } else { AUTOSCALER };
        let base = match self.base.take() {
            Some(base) if word == "settings" => base,
            Some(_) | None => Base::parse(fresh, "scenario", None, Zone::default())?,
        };
        let base = base.with(block, word)?;
        let setup = base.setup.clone();
        self.base = Some(base);
        self.config = Config { heartbeat_interval: Duration::ZERO, ..setup.scaler };
        self.intervals =
            Intervals { regular: setup.update_interval, expecting: setup.update_interval_when_expecting };
        if let Some(world) = &mut self.world {
            let now = world.now();
            world.core.configure(self.config.clone(), now);
            world.stir();
            self.settle();
        }
        Ok(())
    }

    fn command(&mut self, word: &str, rest: &str) -> Result<(), String> {
        let span = |text: &str| go_duration::parse(text).map_err(|error| error.to_string());
        let time = |text: &str| {
            text.parse::<DateTime<Utc>>()
                .map_err(|_| format!("`{text}` is not a time, expected for example 2026-08-03T08:00:00Z"))
        };
        match word {
            "start" | "boot" | "ready" | "delete" if self.world.is_some() => {
                return Err(format!("`{word}` must come before anything happens"));
            }
            "start" => self.start = time(rest)?,
            "boot" => self.cloud.boot = rest.parse().map_err(|error| format!("{error}"))?,
            "ready" => self.cloud.ready = rest.parse().map_err(|error| format!("{error}"))?,
            "delete" => self.cloud.delete = span(rest)?,
            "formula" => self.formula(rest)?,
            "job" => rest.split_whitespace().for_each(|name| self.job(name)),
            "finish" => {
                for name in rest.split_whitespace() {
                    let key = ClaimKey::from(name);
                    let world = self.world();
                    let now = world.now();
                    world.core.release(&key, now);
                    world.stir();
                    self.settle();
                }
            }
            "wait" => {
                let to = self.world().millis() + millis(span(rest)?);
                self.pass(to);
            }
            "until" => {
                let start = self.start;
                let to = u64::try_from((time(rest)? - start).num_milliseconds()).unwrap_or(0);
                self.pass(to);
            }
            "vanish" => {
                let world = self.world();
                let now = world.millis();
                if !world.cloud.befall(&InstanceId::from(rest), Fate::Interrupted, now) {
                    return Err(format!("there is no instance `{rest}` to vanish"));
                }
                world.cloud_changed();
            }
            "doom" => {
                let (id, why) = rest.split_once(' ').unwrap_or((rest, "spot notice"));
                if !self.world().cloud.doom(&InstanceId::from(id), why.to_owned()) {
                    return Err(format!("there is no instance `{id}` to doom"));
                }
                self.world().cloud_changed();
            }
            "appear" => {
                let id = self.world().appear();
                self.say(&format!("{id} appeared"));
            }
            "refuse" => self.world().cloud.refuse(rest.to_owned()),
            "fail" => {
                let count = rest.parse().map_err(|_| format!("`{rest}` is not a number"))?;
                self.world().cloud.spoil(count);
            }
            "restart" => {
                let config = self.config.clone();
                self.world().restart(config);
                self.said.clear();
                let now = self.world().millis();
                self.pass(now);
            }
            "show" => {
                let world = self.world();
                let now = world.now();
                let lines: Vec<String> = world.core.instances(now).map(|line| line.to_string()).collect();
                for line in &lines {
                    self.say(line);
                }
                if lines.is_empty() {
                    self.say("no instances");
                }
            }
            other => return Err(format!("`{other}` is unknown; a line is one of:\n{LANGUAGE}")),
        }
        Ok(())
    }

    /// The world, which begins with a look at the group.
    fn world(&mut self) -> &mut World<()> {
        if self.world.is_none() {
            let cloud = Cloud::new(self.cloud.clone(), 1);
            self.world = Some(World::new(self.config.clone(), cloud, self.start, self.intervals));
            self.pass(0);
        }
        let (cloud, start, intervals) = (self.cloud.clone(), self.start, self.intervals);
        self.world
            .get_or_insert_with(|| World::new(Config::default(), Cloud::new(cloud, 1), start, intervals))
    }

    fn job(&mut self, name: &str) {
        let key = ClaimKey::from(name);
        let world = self.world();
        let now = world.now();
        if let Err(refusal) = world.core.reserve(key.clone(), now) {
            self.say(&format!("{name} is not taken: {refusal}"));
            return;
        }
        let acquired = world.core.acquire(&key, now);
        world.stir();
        match acquired {
            Ok(Acquire::Granted(slot)) => self.say(&format!("{name} runs on {slot}")),
            Ok(Acquire::Pending) => self.say(&format!("{name} waits")),
            Err(error) => self.say(&format!("{name}: {error}")),
        }
        self.settle();
    }

    /// Lets everything happen up to a moment.
    fn pass(&mut self, to: Millis) {
        let Some(mut world) = self.world.take() else { return };
        while let Some(at) = world.next_at().filter(|at| *at <= to) {
            world.go(at);
            self.world = Some(world);
            self.settle();
            let Some(next) = self.world.take() else { return };
            world = next;
        }
        world.go(to);
        self.world = Some(world);
    }

    /// Lets the core decide until there is nothing to decide.
    fn settle(&mut self) {
        let Some(mut world) = self.world.take() else { return };
        loop {
            while let Some(event) = world.core.poll_event() {
                let line = match event {
                    Event::Granted { key, slot } => format!("{key} runs on {slot}"),
                    Event::Doomed { key, doom: Some(doom) } => format!("{key} hears: {doom}"),
                    Event::Doomed { key, doom: None } => format!("{key} hears that its instance stays"),
                    Event::Lost { key, slot, cause } => format!("{key} lost {slot}: {cause}"),
                };
                self.say_at(world.millis(), &line);
            }
            let mut seen = None;
            let at = world.millis();
            let decided = world.decide(&mut |_, plan, report| seen = Some((plan.clone(), report.clone())));
            if let Some((plan, report)) = &seen {
                self.decided(at, plan, report);
            }
            if !decided {
                break;
            }
        }
        self.world = Some(world);
    }

    fn decided(&mut self, at: Millis, plan: &Plan, report: &Report) {
        if !plan.ready_up.is_empty() {
            let ids: Vec<&str> = plan.ready_up.iter().map(|(id, _)| id.as_str()).collect();
            self.say_at(at, &format!("=> make ready {}", ids.join(" ")));
        }
        let acts = plan.launch > 0 || !plan.delete.is_empty();
        if acts || self.said != report.why {
            let inputs = &report.inputs;
            if let Some(target) = report.wanted.target
                && report.wanted.required != 0
            {
                self.say_at(
                    at,
                    &format!(
                        "{} instances, {target} wanted: acquired {} + unavailable {} + pending {} + idle {}",
                        inputs.instance_count,
                        inputs.acquired,
                        inputs.unavailable_capacity,
                        inputs.pending,
                        report.wanted.idle
                    ),
                );
            }
            for why in &report.why {
                self.say_at(at, &why.to_string());
            }
            self.said.clone_from(&report.why);
        }
        if plan.launch > 0 {
            self.say_at(at, &format!("=> launch {}", plan.launch));
        }
        if !plan.delete.is_empty() {
            let ids: Vec<&str> = plan.delete.iter().map(|deletion| deletion.id.as_str()).collect();
            self.say_at(at, &format!("=> delete {}", ids.join(" ")));
        }
    }

    fn formula(&mut self, text: &str) -> Result<(), String> {
        let mut inputs = Inputs {
            instance_count: 0,
            max_instance_count: None,
            deleting: 0,
            draining: 0,
            acquired: 0,
            unavailable_capacity: 0,
            idle_unavailable: 0,
            pending: 0,
            reserved: 0,
            idle_count: 0,
            scale_factor: ScaleFactor::default(),
            scale_factor_limit: 0,
            capacity_per_instance: 1,
        };
        for pair in text.split_whitespace() {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not KEY=NUMBER"))?;
            if key == "scale_factor" {
                inputs.scale_factor = value.parse().map_err(|error| format!("{error}"))?;
                continue;
            }
            let number = value.parse().map_err(|_| format!("`{value}` is not a number"))?;
            let place = match key {
                "instance_count" => &mut inputs.instance_count,
                "deleting" => &mut inputs.deleting,
                "acquired" => &mut inputs.acquired,
                "unavailable_capacity" => &mut inputs.unavailable_capacity,
                "pending" => &mut inputs.pending,
                "reserved" => &mut inputs.reserved,
                "idle_count" => &mut inputs.idle_count,
                "scale_factor_limit" => &mut inputs.scale_factor_limit,
                "capacity_per_instance" => &mut inputs.capacity_per_instance,
                "max_instance_count" => inputs.max_instance_count.insert(0),
                other => return Err(format!("`{other}` is not an input of the formula")),
            };
            *place = number;
        }
        let wanted = inputs.wanted();
        let line = match wanted.target {
            Some(target) => format!("idle {}, target {target}, required {:+}", wanted.idle, wanted.required),
            None => format!("idle {}, no target: more slots are in use than there are", wanted.idle),
        };
        let _ = writeln!(self.out, "                {line}");
        Ok(())
    }

    fn echo(&mut self, line: &str) {
        self.said_at = None;
        let _ = writeln!(self.out, "{line}");
    }

    fn say(&mut self, line: &str) {
        let at = self.world.as_ref().map_or(0, World::millis);
        self.say_at(at, line);
    }

    fn say_at(&mut self, at: Millis, line: &str) {
        let clock = if self.said_at == Some(at) {
            String::new()
        } else {
            let wall = self.start + chrono::TimeDelta::milliseconds(i64::try_from(at).unwrap_or(0));
            wall.format("%a %H:%M:%S").to_string()
        };
        self.said_at = Some(at);
        let _ = writeln!(self.out, "  {clock:14}{line}");
    }
}

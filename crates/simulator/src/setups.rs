//! From configuration files to the setups that are compared.

use config::Runner;
use taskscaler_core::Zone;

use crate::replay::Setup;

/// A configuration file, of which one runner entry is looked at.
#[derive(Debug, Clone)]
pub struct Base {
    /// What that entry says.
    pub setup: Setup,
    document: toml::Table,
    runner: usize,
    local: Zone,
}

/// Why a file yields no setup.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// It is no configuration.
    #[error(transparent)]
    Invalid(#[from] config::Invalid),
    /// It is not even TOML.
    #[error("`{file}` is not a configuration")]
    Syntax {
        /// Name of the file.
        file: String,
        /// The cause.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// There is no runner entry.
    #[error("`{file}` has no [[runners]] entry; expected one with [runners.autoscaler] or [runners.machine]")]
    NoRunners {
        /// Name of the file.
        file: String,
    },
    /// There is none of this name.
    #[error("`{file}` has no runner `{name}`; it has {known}")]
    UnknownRunner {
        /// Name of the file.
        file: String,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Several entries scale.
    #[error("`{file}` has several runners that scale ({known}): choose one by --runner")]
    Ambiguous {
        /// Name of the file.
        file: String,
        /// What there is.
        known: String,
    },
    /// The entry does not scale.
    #[error(
        "runner `{runner}` of `{file}` does not scale: expected [runners.autoscaler] or [runners.machine], which executor \
         `{executor}` does without"
    )]
    NothingScales {
        /// Name of the file.
        file: String,
        /// The entry.
        runner: String,
        /// Its executor.
        executor: String,
    },
    /// Its scaling settings make no sense.
    #[error("runner `{runner}` of `{file}`: {why}")]
    Settings {
        /// Name of the file.
        file: String,
        /// The entry.
        runner: String,
        /// What is wrong.
        why: String,
    },
}

// === impl Base ===

impl Base {
    /// Reads a configuration. `runner` names an entry; without it, the only one that scales is taken. `local` is the zone of
    /// the host, for policies that name none.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn parse(text: &str, file: &str, runner: Option<&str>, local: Zone) -> Result<Self, SetupError> {
        let loaded = config::parse(text, file, &|name| std::env::var(name).ok())?;
        let runners = &loaded.config.runners;
        if runners.is_empty() {
            return Err(SetupError::NoRunners { file: file.to_owned() });
        }
        let index = choose(runners, file, runner)?;
        let setup = setup(&loaded.config, &runners[index], file, local)?;
        let document = text.strip_prefix('\u{feff}').unwrap_or(text).parse::<toml::Table>();
        let document = document
            .map_err(|source| SetupError::Syntax { file: file.to_owned(), source: Box::new(source) })?;
        Ok(Self { setup, document, runner: index, local })
    }

    /// Reads another policy. A file with `[[runners]]` is a whole configuration. Any other file holds keys of
    /// `[runners.autoscaler]` (or `[runners.machine]`, if that is what the entry has), such as `max_instances` or
    /// `[[policy]]`, which take the place of the entry's; all other keys stay.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn variant(&self, text: &str, file: &str) -> Result<Setup, SetupError> {
        let syntax = |source| SetupError::Syntax { file: file.to_owned(), source: Box::new(source) };
        let table = text.strip_prefix('\u{feff}').unwrap_or(text).parse::<toml::Table>().map_err(syntax)?;
        let setup = if table.contains_key("runners") {
            Self::parse(text, file, None, self.local)?.setup
        } else {
            self.clone().merge(table, file)?.setup
        };
        Ok(Setup { name: name_of(file), ..setup })
    }

    /// This configuration with other keys of the section that scales.
    pub(crate) fn with(self, text: &str, file: &str) -> Result<Self, SetupError> {
        let syntax = |source| SetupError::Syntax { file: file.to_owned(), source: Box::new(source) };
        let table = text.parse::<toml::Table>().map_err(syntax)?;
        self.merge(table, file)
    }

    fn merge(mut self, keys: toml::Table, file: &str) -> Result<Self, SetupError> {
        let entry = self
            .document
            .get_mut("runners")
            .and_then(|runners| runners.get_mut(self.runner))
            .and_then(toml::Value::as_table_mut);
        let mut name = None;
        if let Some(entry) = entry {
            name = entry.get("name").and_then(toml::Value::as_str).map(str::to_owned);
            let section = if entry.contains_key("autoscaler") { "autoscaler" } else { "machine" };
            if let Some(section) = entry.get_mut(section).and_then(toml::Value::as_table_mut) {
                section.extend(keys);
            }
        }
        Self::parse(&self.document.to_string(), file, name.as_deref(), self.local)
    }
}

/// A file's name without folder and ending.
fn name_of(file: &str) -> String {
    let path = std::path::Path::new(file);
    path.file_stem().map_or_else(|| file.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

fn choose(runners: &[Runner], file: &str, name: Option<&str>) -> Result<usize, SetupError> {
    let list = |runners: &mut dyn Iterator<Item = &Runner>| -> String {
        runners.map(|runner| format!("`{}`", runner.label())).collect::<Vec<_>>().join(", ")
    };
    let named =
        |name: &str| runners.iter().position(|runner| runner.name() == name || runner.label() == name);
    if let Some(name) = name {
        return named(name).ok_or_else(|| SetupError::UnknownRunner {
            file: file.to_owned(),
            name: name.to_owned(),
            known: list(&mut runners.iter()),
        });
    }
    let mut scaling = (0..runners.len()).filter(|index| scales(&runners[*index]));
    match (scaling.next(), scaling.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err(SetupError::Ambiguous {
            file: file.to_owned(),
            known: list(&mut runners.iter().filter(|runner| scales(runner))),
        }),
        (None, _) => Ok(0),
    }
}

fn scales(runner: &Runner) -> bool {
    runner.autoscaler.is_some() || runner.machine.is_some()
}

fn setup(global: &config::Config, runner: &Runner, file: &str, local: Zone) -> Result<Setup, SetupError> {
    let wrong =
        |why: String| SetupError::Settings { file: file.to_owned(), runner: runner.label().to_owned(), why };
    let defaults = config::Autoscaler::default();
    let autoscaler = runner.autoscaler.as_ref().unwrap_or(&defaults);
    let scaler = match (&runner.autoscaler, &runner.machine) {
        (Some(autoscaler), _) => {
            let restores_state = autoscaler.keeps_state();
            let scaler = autoscaler.scaler(local).map_err(|error| wrong(error.to_string()))?;
            taskscaler_core::Config { restores_state, ..scaler }
        }
        (None, Some(machine)) => {
            machine.settings(runner.limit(), local).map_err(|error| wrong(error.to_string()))?.scaler()
        }
        (None, None) => {
            return Err(SetupError::NothingScales {
                file: file.to_owned(),
                runner: runner.label().to_owned(),
                executor: runner.executor.clone().unwrap_or_default(),
            });
        }
    };
    Ok(Setup {
        name: runner.label().to_owned(),
        scaler,
        most_jobs: runner.limit().map_or(global.concurrent(), |limit| limit.min(global.concurrent())),
        request_concurrency: runner.request_concurrency(),
        check_interval: global.check_interval(),
        update_interval: autoscaler.update_interval(),
        update_interval_when_expecting: autoscaler.update_interval_when_expecting(),
        acquire_timeout: autoscaler.instance_acquire_timeout(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "concurrent = 50\n\n[[runners]]\nname = \"a\"\nurl = \"https://gitlab.example.com\"\ntoken = \"x\"\n\
        executor = \"instance\"\nlimit = 40\n[runners.autoscaler]\nplugin = \"static\"\nmax_instances = 9\n\
        [[runners.autoscaler.policy]]\nidle_count = 3\n";

    #[test]
    fn keys_of_a_variant_take_the_place_of_the_entrys_and_the_others_stay() {
        let base = Base::parse(BASE, "config.toml", None, Zone::default()).unwrap();
        assert_eq!((base.setup.most_jobs, base.setup.scaler.policies[0].idle_count), (40, 3));
        let variant = base.variant("[[policy]]\nidle_count = 7\n", "warm.toml").unwrap();
        assert_eq!(variant.name, "warm");
        assert_eq!((variant.scaler.max_instances, variant.scaler.policies[0].idle_count), (9, 7));
    }

    #[test]
    fn a_variant_may_be_a_whole_configuration_with_machines() {
        let base = Base::parse(BASE, "config.toml", None, Zone::default()).unwrap();
        let machine = "concurrent = 5\n[[runners]]\nname = \"m\"\nexecutor = \"docker+machine\"\nlimit = 6\n\
            [runners.machine]\nIdleCount = 2\nMaxBuilds = 1\nMachineName = \"m-%s\"\nMachineDriver = \"x\"\n";
        let variant = base.variant(machine, "machine.toml").unwrap();
        assert_eq!(
            (variant.scaler.max_instances, variant.scaler.max_use_count, variant.most_jobs),
            (6, 1, 5)
        );
    }

    #[test]
    fn what_does_not_scale_is_refused_in_words() {
        let says = |text: &str, runner: Option<&str>| {
            Base::parse(text, "config.toml", runner, Zone::default()).unwrap_err().to_string()
        };
        let shell = "[[runners]]\nname = \"a\"\nurl = \"https://x\"\ntoken = \"x\"\nexecutor = \"shell\"\n";
        assert_eq!(
            says(shell, None),
            "runner `a` of `config.toml` does not scale: expected [runners.autoscaler] or [runners.machine], which executor \
             `shell` does without"
        );
        assert!(says("concurrent = 1\n", None).contains("has no [[runners]] entry"));
        assert_eq!(says(BASE, Some("b")), "`config.toml` has no runner `b`; it has `a`");
        let twice = format!("{BASE}\n{}", BASE.replace("concurrent = 50", "").replace("\"a\"", "\"b\""));
        assert!(says(&twice, None).contains("choose one by --runner"), "{}", says(&twice, None));
    }
}

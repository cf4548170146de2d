//! Flags for the keys of `[runners.cache]`, `[runners.docker]`, `[runners.machine]`, `[runners.ssh]` and
//! `[runners.custom_build_dir]`, made from the schema of the file. Names of flags and variables are GitLab Runner's. The
//! autoscaler and instance sections have none there, and none here.

use std::sync::LazyLock;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Error};
use config::{ExecutorName, Kind, schema};
use toml::{Table, Value};

use crate::arguments;
use crate::failure::Failure;
use crate::output;

/// The sections that have flags, as paths below `[[runners]]`.
const SECTIONS: [&[&str]; 8] = [
    &["cache"],
    &["cache", "s3"],
    &["cache", "gcs"],
    &["cache", "azure"],
    &["docker"],
    &["machine"],
    &["ssh"],
    &["custom_build_dir"],
];

/// Flags whose names do not follow from those of their keys: section, key, flag, variable.
const ODD: [(&str, &str, &str, &str); 17] = [
    ("docker", "tls_cert_path", "docker-cert-path", "DOCKER_CERT_PATH"),
    ("docker", "tls_verify", "docker-tlsverify", "DOCKER_TLS_VERIFY"),
    ("docker", "userns_mode", "docker-userns", "DOCKER_USERNS_MODE"),
    ("docker", "ipcmode", "docker-ipcmode", "DOCKER_IPC_MODE"),
    ("docker", "service_gpus", "docker-service_gpus", "DOCKER_SERVICE_GPUS"),
    ("docker", "services_privileged", "docker-services_privileged", "DOCKER_SERVICES_PRIVILEGED"),
    ("machine", "IdleCount", "machine-idle-nodes", "MACHINE_IDLE_COUNT"),
    ("machine", "MachineDriver", "machine-machine-driver", "MACHINE_DRIVER"),
    ("machine", "MachineName", "machine-machine-name", "MACHINE_NAME"),
    ("machine", "MachineOptions", "machine-machine-options", "MACHINE_OPTIONS"),
    ("machine", "MachineOptionsWithName", "machine-machine-options-with-name", "MACHINE_OPTIONS_WITH_NAME"),
    ("cache.s3", "AuthenticationType", "cache-s3-authentication_type", "CACHE_S3_AUTHENTICATION_TYPE"),
    ("cache.gcs", "CredentialsFile", "cache-gcs-credentials-file", "GOOGLE_APPLICATION_CREDENTIALS"),
    ("cache.gcs", "AccessID", "cache-gcs-access-id", "CACHE_GCS_ACCESS_ID"),
    ("cache.s3", "RoleARN", "cache-s3-role-arn", "CACHE_S3_ROLE_ARN"),
    ("cache.s3", "UploadRoleARN", "cache-s3-upload-role-arn", "CACHE_S3_UPLOAD_ROLE_ARN"),
    ("custom_build_dir", "enabled", "custom_build_dir-enabled", "CUSTOM_BUILD_DIR_ENABLED"),
];

/// All of them.
static FLAGS: LazyLock<Vec<SectionFlag>> = LazyLock::new(flags);

/// What flags and variables say about sections.
#[derive(Debug, Default)]
pub(super) struct SectionFlags {
    given: Vec<Given>,
}

/// One flag.
struct SectionFlag {
    section: &'static [&'static str],
    key: &'static str,
    kind: Kind,
    meaning: String,
    long: String,
    /// The same with hyphens only, where that differs.
    plain: String,
    variable: String,
}

#[derive(Debug)]
struct Given {
    /// Index in [`FLAGS`].
    flag: usize,
    texts: Vec<String>,
    /// By a flag, and not by a variable that may be meant for another program.
    by_flag: bool,
}

// === impl SectionFlags ===

impl SectionFlags {
    /// Writes the sections that the entry's executor reads.
    pub(super) fn fill(&self, entry: &mut Table) -> Result<(), Failure> {
        let executor = entry.get("executor").and_then(Value::as_str).and_then(ExecutorName::from_name);
        for given in &self.given {
            let Some(flag) = FLAGS.get(given.flag) else { continue };
            let storage = entry.get("cache").and_then(|cache| cache.get("Type")).and_then(Value::as_str);
            // A variable such as `GOOGLE_APPLICATION_CREDENTIALS` is there for other programs, too.
            let meant = given.by_flag || flag.section.get(1).is_none_or(|kind| storage == Some(*kind));
            if !flag.is_for(executor) || !meant {
                if given.by_flag {
                    output::note(&format_args!("warning: --{} has no effect with this executor", flag.long));
                }
                continue;
            }
            let value = value(flag.kind, &given.texts)
                .map_err(|why| Failure::misuse(format_args!("--{}: {why}", flag.long)))?;
            let mut table = &mut *entry;
            for name in flag.section {
                let below = table.entry(*name).or_insert_with(|| Value::Table(Table::new()));
                table = below.as_table_mut().ok_or_else(|| {
                    Failure::misuse(format_args!("`{name}` of the template is not a section"))
                })?;
            }
            table.insert(flag.key.to_owned(), value);
        }
        Ok(())
    }
}

impl clap::FromArgMatches for SectionFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = FLAGS.iter().enumerate().filter_map(|(index, flag)| {
            let texts: Vec<String> = matches
                .get_many::<String>(flag.long.as_str())?
                .filter(|text| !text.is_empty())
                .cloned()
                .collect();
            let by_flag = matches.value_source(flag.long.as_str()) == Some(ValueSource::CommandLine);
            (!texts.is_empty()).then_some(Given { flag: index, texts, by_flag })
        });
        Ok(Self { given: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for SectionFlags {
    fn augment_args(command: Command) -> Command {
        let mut command = command;
        for flag in FLAGS.iter() {
            let mut arg = Arg::new(flag.long.as_str())
                .long(flag.long.as_str())
                .env(flag.variable.as_str())
                .hide_env_values(true)
                // There are about a hundred; the reference page has them.
                .hide(true)
                .help(flag.meaning.as_str())
                .action(ArgAction::Append);
            if flag.plain != flag.long {
                arg = arg.alias(flag.plain.as_str());
            }
            if flag.kind == Kind::Boolean {
                arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
            }
            command = command.arg(arg);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

// === impl SectionFlag ===

impl SectionFlag {
    fn is_for(&self, executor: Option<ExecutorName>) -> bool {
        match self.section.first() {
            Some(&"docker") => executor.is_some_and(ExecutorName::uses_docker),
            Some(&"machine") => executor == Some(ExecutorName::DockerMachine),
            Some(&"ssh") => executor == Some(ExecutorName::Ssh),
            Some(_) | None => true,
        }
    }
}

/// Name, variable and meaning of every flag, for the reference page.
#[cfg(test)]
pub(crate) fn reference() -> Vec<(&'static str, &'static str, &'static str)> {
    FLAGS.iter().map(|flag| (flag.long.as_str(), flag.variable.as_str(), flag.meaning.as_str())).collect()
}

fn flags() -> Vec<SectionFlag> {
    let runners = schema().key("runners").and_then(|key| key.table);
    let mut all = Vec::new();
    for section in SECTIONS {
        let Some(table) =
            section.iter().try_fold(runners, |table, name| Some(table?.key(name)?.table)).flatten()
        else {
            continue;
        };
        for key in table.keys.iter().filter(|key| has_flag(key.kind)) {
            let odd = ODD.iter().find(|(at, name, ..)| *at == section.join(".") && *name == key.name);
            let plain = format!("{}-{}", section.join("-").replace('_', "-"), kebab(key.name));
            let (long, variable) = match odd {
                Some((.., long, variable)) => ((*long).to_owned(), (*variable).to_owned()),
                None => (plain.clone(), plain.replace('-', "_").to_uppercase()),
            };
            let meaning = key.meaning.split_whitespace().collect::<Vec<_>>().join(" ");
            all.push(SectionFlag { section, key: key.name, kind: key.kind, meaning, long, plain, variable });
        }
    }
    all
}

fn has_flag(kind: Kind) -> bool {
    match kind {
        Kind::Boolean
        | Kind::Integer
        | Kind::Float
        | Kind::String
        | Kind::Secret
        | Kind::Expanded
        | Kind::ExpandedSecret
        | Kind::Duration
        | Kind::Size
        | Kind::Cpus
        | Kind::Choice(_)
        | Kind::Assignments => true,
        Kind::List(inner) | Kind::OneOrMany(inner) => {
            !matches!(inner, Kind::Table | Kind::Raw) && has_flag(*inner)
        }
        Kind::Map(inner) => matches!(inner, Kind::String),
        Kind::Timestamp | Kind::Table | Kind::Raw => false,
    }
}

/// What the file has for these texts; the last one counts where there can be only one.
fn value(kind: Kind, texts: &[String]) -> Result<Value, String> {
    let last = texts.last().map(String::as_str).unwrap_or_default();
    match kind {
        Kind::Boolean => Ok(arguments::flag(last)?.0.into()),
        Kind::Integer => Ok(last.parse::<i64>().map_err(|_| "expected a whole number".to_owned())?.into()),
        Kind::Float => Ok(last.parse::<f64>().map_err(|_| "expected a number".to_owned())?.into()),
        Kind::Assignments => {
            Ok(texts.iter().map(|text| Value::from(text.as_str())).collect::<Vec<_>>().into())
        }
        Kind::List(inner) | Kind::OneOrMany(inner) => {
            let items: Result<Vec<Value>, String> =
                texts.iter().map(|text| value(*inner, std::slice::from_ref(text))).collect();
            Ok(items?.into())
        }
        Kind::Map(_) => {
            let mut table = Table::new();
            for text in texts {
                let (name, value) =
                    text.split_once(':').ok_or_else(|| format!("expected name:value, found `{text}`"))?;
                table.insert(name.to_owned(), value.into());
            }
            Ok(table.into())
        }
        Kind::String
        | Kind::Secret
        | Kind::Expanded
        | Kind::ExpandedSecret
        | Kind::Duration
        | Kind::Timestamp
        | Kind::Size
        | Kind::Cpus
        | Kind::Choice(_)
        | Kind::Table
        | Kind::Raw => Ok(last.into()),
    }
}

/// `ServerSideEncryptionKeyID` and `server_side` become `server-side-encryption-key-id` and `server-side`.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    let mut after_small = false;
    for c in name.chars() {
        if c == '_' {
            out.push('-');
            after_small = false;
            continue;
        }
        if c.is_ascii_uppercase() && after_small {
            out.push('-');
        }
        after_small = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn flags_and_variables_are_those_of_gitlab_runner() {
        let all = reference();
        for (long, variable) in [
            ("docker-image", "DOCKER_IMAGE"),
            ("docker-privileged", "DOCKER_PRIVILEGED"),
            ("docker-volumes", "DOCKER_VOLUMES"),
            ("docker-network-mode", "DOCKER_NETWORK_MODE"),
            ("docker-pull-policy", "DOCKER_PULL_POLICY"),
            ("docker-tlsverify", "DOCKER_TLS_VERIFY"),
            ("cache-type", "CACHE_TYPE"),
            ("cache-shared", "CACHE_SHARED"),
            ("cache-s3-server-address", "CACHE_S3_SERVER_ADDRESS"),
            ("cache-s3-server-side-encryption-key-id", "CACHE_S3_SERVER_SIDE_ENCRYPTION_KEY_ID"),
            ("cache-azure-account-name", "CACHE_AZURE_ACCOUNT_NAME"),
            ("machine-idle-nodes", "MACHINE_IDLE_COUNT"),
            ("machine-idle-time", "MACHINE_IDLE_TIME"),
            ("machine-machine-driver", "MACHINE_DRIVER"),
            ("ssh-identity-file", "SSH_IDENTITY_FILE"),
            ("custom_build_dir-enabled", "CUSTOM_BUILD_DIR_ENABLED"),
        ] {
            assert!(all.iter().any(|flag| (flag.0, flag.1) == (long, variable)), "--{long} {variable}");
        }
    }

    #[test]
    fn every_odd_name_belongs_to_a_key() {
        let names: BTreeSet<&str> = reference().into_iter().map(|flag| flag.0).collect();
        for (.., long, _) in ODD {
            assert!(names.contains(long), "{long}");
        }
    }

    #[test]
    fn only_the_sections_that_are_read_are_written() {
        let flag = |long: &str| FLAGS.iter().position(|flag| flag.long == long).unwrap();
        let mut given: Vec<Given> = [
            ("docker-image", "alpine"),
            ("cache-type", "s3"),
            ("cache-s3-insecure", "true"),
            ("cache-gcs-credentials-file", "/key.json"),
        ]
        .into_iter()
        .map(|(long, text)| Given { flag: flag(long), texts: vec![text.to_owned()], by_flag: false })
        .collect();
        given.sort_by_key(|given| given.flag);
        let mut entry: Table = "executor = \"instance\"".parse().unwrap();
        SectionFlags { given }.fill(&mut entry).unwrap();
        let expected = "executor = \"instance\"\n[cache]\nType = \"s3\"\n[cache.s3]\nInsecure = true\n";
        assert_eq!(entry, expected.parse().unwrap());
    }
}

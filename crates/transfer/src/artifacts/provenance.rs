//! The provenance statement that goes into an archive: which files it holds, and which job made them.
//!
//! The form is [SLSA provenance v1](https://slsa.dev/spec/v1.0/provenance) in an in-toto statement, as GitLab Runner writes it;
//! the commit is a `gitCommit`, as in-toto calls it.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::archive::{Entry, Kind};
use crate::{Console, select};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const PIECE: usize = 128 << 10;

/// What a provenance statement says of the job.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Provenance")]
pub struct Provenance {
    /// Add a statement of provenance to the archive (zip only)
    #[arg(long, env = "RUNNER_GENERATE_ARTIFACTS_METADATA", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", default_value = "false", value_parser = crate::flags::boolean,
        action = clap::ArgAction::Set)]
    pub generate_artifacts_metadata: bool,
    /// Id of the runner
    #[arg(long, default_value = "", hide_default_value = true)]
    pub runner_id: String,
    /// URL of the repository
    #[arg(long, default_value = "", hide_default_value = true)]
    pub repo_url: String,
    /// Commit
    #[arg(long, default_value = "", hide_default_value = true)]
    pub repo_digest: String,
    /// Name of the job
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub job_name: String,
    /// Executor
    #[arg(long, default_value = "", hide_default_value = true)]
    pub executor_name: String,
    /// Name of the runner
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub runner_name: String,
    /// Names of the job's variables
    #[arg(long, value_name = "NAME")]
    pub metadata_parameter: Vec<String>,
    /// Start of the job, as in RFC 3339
    #[arg(long, default_value = "", hide_default_value = true)]
    pub started_at: String,
    /// End of the job, as in RFC 3339; now if it is not given
    #[arg(long, default_value = "", hide_default_value = true)]
    pub ended_at: String,
    /// Version of the statement; there is one
    #[arg(long, env = "SLSA_PROVENANCE_SCHEMA_VERSION", default_value = "v1")]
    pub schema_version: String,
}

/// Why there is no statement.
#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    /// `--started-at` or `--ended-at` is no time.
    #[error("`{0}` is no time as in RFC 3339")]
    Time(String),
    /// A file that is to be archived cannot be read, or the statement cannot be written.
    #[error("failed to read or write `{}`", path.display())]
    File {
        /// Relative to the directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

// === impl Provenance ===

impl Provenance {
    /// Writes the statement beside the files, as `<name>-metadata.json`, and gives its entry.
    pub(super) fn write(
        &self,
        directory: &Path,
        name: &str,
        job: u64,
        entries: &[Entry],
        now: DateTime<Utc>,
        console: &Console,
    ) -> Result<Entry, ProvenanceError> {
        if !matches!(self.schema_version.as_str(), "" | "v1") {
            console.warning(&format!(
                "SLSA provenance {} is not known, the statement is of version v1",
                self.schema_version
            ));
        }
        let path = PathBuf::from(format!("{name}-metadata.json"));
        let failed = |source| ProvenanceError::File { path: path.clone(), source };
        let subjects = subjects(directory, entries.iter().filter(|entry| entry.path != path))?;
        let statement = self.statement(job, subjects, now)?;
        let there = directory.join(&path);
        let text = serde_json::to_vec_pretty(&statement).map_err(io::Error::other).map_err(failed)?;
        // A link of that name is replaced, not followed.
        match std::fs::remove_file(&there) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        std::fs::write(&there, text).map_err(failed)?;
        std::fs::set_permissions(&there, Permissions::from_mode(0o644)).map_err(failed)?;
        let metadata = std::fs::symlink_metadata(there).map_err(failed)?;
        Ok(select::entry(path, Kind::File, &metadata))
    }

    fn statement(
        &self,
        job: u64,
        subjects: Vec<Value>,
        now: DateTime<Utc>,
    ) -> Result<Value, ProvenanceError> {
        let mut parameters: BTreeMap<&str, &str> =
            self.metadata_parameter.iter().map(|name| (name.as_str(), "")).collect();
        parameters.extend([("source", self.repo_url.as_str()), ("entryPoint", self.job_name.as_str())]);
        let ended = time(&self.ended_at)?.unwrap_or_else(|| shown(now));
        Ok(json!({
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": "https://slsa.dev/provenance/v1",
            "subject": subjects,
            "predicate": {
                "buildDefinition": {
                    "buildType": concat!(env!("CARGO_PKG_REPOSITORY"), "/-/blob/v", env!("CARGO_PKG_VERSION"), "/docs/provenance.md"),
                    "externalParameters": parameters,
                    "internalParameters": {
                        "architecture": std::env::consts::ARCH,
                        "executor": self.executor_name,
                        "job": job.to_string(),
                        "name": self.runner_name,
                    },
                    "resolvedDependencies": [{
                        "uri": self.repo_url,
                        "digest": { "gitCommit": self.repo_digest },
                    }],
                },
                "runDetails": {
                    "builder": {
                        "id": format!("{}/-/runners/{}", self.repo_url, self.runner_id),
                        "version": { "drover": VERSION },
                    },
                    "metadata": {
                        "invocationId": job.to_string(),
                        "startedOn": time(&self.started_at)?,
                        "finishedOn": ended,
                    },
                },
            },
        }))
    }
}

/// Every file with its digest. Links and directories have no content of their own.
fn subjects<'e>(
    directory: &Path,
    entries: impl Iterator<Item = &'e Entry>,
) -> Result<Vec<Value>, ProvenanceError> {
    let mut buffer = vec![0; PIECE];
    let mut subjects = Vec::new();
    for entry in entries.filter(|entry| entry.kind == Kind::File) {
        let digest = digest(&directory.join(&entry.path), &mut buffer);
        let digest = digest.map_err(|source| ProvenanceError::File { path: entry.path.clone(), source })?;
        subjects.push(json!({ "name": entry.path.to_string_lossy(), "digest": { "sha256": digest } }));
    }
    Ok(subjects)
}

fn digest(path: &Path, buffer: &mut [u8]) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    loop {
        match file.read(buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn time(text: &str) -> Result<Option<String>, ProvenanceError> {
    if text.is_empty() {
        return Ok(None);
    }
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| ProvenanceError::Time(text.to_owned()))?;
    Ok(Some(shown(time.with_timezone(&Utc))))
}

fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_names_the_job_and_every_file_by_its_digest() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "abc").unwrap();
        let entry = |name: &str| {
            let metadata = std::fs::symlink_metadata(directory.path().join(name)).unwrap();
            select::entry(name.into(), Kind::File, &metadata)
        };
        let provenance = Provenance {
            repo_url: "https://gitlab.test/group/project".into(),
            repo_digest: "da39a3ee5e6b4b0d3255bfef95601890afd80709".into(),
            runner_id: "9".into(),
            job_name: "build".into(),
            metadata_parameter: vec!["CI".into()],
            started_at: "2026-11-21T10:00:00+01:00".into(),
            ..Provenance::default()
        };
        let (console, memory) = Console::memory();
        let now = DateTime::parse_from_rfc3339("2026-11-21T09:30:00Z").unwrap().to_utc();
        let made = provenance.write(directory.path(), "out", 5, &[entry("file")], now, &console).unwrap();
        assert_eq!((made.path.to_str(), made.mode), (Some("out-metadata.json"), 0o644));
        let text = std::fs::read(directory.path().join("out-metadata.json")).unwrap();
        let statement: Value = serde_json::from_slice(&text).unwrap();
        // The published digest of `abc`.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(statement["subject"], json!([{ "name": "file", "digest": { "sha256": digest } }]));
        assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
        let run = &statement["predicate"]["runDetails"];
        assert_eq!(run["builder"]["id"], "https://gitlab.test/group/project/-/runners/9");
        assert_eq!(
            run["metadata"],
            json!({ "invocationId": "5", "startedOn": "2026-11-21T09:00:00Z", "finishedOn": "2026-11-21T09:30:00Z" })
        );
        let parameters = &statement["predicate"]["buildDefinition"]["externalParameters"];
        assert_eq!(
            parameters,
            &json!({ "CI": "", "entryPoint": "build", "source": "https://gitlab.test/group/project" })
        );
        assert_eq!(memory.text(), "");

        let late = Provenance { ended_at: "yesterday".into(), ..provenance };
        let error = late.write(directory.path(), "out", 5, &[], now, &console).unwrap_err();
        assert_eq!(error.to_string(), "`yesterday` is no time as in RFC 3339");
    }
}

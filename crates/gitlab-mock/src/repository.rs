//! Git repositories of the server: bare ones on disk, made and changed by real git.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::sync::lock;

/// A project's repository on the server. Clones are handles on the same repository.
#[derive(Debug, Clone)]
pub struct Repository {
    record: Arc<RepositoryRecord>,
}

/// Why git could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// The program could not be started.
    #[error("failed to start git")]
    Start(#[source] std::io::Error),
    /// The program failed.
    #[error("git {command} failed with {status}: {stderr}")]
    Failed {
        /// Its first argument.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// Files of the repository could not be written.
    #[error("failed to write to repository `{}`", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The path of a project does not consist of `namespace/project`.
    #[error("`{0}` is not the path of a project")]
    BadProject(String),
    /// The repository has no such branch, tag or commit.
    #[error("repository `{project}` has no ref `{reference}`")]
    NoSuchRef {
        /// Path of the project.
        project: String,
        /// What was looked for.
        reference: String,
    },
}

/// What a job checks out, resolved.
#[derive(Debug, Clone)]
pub(crate) struct Checkout {
    pub(crate) project_id: u64,
    pub(crate) pipeline: u64,
    pub(crate) name: String,
    pub(crate) is_tag: bool,
    pub(crate) sha: String,
    pub(crate) default_branch: String,
}

#[derive(Debug)]
struct RepositoryRecord {
    project: String,
    project_id: u64,
    path: PathBuf,
    next_pipeline: Arc<AtomicU64>,
    refs: Mutex<Refs>,
}

/// A copy of the repository's refs, so that no process is started for each job.
#[derive(Debug, Default)]
struct Refs {
    default_branch: String,
    by_name: BTreeMap<String, String>,
    /// Pipeline of a ref at a commit.
    pipelines: BTreeMap<(String, String), u64>,
}

// === impl Repository ===

impl Repository {
    /// An empty repository whose default branch is `main`.
    pub(crate) async fn create(
        root: &Path,
        project: &str,
        project_id: u64,
        next_pipeline: Arc<AtomicU64>,
    ) -> Result<Self, GitError> {
        let path = location(root, project)?;
        git(root, &["init", "--bare", "--quiet", "--initial-branch=main", &path.to_string_lossy()], None)
            .await?;
        Self::open(path, project, project_id, next_pipeline).await
    }

    /// A copy of an existing repository, bare or not.
    pub(crate) async fn import(
        root: &Path,
        project: &str,
        project_id: u64,
        next_pipeline: Arc<AtomicU64>,
        source: &Path,
    ) -> Result<Self, GitError> {
        let path = location(root, project)?;
        let (from, to) = (source.to_string_lossy(), path.to_string_lossy());
        git(root, &["clone", "--mirror", "--quiet", "--no-hardlinks", &from, &to], None).await?;
        Self::open(path, project, project_id, next_pipeline).await
    }

    async fn open(
        path: PathBuf,
        project: &str,
        project_id: u64,
        next_pipeline: Arc<AtomicU64>,
    ) -> Result<Self, GitError> {
        let record = RepositoryRecord {
            project: project.to_owned(),
            project_id,
            path,
            next_pipeline,
            refs: Mutex::default(),
        };
        let repository = Self { record: Arc::new(record) };
        repository.refresh().await?;
        Ok(repository)
    }

    /// Path of the project: `namespace/project`.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.record.project
    }

    /// The bare repository on disk.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.record.path
    }

    /// Commits files on top of a branch, which is made when it is not there, and returns the id of the commit. A file
    /// whose path ends in `.sh` is executable. Files of earlier commits stay.
    ///
    /// # Errors
    ///
    /// When git fails.
    pub async fn commit<P, C>(
        &self,
        branch: &str,
        files: impl IntoIterator<Item = (P, C)>,
        message: &str,
    ) -> Result<String, GitError>
    where
        P: AsRef<str>,
        C: AsRef<[u8]>,
    {
        let reference = format!("refs/heads/{branch}");
        let mut stream = format!(
            "commit {reference}\ncommitter Harbour Master <harbour-master@example.test> 1750000000 +0000\ndata {}\n{message}\n",
            message.len()
        )
        .into_bytes();
        if lock(&self.record.refs).by_name.contains_key(&reference) {
            stream.extend_from_slice(format!("from {reference}^0\n").as_bytes());
        }
        for (path, content) in files {
            let (path, content) = (path.as_ref(), content.as_ref());
            let mode = if path.ends_with(".sh") { "100755" } else { "100644" };
            stream.extend_from_slice(format!("M {mode} inline {path}\ndata {}\n", content.len()).as_bytes());
            stream.extend_from_slice(content);
            stream.push(b'\n');
        }
        git(
            &self.record.path,
            &["fast-import", "--quiet", "--done"],
            Some(&[&stream[..], b"\ndone\n"].concat()),
        )
        .await?;
        self.refresh().await?;
        self.resolve(branch)
    }

    /// Makes a branch at a branch, tag or commit.
    ///
    /// # Errors
    ///
    /// When `at` does not exist or git fails.
    pub async fn branch(&self, name: &str, at: &str) -> Result<(), GitError> {
        self.point(&format!("refs/heads/{name}"), at).await
    }

    /// Makes a lightweight tag at a branch, tag or commit.
    ///
    /// # Errors
    ///
    /// When `at` does not exist or git fails.
    pub async fn tag(&self, name: &str, at: &str) -> Result<(), GitError> {
        self.point(&format!("refs/tags/{name}"), at).await
    }

    /// The id of the commit that a branch or tag names.
    ///
    /// # Errors
    ///
    /// When there is no such branch or tag.
    pub fn resolve(&self, reference: &str) -> Result<String, GitError> {
        let refs = lock(&self.record.refs);
        let (_, sha, _) = refs.find(reference).ok_or_else(|| self.no_such_ref(reference))?;
        Ok(sha)
    }

    /// Reads the refs again, after something else than this handle has changed the repository.
    ///
    /// # Errors
    ///
    /// When git fails.
    pub async fn refresh(&self) -> Result<(), GitError> {
        let path = &self.record.path;
        let head = git(path, &["symbolic-ref", "--short", "HEAD"], None).await?;
        let format = "--format=%(refname) %(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)";
        let listing = git(path, &["for-each-ref", format, "refs/heads", "refs/tags"], None).await?;
        let by_name = listing
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, sha)| (name.to_owned(), sha.to_owned()))
            .collect();
        let mut refs = lock(&self.record.refs);
        refs.default_branch = head.trim().to_owned();
        refs.by_name = by_name;
        Ok(())
    }

    /// Resolves what a job checks out. Jobs of the same ref and commit share a pipeline, whose ref is made here, as
    /// GitLab keeps `refs/pipelines/<id>`.
    pub(crate) fn checkout(&self, reference: Option<&str>) -> Result<Checkout, GitError> {
        let mut refs = lock(&self.record.refs);
        let wanted = reference.unwrap_or(&refs.default_branch).to_owned();
        let (name, sha, is_tag) = refs.find(&wanted).ok_or_else(|| self.no_such_ref(&wanted))?;
        let key = (name.clone(), sha.clone());
        let pipeline = match refs.pipelines.get(&key) {
            Some(&pipeline) => pipeline,
            None => {
                let pipeline = self.record.next_pipeline.fetch_add(1, Ordering::Relaxed);
                self.write_pipeline_ref(pipeline, &sha)?;
                refs.pipelines.insert(key, pipeline);
                pipeline
            }
        };
        let default_branch = refs.default_branch.clone();
        Ok(Checkout { project_id: self.record.project_id, pipeline, name, is_tag, sha, default_branch })
    }

    async fn point(&self, reference: &str, at: &str) -> Result<(), GitError> {
        let target = self.resolve(at).unwrap_or_else(|_| at.to_owned());
        git(&self.record.path, &["update-ref", reference, &target], None).await?;
        self.refresh().await
    }

    /// A loose ref is one small file; writing it needs no process.
    fn write_pipeline_ref(&self, pipeline: u64, sha: &str) -> Result<(), GitError> {
        let directory = self.record.path.join("refs/pipelines");
        let path = directory.join(pipeline.to_string());
        std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::write(&path, format!("{sha}\n")))
            .map_err(|source| GitError::Write { path, source })
    }

    fn no_such_ref(&self, reference: &str) -> GitError {
        GitError::NoSuchRef { project: self.record.project.clone(), reference: reference.to_owned() }
    }
}

// === impl Refs ===

impl Refs {
    /// Short name, commit, and whether it is a tag.
    fn find(&self, name: &str) -> Option<(String, String, bool)> {
        let branch = self.by_name.get(&format!("refs/heads/{name}"));
        let tag = || self.by_name.get(&format!("refs/tags/{name}"));
        branch
            .map(|sha| (name.to_owned(), sha.clone(), false))
            .or_else(|| tag().map(|sha| (name.to_owned(), sha.clone(), true)))
    }
}

/// Runs git with nothing of the machine's configuration.
pub(crate) fn git_command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .kill_on_drop(true);
    command
}

async fn git(directory: &Path, arguments: &[&str], input: Option<&[u8]>) -> Result<String, GitError> {
    let mut command = git_command(directory);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(GitError::Start)?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A git that fails early closes its end; its message says more than the broken pipe.
        let _ = stdin.write_all(input).await;
    }
    let output = child.wait_with_output().await.map_err(GitError::Start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(GitError::Failed {
        command: arguments.first().copied().unwrap_or_default().to_owned(),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Where the repository of a project is; refuses paths that lead out of the root.
pub(crate) fn location(root: &Path, project: &str) -> Result<PathBuf, GitError> {
    let clean = |segment: &str| !segment.is_empty() && !segment.starts_with('.') && !segment.contains('\\');
    if !project.contains('/') || !project.split('/').all(clean) {
        return Err(GitError::BadProject(project.to_owned()));
    }
    Ok(root.join(format!("{project}.git")))
}

//! What can be chosen, and what can go wrong.

use std::path::PathBuf;

/// How the demonstration runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoOptions {
    /// Jobs that arrive; with 40 it takes about a minute. At least one. Default 40.
    pub jobs: usize,
    /// Kill one instance under its job and show what becomes of it. Default off.
    pub kill_instance: bool,
    /// One line per event in place of the live picture, also on a terminal. Default off.
    pub plain: bool,
    /// Where the summary is written as JSON; `-` is standard output, and everything else goes to standard error then.
    pub json: Option<PathBuf>,
    /// Where the picture of the busiest moment is written: as SVG to a file that ends in `.svg`, else as text.
    pub picture: Option<PathBuf>,
    /// Decides which jobs there are and how long they take. Default 1.
    pub seed: u64,
    /// The program that becomes an instance when its only argument is `local-instance`. Default: the running program.
    pub program: Option<PathBuf>,
    /// Image of the containers that jobs run in, made by the engine of this machine; none: jobs run on the instances themselves.
    pub docker: Option<String>,
}

/// Why the demonstration did not come to a good end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The one program that it needs is missing.
    #[error("the demo needs `git` with `git http-backend`, which serves the repository to the jobs: {why}")]
    NoGit {
        /// What was looked for and not found.
        why: String,
    },
    /// Containers are wanted, and there is no engine.
    #[error("the demo needs a Docker engine for `--docker`: {why}")]
    NoEngine {
        /// What was tried.
        why: String,
    },
    /// The engine has not the image for the jobs, and does not get it.
    #[error("the demo needs the image `{image}` for `--docker`: {why}")]
    NoImage {
        /// Its name.
        image: String,
        /// What the engine says.
        why: String,
    },
    /// There are no jobs to show.
    #[error("the demo needs at least one job")]
    NoJobs,
    /// A file or directory could not be made or written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// GitLab's stand-in did not start.
    #[error("failed to start the stand-in for GitLab")]
    GitLab(#[from] gitlab_mock::StartError),
    /// The repository could not be made.
    #[error("failed to make the repository")]
    Repository(#[from] gitlab_mock::GitError),
    /// The configuration of the demonstration is refused: a mistake of ours.
    #[error("the configuration of the demo is refused")]
    Configuration(#[from] config::Invalid),
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// Something was not as it should be.
    #[error("the demo did not go as it should:{}\nlog: {}", listing(complaints), log.display())]
    Failed {
        /// What, one line each.
        complaints: Vec<String>,
        /// The log of the manager, in a directory that is kept.
        log: PathBuf,
    },
}

// === impl DemoOptions ===

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            jobs: 40,
            kill_instance: false,
            plain: false,
            json: None,
            picture: None,
            seed: 1,
            program: None,
            docker: None,
        }
    }
}

fn listing(complaints: &[String]) -> String {
    complaints.iter().map(|complaint| format!("\n  - {complaint}")).collect()
}

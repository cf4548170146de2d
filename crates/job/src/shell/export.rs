//! What every shell is told of the job's variables, before it is written in a shell's own words.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::context::Context;
use crate::flags::FeatureFlag;

/// Changes while the job runs, and everything else stays: its export stands apart.
pub(crate) const STATUS: &str = "CI_JOB_STATUS";

/// A variable that a script exports.
pub(crate) struct Export<'a> {
    pub(crate) key: &'a str,
    /// What the script sees: of a file variable, the path.
    pub(crate) value: Cow<'a, str>,
    /// What is in the file.
    pub(crate) content: Option<&'a str>,
}

/// The part of a script that all stages of a job have in common, ready to be copied. It holds secrets.
#[derive(Clone, Default)]
pub(crate) struct Prelude(OnceLock<Bytes>);

/// The variables of the job in final order, then those that exist in scripts alone.
///
/// `CI_JOB_STATUS` is left out unless the job has one of its own.
pub(crate) fn exports(context: &Context) -> impl Iterator<Item = Export<'_>> {
    let own = context
        .variables
        .iter()
        .filter(|variable| variable.is_exportable() && !(variable.internal && variable.key == STATUS))
        .map(|variable| {
            if variable.file {
                let path = Cow::Owned(context.variables.file_path(&variable.key));
                Export { key: &variable.key, value: path, content: Some(variable.value.as_str()) }
            } else {
                let value = Cow::Borrowed(variable.value.as_str());
                Export { key: &variable.key, value, content: None }
            }
        });
    let files = [
        ("GITLAB_ENV", "gitlab_runner_env", true),
        ("GIT_CONFIG_GLOBAL", ".glr.gconf", context.flags.is_on(FeatureFlag::GitUrlsWithoutTokens)),
    ];
    own.chain(files.into_iter().filter(|(_, _, wanted)| *wanted).map(|(key, file, _)| Export {
        key,
        value: Cow::Owned(context.temp_file(file)),
        content: None,
    }))
}

/// The job's status, if it is the runner's to tell.
pub(crate) fn status(context: &Context) -> Option<&str> {
    context
        .variables
        .find(STATUS)
        .filter(|variable| variable.internal)
        .map(|variable| variable.value.as_str())
}

// === impl Prelude ===

impl Prelude {
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> String) -> &Bytes {
        self.0.get_or_init(|| Bytes::from(make()))
    }
}

impl fmt::Debug for Prelude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prelude").finish_non_exhaustive()
    }
}

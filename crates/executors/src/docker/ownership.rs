//! Files that the helper made, for the user of the job's image (`FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR`).
//!
//! Without the flag the helper makes files that everybody may change. With it, they get the usual rights, and are given to the user
//! before the job's first commands. Who that is, is read from the image: nothing of the image is run.

use std::io::Read as _;
use std::sync::Arc;

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::sync::OnceCell;

use super::engine::{Engine, EngineError};
use super::stage::Inside;
use crate::environment::{StageEvent, StageOutput as _};
use crate::words::{Excerpt, quoted};

/// Lists of users and groups are not read beyond this.
const LONGEST_LIST: usize = 1024 * 1024;
/// What is kept of the words of a `chown` that fails.
const WORDS_KEPT: usize = 1024;

/// The folders of a job, to be given to the user of its image.
pub(crate) struct Ownership {
    user: String,
    folders: Vec<String>,
    done: OnceCell<()>,
}

// === impl Ownership ===

impl Ownership {
    /// For a user as images and configurations name one: `user[:group]`, by names or numbers. None for root, who may use any file.
    pub(crate) fn for_user(user: &str, folders: Vec<String>) -> Option<Self> {
        (!is_root(user)).then(|| Self { user: user.to_owned(), folders, done: OnceCell::new() })
    }

    /// Gives the folders away, once. A failure is told to the manager's log: the job may do without.
    pub(crate) async fn settle(&self, engine: &Arc<Engine>, build: &str, helper: &str) {
        let settling = async {
            if let Err(why) = self.give(engine, build, helper).await {
                tracing::warn!(
                    container = build,
                    user = self.user,
                    why,
                    "files of the job do not belong to its user"
                );
            }
        };
        self.done.get_or_init(|| settling).await;
    }

    async fn give(&self, engine: &Arc<Engine>, build: &str, helper: &str) -> Result<(), String> {
        let users = list(engine, build, "/etc/passwd").await.map_err(|error| error.to_string())?;
        let groups = list(engine, build, "/etc/group").await.map_err(|error| error.to_string())?;
        let (uid, gid) = resolve(&self.user, &users, &groups)
            .ok_or_else(|| format!("the image has no user or group of the name in \"{}\"", self.user))?;
        if uid == 0 {
            return Ok(());
        }
        let folders: Vec<String> = self.folders.iter().map(|folder| quoted(folder)).collect();
        let script = format!(
            "for f in {}; do if [ -e \"$f\" ]; then chown -RP -- {uid}:{gid} \"$f\" || exit; fi; done",
            folders.join(" ")
        );
        let command = ["sh", "-c", &script].map(str::to_owned).into();
        let started = Inside::start(engine, helper, command, Vec::new(), Bytes::new()).await;
        let mut running = started.map_err(|error| error.to_string())?;
        let mut said = Excerpt::new(WORDS_KEPT);
        loop {
            match running.next().await.map_err(|error| error.to_string())? {
                StageEvent::Stdout(bytes) | StageEvent::Stderr(bytes) => {
                    said.add(&bytes);
                }
                StageEvent::Exited(0) => return Ok(()),
                StageEvent::Exited(code) => {
                    return Err(format!("chown: exit code {code}: {}", said.text().trim()));
                }
            }
        }
    }
}

/// Whether a user, as images and configurations name one, is root.
pub(crate) fn is_root(user: &str) -> bool {
    matches!(user.split(':').next(), None | Some("" | "0" | "root"))
}

/// A file of a container, which need not run; empty if there is none.
async fn list(engine: &Engine, container: &str, path: &str) -> Result<String, EngineError> {
    let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
    let mut pieces = engine.api().download_from_container(container, Some(options));
    let mut archive = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        match piece.map_err(EngineError::from) {
            Ok(piece) => archive.extend_from_slice(&piece),
            Err(EngineError::NotFound(_)) => return Ok(String::new()),
            Err(error) => return Err(error),
        }
        if archive.len() > LONGEST_LIST {
            return Err(EngineError::Failed(format!("{path} of the image is longer than 1 MiB")));
        }
    }
    let mut archive = tar::Archive::new(&archive[..]);
    let unreadable =
        |error: std::io::Error| EngineError::Failed(format!("{path} of the image cannot be read: {error}"));
    let mut text = Vec::new();
    if let Some(entry) = archive.entries().map_err(unreadable)?.next() {
        entry.map_err(unreadable)?.read_to_end(&mut text).map_err(unreadable)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Numbers of a user and a group, as engines find them: names are looked up, numbers count as they are, and a user without a group
/// has that of the list, or root's.
fn resolve(user: &str, users: &str, groups: &str) -> Option<(u32, u32)> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let entry = |list: &str, matches: &dyn Fn(&[&str]) -> bool| -> Option<(u32, Option<u32>)> {
        list.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            if fields.len() < 3 || !matches(&fields) {
                return None;
            }
            Some((fields[2].parse().ok()?, fields.get(3).and_then(|gid| gid.parse().ok())))
        })
    };
    let known =
        entry(users, &|fields| fields[0] == name).or_else(|| entry(users, &|fields| fields[2] == name));
    let (uid, own_group) = match known {
        Some(known) => known,
        None => (name.parse().ok()?, None),
    };
    let gid = match group {
        Some(group) => match entry(groups, &|fields| fields[0] == group) {
            Some((gid, _)) => gid,
            None => group.parse().ok()?,
        },
        None => own_group.unwrap_or(0),
    };
    Some((uid, gid))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const USERS: &str =
        "root:x:0:0:root:/root:/bin/sh\n# no line\nuser:x:1000:1001::/home:/bin/sh\n7:x:70:71::/:/bin/sh\n";
    const GROUPS: &str = "root:x:0:\nstaff:x:50:user\n";

    #[test_case("user", Some((1000, 1001)); "a name")]
    #[test_case("1000", Some((1000, 1001)); "a number that has a name")]
    #[test_case("7", Some((70, 71)); "a name of digits")]
    #[test_case("4711", Some((4711, 0)); "a number that has none")]
    #[test_case("user:staff", Some((1000, 50)); "with a group")]
    #[test_case("user:99", Some((1000, 99)); "with the number of a group")]
    #[test_case("user:", Some((1000, 1001)); "with an empty group")]
    #[test_case("nobody", None; "an unknown name")]
    #[test_case("user:nobody", None; "an unknown group")]
    fn users_are_found_as_engines_find_them(user: &str, expected: Option<(u32, u32)>) {
        assert_eq!(resolve(user, USERS, GROUPS), expected);
    }

    #[test]
    fn root_needs_nothing() {
        for user in ["", "root", "0", "0:0", "root:staff"] {
            assert!(Ownership::for_user(user, Vec::new()).is_none(), "{user}");
        }
        assert!(Ownership::for_user("1000", Vec::new()).is_some());
    }
}

//! Which files of a project are archived.

mod glob;

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Console;
use crate::archive::{Entry, Kind, Stamp};
use crate::expand::expand_env;
use glob::{Part, Pattern};

/// What to look for. Paths and excludes are expanded as a shell does.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Selection {
    /// Paths and globs (`**` for any depth), relative to the working directory
    #[arg(long = "path", value_name = "GLOB", allow_hyphen_values = true)]
    pub paths: Vec<String>,
    /// Globs of what is left out
    #[arg(long = "exclude", value_name = "GLOB", allow_hyphen_values = true)]
    pub exclude: Vec<String>,
    /// Add files that git does not track, ignored ones included
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        value_parser = crate::flags::boolean, action = clap::ArgAction::Set)]
    pub untracked: bool,
    /// Name each file
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        value_parser = crate::flags::boolean, action = clap::ArgAction::Set)]
    pub verbose: bool,
}

/// Collects entries below one directory.
struct Finder<'a> {
    root: &'a Path,
    /// The root without links.
    real_root: PathBuf,
    console: &'a Console,
    exclude: Vec<(&'a str, Vec<Pattern>, u64)>,
    entries: Vec<Entry>,
    git: bool,
}

/// What is there; `None` if it cannot be archived.
fn kind(metadata: &Metadata) -> Option<Kind> {
    let kind = metadata.file_type();
    if kind.is_file() {
        Some(Kind::File)
    } else if kind.is_dir() {
        Some(Kind::Directory)
    } else if kind.is_symlink() {
        Some(Kind::Link)
    } else {
        None
    }
}

/// The entry of a path relative to the project.
pub(crate) fn entry(path: PathBuf, kind: Kind, metadata: &Metadata) -> Entry {
    Entry {
        path,
        kind,
        mode: metadata.mode() & 0o7777,
        size: metadata.len(),
        modified: Stamp {
            seconds: metadata.mtime(),
            nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        },
        uid: metadata.uid(),
        gid: metadata.gid(),
    }
}

/// Finds what is to be archived below `root`, in the order of the paths. Says what it found, in the words of GitLab Runner.
///
/// # Errors
/// The directory itself cannot be read.
pub(crate) fn find(root: &Path, selection: &Selection, console: &Console) -> io::Result<Vec<Entry>> {
    let exclude: Vec<String> = selection.exclude.iter().map(|text| expand_env(text)).collect();
    let exclude = exclude
        .iter()
        .zip(&selection.exclude)
        .map(|(text, shown)| (shown.as_str(), glob::parse(strip_root(text, root)), 0))
        .collect();
    let real_root = root.canonicalize()?;
    let mut finder = Finder { root, real_root, console, exclude, entries: Vec::new(), git: false };
    for path in &selection.paths {
        finder.path(path);
    }
    if selection.untracked {
        finder.untracked();
    }
    let mut entries = std::mem::take(&mut finder.entries);
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    entries.dedup_by(|a, b| a.path == b.path);
    for (text, _, count) in finder.exclude.iter().filter(|(_, _, count)| *count > 0) {
        console.info(&format!("{text}: excluded {count} files"));
    }
    if finder.git {
        console.warning("Part of .git directory is on the list of files to archive");
        console.warning("This may introduce unexpected problems");
    }
    if selection.verbose {
        for entry in &entries {
            console.info(&entry.path.display().to_string());
        }
    }
    Ok(entries)
}

// === impl Finder ===

impl Finder<'_> {
    /// One `--path`.
    fn path(&mut self, shown: &str) {
        let text = expand_env(shown);
        let mut found = 0;
        match inside(&text, self.root) {
            Some(relative) => {
                for pattern in glob::parse(&relative) {
                    found += self.matches(&pattern);
                }
            }
            // That it lies elsewhere is why nothing is found.
            None => return self.refuse(Path::new(&text)),
        }
        let shown = if text.is_empty() { shown } else { &text };
        if found == 0 {
            self.console.warning(&format!(
                "{shown}: no matching files. Ensure that the artifact path is relative to the working directory ({})",
                self.root.display()
            ));
        } else {
            self.console.info(&format!("{shown}: found {found} matching artifact files and directories"));
        }
    }

    fn untracked(&mut self) {
        // The helper may run as another user than the one who owns the checkout.
        let git = Command::new("git")
            .args(["-c", "safe.directory=*", "ls-files", "-o", "-z"])
            .current_dir(self.root)
            .output();
        let output = match git {
            Ok(output) if output.status.success() => output.stdout,
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                self.console.warning(&format!("untracked: git failed: {}", said.trim()));
                return;
            }
            Err(error) => {
                self.console.warning(&format!("untracked: git cannot be run: {error}"));
                return;
            }
        };
        let mut found = 0;
        for path in output.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
            // A nested repository is named with a slash at its end.
            let path = PathBuf::from(OsString::from_vec(path.strip_suffix(b"/").unwrap_or(path).to_vec()));
            if let Ok(metadata) = std::fs::symlink_metadata(self.root.join(&path)) {
                found += u64::from(self.take(path, &metadata));
            }
        }
        if found == 0 {
            self.console.warning("untracked: no files");
        } else {
            self.console.info(&format!("untracked: found {found} files"));
        }
    }

    /// All matches of a pattern with everything below them. Returns how many were found.
    fn matches(&mut self, pattern: &Pattern) -> u64 {
        let mut matches = Vec::new();
        self.walk(PathBuf::new(), pattern.parts(), &mut matches);
        // Sorted, what lies below another match comes behind it.
        matches.sort_unstable();
        matches.dedup();
        let mut found = 0;
        let mut above: Option<PathBuf> = None;
        for path in matches {
            if above.as_ref().is_some_and(|above| path.starts_with(above)) {
                continue;
            }
            if !self.is_inside(&path) {
                self.refuse(&path);
                continue;
            }
            let Ok(metadata) = std::fs::symlink_metadata(self.root.join(&path)) else { continue };
            if metadata.is_dir() {
                above = Some(path.clone());
            }
            found += self.tree(path, &metadata);
        }
        found
    }

    /// Collects the paths below `at` that match. Literal parts are not searched for, and may be links; wild ones are not followed
    /// through links.
    fn walk(&self, at: PathBuf, parts: &[Part], matches: &mut Vec<PathBuf>) {
        let Some((part, rest)) = parts.split_first() else {
            matches.push(at);
            return;
        };
        if let Part::Literal(name) = part {
            let path = at.join(OsStr::from_bytes(name));
            let there = self.root.join(&path);
            let exists =
                if rest.is_empty() { std::fs::symlink_metadata(there) } else { std::fs::metadata(there) };
            if exists.is_ok() {
                self.walk(path, rest, matches);
            }
            return;
        }
        let any = *part == Part::Any;
        if any {
            self.walk(at.clone(), rest, matches);
            // Everything below is archived with the directory itself.
            if rest.is_empty() {
                return;
            }
        }
        let Ok(listing) = std::fs::read_dir(self.root.join(&at)) else { return };
        for item in listing.flatten() {
            let name = item.file_name();
            let directory = item.file_type().is_ok_and(|kind| kind.is_dir());
            if any {
                if directory {
                    self.walk(at.join(&name), parts, matches);
                }
            } else if part.matches(name.as_bytes()) && (rest.is_empty() || directory) {
                self.walk(at.join(&name), rest, matches);
            }
        }
    }

    /// Takes a path and everything below it.
    fn tree(&mut self, path: PathBuf, metadata: &Metadata) -> u64 {
        let mut found = 0;
        let mut pending = Vec::new();
        if metadata.is_dir() {
            pending.push(path.clone());
        }
        found += u64::from(self.take(path, metadata));
        while let Some(directory) = pending.pop() {
            let listing = match std::fs::read_dir(self.root.join(&directory)) {
                Ok(listing) => listing,
                Err(error) => {
                    self.console.warning(&format!("{}: {error}", directory.display()));
                    continue;
                }
            };
            for item in listing.flatten() {
                // Does not follow links.
                let Ok(metadata) = item.metadata() else { continue };
                let path = directory.join(item.file_name());
                if metadata.is_dir() {
                    pending.push(path.clone());
                }
                found += u64::from(self.take(path, &metadata));
            }
        }
        found
    }

    /// Takes one path, unless it is excluded or cannot be archived. The directory of the project itself is only counted.
    fn take(&mut self, path: PathBuf, metadata: &Metadata) -> bool {
        if path.as_os_str().is_empty() {
            return true;
        }
        if !self.exclude.is_empty() {
            let parts: Vec<&[u8]> = path.iter().map(OsStr::as_bytes).collect();
            let excluded = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(&parts));
            if let Some((_, _, count)) = self.exclude.iter_mut().find(|(_, patterns, _)| excluded(patterns)) {
                *count += 1;
                return false;
            }
        }
        let Some(kind) = kind(metadata) else {
            self.console
                .warning(&format!("{}: is no file, directory or link and is left out", path.display()));
            return false;
        };
        let entry = entry(path, kind, metadata);
        self.git |= entry.path.iter().next().is_some_and(|first| first == ".git");
        self.entries.push(entry);
        true
    }

    /// Whether a match really lies in the project: links in the literal parts of a pattern may lead out of it.
    fn is_inside(&self, path: &Path) -> bool {
        let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return true };
        self.root.join(parent).canonicalize().is_ok_and(|real| real.starts_with(&self.real_root))
    }

    fn refuse(&self, path: &Path) {
        self.console.warning(&format!(
            "processPath: artifact path is not a subpath of project directory: {}",
            path.display()
        ));
    }
}

/// The pattern relative to the project, with `.` and `..` resolved; `None` if it leads out of the project.
fn inside(text: &str, root: &Path) -> Option<String> {
    let relative = strip_root(text, root);
    if relative.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// An absolute path below the project is relative to it.
fn strip_root<'a>(text: &'a str, root: &Path) -> &'a str {
    let below = root.to_str().and_then(|root| text.strip_prefix(root.trim_end_matches('/')));
    match below {
        Some("") => ".",
        Some(below) if below.starts_with('/') => below.trim_start_matches('/'),
        Some(_) | None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A project with some files, and what is found in it by `--path` and `--exclude`, and the log.
    fn found(make: impl FnOnce(&Path), paths: &[&str], exclude: &[&str]) -> (Vec<String>, String) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("project");
        fs::create_dir(&root).unwrap();
        make(&root);
        let text =
            |texts: &[&str]| texts.iter().map(|text| text.replace("ROOT", root.to_str().unwrap())).collect();
        let selection = Selection { paths: text(paths), exclude: text(exclude), ..Selection::default() };
        let (console, memory) = Console::memory();
        let entries = find(&root, &selection, &console).unwrap();
        let names = entries.iter().map(|entry| entry.path.to_str().unwrap().to_owned()).collect();
        (names, memory.text().replace(root.to_str().unwrap(), "ROOT"))
    }

    fn tree(root: &Path) {
        for path in ["out/a.o", "out/deep/b.o", "out/deep/c.txt", ".git/config", "top.o"] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
    }

    #[test]
    fn a_directory_brings_everything_below_it() {
        let (names, log) = found(tree, &["out/"], &[]);
        assert_eq!(names, ["out", "out/a.o", "out/deep", "out/deep/b.o", "out/deep/c.txt"]);
        assert_eq!(log, "out/: found 5 matching artifact files and directories\n");
    }

    #[test]
    fn globs_reach_any_depth_and_each_match_counts_once() {
        assert_eq!(found(tree, &["**/*.o"], &[]).0, ["out/a.o", "out/deep/b.o", "top.o"]);
        let (names, log) = found(tree, &["out/**", "out/deep"], &[]);
        assert_eq!(names.len(), 5);
        assert_eq!(
            log,
            "out/**: found 5 matching artifact files and directories\nout/deep: found 3 matching artifact files and directories\n"
        );
    }

    #[test]
    fn excludes_are_counted_in_one_line() {
        let (names, log) = found(tree, &["out"], &["**/*.o", "none"]);
        assert_eq!(names, ["out", "out/deep", "out/deep/c.txt"]);
        assert_eq!(log, "out: found 3 matching artifact files and directories\n**/*.o: excluded 2 files\n");
    }

    #[test]
    fn nothing_found_is_a_warning() {
        let (names, log) = found(tree, &["nope/*.x"], &[]);
        assert!(names.is_empty());
        assert_eq!(
            log,
            "WARNING: nope/*.x: no matching files. Ensure that the artifact path is relative to the working directory (ROOT)\n"
        );
    }

    #[test]
    fn absolute_paths_count_when_they_lie_in_the_project() {
        assert_eq!(found(tree, &["ROOT/top.o"], &[]).0, ["top.o"]);
        assert_eq!(
            found(tree, &["ROOT"], &["ROOT/**/*.o", ".git/**"]).0,
            ["out", "out/deep", "out/deep/c.txt"]
        );
    }

    #[test]
    fn what_lies_outside_is_refused() {
        for path in ["../x", "/etc/hostname", "out/../../x", "ROOTx/a"] {
            let (names, log) = found(
                |root| {
                    tree(root);
                    fs::write(root.join("../x"), "x").unwrap();
                },
                &[path],
                &[],
            );
            assert!(names.is_empty());
            assert!(
                log.starts_with(
                    "WARNING: processPath: artifact path is not a subpath of project directory: "
                )
            );
            assert!(!log.contains("no matching files"), "{log}");
        }
    }

    #[test]
    fn links_are_taken_and_not_followed() {
        let make = |root: &Path| {
            tree(root);
            symlink("deep", root.join("out/link")).unwrap();
            symlink("/etc", root.join("away")).unwrap();
        };
        assert_eq!(found(make, &["**/b.o"], &[]).0, ["out/deep/b.o"]);
        assert_eq!(found(make, &["out/link", "away"], &[]).0, ["away", "out/link"]);
        // A link that is named may be gone through, unless it leads out of the project.
        assert_eq!(found(make, &["out/link/*.o"], &[]).0, ["out/link/b.o"]);
        let (names, log) = found(make, &["away/host*"], &[]);
        assert!(names.is_empty());
        assert!(log.contains("not a subpath of project directory: away/host"), "{log}");
    }

    #[test]
    fn the_directory_of_git_is_warned_about() {
        let (_, log) = found(tree, &[".git/config"], &[]);
        assert!(
            log.contains("WARNING: Part of .git directory is on the list of files to archive\n"),
            "{log}"
        );
    }

    #[test]
    fn untracked_files_come_from_git() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let git = |args: &[&str]| {
            assert!(Command::new("git").args(args).current_dir(root).status().unwrap().success());
        };
        git(&["init", "-q"]);
        for name in ["tracked", "new", "ignored", "odd\nname"] {
            fs::write(root.join(name), "x").unwrap();
        }
        fs::write(root.join(".gitignore"), "ignored\n").unwrap();
        git(&["add", "tracked", ".gitignore"]);
        let (console, memory) = Console::memory();
        let selection = Selection { untracked: true, ..Selection::default() };
        let entries = find(root, &selection, &console).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.path.to_str().unwrap()).collect();
        assert_eq!(names, ["ignored", "new", "odd\nname"]);
        assert_eq!(memory.text(), "untracked: found 3 files\n");
    }
}

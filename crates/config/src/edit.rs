//! Changing the file by program: registration, removal and rotation of tokens keep comments, order and formatting.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use secrecy::{ExposeSecret, SecretString};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value};

use crate::load::{Invalid, Loaded, parse};
use crate::model::Runner;
use crate::read::Section;
use crate::schema;

/// The file, held for a change. Other editors of this kind are kept out until it is dropped.
///
/// ```
/// use drover_config::{ConfigFile, SecretString};
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("config.toml");
/// std::fs::write(&path, "concurrent = 2 # as many as cores\n\n[[runners]]\n  name = \"a\"\n  token = \"old\"\n")?;
///
/// let mut file = ConfigFile::open(&path)?;
/// file.set_runner_token(0, &SecretString::from("new"), None, None)?;
/// file.save()?;
/// let text = std::fs::read_to_string(&path)?;
/// assert_eq!(text, "concurrent = 2 # as many as cores\n\n[[runners]]\n  name = \"a\"\n  token = \"new\"\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ConfigFile {
    path: PathBuf,
    /// The text as it was read, to notice an editor that takes no lock.
    original: Option<String>,
    document: DocumentMut,
    /// Holds the lock for as long as it lives.
    _lock: Lock,
}

/// Keeps other editors out.
struct Lock(File);

/// Why the file could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Reading or writing failed.
    #[error("failed to {action} `{}`", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not valid TOML, so nothing can be changed in it.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Another process is changing the file.
    #[error("`{}` is being changed by another process", .0.display())]
    Locked(PathBuf),
    /// The file changed since it was opened.
    #[error("`{}` was changed by someone else in the meantime", .0.display())]
    Changed(PathBuf),
    /// There is no such entry.
    #[error("there is no entry {0} of [[runners]]")]
    NoRunner(usize),
    /// `runners` is written as an inline list, which cannot be edited without changing its form.
    #[error("`runners` is not written as [[runners]] sections")]
    Inline,
}

// === impl Lock ===

impl Drop for Lock {
    /// Lets go of the lock itself and not only of this descriptor: a child process that is being started has copies of all
    /// descriptors until it executes its program, and with them it would keep the next editor out for that long.
    fn drop(&mut self) {
        // What cannot be unlocked is closed.
        let _ = self.0.unlock();
    }
}

// === impl ConfigFile ===

impl ConfigFile {
    /// Reads the file, or begins an empty one, and keeps other editors out. Creates the directory (mode 0700) where it is
    /// missing.
    ///
    /// # Errors
    /// [`EditError::Locked`] when another editor holds the file; [`EditError::Invalid`] when it is not valid TOML.
    pub fn open(path: &Path) -> Result<Self, EditError> {
        // A link stays a link: what it points to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let directory = directory(&path);
        create_directory(directory).map_err(|source| EditError::Io {
            action: "create",
            path: directory.to_owned(),
            source,
        })?;
        let lock = lock(&path)?;
        let original = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(EditError::Io { action: "read", path, source }),
        };
        let text = original.clone().unwrap_or_default();
        let document = match text.parse::<DocumentMut>() {
            Ok(document) => document,
            Err(_) => {
                // The reader explains it better than the editor's parser.
                parse(&text, &path.display().to_string(), &|_| None)?;
                return Err(EditError::Inline);
            }
        };
        Ok(Self { path, original, document, _lock: lock })
    }

    /// The text as it would be saved. Holds secrets.
    #[must_use]
    pub fn text(&self) -> SecretString {
        self.document.to_string().into()
    }

    /// The file as it stands, changes included, to find entries by what they say.
    ///
    /// # Errors
    /// As [`parse`].
    pub fn read(&self, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Invalid> {
        parse(&self.document.to_string(), &self.path.display().to_string(), environment)
    }

    /// Appends an entry to `[[runners]]`, its keys in the order of the reference page, and returns its index.
    ///
    /// # Errors
    /// [`EditError::Inline`] if `runners` is written in a form that cannot be appended to.
    pub fn append_runner(&mut self, entry: &toml::Table) -> Result<usize, EditError> {
        let is_empty = self.document.as_table().is_empty();
        let runners = self
            .document
            .entry("runners")
            .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()))
            .as_array_of_tables_mut()
            .ok_or(EditError::Inline)?;
        let mut table = section(entry, <Runner as Section>::TABLE, 1);
        table.decor_mut().set_prefix(if is_empty { "" } else { "\n" });
        runners.push(table);
        Ok(runners.len() - 1)
    }

    /// Removes an entry of `[[runners]]` with everything below it and the comments in front of it.
    ///
    /// # Errors
    /// [`EditError::NoRunner`] if there is none at this index.
    pub fn remove_runner(&mut self, index: usize) -> Result<(), EditError> {
        let runners = self.runners()?;
        if index >= runners.len() {
            return Err(EditError::NoRunner(index));
        }
        runners.remove(index);
        if runners.is_empty() {
            self.document.remove("runners");
        }
        Ok(())
    }

    /// Replaces the token of an entry. `obtained_at` and `expires_at` are written when they are known; a token that never
    /// expires loses an old `token_expires_at`.
    ///
    /// # Errors
    /// [`EditError::NoRunner`] if there is no entry at this index.
    pub fn set_runner_token(
        &mut self,
        index: usize,
        token: &SecretString,
        obtained_at: Option<DateTime<Utc>>,
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<(), EditError> {
        let runner = self.runners()?.get_mut(index).ok_or(EditError::NoRunner(index))?;
        replace(runner, "token", Value::from(token.expose_secret()));
        if let Some(at) = obtained_at {
            replace(runner, "token_obtained_at", timestamp(at));
            match expires_at {
                Some(at) => replace(runner, "token_expires_at", timestamp(at)),
                None => {
                    runner.remove("token_expires_at");
                }
            }
        }
        Ok(())
    }

    /// Writes the file: a new one beside it (mode 0600) takes its place at once, so that a reader or a crash finds either
    /// the old file or the new one.
    ///
    /// # Errors
    /// [`EditError::Changed`] if the file is no longer the one that was opened; [`EditError::Io`].
    pub fn save(&mut self) -> Result<(), EditError> {
        let io_error = |action| {
            let path = self.path.clone();
            move |source| EditError::Io { action, path, source }
        };
        let now = match fs::read_to_string(&self.path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(io_error("read")(source)),
        };
        if now != self.original {
            return Err(EditError::Changed(self.path.clone()));
        }
        let text = self.document.to_string();
        write_atomically(&self.path, &text).map_err(io_error("write"))?;
        self.original = Some(text);
        Ok(())
    }

    fn runners(&mut self) -> Result<&mut ArrayOfTables, EditError> {
        match self.document.get_mut("runners") {
            None => Err(EditError::NoRunner(0)),
            Some(runners) => runners.as_array_of_tables_mut().ok_or(EditError::Inline),
        }
    }
}

impl std::fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Sets a value, keeping the spaces and comments around the old one; a new key is indented like `token`.
fn replace(table: &mut Table, key: &str, mut value: Value) {
    if let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) {
        *value.decor_mut() = old.decor().clone();
        *old = value;
        return;
    }
    let indent = table.key("token").map(|token| token.leaf_decor().clone());
    table.insert(key, Item::Value(value));
    if let (Some(indent), Some(mut new)) = (indent, table.key_mut(key)) {
        // A comment in front of `token` stays with it.
        let spaces = indent.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
        let spaces = spaces.rsplit('\n').next().unwrap_or_default().to_owned();
        new.leaf_decor_mut().set_prefix(spaces);
        new.leaf_decor_mut().set_suffix(" ");
    }
}

fn timestamp(at: DateTime<Utc>) -> Value {
    let text = at.to_rfc3339_opts(SecondsFormat::Secs, true);
    match text.parse::<toml_edit::Datetime>() {
        Ok(time) => Value::from(time),
        Err(_) => Value::from(text),
    }
}

/// Turns a plain table into a section with known order of keys, indented as GitLab Runner writes it.
fn section(entry: &toml::Table, schema: &'static schema::Table, depth: usize) -> Table {
    let mut table = Table::new();
    let indent = "  ".repeat(depth);
    let order = |name: &str| schema.keys.iter().position(|key| key.name == name).unwrap_or(usize::MAX);
    let mut keys: Vec<(&String, &toml::Value)> = entry.iter().collect();
    keys.sort_by_key(|(name, _)| order(name));
    let below = |name: &str| schema.key(name).and_then(|key| key.table).unwrap_or(&FREE);

    for (name, value) in &keys {
        match value {
            toml::Value::Table(inner) => {
                let mut inner = section(inner, below(name), depth + 1);
                inner.decor_mut().set_prefix(indent.clone());
                table.insert(name, Item::Table(inner));
            }
            toml::Value::Array(items)
                if !items.is_empty() && items.iter().all(|item| matches!(item, toml::Value::Table(_))) =>
            {
                let mut list = ArrayOfTables::new();
                for item in items.iter().filter_map(toml::Value::as_table) {
                    let mut item = section(item, below(name), depth + 1);
                    item.decor_mut().set_prefix(indent.clone());
                    list.push(item);
                }
                table.insert(name, Item::ArrayOfTables(list));
            }
            toml::Value::Array(_)
            | toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_) => {
                table.insert(name, Item::Value(plain(value)));
                if let Some(mut key) = table.key_mut(name) {
                    key.leaf_decor_mut().set_prefix(indent.clone());
                }
            }
        }
    }
    table
}

/// A table about whose keys nothing is known.
static FREE: schema::Table = schema::Table { header: "", meaning: "", keys: &[] };

fn plain(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(value) => (*value).into(),
        toml::Value::Datetime(time) => match time.to_string().parse::<toml_edit::Datetime>() {
            Ok(time) => time.into(),
            Err(_) => time.to_string().into(),
        },
        toml::Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        toml::Value::Table(table) => {
            Value::InlineTable(table.iter().map(|(name, value)| (name.as_str(), plain(value))).collect())
        }
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn create_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Takes the lock beside the file: the file itself is replaced on each save, so it cannot carry one.
fn lock(path: &Path) -> Result<Lock, EditError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let lock_path = directory(path).join(format!(".{name}.lock"));
    let io_error = |source| EditError::Io { action: "lock", path: lock_path.clone(), source };
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&lock_path).map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(EditError::Locked(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error(source)),
    }
}

fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    // Created with mode 0600.
    let mut file = tempfile::Builder::new().prefix(".config.toml.").tempfile_in(directory(path))?;
    file.write_all(text.as_bytes())?;
    keep_owner(path, file.as_file());
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory(path))?.sync_all()
}

/// A file that belongs to the service's user stays with it when root saves. Others may not give files away, and need not.
#[cfg(unix)]
fn keep_owner(path: &Path, file: &File) {
    use std::os::unix::fs::{MetadataExt, fchown};
    if let Ok(old) = fs::metadata(path) {
        let _ = fchown(file, Some(old.uid()), Some(old.gid()));
    }
}

#[cfg(not(unix))]
fn keep_owner(_path: &Path, _file: &File) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_let_go_is_free_though_somebody_still_has_a_copy_of_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let file = ConfigFile::open(&path).unwrap();
        let _copy = file._lock.0.try_clone().unwrap();
        drop(file);
        ConfigFile::open(&path).unwrap();
    }
}

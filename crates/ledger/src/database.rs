//! The checkpoint: an embedded database, synced to disk with each commit.

use std::fs::OpenOptions;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use taskscaler::core::{InstanceRecord, Ledger, LedgerChanges};

use crate::place::private;

/// Facts about the file, each in JSON.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Instance id to its record in JSON.
const INSTANCES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("instances");

const VERSION: &str = "version";
const GROUP: &str = "group";
const REQUESTS: &str = "requests";
/// The journal generation that is contained.
const GENERATION: &str = "generation";

/// A file larger than this is compacted when it is opened: it holds a few hundred bytes per instance.
const COMPACT_ABOVE: u64 = 16 << 20;
/// Pages that the database keeps in memory; it is read once and then only written.
const CACHE: usize = 1 << 20;

/// Brings the tables from one version to the next.
pub(crate) type Migration = fn(&redb::WriteTransaction) -> Result<(), Fault>;

/// What leads from each version to its successor: the first one from version 1 to 2.
pub(crate) const MIGRATIONS: &[Migration] = &[];

/// Why a database is not used.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Somebody has it open.
    InUse,
    /// It was written by a later version.
    Newer { found: u32 },
    /// It is not what it should be.
    Damaged(String),
    /// The disk refuses.
    Disk(redb::Error),
}

/// What a checkpoint held when it was opened.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) ledger: Ledger,
    pub(crate) generation: u64,
}

/// Opens or makes the database, brings it to this version, and reads it.
pub(crate) fn open(path: &Path, group: &str, migrations: &[Migration]) -> Result<(Database, Held), Fault> {
    let large = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > COMPACT_ABOVE);
    let file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false), path)
        .map_err(|error| Fault::Disk(redb::Error::Io(error)))?;
    let backend = FileBackend::new(file)?;
    let mut database = Database::builder().set_cache_size(CACHE).create_with_backend(backend)?;
    if large {
        // Without it the file is as good, only larger.
        let _ = database.compact();
    }
    let latest = 1 + u32::try_from(migrations.len()).unwrap_or(u32::MAX - 1);
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        transaction.open_table(INSTANCES)?;
        let found: Option<u32> = read(&meta, VERSION)?;
        match found {
            None => {
                meta.insert(VERSION, json(&latest)?.as_slice())?;
                meta.insert(GROUP, json(&group)?.as_slice())?;
            }
            Some(found) if found > latest => return Err(Fault::Newer { found }),
            Some(found) => {
                drop(meta);
                for step in migrations.iter().skip((found.max(1) - 1) as usize) {
                    step(&transaction)?;
                }
                transaction.open_table(META)?.insert(VERSION, json(&latest)?.as_slice())?;
            }
        }
    }
    transaction.commit()?;
    let held = load(&database)?;
    Ok((database, held))
}

/// Brings changes into the database and waits until they are on disk.
pub(crate) fn checkpoint(database: &Database, changes: &LedgerChanges, generation: u64) -> Result<(), Fault> {
    let transaction = database.begin_write()?;
    {
        let mut instances = transaction.open_table(INSTANCES)?;
        for id in &changes.removals {
            instances.remove(id.as_str())?;
        }
        for (id, record) in &changes.upserts {
            instances.insert(id.as_str(), json(record)?.as_slice())?;
        }
        let mut meta = transaction.open_table(META)?;
        if let Some(requests) = &changes.requests {
            meta.insert(REQUESTS, json(requests)?.as_slice())?;
        }
        meta.insert(GENERATION, json(&generation)?.as_slice())?;
    }
    Ok(transaction.commit()?)
}

fn load(database: &Database) -> Result<Held, Fault> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let mut ledger = Ledger { requests: read(&meta, REQUESTS)?.unwrap_or_default(), ..Ledger::default() };
    for row in transaction.open_table(INSTANCES)?.iter()? {
        let (id, record) = row?;
        let record: InstanceRecord = parse(id.value(), record.value())?;
        ledger.instances.insert(id.value().into(), record);
    }
    Ok(Held { ledger, generation: read(&meta, GENERATION)?.unwrap_or(0) })
}

fn read<T: serde::de::DeserializeOwned>(
    table: &impl redb::ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<T>, Fault> {
    table.get(key)?.map(|value| parse(key, value.value())).transpose()
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| Fault::Damaged(format!("`{what}`: {error}")))
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|error| Fault::Damaged(error.to_string()))
}

// === impl Fault ===

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        let error = error.into();
        if matches!(error, redb::Error::DatabaseAlreadyOpen) {
            return Self::InUse;
        }
        let not_a_database = matches!(
            error,
            redb::Error::Corrupted(_)
                | redb::Error::UpgradeRequired(_)
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::TableIsMultimap(_)
                | redb::Error::TypeDefinitionChanged { .. }
        );
        let cut_off = matches!(&error, redb::Error::Io(error)
            if matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof));
        let damaged = not_a_database || cut_off;
        if damaged { Self::Damaged(error.to_string()) } else { Self::Disk(error) }
    }
}

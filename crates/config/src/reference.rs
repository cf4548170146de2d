//! The reference page, made from the schema.

use std::fmt::Write;

use crate::model::Config;
use crate::read::Section;
use crate::schema::{Key, Kind, Reload, Table};

const INTRODUCTION: &str = "\
# Configuration

Drover reads the `config.toml` of GitLab Runner. This page lists every key that it knows. It is made from the code: after a
change of a key run `UPDATE_REFERENCE=1 cargo test -p drover-config --test reference`.

- **Where.** `--config`, else the variable `CONFIG_FILE`, else `/etc/gitlab-runner/config.toml` for root and
  `~/.gitlab-runner/config.toml` for everyone else.
- **Unknown keys** are reported with their line and the nearest known key, and have no effect. Keys in another case than
  documented are read as meant, with a warning.
- **Wrong values** refuse the file: the running configuration stays in force, and the message names line, column, key and
  what to write. An entry of `[[runners]]` that cannot work is refused alone.
- **Durations** are strings in Go's notation: `\"20m0s\"`, `\"1.5h\"`, `\"24h\"`. A bare number is refused, because it would mean
  nanoseconds; `0` is accepted. The keys of `[runners.machine]` are whole seconds.
- **Sizes** are strings with a number and `b`, `k`, `m` or `g`, in powers of 1024.
- **`$VAR` and `${VAR}`** are replaced from the environment in `url` and `token`. Saving keeps the text of the file.
- **Empty strings** count as absent.
- **Changes** are picked up while Drover runs. \"restart\" in the last column means: of the runner entry, or of the process for keys
  outside of `[[runners]]`.
- **Not a key of GitLab Runner:** `group_lease`, `group_lease_ttl` and `save_before_end` of `autoscaler`, `host_key` of `connector_config`.
";

/// Every key that is known, from the top of the file down.
#[must_use]
pub fn schema() -> &'static Table {
    Config::TABLE
}

/// The page about every key, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    let mut done = Vec::new();
    table(Config::TABLE, "The top level of the file", Reload::Live, &mut page, &mut done);
    page
}

fn table(
    table_: &'static Table,
    title: &str,
    reload: Reload,
    page: &mut String,
    done: &mut Vec<&'static str>,
) {
    if done.contains(&table_.header) {
        return;
    }
    done.push(table_.header);
    // Writing to a string cannot fail.
    let _ = writeln!(page, "\n## {title}\n\n{}\n", text(table_.meaning));
    let _ = writeln!(page, "| Key | Type | Default | Unit | Since | Meaning | Change |");
    let _ = writeln!(page, "|---|---|---|---|---|---|---|");
    for key in table_.keys {
        row(key, reload, page);
    }
    for key in table_.keys {
        if let Some(below) = key.table {
            let title = format!("`{}`", below.header);
            table(below, &title, key.reload.within(reload), page, done);
        }
    }
}

fn row(key: &Key, reload: Reload, page: &mut String) {
    let change = match key.reload.within(reload) {
        Reload::Restart => "restart",
        Reload::Live | Reload::Inherit => "live",
    };
    let default = if key.default.is_empty() || key.default.contains(['`', ' ', ',', '\'']) {
        key.default.to_owned()
    } else {
        format!("`{}`", key.default)
    };
    let kind = match (key.kind, key.table) {
        (Kind::Table, Some(below)) => format!("table `{}`", below.header),
        (Kind::List(Kind::Table), Some(below)) => format!("tables `{}`", below.header),
        (kind, _) => kind.name(),
    };
    let _ = writeln!(
        page,
        "| `{}` | {} | {} | {} | {} | {} | {change} |",
        key.name,
        kind.replace('|', "\\|"),
        default.replace('|', "\\|"),
        key.unit,
        key.since,
        text(key.meaning).replace('|', "\\|"),
    );
}

/// Doc comments come line by line with a space in front.
fn text(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

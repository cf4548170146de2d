//! Every key of the reference page is read, kept and compared.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use drover_config::{Config, Kind, Table, parse, schema};
use toml::Value;

#[test]
fn every_key_is_read_without_complaint() {
    let text = toml::to_string(&sample(schema())).unwrap();
    let diagnostics = match parse(&text, "config.toml", &|_| None) {
        Ok(loaded) => loaded.diagnostics,
        Err(invalid) => invalid.diagnostics,
    };
    let complaints: Vec<_> = diagnostics
        .iter()
        .filter(|found| {
            ["unknown-key", "wrong-type", "key-case", "duplicate-key", "syntax"].contains(&found.rule)
        })
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}\n{text}");
}

#[test]
fn every_key_is_kept_and_compared() {
    let whole = sample(schema());
    let before = read(&whole);
    let mut paths = Vec::new();
    leaves(schema(), &mut Vec::new(), &mut paths);
    assert!(paths.len() > 250, "only {} keys", paths.len());
    for path in paths {
        let mut without = whole.clone();
        remove(&mut without, &path);
        let diff = before.diff(&read(&without));
        assert!(!diff.is_empty(), "{} is not kept", path.join("."));
    }
}

fn read(table: &toml::Table) -> Config {
    // Types are right by construction; rules may complain about the nonsense of the values, which is not the question
    // here. They are satisfied where they would refuse the file.
    let text = toml::to_string(table).unwrap();
    parse(&text, "config.toml", &|_| None).unwrap_or_else(|invalid| panic!("{invalid}\n{text}")).config
}

fn sample(table: &Table) -> toml::Table {
    table.keys.iter().map(|key| (key.name.to_owned(), value(&key.kind, key.table))).collect()
}

fn value(kind: &Kind, table: Option<&Table>) -> Value {
    match kind {
        Kind::Boolean => true.into(),
        Kind::Integer => 7.into(),
        Kind::Float => 1.5.into(),
        Kind::String | Kind::Secret | Kind::Expanded | Kind::ExpandedSecret => "text".into(),
        Kind::Duration => "20m0s".into(),
        Kind::Timestamp => Value::Datetime("2026-01-31T12:00:00Z".parse().unwrap()),
        Kind::Size => "512m".into(),
        Kind::Cpus => "0.5".into(),
        Kind::Choice(names) => names[0].into(),
        Kind::Assignments => vec!["A=1"].into(),
        Kind::List(kind) => Value::Array(vec![value(kind, table)]),
        Kind::OneOrMany(kind) => value(kind, table),
        Kind::Map(kind) => Value::Table([("name".to_owned(), value(kind, table))].into_iter().collect()),
        Kind::Table => Value::Table(sample(table.unwrap())),
        Kind::Raw => Value::Table([("free".to_owned(), 1.into())].into_iter().collect()),
    }
}

fn leaves(table: &Table, at: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    for key in table.keys {
        at.push(key.name.to_owned());
        match key.table {
            Some(below) => leaves(below, at, paths),
            None => paths.push(at.clone()),
        }
        at.pop();
    }
}

fn remove(table: &mut toml::Table, path: &[String]) {
    let (first, rest) = path.split_first().unwrap();
    if rest.is_empty() {
        table.remove(first).unwrap();
        return;
    }
    match table.get_mut(first).unwrap() {
        Value::Table(below) => remove(below, rest),
        Value::Array(items) => remove(items[0].as_table_mut().unwrap(), rest),
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
            panic!("{first} is no table")
        }
    }
}

//! Values without a form of their own: text, numbers, truth, time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use go_duration::DurationProblem;
use secrecy::{ExposeSecret, SecretString};
use toml::de::{DeFloat, DeInteger, DeValue};

use crate::read::{KeyPath, Node, Reader, Value, found, last};
use crate::schema::Kind;

/// The value as owned TOML.
pub(crate) fn owned(value: &DeValue<'_>) -> Option<toml::Value> {
    Some(match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(number) => toml::Value::Integer(integer(number)?),
        DeValue::Float(number) => toml::Value::Float(float(number)?),
        DeValue::Boolean(value) => toml::Value::Boolean(*value),
        DeValue::Datetime(value) => toml::Value::Datetime(*value),
        DeValue::Array(items) => {
            toml::Value::Array(items.iter().map(|item| owned(item.get_ref())).collect::<Option<_>>()?)
        }
        DeValue::Table(table) => toml::Value::Table(
            table
                .iter()
                .map(|(name, value)| Some((name.get_ref().to_string(), owned(value.get_ref())?)))
                .collect::<Option<_>>()?,
        ),
    })
}

fn integer(value: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(value.as_str(), value.radix()).ok()
}

fn float(value: &DeFloat<'_>) -> Option<f64> {
    value.as_str().parse().ok()
}

// === impl Value ===

impl Value for String {
    const KIND: Kind = Kind::String;

    fn is_blank(value: &Node<'_>) -> bool {
        value.get_ref().as_str() == Some("")
    }

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        reader.text(value, at, &Self::KIND).map(ToOwned::to_owned)
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Value for SecretString {
    const KIND: Kind = Kind::Secret;

    fn is_blank(value: &Node<'_>) -> bool {
        value.get_ref().as_str() == Some("")
    }

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        reader.text(value, at, &Self::KIND).map(Self::from)
    }

    fn same(&self, other: &Self) -> bool {
        self.expose_secret() == other.expose_secret()
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Boolean;

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            let hint = matches!(value.get_ref(), DeValue::String(_)).then_some("write it without quotes");
            reader.wrong(value, at, &<Self as Value>::KIND, &format!("found {}", found(value)), hint);
        }
        truth
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Value for i64 {
    const KIND: Kind = Kind::Integer;

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        let number = value.get_ref().as_integer().and_then(integer);
        if number.is_none() {
            let numeric = value.get_ref().as_str().is_some_and(|text| text.parse::<i64>().is_ok());
            let hint = numeric.then_some("write it without quotes");
            reader.wrong(value, at, &Self::KIND, &format!("found {}", found(value)), hint);
        }
        number
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Value for f64 {
    const KIND: Kind = Kind::Float;

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        let written = value.get_ref();
        // GitLab Runner's decoder refuses `IdleScaleFactor = 1`; nothing is lost by taking it.
        let whole = || written.as_integer().and_then(integer).and_then(|number| i32::try_from(number).ok());
        let number = match written.as_float() {
            Some(number) => float(number).filter(|number| number.is_finite()),
            None => whole().map(Self::from),
        };
        if number.is_none() {
            let numeric = value.get_ref().as_str().is_some_and(|text| text.parse::<Self>().is_ok());
            let hint = numeric.then_some("write it without quotes");
            reader.wrong(value, at, &Self::KIND, &format!("found {}", found(value)), hint);
        }
        number
    }

    fn same(&self, other: &Self) -> bool {
        self.total_cmp(other).is_eq()
    }
}

impl Value for Duration {
    const KIND: Kind = Kind::Duration;

    fn is_blank(value: &Node<'_>) -> bool {
        value.get_ref().as_str() == Some("")
    }

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        if let Some(number) = value.get_ref().as_integer() {
            return match integer(number) {
                Some(0) => Some(Self::ZERO),
                Some(_) | None => {
                    let (name, number) = (last(at), number.as_str());
                    let why = format!("found the bare number {number}");
                    let hint = format!(
                        "a bare number would mean nanoseconds; for seconds write {name} = \"{number}s\", \
                         for minutes \"{number}m\""
                    );
                    reader.wrong(value, at, &Self::KIND, &why, Some(&hint));
                    None
                }
            };
        }
        let text = reader.text(value, at, &Self::KIND)?;
        let parsed = go_duration::parse(text);
        if let Err(error) = &parsed {
            let why = format!("found \"{text}\": {}", error.problem);
            let hint =
                (error.problem == DurationProblem::Negative).then_some("remove the key for its default");
            reader.wrong(value, at, &Self::KIND, &why, hint);
        }
        parsed.ok()
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Value for DateTime<Utc> {
    const KIND: Kind = Kind::Timestamp;

    /// Go writes an unset time as the first second of year 1.
    fn is_blank(value: &Node<'_>) -> bool {
        match value.get_ref().as_datetime() {
            Some(time) => time.date.is_some_and(|date| date.year <= 1),
            None => {
                value.get_ref().as_str().is_some_and(|text| text.is_empty() || text.starts_with("0001-01-01"))
            }
        }
    }

    fn read(value: &Node<'_>, at: &KeyPath, reader: &mut Reader<'_>) -> Option<Self> {
        let text = match value.get_ref().as_datetime() {
            Some(time) => time.to_string(),
            None => reader.text(value, at, &Self::KIND)?.to_owned(),
        };
        let parsed = DateTime::parse_from_rfc3339(&text);
        if parsed.is_err() {
            reader.wrong(
                value,
                at,
                &Self::KIND,
                &format!("found {text}"),
                Some("a time zone is needed, such as Z"),
            );
        }
        parsed.ok().map(|time| time.with_timezone(&Utc))
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

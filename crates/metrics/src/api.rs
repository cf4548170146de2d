//! Calls to GitLab.

use std::sync::Arc;
use std::time::Duration;

use gitlab_api::{Ended, Endpoint};

use crate::cells::{Counter, Family, Histogram};
use crate::exposition::{EntryLabels, Exposition};
use crate::table::Id;

/// Calls made with one runner token.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    statuses: Family<(Endpoint, Option<u16>), Counter>,
    durations: Family<(Endpoint, Class), Histogram>,
}

/// Repeated attempts of all runners.
#[derive(Debug, Default)]
pub(crate) struct Retries(Family<Endpoint, Counter>);

/// Hundreds of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    None,
    Informational,
    Success,
    Redirection,
    ClientError,
    ServerError,
}

/// Hears the calls of one client.
#[derive(Debug)]
pub(crate) struct ApiObserver {
    pub(crate) calls: Arc<Calls>,
    pub(crate) retries: Arc<Retries>,
}

// === impl ApiObserver ===

impl gitlab_api::Observer for ApiObserver {
    fn ended(&self, ended: &Ended) {
        if ended.retried {
            self.retries.add(ended.endpoint, ended.attempts);
        }
        // What GitLab Runner does not measure has no label.
        if ended.endpoint.label().is_some() {
            self.calls.add(ended.endpoint, ended.status.map(|status| status.as_u16()), ended.duration);
        }
    }
}

// === impl Calls ===

impl Calls {
    fn add(&self, endpoint: Endpoint, status: Option<u16>, duration: Duration) {
        let key = (endpoint, status);
        self.statuses.row(&key, &(endpoint, None), Counter::default).inc();
        let key = (endpoint, Class::of(status));
        self.durations.row(&key, &key, || Histogram::new(Id::ApiDuration.bounds())).observe(duration);
    }

    pub(crate) fn show(&self, text: &mut Exposition, entry: &EntryLabels) {
        self.statuses.for_each(|(endpoint, status), count| {
            let Some(label) = endpoint.label() else { return };
            let status = status.map_or_else(|| "-1".to_owned(), |status| status.to_string());
            let method = endpoint.method();
            let values = [label, &status, method.as_str()];
            text.row(Id::ApiStatusesTotal, entry, &values, count.get());
        });
        self.durations.for_each(|(endpoint, class), durations| {
            let Some(label) = endpoint.label() else { return };
            let method = endpoint.method();
            let values = [label, class.as_str(), method.as_str()];
            text.histogram(Id::ApiDuration, entry, &values, durations);
        });
    }
}

// === impl Retries ===

impl Retries {
    fn add(&self, endpoint: Endpoint, attempts: u32) {
        self.0.row(&endpoint, &endpoint, Counter::default).add(u64::from(attempts));
    }

    pub(crate) fn show(&self, text: &mut Exposition) {
        // Two calls may share path and method.
        let mut rows = std::collections::BTreeMap::new();
        self.0.for_each(|endpoint, count| {
            *rows.entry((endpoint.path(), endpoint.method().to_string())).or_insert(0) += count.get();
        });
        for ((path, method), count) in rows {
            text.process(Id::ApiRetriesTotal, &[path, &method], count);
        }
    }
}

// === impl Class ===

impl Class {
    fn of(status: Option<u16>) -> Self {
        match status {
            None => Self::None,
            Some(..200) => Self::Informational,
            Some(200..300) => Self::Success,
            Some(300..400) => Self::Redirection,
            Some(400..500) => Self::ClientError,
            Some(500..) => Self::ServerError,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "error",
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

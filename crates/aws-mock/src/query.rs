//! Requests of the query protocol.

use std::collections::BTreeMap;

/// The parameters of a call.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(body: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(body).into_owned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// The members of a list: `Name.member.1` as Auto Scaling has it, `Name.1` as EC2 has it.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        for number in 1.. {
            let value =
                self.get(&format!("{name}.member.{number}")).or(self.get(&format!("{name}.{number}")));
            match value {
                Some(value) => values.push(value.to_owned()),
                None => break,
            }
        }
        values
    }

    /// EC2's filters: name and values.
    pub(crate) fn filters(&self) -> Vec<(String, Vec<String>)> {
        let mut filters = Vec::new();
        for number in 1.. {
            let Some(name) = self.get(&format!("Filter.{number}.Name")) else { break };
            filters.push((name.to_owned(), self.list(&format!("Filter.{number}.Value"))));
        }
        filters
    }
}

//! Which manager scales the group: a volume at the engine, which bears the mark as its label.
//!
//! Labels of a volume never change, and an engine makes a volume of one name once: whoever asks again is given the one that is
//! there. So a mark is written by making the volume with the next higher number, and only one of those who try at the same time
//! succeeds. The highest number counts; lower ones are removed by whoever has written.

use std::collections::HashMap;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions};
use fleeting::GroupError;
use fleeting::lease::{GroupLease, Lease};

use crate::containers::{RESERVED, failed};
use crate::group::DockerGroup;

/// Names the group that a mark belongs to.
const GROUP: &str = "drover.lease-group";
/// The mark.
const MARK: &str = "drover.lease";
/// Tells the marks of two processes apart that are the same otherwise.
const WRITER: &str = "drover.lease-writer";

/// The marks of one group at its engine.
pub(crate) struct Marks {
    docker: Docker,
    group: String,
    writer: String,
}

/// What is known of the mark.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    /// The last listing's.
    seen: Option<Lease>,
    /// Its number; 0 without one.
    number: u64,
    /// What this process wrote last and has not removed.
    written: Option<Lease>,
}

/// A volume with a mark.
struct Listed {
    name: String,
    number: u64,
    text: String,
}

// === impl Marks ===

impl Marks {
    pub(crate) fn new(docker: Docker, group: &str) -> Self {
        Self { docker, group: group.to_owned(), writer: format!("{:016x}", rand::random::<u64>()) }
    }

    /// All marks, the one that counts last.
    async fn list(&self) -> Result<Vec<Listed>, GroupError> {
        let filters = HashMap::from([("label", vec![format!("{GROUP}={}", self.group)])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let listed = self.docker.list_volumes(Some(options)).await;
        let listed = listed.map_err(|error| failed("listing the marks of the group", error))?;
        let mut marks: Vec<Listed> = listed
            .volumes
            .unwrap_or_default()
            .into_iter()
            .filter_map(|mut volume| {
                let number = volume.name.strip_prefix(&self.prefix())?.parse().ok()?;
                Some(Listed { text: volume.labels.remove(MARK)?, name: volume.name, number })
            })
            .collect();
        marks.sort_by_key(|mark| mark.number);
        Ok(marks)
    }

    /// The mark that counts, and its number.
    pub(crate) async fn read(&self) -> Result<(Option<Lease>, u64), GroupError> {
        let Some(last) = self.list().await?.pop() else { return Ok((None, 0)) };
        let lease = Lease::parse(&last.text);
        if lease.is_none() {
            tracing::debug!(
                volume = last.name,
                last.text,
                "the mark of the group cannot be read and counts as none"
            );
        }
        Ok((lease, last.number))
    }

    /// Makes the mark of a number. False if somebody else has made it.
    async fn make(&self, number: u64, lease: &Lease) -> Result<bool, GroupError> {
        let labels = HashMap::from([
            (GROUP.to_owned(), self.group.clone()),
            (MARK.to_owned(), lease.to_string()),
            (WRITER.to_owned(), self.writer.clone()),
        ]);
        let request = VolumeCreateRequest {
            name: Some(format!("{}{number}", self.prefix())),
            labels: Some(labels.clone()),
            ..VolumeCreateRequest::default()
        };
        let made = self.docker.create_volume(request).await;
        let made = made.map_err(|error| failed("writing the mark of the group", error))?;
        Ok(made.labels == labels)
    }

    /// Removes the marks up to a number.
    async fn remove(&self, through: u64) -> Result<(), GroupError> {
        for mark in self.list().await?.into_iter().filter(|mark| mark.number <= through) {
            match self.docker.remove_volume(&mark.name, None::<RemoveVolumeOptions>).await {
                Ok(()) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(error) => return Err(failed(&format!("removing the mark `{}`", mark.name), error)),
            }
        }
        Ok(())
    }

    fn prefix(&self) -> String {
        format!("{RESERVED}lease.{}.", self.group)
    }
}

// === impl Mark ===

impl Mark {
    /// Takes in a listing.
    pub(crate) fn listed(&mut self, (seen, number): (Option<Lease>, u64)) {
        self.seen = seen;
        self.number = number;
    }

    /// An error if a listing from right before a change shows that another manager has taken the group over.
    pub(crate) fn check(&self) -> Result<(), GroupError> {
        self.written.as_ref().map_or(Ok(()), |written| written.stands(self.seen.as_ref()))
    }
}

#[async_trait]
impl GroupLease for DockerGroup {
    fn seen(&self) -> Option<Lease> {
        self.mark().seen.clone()
    }

    async fn mark(&self, lease: &Lease) -> Result<(), GroupError> {
        let marks = self.marks()?;
        // On top of what the decision to write was made from.
        let number = self.mark().number + 1;
        if !marks.make(number, lease).await? {
            return Err(GroupError::Transient {
                message: "another manager has written its mark at the same time".to_owned(),
            });
        }
        {
            let mut mark = self.mark();
            mark.written = Some(lease.clone());
            mark.number = number;
        }
        // What counts is there; what stays is removed with the next one.
        if let Err(error) = marks.remove(number - 1).await {
            tracing::debug!(%error, "earlier marks of the group stay");
        }
        Ok(())
    }

    async fn unmark(&self) -> Result<(), GroupError> {
        let through = self.mark().number;
        self.marks()?.remove(through).await?;
        *self.mark() = Mark::default();
        Ok(())
    }

    fn removal(&self) -> String {
        let host = self.host();
        format!(
            "docker -H {host} volume rm $(docker -H {host} volume ls -q --filter label={GROUP}={})",
            self.name()
        )
    }
}

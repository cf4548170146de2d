//! How each rule is checked.

use super::{
    BTreeSet, Checked, GroupError, Harness, HeartbeatError, InstanceGroup, InstanceId, Rule, Subject,
    Verdict, drop_half_way,
};

pub(super) async fn check<H: Harness>(subject: &Subject<'_, H>, rule: Rule) -> Checked {
    match rule {
        Rule::InitDescribesTheGroup => subject.init_describes_the_group(),
        Rule::SecondInitIsHarmless => subject.second_init_is_harmless().await,
        Rule::IncreaseMakesInstances => subject.increase_makes_instances().await,
        Rule::IncreaseByNoneIsNoChange => subject.increase_by_none_is_no_change().await,
        Rule::IncreaseIsPartialAtTheLimit => subject.increase_is_partial_at_the_limit().await,
        Rule::ListingIsCompleteAndUnique => subject.listing_is_complete_and_unique().await,
        Rule::DecreaseDeletesExactlyTheNamed => subject.decrease_deletes_exactly_the_named().await,
        Rule::DecreaseOfNoneIsNoChange => subject.decrease_of_none_is_no_change().await,
        Rule::DecreaseMayBeRepeated => subject.decrease_may_be_repeated().await,
        Rule::ForeignIsRefusedAndUntouched => subject.foreign_is_refused_and_untouched().await,
        Rule::NamesAreNeverReused => subject.names_are_never_reused().await,
        Rule::ConnectInfoOfRunning => subject.connect_info_of_running().await,
        Rule::ConnectInfoOfUnknown => subject.connect_info_of_unknown().await,
        Rule::ConnectInfoOfGone => subject.connect_info_of_gone().await,
        Rule::HeartbeatTellsTheTruth => subject.heartbeat_tells_the_truth().await,
        Rule::DroppedCallsDoNoHarm => subject.dropped_calls_do_no_harm().await,
        Rule::ShutdownLeavesInstances => subject.shutdown_leaves_instances().await,
    }
}

/// A name that no cloud gives.
fn unknown() -> InstanceId {
    "no-such-instance-0123456789abcdef".into()
}

impl<H: Harness> Subject<'_, H> {
    fn init_describes_the_group(&self) -> Checked {
        let info = &self.info;
        if info.id.is_empty() || info.provider.is_empty() {
            return Err(format!("identity or provider is empty: {info:?}"));
        }
        if info.max_size < self.harness.instances() {
            return Err(format!("max_size is below the {} instances of the suite", self.harness.instances()));
        }
        Ok(Verdict::Kept)
    }

    async fn second_init_is_harmless(&self) -> Checked {
        let before = self.running(1).await?;
        if let Ok(info) = self.group.init(&self.harness.settings()).await
            && info != self.info
        {
            return Err(format!("the group was {:?} and is {info:?}", self.info));
        }
        self.stays(&before).await?;
        Ok(Verdict::Kept)
    }

    async fn increase_makes_instances(&self) -> Checked {
        let n = self.harness.instances();
        self.running(n - 1).await?;
        self.increase(1).await?;
        let all = self.until_running(n).await?;
        self.stays(&all).await?;
        Ok(Verdict::Kept)
    }

    async fn increase_by_none_is_no_change(&self) -> Checked {
        self.increase(0).await?;
        self.stays(&[]).await?;
        Ok(Verdict::Kept)
    }

    async fn increase_is_partial_at_the_limit(&self) -> Checked {
        if !self.harness.can_be_filled() {
            return Ok(Verdict::NotChecked);
        }
        let max = self.info.max_size;
        let answer = self.group.increase(max + 2).await;
        if answer.done != max || answer.error.is_none() {
            return Err(format!(
                "increase({}) of a group of at most {max} granted {} with error {:?}",
                max + 2,
                answer.done,
                answer.error
            ));
        }
        let all = self.until_running(max).await?;
        let answer = self.group.increase(1).await;
        if answer.done != 0 || answer.error.is_none() {
            return Err(format!("the full group granted {} with error {:?}", answer.done, answer.error));
        }
        self.stays(&all).await?;
        Ok(Verdict::Kept)
    }

    async fn listing_is_complete_and_unique(&self) -> Checked {
        let Some(foreign) = self.harness.existing(&self.group).await else {
            // That it names nothing twice is checked for every listing.
            return Ok(Verdict::NotChecked);
        };
        let listed: BTreeSet<_> = self.running(self.harness.instances()).await?.into_iter().collect();
        let existing = self.harness.existing(&self.group).await.unwrap_or_default();
        let own: BTreeSet<_> = existing.difference(&foreign).cloned().collect();
        if listed != own {
            return Err(format!("listed are {listed:?}, but there are {own:?}"));
        }
        Ok(Verdict::Kept)
    }

    async fn decrease_deletes_exactly_the_named(&self) -> Checked {
        let all = self.running(self.harness.instances()).await?;
        let (gone, kept) = all.split_at(all.len() - 1);
        self.decrease(gone).await?;
        self.until_gone(gone).await?;
        self.stays(kept).await?;
        Ok(Verdict::Kept)
    }

    async fn decrease_of_none_is_no_change(&self) -> Checked {
        let all = self.running(1).await?;
        self.decrease(&[]).await?;
        self.stays(&all).await?;
        Ok(Verdict::Kept)
    }

    async fn decrease_may_be_repeated(&self) -> Checked {
        let all = self.running(3).await?;
        let (gone, kept) = all.split_at(1);
        self.decrease(gone).await?;
        self.decrease(gone).await.map_err(|what| format!("at once after the first: {what}"))?;
        self.until_gone(gone).await?;
        self.decrease(gone).await.map_err(|what| format!("after it was gone: {what}"))?;
        self.stays(kept).await?;
        // Its size was lowered once only: it can still grow by one.
        self.increase(1).await?;
        self.until_running(3).await?;
        Ok(Verdict::Kept)
    }

    async fn foreign_is_refused_and_untouched(&self) -> Checked {
        let own = self.running(2).await?;
        let foreign = self.harness.foreign(&self.group).await;
        let mut before = self.harness.existing(&self.group).await;
        let foreign = foreign.unwrap_or_else(unknown);
        if self.listing().await?.iter().any(|seen| seen.id == foreign) {
            return Err(format!("the foreign {foreign} is listed"));
        }
        let answer = self.group.decrease(&[foreign.clone(), own[0].clone()]).await;
        if !matches!(answer.error, Some(GroupError::NotFound { .. })) || answer.done != own[..1] {
            return Err(format!(
                "decrease of the foreign {foreign} and of {} accepted {:?} with error {:?}, not NotFound",
                own[0], answer.done, answer.error
            ));
        }
        self.until_gone(&own[..1]).await?;
        self.stays(&own[1..]).await?;
        if let Some(before) = &mut before {
            before.remove(&own[0]);
        }
        let after = self.harness.existing(&self.group).await;
        if before != after {
            return Err(format!("there should be {before:?}, but there are {after:?}"));
        }
        Ok(Verdict::Kept)
    }

    async fn names_are_never_reused(&self) -> Checked {
        let mut seen = BTreeSet::new();
        for _ in 0..2 {
            let some = self.running(2).await?;
            self.decrease(&some).await?;
            self.until_gone(&some).await?;
            for id in some {
                if !seen.insert(id.clone()) {
                    return Err(format!("{id} is the name of two instances, one after the other"));
                }
            }
        }
        Ok(Verdict::Kept)
    }

    async fn connect_info_of_running(&self) -> Checked {
        for id in self.running(2).await? {
            let info = self.group.connect_info(&id).await.map_err(|error| format!("{id}: {error}"))?;
            if info.instance.is_empty() {
                return Err(format!("{id}: the instance has no name for the job log"));
            }
            info.target(false).map_err(|error| format!("{id}: {error}"))?;
            if info.settings.username.as_deref().unwrap_or_default().is_empty() {
                return Err(format!("{id}: no login name"));
            }
        }
        Ok(Verdict::Kept)
    }

    async fn connect_info_of_unknown(&self) -> Checked {
        self.expect_no_connect_info(&unknown()).await
    }

    async fn connect_info_of_gone(&self) -> Checked {
        let ids = self.running(1).await?;
        self.decrease(&ids).await?;
        self.until_gone(&ids).await?;
        self.expect_no_connect_info(&ids[0]).await
    }

    async fn expect_no_connect_info(&self, id: &InstanceId) -> Checked {
        match self.group.connect_info(id).await {
            Err(GroupError::NotFound { .. }) => Ok(Verdict::Kept),
            Err(error) => Err(format!("the error is {error:?}, not NotFound")),
            Ok(info) => Err(format!("there is an answer: {info:?}")),
        }
    }

    async fn heartbeat_tells_the_truth(&self) -> Checked {
        for id in self.running(2).await? {
            match self.group.heartbeat(&id).await {
                Ok(()) => {}
                Err(HeartbeatError::Unhealthy(why) | HeartbeatError::Unknown(why)) => {
                    return Err(format!("the running {id} is not healthy: {why}"));
                }
            }
        }
        if self.info.has_heartbeat && self.group.heartbeat(&unknown()).await.is_ok() {
            return Err("an instance that does not exist is healthy".to_owned());
        }
        Ok(Verdict::Kept)
    }

    async fn dropped_calls_do_no_harm(&self) -> Checked {
        let id = self.running(1).await?.remove(0);
        for polls in 1..=3 {
            drop_half_way(self.group.update(), polls).await;
            drop_half_way(self.group.connect_info(&id), polls).await;
            drop_half_way(self.group.heartbeat(&id), polls).await;
            drop_half_way(self.group.changed(), polls).await;
        }
        drop_half_way(self.group.increase(1), 1).await;
        drop_half_way(self.group.decrease(std::slice::from_ref(&id)), 1).await;
        // Whether the two had their effect is open, but nothing else is.
        let what = "at most one instance more, and none that is stuck";
        let left = self
            .until(what, |listing| {
                let settled = listing.iter().all(|seen| seen.state == super::InstanceState::Running);
                let more = listing.iter().filter(|seen| seen.id != id).count();
                (settled && more <= 1).then(|| listing.iter().map(|seen| seen.id.clone()).collect::<Vec<_>>())
            })
            .await?;
        self.decrease(&left).await?;
        self.until_gone(&left).await?;
        // An instance whose request was dropped may appear as late as this.
        let late: Vec<_> = self.listing().await?.into_iter().map(|seen| seen.id).collect();
        self.decrease(&late).await?;
        self.until_gone(&late).await?;
        self.running(1).await?;
        Ok(Verdict::Kept)
    }

    async fn shutdown_leaves_instances(&self) -> Checked {
        let ids: BTreeSet<_> = self.running(2).await?.into_iter().collect();
        self.group.shutdown().await.map_err(|error| format!("shutdown failed: {error}"))?;
        self.harness.pause(&self.group).await;
        match self.harness.existing(&self.group).await {
            None => Ok(Verdict::NotChecked),
            Some(existing) if ids.is_subset(&existing) => Ok(Verdict::Kept),
            Some(existing) => Err(format!("there were {ids:?}, there are {existing:?}")),
        }
    }
}

//! What a deploy does with the traffic.

use super::DeployError;
use crate::functions::record::GoLive;
use faas_api::{ErrorBody, ErrorCode, Sticky, apps, manifest};

/// What a deploy of an app does with the traffic.
pub(super) fn go_live(new: &manifest::NewVersion) -> Result<GoLive, DeployError> {
    let sticky = new.canary.as_ref().and_then(|canary| canary.sticky.as_ref());
    if let Some(Err(why)) = sticky.map(Sticky::check) {
        return Err(ErrorBody::new(ErrorCode::Unprocessable)
            .detail(format!("`sticky`: {why}"))
            .into());
    }
    match (&new.canary, new.activate) {
        (None, true) => Ok(GoLive::All),
        (None, false) => Ok(GoLive::No),
        (Some(canary), true)
            if (1..=99).contains(&canary.percent)
                && canary.abort_above_percent.is_none_or(|most| (1..=100).contains(&most)) =>
        {
            Ok(GoLive::Canary {
                percent: canary.percent,
                sticky: canary.sticky.clone(),
                abort_above_percent: canary
                    .abort_above_percent
                    .unwrap_or(apps::ABORT_ABOVE_PERCENT),
            })
        }
        (Some(_), true) => Err(ErrorBody::new(ErrorCode::Unprocessable)
            .detail("a canary gets from 1 to 99 percent, and its threshold is from 1 to 100")
            .into()),
        (Some(_), false) => Err(ErrorBody::new(ErrorCode::Unprocessable)
            .detail("a canary is live: `canary` and `activate: false` exclude each other")
            .into()),
    }
}

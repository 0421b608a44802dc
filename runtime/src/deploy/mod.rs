//! From an upload to a live version.
//!
//! | file | what it has |
//! |---|---|
//! | `deployer` | a deploy, top to bottom: receive → inspect → compile → check → publish |
//! | `inspect` | what kind of program an artifact is, and whether it can run here |
//! | `places` | how many deploys and uploads are under way, and how much waits for its deploy |
//! | `uploads` | blobs that no version names yet, and the sweep that removes what none will |
//! | `health` | one request to a version that nobody else can reach yet |
//! | `secrets` | whether the app has what its functions name |
//! | `go_live` | what a deploy does with the traffic |
//! | `refused` | why a deploy is refused, in words that say what to do |
//!
//! Nothing that a request can see changes before the last step, which is one write. What a failed
//! deploy stored is removed again; what a stopped node left is swept when it starts.

mod deployer;
mod go_live;
mod health;
mod inspect;
mod places;
mod refused;
mod secrets;
mod uploads;

pub(crate) use deployer::{
    AppDeploy, DeployRequest, Deployer, DeployerParts, Outcome, Progress, Upload,
};
pub(crate) use refused::DeployError;
pub(crate) use secrets::missing_secrets;
pub(crate) use uploads::SweepPause;

//! Who has which domain.
//!
//! A claim is a document of its own, so that two apps cannot get one domain however their deploys
//! overlap. It is made, pending, before the version that needs it is stored, and settled after that.
//! A settled claim counts for as long as a kept version of its app names the domain.

use super::{FunctionsError, find_app};
use crate::{
    clock,
    storage::{
        DocKey, Expect, Registry, StorageError,
        record::{self, Rest},
    },
};
use bytes::Bytes;
use faas_api::{AppName, Domain};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// The prefix of claims.
const DOMAINS: &str = "domains/";
/// A deploy that has not settled its claims by then never will.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// A claim as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    app: AppName,
    since: Timestamp,
    /// The deploy under way that needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<Pending>,
    /// What a newer server added.
    #[serde(flatten)]
    rest: Rest,
}

/// A deploy that has claimed domains and has not stored its version yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    id: String,
    at: Timestamp,
}

impl Pending {
    fn now() -> Self {
        Self { id: Ulid::generate().to_string(), at: clock::now() }
    }

    fn is_over(&self) -> bool {
        clock::now().duration_since(self.at) > PATIENCE
    }
}

/// Another app has the domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("domain `{domain}` belongs to app `{owner}` since {}", since.strftime("%Y-%m-%d"))]
pub(crate) struct Taken {
    /// The domain,
    pub(crate) domain: Domain,
    /// who has it,
    pub(crate) owner: AppName,
    /// and since when.
    pub(crate) since: Timestamp,
}

/// Whether an app could have these domains.
///
/// # Errors
/// [`FunctionsError::Taken`] for the first that another app has.
pub(super) async fn check(
    registry: &dyn Registry,
    app: &AppName,
    domains: &[Domain],
) -> Result<(), FunctionsError> {
    for domain in domains {
        let key = key(domain);
        if let Some(doc) = registry.get(&key).await? {
            may_have(registry, app, domain, decode(&key, &doc.body)?).await?;
        }
    }
    Ok(())
}

/// Claims domains for a deploy of an app; whatever becomes of it, [`settle`] comes after it.
///
/// # Errors
/// [`FunctionsError::Taken`] for the first that another app has. Those before it are claimed then.
pub(super) async fn claim(
    registry: &dyn Registry,
    app: &AppName,
    domains: &[Domain],
    pending: &Pending,
) -> Result<(), FunctionsError> {
    for domain in domains {
        let key = key(domain);
        loop {
            let (since, expect) = match registry.get(&key).await? {
                None => (clock::now(), Expect::Absent),
                Some(doc) => {
                    let since = may_have(registry, app, domain, decode(&key, &doc.body)?).await?;
                    (since.unwrap_or_else(clock::now), Expect::Rev(doc.rev))
                }
            };
            let (app, pending) = (app.clone(), Some(pending.clone()));
            let claim = Claim { app, since, pending, rest: Rest::new() };
            // Somebody else was faster: look again at what there is now.
            if write(registry, &key, &claim, expect).await? {
                break;
            }
        }
    }
    Ok(())
}

/// What a deploy claims domains as.
pub(super) fn pending() -> Pending {
    Pending::now()
}

/// A deploy is over. What it claimed and no kept version names is given back.
pub(super) async fn settle(
    registry: &dyn Registry,
    app: &AppName,
    pending: &Pending,
) -> Result<(), FunctionsError> {
    tidy(registry, app, Some(pending)).await
}

/// Gives back what an app claims and none of its kept versions names.
pub(super) async fn release(registry: &dyn Registry, app: &AppName) -> Result<(), FunctionsError> {
    tidy(registry, app, None).await
}

async fn tidy(
    registry: &dyn Registry,
    app: &AppName,
    settled: Option<&Pending>,
) -> Result<(), FunctionsError> {
    // Claims before the app: one that is not pending now is named by what is read next, or by
    // nothing; one that changes in between is not written.
    let (claims, _) = registry.list(DOMAINS).await?;
    let owner = find_app(registry, app).await?;
    for (key, doc) in claims {
        let mut claim: Claim = decode(&key, &doc.body)?;
        if claim.app != *app {
            continue;
        }
        if claim.pending.is_some() {
            let mine = claim.pending.as_ref() == settled;
            if !mine && !claim.pending.as_ref().is_some_and(Pending::is_over) {
                continue;
            }
            claim.pending = None;
        } else if settled.is_some() {
            continue;
        }
        let named = owner.as_ref().is_some_and(|(record, _)| {
            record.domains().iter().any(|domain| self::key(domain) == key)
        });
        if named {
            write(registry, &key, &claim, Expect::Rev(doc.rev)).await?;
            continue;
        }
        match registry.delete(&key, Expect::Rev(doc.rev)).await {
            Ok(_) | Err(StorageError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether an app may have a domain that is claimed like this; since when it has it, if it does.
async fn may_have(
    registry: &dyn Registry,
    app: &AppName,
    domain: &Domain,
    claim: Claim,
) -> Result<Option<Timestamp>, FunctionsError> {
    if claim.app == *app {
        return Ok(Some(claim.since));
    }
    let taken = |Claim { app: owner, since, .. }| Taken { domain: domain.clone(), owner, since };
    if claim.pending.as_ref().is_some_and(|pending| !pending.is_over()) {
        return Err(taken(claim).into());
    }
    let owner = find_app(registry, &claim.app).await?;
    match owner.is_some_and(|(record, _)| record.domains().contains(domain)) {
        true => Err(taken(claim).into()),
        false => Ok(None),
    }
}

/// Writes a claim; `false` when the document is not what was expected.
async fn write(
    registry: &dyn Registry,
    key: &DocKey,
    claim: &Claim,
    expect: Expect,
) -> Result<bool, FunctionsError> {
    let body = serde_json::to_vec(claim)
        .map_err(|error| StorageError::Failed(format!("`{key}`: {error}")))?;
    match registry.put(key, Bytes::from(body), expect).await {
        Ok(_) => Ok(true),
        Err(StorageError::Conflict) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn key(domain: &Domain) -> DocKey {
    DocKey::new(&["domains", domain.as_str()])
}

fn decode(key: &DocKey, body: &[u8]) -> Result<Claim, FunctionsError> {
    Ok(record::read(key, body)?)
}

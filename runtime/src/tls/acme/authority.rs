//! The authority: an account with it, and one order at a time.

use super::{
    super::{
        certificates::{Certificates, Challenged},
        files::Pair,
        settings::AcmeConfig,
    },
    store::Store,
};
use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    crypto::aws_lc_rs::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use std::{error::Error, sync::Arc, time::Duration};

/// How long an authority may take to look at a domain, and to make a certificate.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(90));
/// What an authority says that has no such account, or no more.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Whom to ask, and as whom.
pub(super) struct Authority {
    config: AcmeConfig,
    account: Option<Account>,
}

impl Authority {
    pub(super) fn new(config: &AcmeConfig) -> Self {
        Self { config: config.clone(), account: None }
    }

    /// Gets a certificate for one domain, and keeps it.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub(super) async fn certificate(
        &mut self,
        store: &Store,
        certificates: &Arc<Certificates>,
        domain: &str,
    ) -> Result<Pair, String> {
        let account = self.account(store).await?;
        let identifiers = [Identifier::Dns(domain.to_owned())];
        let order = match account.new_order(&NewOrder::new(&identifiers)).await {
            Ok(order) => order,
            Err(instant_acme::Error::Api(problem))
                if problem.r#type.as_deref() == Some(NO_ACCOUNT) =>
            {
                tracing::warn!("the authority does not know the account any more; making another");
                let account = self.register(store).await?;
                account.new_order(&NewOrder::new(&identifiers)).await.map_err(|e| chain(&e))?
            }
            Err(error) => return Err(chain(&error)),
        };
        let (cert, key) = fulfil(order, certificates, domain).await?;
        let problem = |problem: super::super::files::Problem| {
            format!("the authority's certificate {}", problem.text)
        };
        let pair = Pair::of_pem(cert.as_bytes(), key.as_bytes()).map_err(problem)?;
        let (store, domain) = (store.clone(), domain.to_owned());
        let saved = tokio::task::spawn_blocking(move || store.save(&domain, &cert, &key));
        if let Ok(Err(error)) = saved.await {
            tracing::error!(%error, "a new certificate cannot be kept; a restart asks again");
        }
        Ok(pair)
    }

    /// The account that is in use, the one that is kept, or a new one.
    async fn account(&mut self, store: &Store) -> Result<Account, String> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let Some(kept) = store.account()? else {
            return self.register(store).await;
        };
        let kept: AccountCredentials = serde_json::from_slice(&kept)
            .map_err(|error| format!("the account that is kept cannot be read: {error}"))?;
        let account = self.builder()?.from_credentials(kept).await.map_err(|e| chain(&e))?;
        self.account = Some(account.clone());
        Ok(account)
    }

    async fn register(&mut self, store: &Store) -> Result<Account, String> {
        let contact: Vec<String> = self.config.contact.iter().map(|c| mail_address(c)).collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let made = self.builder()?.create(&wanted, self.config.directory.clone(), None);
        let (account, credentials) = made.await.map_err(|e| chain(&e))?;
        let credentials = serde_json::to_vec(&credentials).map_err(|error| error.to_string())?;
        let store = store.clone();
        let saved = tokio::task::spawn_blocking(move || store.save_account(&credentials));
        if let Ok(Err(error)) = saved.await {
            tracing::error!(%error, "the account with the authority cannot be kept");
        }
        self.account = Some(account.clone());
        Ok(account)
    }

    fn builder(&self) -> Result<AccountBuilder, String> {
        // The client asks the process for it; that there is one already is as good.
        let _ = default_provider().install_default();
        let builder = match self.config.directory_ca.as_os_str().is_empty() {
            true => Account::builder(),
            false => Account::builder_with_root(&self.config.directory_ca),
        };
        builder.map_err(|error| chain(&error))
    }
}

/// Proves whose the domain is, and fetches certificate and key, both PEM.
async fn fulfil(
    mut order: Order,
    certificates: &Arc<Certificates>,
    domain: &str,
) -> Result<(String, String), String> {
    // Shown until the authority has made up its mind.
    let _shown = prove(&mut order, certificates, domain).await?;
    let status = order.poll_ready(&PATIENCE).await.map_err(|error| chain(&error))?;
    if status != OrderStatus::Ready {
        return Err(refusal(&mut order).await);
    }
    let key = order.finalize().await.map_err(|error| chain(&error))?;
    let cert = order.poll_certificate(&PATIENCE).await.map_err(|error| chain(&error))?;
    Ok((cert, key))
}

/// Shows the authority what it wants to see, and tells it to look.
async fn prove(
    order: &mut Order,
    certificates: &Arc<Certificates>,
    domain: &str,
) -> Result<Vec<Challenged>, String> {
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| chain(&error))?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => return Err(format!("the authority finds the domain {status:?}")),
        }
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge.ok_or("the authority does not offer tls-alpn-01")?;
        let digest = challenge.key_authorization().digest();
        let key = answer(domain, digest.as_ref())?;
        shown.push(certificates.challenge(domain, key));
        challenge.set_ready().await.map_err(|error| chain(&error))?;
    }
    Ok(shown)
}

/// What the authority shall see: a certificate that says what it asked (RFC 8737 §3).
fn answer(domain: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    let failed = |error: &dyn Error| format!("the challenge cannot be answered: {error}");
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let params = CertificateParams::new([domain.to_owned()]);
    let mut params = params.map_err(|error| failed(&error))?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let cert = params.self_signed(&key).map_err(|error| failed(&error))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = default_provider().key_provider.load_private_key(key);
    Ok(CertifiedKey::new(vec![cert.der().clone()], key.map_err(|error| failed(&error))?))
}

/// Why the authority will not give a certificate, in its own words.
async fn refusal(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await
            && let Some(problem) = state.challenges.iter().find_map(|c| c.error.as_ref())
        {
            return said(problem);
        }
    }
    "the authority refuses the order".to_owned()
}

fn mail_address(contact: &str) -> String {
    match contact.starts_with("mailto:") {
        true => contact.to_owned(),
        false => format!("mailto:{contact}"),
    }
}

/// The authority's own words.
fn said(problem: &Problem) -> String {
    let text = problem.to_string();
    format!("the authority says: {}", text.strip_prefix("API error: ").unwrap_or(&text))
}

/// An error with what is behind it: the outermost often says only that something failed.
fn chain(error: &instant_acme::Error) -> String {
    if let instant_acme::Error::Api(problem) = error {
        return said(problem);
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

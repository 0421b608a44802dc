//! Calls about an app's variables and secrets.

use crate::{client::Client, error::Result};
use faas_api::{AppName, Env, EnvChange, Secret, SecretList, VarName};
use reqwest::{Method, header};

impl Client {
    pub(crate) async fn env(&self, app: &AppName) -> Result<Env> {
        self.json(self.call(Method::GET, &format!("/v1/apps/{app}/env"))).await
    }

    /// Sets and removes variables, all or nothing.
    pub(crate) async fn change_env(&self, app: &AppName, change: &EnvChange) -> Result<Env> {
        self.json(self.call(Method::PUT, &format!("/v1/apps/{app}/env")).json(change)).await
    }

    pub(crate) async fn secrets(&self, app: &AppName) -> Result<SecretList> {
        self.json(self.call(Method::GET, &format!("/v1/apps/{app}/secrets"))).await
    }

    pub(crate) async fn put_secret(
        &self,
        app: &AppName,
        name: &VarName,
        value: String,
    ) -> Result<Secret> {
        let request = self.call(Method::PUT, &format!("/v1/apps/{app}/secrets/{name}"));
        self.json(request.header(header::CONTENT_TYPE, "text/plain").body(value)).await
    }

    pub(crate) async fn remove_secret(&self, app: &AppName, name: &VarName) -> Result<()> {
        let path = format!("/v1/apps/{app}/secrets/{name}");
        self.send(self.call(Method::DELETE, &path)).await.map(drop)
    }
}

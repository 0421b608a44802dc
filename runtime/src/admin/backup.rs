//! `GET /v1/backup`

use super::{
    State,
    error::ApiError,
    extract::NoQuery,
    openapi::{Binary, Common, TakeBackup},
};
use crate::{
    backup::{Backup, BackupError, Pieces},
    clock,
};
use async_trait::async_trait;
use axum::{
    body::Body,
    http::header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use faas_api::ErrorCode;
use futures::stream;

/// The media type of an archive.
const TAR: &str = "application/x-tar";

/// Who takes backups.
#[async_trait]
pub(crate) trait Backups: Send + Sync {
    /// Begins one, which is written while it is taken.
    async fn begin(&self) -> Result<Pieces, BackupError>;
}

#[async_trait]
impl Backups for Backup {
    async fn begin(&self) -> Result<Pieces, BackupError> {
        self.begin().await
    }
}

/// Take a backup
///
/// The whole node as one archive, while it serves: apps, artifacts, usage, and its own token and key
/// in clear text. `faas restore` makes a data directory of it. A body that breaks off is no backup.
#[utoipa::path(get, path = "/v1/backup", operation_id = "backup", tag = "observe",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "A tar.", body = Binary, content_type = "application/x-tar"),
        Common, TakeBackup))]
pub(super) async fn take(
    axum::extract::State(api): State,
    _: NoQuery,
) -> Result<Response, ApiError> {
    let pieces = api.parts.backup.begin().await?;
    tracing::info!("a backup is being taken");
    let pieces = stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    });
    let name = clock::now().strftime("attachment; filename=\"faas-%Y%m%dT%H%M%SZ.tar\"");
    let headers = [(CONTENT_TYPE, TAR.to_owned()), (CONTENT_DISPOSITION, name.to_string())];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::UnderWay => {
                Self::new(ErrorCode::Conflict).detail(error.to_string()).hint("try again later")
            }
            BackupError::Storage(error) => error.into(),
        }
    }
}

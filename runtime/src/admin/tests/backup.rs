//! Backups: sent as they are written, and never taken for whole when they are not.

use super::*;

fn pieces(pieces: Vec<std::io::Result<Bytes>>) -> Pieces {
    let (sender, receiver) = mpsc::channel(pieces.len().max(1));
    pieces.into_iter().for_each(|piece| sender.try_send(piece).unwrap());
    receiver
}

#[tokio::test]
async fn it_is_sent_as_it_is_written() {
    let node = Node::new().await;
    *node.shelf.next.lock().unwrap() = Some(Ok(pieces(vec![Ok("one".into()), Ok("two".into())])));
    let answer = node.ask("GET", "/v1/backup").await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "onetwo"));
    assert_eq!(answer.header("content-type"), "application/x-tar");
    let name = answer.header("content-disposition");
    assert!(name.starts_with("attachment; filename=\"faas-2"), "{name}");
}

#[tokio::test]
async fn one_that_breaks_off_does_not_look_whole() {
    let node = Node::new().await;
    let broken = || std::io::Error::other("disk");
    *node.shelf.next.lock().unwrap() = Some(Ok(pieces(vec![Ok("one".into()), Err(broken())])));
    let response = node.open(request("GET", "/v1/backup").body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.unwrap_err();
}

#[tokio::test]
async fn why_there_is_none() {
    let node = Node::new().await;
    for (error, code) in [
        (BackupError::UnderWay, ErrorCode::Conflict),
        (StorageError::Full("/secret/path".into()).into(), ErrorCode::StorageFull),
        (StorageError::Damaged("/secret/path".into()).into(), ErrorCode::Internal),
    ] {
        *node.shelf.next.lock().unwrap() = Some(Err(error));
        node.ask("GET", "/v1/backup").await.error(code);
    }
    node.ask("GET", "/v1/backup?x=1").await.error(ErrorCode::BadRequest);
}

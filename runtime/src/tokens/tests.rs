//! Tokens without an API around them.

use super::*;
use crate::storage::memory::MemoryRegistry;
use faas_api::Verb;
use jiff::SignedDuration;
use std::time::Duration;

fn wanted(name: &str, expires_at: Option<Timestamp>) -> Wanted {
    let scope = Scope { apps: Some(vec!["shop".parse().unwrap()]), can: vec![Verb::Deploy] };
    Wanted { name: Some(name.into()), scope, expires_at, created_by: "admin".into() }
}

async fn tokens() -> (Arc<MemoryRegistry>, Tokens) {
    let registry = Arc::new(MemoryRegistry::default());
    let (tokens, _) = Tokens::load(registry.clone()).await.unwrap();
    (registry, tokens)
}

async fn made(tokens: &Tokens, expires_at: Option<Timestamp>) -> (String, Token) {
    let (secret, token) = tokens.create(wanted("ci", expires_at)).await.unwrap();
    (secret.reveal(), token)
}

/// Waits until something that another task does is done.
async fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let asked = async {
        while !ask() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect(what);
}

#[tokio::test]
async fn only_the_whole_text_is_recognised() {
    let (_, tokens) = tokens().await;
    let now = clock::now();
    assert_eq!(tokens.recognise(b"", now).unwrap_err(), Refused::Unknown);
    let (first, token) = made(&tokens, None).await;
    let (second, other) = made(&tokens, None).await;
    assert!(first.starts_with("faas_") && first != second && token.id != other.id);
    assert_eq!(tokens.recognise(first.as_bytes(), now).unwrap().id, token.id);
    assert_eq!(tokens.recognise(second.as_bytes(), now).unwrap().id, other.id);
    let shorter = &first[..first.len() - 1];
    for bad in [shorter, &format!("{first}0"), &first.to_uppercase(), &first[5..], "faas_"] {
        assert_eq!(tokens.recognise(bad.as_bytes(), now).unwrap_err(), Refused::Unknown, "{bad}");
    }
    // The hash is what is kept; it is no token.
    let hash = tokens.get(&token.id).unwrap().record.hash.to_string();
    assert_eq!(tokens.recognise(hash.as_bytes(), now).unwrap_err(), Refused::Unknown);
}

#[tokio::test]
async fn the_text_is_kept_nowhere() {
    let (registry, tokens) = tokens().await;
    let (secret, token) = tokens.create(wanted("ci", None)).await.unwrap();
    assert_eq!(format!("{secret:?}"), "Secret(..)");
    let secret = secret.reveal();
    let known = tokens.get(&token.id).unwrap();
    let digits = &secret[5..37];
    let hash = known.record.hash.to_string();
    for debug in [format!("{known:?}"), format!("{:?}", known.record), format!("{token:?}")] {
        assert!(!debug.contains(digits) && !debug.contains(&hash), "{debug}");
    }
    let (docs, _) = registry.list("").await.unwrap();
    assert_eq!(docs.len(), 1);
    let body = String::from_utf8(docs[0].1.body.to_vec()).unwrap();
    assert!(!body.contains(digits) && body.contains(&hash), "{body}");
}

#[tokio::test]
async fn a_token_ends_when_it_was_said() {
    let (_, tokens) = tokens().await;
    let end = clock::now() + SignedDuration::from_hours(1);
    let (secret, token) = made(&tokens, Some(end)).await;
    let before = end - SignedDuration::from_millis(1);
    assert!(tokens.recognise(secret.as_bytes(), before).is_ok());
    assert!(tokens.admits(&token.id, before));
    for now in [end, end + SignedDuration::from_hours(1)] {
        let refused = Refused::Expired { name: "ci".into(), at: end };
        assert_eq!(tokens.recognise(secret.as_bytes(), now).unwrap_err(), refused);
        assert!(!tokens.admits(&token.id, now));
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_and_for_ever() {
    let (registry, tokens) = tokens().await;
    let (secret, token) = made(&tokens, Some(clock::now() + SignedDuration::from_hours(1))).await;
    let (other, _) = made(&tokens, None).await;
    tokens.revoke(&token.id, "ada").await.unwrap();
    let revoked = tokens.get(&token.id).unwrap().record.clone();
    assert_eq!(revoked.revoked_by.as_deref(), Some("ada"));
    let refused = Refused::Revoked { name: "ci".into(), at: revoked.revoked_at.unwrap() };
    let now = clock::now();
    assert_eq!(tokens.recognise(secret.as_bytes(), now).unwrap_err(), refused);
    assert!(!tokens.admits(&token.id, now));
    tokens.revoke(&token.id, "bob").await.unwrap();
    assert_eq!(tokens.get(&token.id).unwrap().record, revoked, "the first counts");
    assert!(tokens.recognise(other.as_bytes(), now).is_ok());
    let unknown = "0123456789".parse().unwrap();
    assert!(matches!(tokens.revoke(&unknown, "ada").await, Err(TokensError::NoSuchToken(_))));
    assert!(!tokens.admits(&unknown, now));
    let (again, _) = Tokens::load(registry).await.unwrap();
    assert_eq!(again.recognise(secret.as_bytes(), now).unwrap_err(), refused);
    assert!(again.recognise(other.as_bytes(), now).is_ok());
}

#[tokio::test]
async fn other_nodes_follow() {
    let (registry, tokens) = tokens().await;
    let (before, _) = made(&tokens, None).await;
    let (other, rev) = Tokens::load(registry.clone()).await.unwrap();
    let other = Arc::new(other);
    let following = tokio::spawn({
        let other = other.clone();
        async move { other.follow(rev).await }
    });
    let now = clock::now();
    let known = |secret: &str| other.recognise(secret.as_bytes(), now);
    assert!(known(&before).is_ok());
    let (secret, token) = made(&tokens, None).await;
    eventually("a token of another node", || known(&secret).is_ok()).await;
    tokens.revoke(&token.id, "ada").await.unwrap();
    eventually("its end", || matches!(known(&secret), Err(Refused::Revoked { .. }))).await;
    registry.delete(&key(&token.id), Expect::Any).await.unwrap();
    eventually("its removal", || other.get(&token.id).is_none()).await;
    assert!(known(&before).is_ok());
    following.abort();
}

#[tokio::test]
async fn an_older_state_changes_nothing() {
    let (_, tokens) = tokens().await;
    let (secret, token) = made(&tokens, None).await;
    let old = Known::clone(&tokens.get(&token.id).unwrap());
    tokens.revoke(&token.id, "ada").await.unwrap();
    // What a watch delivers late, and what a list had read before.
    tokens.apply(old.clone());
    let (later, _) = made(&tokens, None).await;
    let list = std::slice::from_ref(&old);
    tokens.snapshot.rcu(|current| current.replaced_by(list, old.rev));
    assert!(tokens.recognise(secret.as_bytes(), clock::now()).is_err());
    assert!(tokens.recognise(later.as_bytes(), clock::now()).is_ok(), "it is newer than the list");
    // What is gone from a list that is as new is gone.
    tokens.snapshot.rcu(|current| current.replaced_by(&[], Rev::MAX));
    assert!(tokens.list().is_empty());
}

#[tokio::test]
async fn the_last_use_is_written_down_rarely() {
    let (registry, tokens) = tokens().await;
    let (secret, token) = made(&tokens, None).await;
    let (_, written) = registry.list("").await.unwrap();
    let last_used = |tokens: &Tokens| tokens.get(&token.id).unwrap().token().last_used_at;
    assert_eq!(last_used(&tokens), None);
    let start = clock::now();
    for second in 0..1000 {
        let now = start + SignedDuration::from_millis(second);
        tokens.recognise(secret.as_bytes(), now).unwrap();
    }
    assert_eq!(last_used(&tokens), Some(start), "to the minute");
    assert_eq!(registry.list("").await.unwrap().1, written, "no request writes");
    tokens.write_uses().await;
    assert_eq!(registry.list("").await.unwrap().1, written + 1);
    tokens.write_uses().await;
    assert_eq!(registry.list("").await.unwrap().1, written + 1, "it is no news");
    assert_eq!(last_used(&tokens), Some(start));
    let (again, _) = Tokens::load(registry.clone()).await.unwrap();
    assert_eq!(last_used(&again), Some(start));
    // What was used on two nodes was last used where it was later.
    let later = start + SignedDuration::from_hours(1);
    again.recognise(secret.as_bytes(), later).unwrap();
    again.write_uses().await;
    tokens.write_uses().await;
    let (third, _) = Tokens::load(registry).await.unwrap();
    assert_eq!(last_used(&third), Some(later));
}

#[tokio::test]
async fn writing_down_a_use_does_not_undo_a_revocation() {
    let (registry, tokens) = tokens().await;
    let (secret, token) = made(&tokens, None).await;
    let (other, _) = Tokens::load(registry.clone()).await.unwrap();
    other.recognise(secret.as_bytes(), clock::now()).unwrap();
    tokens.revoke(&token.id, "ada").await.unwrap();
    // The other one has not heard of it.
    other.write_uses().await;
    let (third, _) = Tokens::load(registry).await.unwrap();
    assert!(third.get(&token.id).unwrap().record.revoked_at.is_some());
    assert!(other.recognise(secret.as_bytes(), clock::now()).is_err());
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten() {
    let (registry, tokens) = tokens().await;
    let now = clock::now();
    let (eternal, _) = made(&tokens, None).await;
    let (_, expired) = made(&tokens, Some(now + SignedDuration::from_secs(1))).await;
    let (revoked_secret, revoked) =
        made(&tokens, Some(now + SignedDuration::from_hours(24 * 1000))).await;
    tokens.revoke(&revoked.id, "ada").await.unwrap();
    tokens.forget_ended(now + SignedDuration::from_hours(24 * 89)).await;
    assert_eq!(tokens.list().len(), 3);
    let much_later = now + SignedDuration::from_hours(24 * 91);
    tokens.forget_ended(much_later).await;
    assert!(tokens.get(&expired.id).is_none() && tokens.get(&revoked.id).is_none());
    assert_eq!(registry.list("").await.unwrap().0.len(), 1);
    assert!(tokens.recognise(eternal.as_bytes(), much_later).is_ok());
    let refused = tokens.recognise(revoked_secret.as_bytes(), much_later).unwrap_err();
    assert_eq!(refused, Refused::Unknown);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_opens_nothing() {
    let (registry, tokens) = tokens().await;
    let (good, _) = made(&tokens, None).await;
    let (bad, token) = made(&tokens, None).await;
    let doc = registry.get(&key(&token.id)).await.unwrap().unwrap();
    let body = String::from_utf8(doc.body.to_vec()).unwrap().replace("deploy", "fly");
    registry.put(&key(&token.id), body.into(), Expect::Any).await.unwrap();
    registry.put(&DocKey::new(&["tokens", "x"]), "{}".into(), Expect::Any).await.unwrap();
    // One that a newer server has restricted, in a way that this one must not overlook.
    let (newer, token) = made(&tokens, None).await;
    let doc = registry.get(&key(&token.id)).await.unwrap().unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&doc.body).unwrap();
    record["only_from"] = "10.0.0.0/8".into();
    record["min_reader"] = (crate::storage::record::READER + 1).into();
    registry.put(&key(&token.id), record.to_string().into(), Expect::Any).await.unwrap();
    let (again, _) = Tokens::load(registry).await.unwrap();
    assert!(again.recognise(good.as_bytes(), clock::now()).is_ok());
    for bad in [bad, newer] {
        assert_eq!(again.recognise(bad.as_bytes(), clock::now()).unwrap_err(), Refused::Unknown);
    }
}

#[tokio::test]
async fn lists_and_names() {
    let (_, tokens) = tokens().await;
    let (_, named) = made(&tokens, None).await;
    let nameless = Wanted { name: None, ..wanted("", None) };
    let (_, nameless) = tokens.create(nameless).await.unwrap();
    assert_eq!(nameless.name, nameless.id.as_str());
    let listed = tokens.list();
    assert_eq!(listed.len(), 2);
    assert!(listed[0].created_at >= listed[1].created_at);
    assert!(listed.contains(&named) && listed.contains(&nameless));
}

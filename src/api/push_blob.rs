//! Uploads of blobs, and deleting blobs.

use super::answer::{Answer, Facts};
use super::push::Change;
use super::refusal::Refusal;
use super::router::Api;
use crate::http::Method;
use crate::oci::{Algorithm, Digest, UploadAsked};
use crate::registry::{PushError, SentRange, UploadStatus, Uploader};
use crate::transfer::Inlet;

/// Methods of a session, and of what opens one.
const OF_SESSION: &str = "GET, HEAD, PATCH, PUT, DELETE";
const OF_UPLOADS: &str = "POST";

/// One request of an upload session, or the one that opens it.
pub(super) async fn upload(
    api: &Api,
    change: &Change<'_>,
    (session, asked): (Option<&str>, &UploadAsked),
    body: &mut Inlet<'_>,
    facts: Facts,
) -> Answer {
    let method = change.head.method;
    let answered = match (session, method) {
        (None, Method::Post) => open(api, change, asked, body, facts.clone()).await,
        (Some(id), Method::Get | Method::Head) => {
            let status = api.registry.upload_status(uploader(change), id).await;
            status.map(|status| with_status(change, &status, 204, facts.clone()))
        }
        (Some(id), Method::Patch) => patch(api, change, id, body, facts.clone()).await,
        (Some(id), Method::Put) => put(api, change, (id, asked), body, facts.clone()).await,
        (Some(id), Method::Delete) => {
            let cancelled = api.registry.cancel_upload(uploader(change), id).await;
            cancelled.map(|()| Answer::new(204, facts.clone()))
        }
        (None, _) => return Refusal::method(method, OF_UPLOADS).answer(facts),
        (Some(_), _) => return Refusal::method(method, OF_SESSION).answer(facts),
    };
    answered.unwrap_or_else(|error| refused(change, error, facts))
}

/// Deletes a blob from its repository.
pub(super) async fn delete(
    api: &Api,
    change: &Change<'_>,
    digest: &Digest,
    facts: Facts,
) -> Answer {
    match api.registry.delete_blob(change.scope, digest).await {
        Ok(()) => Answer::new(202, facts),
        Err(error) => Refusal::from(error).answer(facts),
    }
}

/// Opens a session, unless the blob comes with the request or is somewhere here already.
async fn open(
    api: &Api,
    change: &Change<'_>,
    asked: &UploadAsked,
    body: &mut Inlet<'_>,
    facts: Facts,
) -> Result<Answer, PushError> {
    let by = uploader(change);
    if let Some(digest) = &asked.mount {
        // Without a right to the source, or without the blob there, it is as if nothing of the kind
        // had been asked.
        if let Some(source) = api.mount_source(change, asked.from.as_ref(), digest).await?
            && api.registry.mount_blob(change.scope, &source, digest).await?
        {
            return Ok(created(change, digest, facts));
        }
    } else if let Some(digest) = &asked.digest {
        let is_empty = *digest == Digest::of(digest.algorithm(), b"");
        // A client that sends nothing goes on with PUT.
        if body.length() != Some(0) || is_empty {
            api.registry.push_blob(by, digest, body).await?;
            return Ok(created(change, digest, facts));
        }
    }
    let algorithm = asked.algorithm.unwrap_or(Algorithm::Sha256);
    let status = api.registry.begin_upload(by, algorithm).await?;
    Ok(with_status(change, &status, 202, facts))
}

async fn patch(
    api: &Api,
    change: &Change<'_>,
    id: &str,
    body: &mut Inlet<'_>,
    facts: Facts,
) -> Result<Answer, PushError> {
    let range = sent_range(change)?;
    let status = api.registry.append_upload(uploader(change), id, range, body).await?;
    Ok(with_status(change, &status, 202, facts))
}

async fn put(
    api: &Api,
    change: &Change<'_>,
    (id, asked): (&str, &UploadAsked),
    body: &mut Inlet<'_>,
    facts: Facts,
) -> Result<Answer, PushError> {
    let range = sent_range(change)?;
    let Some(digest) = &asked.digest else {
        let message = "the query parameter digest is missing: what the upload must hash to";
        return Err(PushError::Digest(message.to_owned()));
    };
    api.registry.finish_upload(uploader(change), id, range, digest, body).await?;
    Ok(created(change, digest, facts))
}

fn uploader<'a>(change: &'a Change<'_>) -> Uploader<'a> {
    Uploader { scope: change.scope, name: change.principal_name() }
}

/// 201: the blob is stored, durably.
fn created(change: &Change<'_>, digest: &Digest, facts: Facts) -> Answer {
    let location = format!("/v2/{}/blobs/{digest}{}", change.name, change.endpoint.own_query());
    Answer::new(201, facts)
        .header("Location", location)
        .header("Docker-Content-Digest", digest.to_string())
}

/// How far an upload is.
fn with_status(change: &Change<'_>, status: &UploadStatus, code: u16, facts: Facts) -> Answer {
    let answer = Answer::new(code, facts);
    let answer = with_place(change, answer, status);
    answer.header("Docker-Upload-UUID", status.id.to_string())
}

fn with_place(change: &Change<'_>, answer: Answer, status: &UploadStatus) -> Answer {
    let UploadStatus { id, received } = status;
    let query = change.endpoint.own_query();
    // Nothing yet reads as one byte, as everybody writes it: there is no other way to say it.
    let last = received.saturating_sub(1);
    answer
        .header("Location", format!("/v2/{}/blobs/uploads/{id}{query}", change.name))
        .header("Range", format!("0-{last}"))
}

fn refused(change: &Change<'_>, error: PushError, facts: Facts) -> Answer {
    let status = match &error {
        PushError::OutOfOrder { id, received, .. } => {
            Some(UploadStatus { id: *id, received: *received })
        }
        _ => None,
    };
    let answer = Refusal::from(error).answer(facts);
    match status {
        Some(status) => with_place(change, answer, &status),
        None => answer,
    }
}

/// `Content-Range: <first>-<last>` (distribution-spec, "Pushing a blob in chunks"). Some clients
/// write it as HTTP does, with a unit before it and a total behind.
fn sent_range(change: &Change<'_>) -> Result<Option<SentRange>, PushError> {
    let mut lines = change.head.values("content-range");
    let Some(value) = lines.next() else { return Ok(None) };
    let wrong = || {
        let text = String::from_utf8_lossy(value).chars().take(64).collect::<String>();
        PushError::UploadInvalid(format!("Content-Range is {text:?}, expected <first>-<last>"))
    };
    if lines.next().is_some() {
        return Err(wrong());
    }
    let text = std::str::from_utf8(value).map_err(|_| wrong())?;
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_number).ok_or_else(wrong)
    };
    Ok(Some((number(first)?, number(last)?)))
}

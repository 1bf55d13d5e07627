//! `/verify` and `/gc` on the admin address.

use serde::Serialize;

use super::state::WorkerState;
use crate::api::{Answer, Facts, Refusal};
use crate::config::parse_size;
use crate::http::{Method, RequestHead};
use crate::oci::ErrorCode;
use crate::telemetry::RouteKind;

const JSON: &str = "application/json";

/// Answers a request for `/verify` or `/gc`; `None` for any other path.
pub(super) fn answer(worker: &WorkerState, head: &RequestHead) -> Option<Answer> {
    let path = head.path();
    if path != "/verify" && path != "/gc" {
        return None;
    }
    let maintenance = &worker.maintenance;
    let answer = match (head.method, path) {
        (Method::Get | Method::Head, "/verify") => Ok(status(200, &maintenance.verify_status())),
        (Method::Get | Method::Head, _) => Ok(status(200, &maintenance.gc_status())),
        (Method::Post, "/verify") => {
            start_verify(worker, head).map(|()| status(202, &maintenance.verify_status()))
        }
        (Method::Post, _) => start_gc(worker, head).map(|()| status(202, &maintenance.gc_status())),
        (method, _) => {
            let message = format!("{} is not supported on {path}", method.as_str());
            let refusal = Refusal::new(405, ErrorCode::Unsupported, message);
            Err(Refusal { allow: Some("GET, HEAD, POST"), ..refusal })
        }
    };
    Some(answer.unwrap_or_else(|refusal| refusal.answer(Facts::of(RouteKind::Other))))
}

fn start_verify(worker: &WorkerState, head: &RequestHead) -> Result<(), Refusal> {
    refuse_pages(head)?;
    let mut rate = None;
    for (key, value) in query(head) {
        if key == "rate" {
            let size = parse_size(&value).map_err(|why| bad(format!("rate={value}: {why}")))?;
            rate = Some(size).filter(|size| *size > 0);
        } else {
            return Err(bad(format!("/verify takes `rate`, not `{key}`")));
        }
    }
    worker.maintenance.start_verify(rate).map_err(busy)
}

fn start_gc(worker: &WorkerState, head: &RequestHead) -> Result<(), Refusal> {
    refuse_pages(head)?;
    let mut dry_run = false;
    for (key, value) in query(head) {
        match (key.as_str(), value.as_str()) {
            ("dry_run", "1" | "true" | "") => dry_run = true,
            ("dry_run", "0" | "false") => dry_run = false,
            // What is misspelled must not free anything.
            _ => return Err(bad(format!("/gc takes `dry_run=1`, not `{key}={value}`"))),
        }
    }
    worker.maintenance.start_gc(dry_run).map_err(busy)
}

/// A page in the operator's browser can send a POST to loopback addresses, too; browsers tell by
/// this header that it was a page.
pub(super) fn refuse_pages(head: &RequestHead) -> Result<(), Refusal> {
    match head.header("origin") {
        None => Ok(()),
        Some(_) => {
            let message = "this is not for web pages: send it without Origin, as curl does";
            Err(Refusal::new(403, ErrorCode::Denied, message))
        }
    }
}

fn query(head: &RequestHead) -> impl Iterator<Item = (String, String)> {
    let decoded =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = head.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    })
}

fn status(code: u16, status: &impl Serialize) -> Answer {
    let facts = Facts::of(RouteKind::Other);
    match serde_json::to_vec(status) {
        Ok(body) => Answer::new(code, facts).memory(JSON, body),
        Err(error) => Refusal::new(500, ErrorCode::Unknown, error.to_string()).answer(facts),
    }
}

fn bad(message: String) -> Refusal {
    Refusal::new(400, ErrorCode::Unsupported, message)
}

fn busy(message: String) -> Refusal {
    Refusal::new(409, ErrorCode::Unavailable, message)
}

//! `POST /reload` on the admin address.

use super::state::WorkerState;
use crate::api::{Answer, Facts, Refusal};
use crate::http::{Method, RequestHead};
use crate::oci::ErrorCode;
use crate::runtime::blocking;
use crate::telemetry::RouteKind;

/// Answers a request for `/reload` when the reload has happened, or has changed nothing.
pub(super) async fn answer(worker: &WorkerState, head: &RequestHead) -> Answer {
    reload(worker, head).await.unwrap_or_else(|refusal| refusal.answer(facts()))
}

async fn reload(worker: &WorkerState, head: &RequestHead) -> Result<Answer, Refusal> {
    if head.method != Method::Post {
        let message = "/reload takes POST: it changes what the server does";
        let refusal = Refusal::new(405, ErrorCode::Unsupported, message);
        return Err(Refusal { allow: Some("POST"), ..refusal });
    }
    super::maintenance_admin::refuse_pages(head)?;
    let Some(reloader) = worker.reloader.get().cloned() else {
        return Err(Refusal::new(503, ErrorCode::Unavailable, "not all workers listen yet"));
    };
    let reloaded = blocking(move || reloader.reload()).await;
    let reloaded =
        reloaded.map_err(|error| Refusal::new(503, ErrorCode::Unavailable, error.to_string()))?;
    match reloaded {
        Ok(summary) => {
            let text = format!("reloaded: {summary}\n");
            Ok(Answer::new(200, facts()).memory("text/plain; charset=utf-8", text))
        }
        // 409: what is asked for contradicts the state that the server is in, and goes on in.
        Err(error) => {
            let message = format!("not reloaded, everything goes on as before: {error}");
            Err(Refusal::new(409, ErrorCode::Unsupported, message))
        }
    }
}

fn facts() -> Facts {
    Facts::of(RouteKind::Other)
}

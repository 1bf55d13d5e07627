//! The operator's side: health, readiness, metrics, explanations, and a page that says where.

use std::fmt::Write as _;
use std::sync::Arc;

use super::state::WorkerState;
use super::{maintenance_admin, plugins};
use crate::api::{self, Answer, Facts, Question, Refusal};
use crate::http::{Method, RequestHead};
use crate::oci::ErrorCode;
use crate::runtime::{blocking, ended_services};
use crate::telemetry::{METRICS_CONTENT_TYPE, RouteKind};

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers a request on the admin address.
pub(super) async fn answer(worker: &WorkerState, head: &RequestHead) -> Answer {
    let facts = || Facts::of(RouteKind::Other);
    if let Some(answer) = maintenance_admin::answer(worker, head) {
        return if head.method == Method::Head { answer.without_body() } else { answer };
    }
    if head.path() == "/reload" {
        return super::reload_admin::answer(worker, head).await;
    }
    if !head.method.reads() {
        return Refusal::method(head.method, "GET, HEAD").answer(facts());
    }
    let answer = match head.path() {
        "/healthz" => Answer::new(200, facts()).memory(TEXT, &b"ok\n"[..]),
        "/readyz" => ready(worker),
        "/metrics" => metrics(worker).await,
        "/explain" => explain(worker, head),
        "/" => Answer::new(200, facts()).memory("text/html; charset=utf-8", page(worker)),
        path => {
            let message = format!(
                "no {path} here; there are /healthz /readyz /metrics /explain /verify /gc \
                     /reload"
            );
            Refusal::new(404, ErrorCode::Unsupported, message).answer(facts())
        }
    };
    if head.method == Method::Head { answer.without_body() } else { answer }
}

fn ready(worker: &WorkerState) -> Answer {
    let mut reasons = worker.serving.lifecycle.not_ready();
    if worker.shared.catalog.is_failing() {
        reasons.push("catalog: the disk takes no names; content is served but not remembered");
    }
    if worker.shared.store.is_poisoned() {
        reasons.push("store: read-only since its disk failed; check the disk and start again");
    }
    if worker.shared.space.is_full() {
        reasons.push("disk: full, new content is passed through and not stored; free some space");
    }
    let ended: Vec<String> = ended_services()
        .iter()
        .map(|name| format!("{name}: this thread has ended by a panic; start again"))
        .collect();
    reasons.extend(ended.iter().map(String::as_str));
    let facts = Facts::of(RouteKind::Other);
    let failed = plugins::failed(&worker.plugins.stats());
    let (everywhere, warnings): (Vec<_>, Vec<_>) =
        failed.iter().partition(|failed| failed.is_everywhere);
    reasons.extend(everywhere.iter().map(|failed| failed.text.as_str()));
    let warning = |failed: &&plugins::Failed| format!("warning: {}\n", failed.text);
    let mut warnings: String = warnings.iter().map(warning).collect();
    for text in worker.serving.tls.iter().flat_map(|tls| tls.warnings()) {
        // Writing to a String cannot fail.
        let _ = writeln!(warnings, "warning: {text}");
    }
    if reasons.is_empty() {
        return Answer::new(200, facts).memory(TEXT, format!("ready\n{warnings}"));
    }
    Answer::new(503, facts).memory(TEXT, format!("{}\n{warnings}", reasons.join("\n")))
}

async fn metrics(worker: &WorkerState) -> Answer {
    let facts = Facts::of(RouteKind::Other);
    let metrics = Arc::clone(&worker.metrics);
    match blocking(move || metrics.render()).await {
        Ok(text) => Answer::new(200, facts).memory(METRICS_CONTENT_TYPE, text),
        Err(error) => Refusal::new(503, ErrorCode::Unavailable, error.to_string()).answer(facts),
    }
}

/// `/explain?method=GET&path=/v2/...&ns=...&header=Name:%20value&client=10.1.2.3`, all but `path`
/// optional.
fn explain(worker: &WorkerState, head: &RequestHead) -> Answer {
    let facts = Facts::of(RouteKind::Other);
    let (mut method, mut path, mut ns, mut client) = ("GET".to_owned(), None, None, None);
    let mut headers = Vec::new();
    for pair in head.query().unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        match key {
            "method" => method = value,
            "path" => path = Some(value),
            "ns" => ns = Some(value),
            "client" => match value.parse() {
                Ok(address) => client = Some(address),
                Err(_) => {
                    let message = format!("client: {value} is no IP address, such as 10.1.2.3");
                    return Refusal::new(400, ErrorCode::Unsupported, message).answer(facts);
                }
            },
            "header" => {
                let (name, value) = value.split_once(':').unwrap_or((&value, ""));
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            _ => {}
        }
    }
    let Some(path) = path else {
        let message =
            "say what to explain: /explain?path=/v2/<name>/manifests/<reference>&ns=<host>";
        return Refusal::new(400, ErrorCode::Unsupported, message).answer(facts);
    };
    let question =
        Question { method: &method, target: &path, ns: ns.as_deref(), headers: &headers, client };
    match api::explain(&worker.api.chain(), &worker.config.borrow(), &question) {
        Ok(text) => Answer::new(200, facts).memory(TEXT, text),
        Err(refusal) => refusal.answer(facts),
    }
}

fn page(worker: &WorkerState) -> String {
    let counts = worker.shared.index.counts();
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><title>Ringport</title><h1>Ringport</h1><ul>",
    );
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<li>version {}</li><li>{} blobs, {} links, {} tags</li><li>{} fills running</li>\
         <li>{} connections</li></ul><p><a href=/healthz>healthz</a> <a href=/readyz>readyz</a> \
         <a href=/metrics>metrics</a></p>",
        env!("CARGO_PKG_VERSION"),
        counts.blobs,
        counts.links,
        counts.tags,
        worker.shared.fills_active(),
        worker.serving.lifecycle.connections(),
    );
    page
}

//! What is counted is what is shown.

use std::time::Duration;

use super::*;

fn metrics() -> Arc<Metrics> {
    let namespaces = ["docker.io", "ghcr.io"].map(|host| Namespace::parse(host).unwrap());
    Metrics::new(2, namespaces)
}

#[track_caller]
fn assert_shown(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.render();
    for line in lines {
        assert!(text.lines().any(|shown| shown == *line), "no line {line:?} in\n{text}");
    }
}

#[test]
fn requests_are_added_up_over_workers() {
    let metrics = metrics();
    let first_byte = Some(Duration::from_micros(250));
    for worker in [0, 1, 1] {
        let worker = metrics.worker(worker);
        worker.request(RouteKind::Blob, 206, CacheResult::Hit, 10, first_byte);
    }
    metrics.worker(0).request(RouteKind::Other, 418, CacheResult::None, 0, None);
    assert_shown(
        &metrics,
        &[
            "ringport_requests_total{route_kind=\"blob\",status=\"206\",cache=\"hit\"} 3",
            "ringport_requests_total{route_kind=\"other\",status=\"other\",cache=\"none\"} 1",
            "ringport_response_bytes_total 30",
            "ringport_worker_requests_total{worker=\"0\"} 2",
            "ringport_worker_requests_total{worker=\"1\"} 2",
            "ringport_time_to_first_byte_seconds_count{route_kind=\"blob\",cache=\"hit\"} 3",
            "ringport_time_to_first_byte_seconds_sum{route_kind=\"blob\",cache=\"hit\"} 0.00075",
        ],
    );
    for (bound, count) in [("0.0001", 0), ("0.00025", 3), ("+Inf", 3)] {
        let labels = format!("le=\"{bound}\",route_kind=\"blob\",cache=\"hit\"");
        let line = format!("ringport_time_to_first_byte_seconds_bucket{{{labels}}} {count}");
        assert_shown(&metrics, &[&line]);
    }
    let text = metrics.render();
    assert_eq!(text.matches("ringport_requests_total{").count(), 2, "only what happened");
    assert_eq!(text.matches("_seconds_count{").count(), 1);
}

#[test]
fn revalidations_and_negative_hits_are_counted_by_upstream() {
    let metrics = metrics();
    let namespace = |text: &str| Namespace::parse(text).unwrap();
    for (worker, outcome) in [(0, Revalidation::Confirmed), (1, Revalidation::Confirmed)] {
        metrics.worker(worker).revalidated(&namespace("ghcr.io"), outcome);
    }
    metrics.worker(0).revalidated(&namespace("docker.io"), Revalidation::PutOff);
    metrics.worker(1).negative_hit(&namespace("docker.io"));
    metrics.worker(1).negative_hit(&namespace("unknown.example"));
    assert_shown(
        &metrics,
        &[
            "ringport_revalidations_total{namespace=\"ghcr.io\",outcome=\"confirmed\"} 2",
            "ringport_revalidations_total{namespace=\"docker.io\",outcome=\"put_off\"} 1",
            "ringport_negative_hits_total{namespace=\"docker.io\"} 1",
        ],
    );
    let text = metrics.render();
    assert_eq!(text.matches("ringport_revalidations_total{").count(), 2, "only what happened");
}

#[test]
fn every_kind_status_and_cache_result_has_a_place_of_its_own() {
    let metrics = metrics();
    let worker = metrics.worker(0);
    let mut expected = 0;
    for kind in RouteKind::ALL {
        for cache in CacheResult::ALL {
            for (status, _) in labels::STATUSES {
                worker.request(kind, status, cache, 0, None);
                expected += 1;
            }
        }
    }
    let text = metrics.render();
    let series = text.lines().filter(|line| line.starts_with("ringport_requests_total{"));
    assert!(series.clone().all(|line| line.ends_with(" 1")), "{text}");
    assert_eq!(series.count(), expected);
    assert!(labels::STATUSES.is_sorted());
}

#[test]
fn connections_and_fills_end_with_their_guards() {
    let metrics = metrics();
    let worker = metrics.worker(1);
    let open = worker.connection();
    let fill = worker.fill();
    assert_shown(&metrics, &["ringport_connections{worker=\"1\"} 1", "ringport_fills_active 1"]);
    drop(open);
    fill.finish(FillOutcome::DigestMismatch);
    drop(worker.fill());
    worker.fill_resumed();
    let sparse = worker.sparse_fill();
    assert_shown(&metrics, &["ringport_sparse_fills 1", "ringport_fills_active 0"]);
    sparse.finish(FillOutcome::Dropped);
    worker.range_fetched();
    worker.extent_sent(7);
    assert_shown(
        &metrics,
        &[
            "ringport_connections{worker=\"1\"} 0",
            "ringport_connections_accepted_total 1",
            "ringport_fills_active 0",
            "ringport_fills_total{outcome=\"digest_mismatch\"} 1",
            "ringport_fills_total{outcome=\"abandoned\"} 1",
            "ringport_fills_total{outcome=\"stored\"} 0",
            "ringport_fill_resumes_total 1",
            "ringport_fills_total{outcome=\"dropped\"} 1",
            "ringport_sparse_fills 0",
            "ringport_ranges_fetched_total 1",
            "ringport_extent_bytes_total 7",
        ],
    );
}

#[test]
fn upstream_calls_are_labelled_by_namespace() {
    let metrics = metrics();
    let worker = metrics.worker(0);
    let hub = metrics.namespace_index(&Namespace::parse("docker.io").unwrap()).unwrap();
    assert_eq!(metrics.namespace_index(&Namespace::parse("quay.io").unwrap()), None);
    worker.upstream_answered(hub, 429);
    worker.upstream_failed(hub + 1);
    worker.upstream_received(hub, 512);
    worker.token_requested(hub, true);
    worker.token_requested(hub, false);
    worker.upstream_answered(99, 200);
    assert_shown(
        &metrics,
        &[
            "ringport_upstream_requests_total{namespace=\"docker.io\",status=\"429\"} 1",
            "ringport_upstream_requests_total{namespace=\"ghcr.io\",status=\"none\"} 1",
            "ringport_upstream_bytes_total{namespace=\"docker.io\"} 512",
            "ringport_upstream_bytes_total{namespace=\"ghcr.io\"} 0",
            "ringport_token_requests_total{namespace=\"docker.io\",outcome=\"granted\"} 1",
            "ringport_token_requests_total{namespace=\"docker.io\",outcome=\"refused\"} 1",
        ],
    );
}

#[test]
fn facts_and_what_is_attached_are_shown() {
    let metrics = metrics();
    metrics.set_driver("io_uring");
    metrics.set_driver("epoll");
    metrics.attach_counter("ringport_access_log_dropped", "Entries dropped", || 7);
    let other = metrics.worker(99);
    other.accept_error();
    other.panicked();
    other.tls_probe();
    other.route_conflict();
    other.loop_refused();
    other.copied(3);
    let version = format!("ringport_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert_shown(
        &metrics,
        &[
            &version,
            "ringport_driver_info{driver=\"io_uring\"} 1",
            "ringport_access_log_dropped_total 7",
            "ringport_accept_errors_total 1",
            "ringport_panics_total 1",
            "ringport_tls_probes_total 1",
            "ringport_route_conflicts_total 1",
            "ringport_loops_total 1",
            "ringport_copied_bytes_total 3",
        ],
    );
    let text = metrics.render();
    for family in
        ["process_start_time_seconds ", "process_resident_memory_bytes ", "process_open_fds "]
    {
        assert!(text.lines().any(|line| line.starts_with(family)), "{family}\n{text}");
    }
}

/// OpenMetrics: each family once, described before its samples, `# EOF` at the end.
#[test]
fn the_text_is_well_formed() {
    let metrics = metrics();
    metrics.worker(0).request(RouteKind::Base, 200, CacheResult::None, 2, Some(Duration::ZERO));
    let text = metrics.render();
    assert!(text.ends_with("# EOF\n"));
    let mut families: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let family = rest.split(' ').next().unwrap();
            assert!(!families.contains(&family), "{family} twice");
            families.push(family);
        } else if !line.starts_with('#') {
            let family = families.last().expect("a family before its samples");
            assert!(line.starts_with(family), "{line} below {family}");
            let (_, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(families.len() > 20, "{families:?}");
}

#[test]
fn workers_count_without_losing_any() {
    let metrics = Metrics::new(4, []);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let worker = metrics.worker(worker);
            scope.spawn(move || {
                for _ in 0..1000 {
                    worker.request(RouteKind::Tags, 200, CacheResult::Miss, 1, None);
                }
            });
        }
    });
    assert_shown(&metrics, &["ringport_response_bytes_total 4000"]);
}

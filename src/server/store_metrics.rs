//! What the metrics say of the store: read when somebody asks.

use std::sync::Arc;

use super::maintenance::Maintenance;
use super::open_store::OpenStore;
use crate::registry::Shared;
use crate::registry::Space;
use crate::storage::Pool;
use crate::telemetry::Metrics;

/// Figures of the store, read when somebody asks.
pub(super) fn attach(metrics: &Metrics, opened: &OpenStore) {
    let space = || opened.space.clone();
    let (used, max, evicted, evicted_bytes) = (space(), space(), space(), space());
    let help = "Bytes of cached content in the store";
    metrics.attach_gauge("ringport_store_bytes", help, move || used.used());
    let help = "Bytes that cached content may have";
    metrics.attach_gauge("ringport_store_max_bytes", help, move || max.max());
    let help = "Contents that made room for others";
    metrics.attach_counter("ringport_evictions", help, move || evicted.evictions().0);
    let help = "Bytes of content that made room for others";
    metrics.attach_counter("ringport_evicted_bytes", help, move || evicted_bytes.evictions().1);
    let (reserved, leaving, stuck, no_room) = (space(), space(), space(), space());
    let help = "Bytes promised to downloads in progress";
    metrics.attach_gauge("ringport_store_reserved_bytes", help, move || reserved.reserved());
    let help = "Bytes of evicted content that is still being read";
    metrics.attach_gauge("ringport_store_leaving_bytes", help, move || leaving.leaving());
    let help = "1 while room lacks and nothing may be evicted";
    metrics.attach_gauge("ringport_store_stuck", help, move || u64::from(stuck.is_stuck()));
    let help = "Downloads that found no room and were passed through";
    metrics.attach_counter("ringport_fills_without_room", help, move || no_room.no_room());
    pools(metrics, opened);
    owners(metrics, opened);
    uploads(metrics, opened);
    let (store, catalog, index) =
        (opened.store.clone(), opened.catalog.clone(), opened.index.clone());
    let help = "1 when no pool takes content since their disks failed";
    metrics.attach_gauge("ringport_store_poisoned", help, move || u64::from(store.is_poisoned()));
    let help = "1 when the catalog does not take writes";
    metrics.attach_gauge("ringport_catalog_failing", help, move || u64::from(catalog.is_failing()));
    let (filled, slots, on_disk) = (index.clone(), index.clone(), index.clone());
    let pinned = index.clone();
    let help = "Bytes of cached content that is pinned, also of what has expired since";
    metrics.attach_gauge("ringport_store_pinned_bytes", help, move || pinned.counts().pinned_bytes);
    let help = "1 while a miss in the index has to ask the catalog";
    metrics.attach_gauge("ringport_index_cold", help, move || u64::from(index.may_miss()));
    let help = "Blobs, links and tags in the index";
    metrics.attach_gauge("ringport_index_entries", help, move || {
        let counts = filled.counts();
        counts.blobs + counts.links + counts.tags
    });
    let help = "Entries that the index has room for; it grows by itself";
    metrics.attach_gauge("ringport_index_slots", help, move || slots.counts().slots);
    let help = "1 when the index lies in a file, 0 when it ends with the process";
    metrics.attach_gauge("ringport_index_on_disk", help, move || u64::from(on_disk.is_on_disk()));
}

/// Figures of each pool; those that are missing have no other than that.
fn pools(metrics: &Metrics, opened: &OpenStore) {
    type Figure = fn(&Pool, &Space) -> Option<u64>;
    let figures: [(&str, &str, Figure); 4] = [
        ("ringport_pool_bytes", "Bytes of cached content in a pool", |pool, space| {
            space.used_in(pool.number())
        }),
        (
            "ringport_pool_max_bytes",
            "Bytes of cached content that a pool with a limit of its own may have",
            |pool, space| space.max_in(pool.number()),
        ),
        ("ringport_pool_free_bytes", "Bytes that the disk of a pool has left", |pool, space| {
            space.disk_free_in(pool.number())
        }),
        (
            "ringport_pool_poisoned",
            "1 when a pool is read-only since its disk failed",
            |pool, _| Some(u64::from(pool.is_poisoned())),
        ),
    ];
    for (name, help, figure) in figures {
        let (store, space) = (opened.store.clone(), opened.space.clone());
        metrics.attach_gauges(name, help, "pool", move || {
            let of = |pool: &Arc<Pool>| Some((pool.name().to_owned(), figure(pool, &space)?));
            store.pools().filter_map(of).collect()
        });
    }
    let store = opened.store.clone();
    let help = "0 when a pool of the configuration is missing";
    metrics.attach_gauges("ringport_pool_up", help, "pool", move || {
        let there = store.pools().map(|pool| (pool.name().to_owned(), 1));
        let missing = store.missing().iter().filter(|pool| pool.is_declared);
        there.chain(missing.map(|pool| (pool.name.clone(), 0))).collect()
    });
}

/// Figures of what is pushed.
fn uploads(metrics: &Metrics, opened: &OpenStore) {
    let uploads = || opened.pushes.uploads.clone();
    let (open, received, results) = (uploads(), uploads(), uploads());
    let help = "Uploads of blobs under way";
    metrics.attach_gauge("ringport_uploads_open", help, move || open.open() as u64);
    let help = "Bytes of blobs that were received from clients";
    let read = move || received.received_bytes();
    metrics.attach_counter("ringport_upload_received_bytes", help, read);
    let help = "Uploads of blobs by what became of them";
    metrics.attach_counters("ringport_uploads", help, ["result"], move || {
        results.results().map(|(result, count)| ([result.to_owned()], count)).to_vec()
    });
}

/// Figures of the upstreams that have a limit of their own.
fn owners(metrics: &Metrics, opened: &OpenStore) {
    type Figure = fn((u64, u64)) -> u64;
    let figures: [(&str, &str, Figure); 2] = [
        (
            "ringport_upstream_stored_bytes",
            "Bytes of cached content that an upstream with a limit of its own brought",
            |(used, _)| used,
        ),
        (
            "ringport_upstream_max_bytes",
            "Bytes of cached content that such an upstream may have",
            |(_, max)| max,
        ),
    ];
    for (name, help, figure) in figures {
        let (owners, space) = (opened.owners.clone(), opened.space.clone());
        metrics.attach_gauges(name, help, "namespace", move || {
            let limited = owners.iter().filter_map(|(namespace, owner)| {
                Some((namespace.to_string(), figure(space.owned(*owner)?)))
            });
            limited.collect()
        });
    }
}

/// What was asked of remote tiers; nothing where none is declared.
pub(super) fn remote_tiers(metrics: &Metrics, shared: &Arc<Shared>) {
    let counted = shared.clone();
    metrics.attach_counters(
        "ringport_remote_tier_requests",
        "Requests of placements to remote tiers, by what came of them",
        ["tier", "purpose", "outcome"],
        move || {
            let counts = counted.tier_counts().into_iter();
            let labelled = counts
                .map(|one| ([one.tier, one.purpose.to_owned(), one.outcome.to_owned()], one.count));
            labelled.collect()
        },
    );
    let (waiting, dropped) = (shared.clone(), shared.clone());
    metrics.attach_gauge(
        "ringport_remote_tier_writes_waiting",
        "Contents that wait to be written to remote tiers",
        move || waiting.tier_writes().0 as u64,
    );
    metrics.attach_counter(
        "ringport_remote_tier_writes_dropped",
        "Contents that are not written to remote tiers because too many waited",
        move || dropped.tier_writes().1,
    );
}

/// What scrubs have done.
pub(super) fn count_maintenance(metrics: &Metrics, maintenance: &Arc<Maintenance>) {
    let counted = maintenance.clone();
    metrics.attach_counter(
        "ringport_verified_blobs",
        "Stored contents that a scrub has looked at",
        move || counted.verified(),
    );
    let counted = maintenance.clone();
    metrics.attach_counter(
        "ringport_damaged_blobs",
        "Stored contents that a scrub has found damaged",
        move || counted.damaged(),
    );
}

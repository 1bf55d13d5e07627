//! `ringport gc`: frees what nothing needs, or shows what it would free.

use std::io::{self, Write};

use super::Exit;
use super::args::GcArgs;
use super::store_command::{Place, Row, fail, follow, place, tell};
use crate::registry::{Freed, GcReport, Progress};
use crate::server::StoppedStore;

/// Collects. Failed: something could not be decided or freed.
pub fn run(args: &GcArgs, out: &mut impl Write, remarks: &mut impl Write) -> io::Result<Exit> {
    let place = match place(&args.store) {
        Ok((place, _)) => place,
        Err(why) => return fail(&why, remarks),
    };
    let collected = match place {
        Place::Here(store) => here(*store, args.dry_run),
        Place::Server(admin) => {
            let start = if args.dry_run { "/gc?dry_run=1" } else { "/gc" };
            follow(admin, start, "/gc", |_| ())
        }
    };
    let report = match collected {
        Ok(report) => report,
        Err(why) => return fail(&why, remarks),
    };
    if !args.store.json {
        let goes = if report.dry_run { "would go" } else { "gone" };
        for tag in &report.expired {
            writeln!(out, "{goes}: {tag}")?;
        }
    }
    tell(&report, &rows(&report), &report.problems, args.store.json, out, remarks)?;
    Ok(if report.is_well() { Exit::Well } else { Exit::Failed })
}

fn here(store: StoppedStore, dry_run: bool) -> Result<GcReport, String> {
    let collected =
        store.check_suspects().and_then(|()| store.upkeep().collect(dry_run, &Progress::default()));
    let closed = store.close();
    let report = collected.map_err(|error| error.to_string())?;
    closed.map_err(|error| format!("the store could not be left in good order: {error}"))?;
    Ok(report)
}

fn rows(report: &GcReport) -> Vec<Row> {
    let row = |what, Freed { count, bytes }: Freed| Row { what, count, bytes: Some(bytes) };
    let links = |what, freed: Freed| Row { what, count: freed.count, bytes: None };
    let freed = [report.unreachable_blobs, report.quarantined, report.orphans];
    let total = if report.dry_run { "would be freed" } else { "freed" };
    vec![
        links("hosted tags that their rule keeps no longer", report.expired_tags),
        links("hosted links that no tag leads to", report.unreachable_links),
        row("hosted content without a link", report.unreachable_blobs),
        row("of hosted repositories no more, kept as cached", report.handed_to_cache),
        links("links whose content is gone", report.dangling_links),
        row("in quarantine for more than 7 days", report.quarantined),
        row("files without a name", report.orphans),
        Row {
            what: total,
            count: freed.iter().map(|freed| freed.count).sum(),
            bytes: Some(report.freed_bytes()),
        },
    ]
}

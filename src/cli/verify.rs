//! `ringport verify`: is everything in the store what its name promises?

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::Exit;
use super::args::VerifyArgs;
use super::store_command::{Place, Row, fail, follow, place, tell};
use crate::registry::{Progress, ProgressNow, VerifyReport};
use crate::runtime::clock;
use crate::server::StoppedStore;

/// How often progress is drawn, and written where there is no terminal.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Scrubs the store. Well: everything is right now, whatever cached content had to go for that.
/// Failed: hosted content was lost, or something could not be repaired or looked at.
pub fn run(args: &VerifyArgs, out: &mut impl Write, remarks: &mut impl Write) -> io::Result<Exit> {
    let (place, config) = match place(&args.store) {
        Ok(found) => found,
        Err(why) => return fail(&why, remarks),
    };
    let rate = args.rate.unwrap_or(config.storage.verify_rate);
    let mut drawing = Drawing::new();
    let verified = match place {
        Place::Here(store) => here(*store, rate, |now| drawing.draw(now, remarks)),
        Place::Server(admin) => {
            let start = format!("/verify?rate={rate}B");
            follow(admin, &start, "/verify", |now| drawing.draw(now, remarks))
        }
    };
    drawing.end();
    match verified {
        Ok(report) => {
            tell(&report, &rows(&report), &report.problems, args.store.json, out, remarks)?;
            Ok(if report.is_well() { Exit::Well } else { Exit::Failed })
        }
        Err(why) => fail(&why, remarks),
    }
}

fn here(
    store: StoppedStore,
    rate: u64,
    mut draw: impl FnMut(ProgressNow),
) -> Result<VerifyReport, String> {
    let progress = Progress::default();
    let verified = std::thread::scope(|scope| {
        let work = scope.spawn(|| store.upkeep().verify(rate, &progress));
        while !work.is_finished() {
            draw(progress.now());
            std::thread::sleep(DRAW_INTERVAL);
        }
        work.join()
    });
    draw(progress.now());
    let closed = store.close();
    let report = verified
        .map_err(|_| "verify ran into a bug of ringport".to_owned())?
        .map_err(|error| error.to_string())?;
    closed.map_err(|error| format!("the store could not be left in good order: {error}"))?;
    Ok(report)
}

fn rows(report: &VerifyReport) -> Vec<Row> {
    let row = |what, count| Row { what, count, bytes: None };
    vec![
        Row { what: "verified", count: report.blobs, bytes: Some(report.bytes) },
        row("damaged, cached (fetched again when asked for)", report.damaged),
        row("damaged, hosted (lost)", report.damaged_hosted),
        row("without file, cached (fetched again when asked for)", report.missing),
        row("without file, hosted (lost)", report.missing_hosted),
        Row {
            what: "files without a name (removed)",
            count: report.orphans,
            bytes: Some(report.orphan_bytes),
        },
        row("files that are no content (set aside)", report.foreign),
        row("not repaired", report.unrepaired),
    ]
}

/// A bar on a terminal, a line now and then elsewhere.
struct Drawing {
    bar: Option<ProgressBar>,
    written: Instant,
}

impl Drawing {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let template = "{bar:30} {binary_bytes}/{binary_total_bytes} {msg} \
                            {binary_bytes_per_sec} {eta}";
            // Without a style the bar is only plainer.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, written: clock::now() }
    }

    fn draw(&mut self, now: ProgressNow, remarks: &mut impl Write) {
        let ProgressNow { blobs_total, bytes_total, blobs, bytes } = now;
        let counted = format!("{blobs}/{blobs_total} blobs");
        match &self.bar {
            Some(bar) => {
                bar.set_length(bytes_total);
                bar.set_position(bytes);
                bar.set_message(counted);
            }
            None if self.written.elapsed() >= LINE_INTERVAL => {
                self.written = clock::now();
                let (done, total) = (HumanBytes(bytes), HumanBytes(bytes_total));
                // Whoever reads this has had enough; the work goes on.
                let _ = writeln!(remarks, "ringport: verify: {counted}, {done} of {total}");
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

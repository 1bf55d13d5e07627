//! A clock for the server that the test moves: a library loaded before its own adds the seconds
//! in a file to the time of day. What the server waits for and measures is another clock, and stays.
//!
//! It starts in the past and moves towards the present, so that a file's own time, which the
//! kernel gives, is never older than the server thinks that it is.

use crate::support::process::run;
use crate::support::scratch::Scratch;
use crate::support::secs;
use std::fs::{File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// How far in the past a server begins, in hours; a test never moves it further than this.
const PAST_HOURS: i64 = 24 * 365 * 10;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *seconds;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TEST_CLOCK_FILE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *map = mmap(0, sizeof *seconds, PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) seconds = map;
    close(fd);
}

int clock_gettime(clockid_t which, struct timespec *time) {
    int got = (int)syscall(SYS_clock_gettime, which, time);
    if (got == 0 && seconds && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        time->tv_sec += *seconds;
    return got;
}
"#;

/// The clock of one server.
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
    hours: i64,
}

impl Clock {
    /// Builds the library, with the C compiler of the machine.
    pub fn new(scratch: &Scratch) -> Clock {
        let source = scratch.file("clock.c", SOURCE);
        let library = scratch.path().join("clock.so");
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        run(command, secs(60)).expect_ok();
        let file = scratch.file("clock", [0; 8]);
        let mut clock = Clock { library, file, hours: 0 };
        clock.write();
        clock
    }

    /// The variables of a server that lives by it.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [("LD_PRELOAD", text(&self.library)), ("TEST_CLOCK_FILE", text(&self.file))]
    }

    /// Moves it on. Files below `folder` have been there before, and now look it.
    pub fn advance(&mut self, hours: u64, folder: &Path) {
        let before = SystemTime::now() - Duration::from_secs(-self.offset() as u64);
        for path in crate::support::scratch::files_below(folder) {
            let Ok(file) = File::options().write(true).open(&path) else { continue };
            let changed = file.metadata().and_then(|found| found.modified());
            if changed.is_ok_and(|time| time > before) {
                let _ = file.set_times(FileTimes::new().set_modified(before));
            }
        }
        self.hours += hours as i64;
        assert!(self.hours < PAST_HOURS, "the clock has come to the present");
        self.write();
    }

    fn offset(&self) -> i64 {
        (self.hours - PAST_HOURS) * 3600
    }

    fn write(&mut self) {
        let file = File::options().write(true).open(&self.file).expect("the clock's file");
        file.write_all_at(&self.offset().to_ne_bytes(), 0).expect("the clock is set");
    }
}

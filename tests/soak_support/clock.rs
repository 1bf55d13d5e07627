//! A server's wall clock that the test sets: eviction counts in minutes and days, of which a test
//! has none. The server is started with a small library in front of the C library, which adds to
//! the wall clock what it finds in a file. The monotonic clock, and with it every deadline, stays.

use crate::support::process::run;
use crate::support::scratch::Scratch;
use crate::support::{secs, tell};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;

__attribute__((constructor)) static void map_clock(void) {
    const char *path = getenv("SOAK_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED) ahead = map;
}

int clock_gettime(clockid_t id, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, id, time);
    if (result == 0 && id == CLOCK_REALTIME && ahead) time->tv_sec += *ahead;
    return result;
}
"#;

/// How far the server's clock is ahead of ours.
pub struct Clock {
    library: PathBuf,
    path: PathBuf,
    file: File,
    ahead: Mutex<i64>,
}

impl Clock {
    /// A clock that is right so far; `None`, and a line that says so, where there is no compiler.
    pub fn make(scratch: &Scratch) -> Option<Clock> {
        let source = scratch.file("clock.c", SOURCE);
        let library = scratch.path().join("clock.so");
        let mut command = Command::new("cc");
        command.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        if Command::new("cc").arg("--version").output().is_err() {
            tell("space_soak: no C compiler, so all of it happens within minutes");
            return None;
        }
        run(command, secs(60)).expect_ok();
        let path = scratch.file("clock", 0_i64.to_ne_bytes());
        let file = File::options().write(true).open(&path).expect("the clock's file");
        Some(Clock { library, path, file, ahead: Mutex::new(0) })
    }

    /// The command that starts a server by this clock.
    pub fn wrapper(&self) -> Vec<String> {
        let set = |name: &str, path: &PathBuf| format!("{name}={}", path.display());
        let library = set("LD_PRELOAD", &self.library);
        ["env".to_owned(), set("SOAK_CLOCK", &self.path), library].into()
    }

    /// Puts the clock forward to so many minutes ahead, never back.
    pub fn advance_to(&self, minute: u32) {
        let mut ahead = self.ahead.lock().unwrap();
        if i64::from(minute) * 60 > *ahead {
            *ahead = i64::from(minute) * 60;
            self.file.write_all_at(&ahead.to_ne_bytes(), 0).expect("a clock that can be set");
        }
    }
}

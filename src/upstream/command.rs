//! Running a `credential_command`: one child process, bounded in time and output. Blocks: never on
//! a worker.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use crate::config;

/// How long a command may take.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// Most bytes that it may print.
const STDOUT_BYTES_MAX: usize = 64 * 1024;
/// How much is kept of what it says is wrong.
const STDERR_BYTES_MAX: usize = 2 * 1024;
/// How often it is looked whether it has ended, should its outputs stay open behind it.
const TICK_MS: i64 = 50;

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct CommandFailure {
    pub(super) reason: String,
    /// What it wrote to its standard error: on one line, shortened, without what may be a secret.
    pub(super) stderr: String,
}

/// Runs `argv` with `input` on its standard input; returns what it printed. It inherits the
/// environment, where the clouds' tools find their own configuration, and works in `/`.
pub(super) fn run(
    argv: &[String],
    input: &str,
    limit: Duration,
) -> Result<Zeroizing<Vec<u8>>, CommandFailure> {
    let silent = |reason: String| CommandFailure { reason, stderr: String::new() };
    let (program, arguments) =
        argv.split_first().ok_or_else(|| silent("it is empty".to_owned()))?;
    // Once more: since the start it may have become somebody else's.
    config::check_program(Path::new(program)).map_err(silent)?;
    let deadline = Instant::now() + limit;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it started ends with it.
        .process_group(0)
        .spawn()
        .map_err(|error| silent(format!("it does not start: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Shorter than a pipe's buffer. One that does not read it needs nothing from us.
        let _ = stdin.write_all(input.as_bytes());
    }
    let mut outputs = Outputs::of(&mut child);
    let ended = outputs.read_until(&mut child, deadline);
    if !matches!(ended, Ok(Some(_))) {
        end(&mut child);
    }
    let stderr = shown(&outputs.stderr.bytes);
    let failed = |reason: String| CommandFailure { reason, stderr: stderr.clone() };
    match ended {
        _ if outputs.stdout.is_over => {
            Err(failed(format!("it printed more than {STDOUT_BYTES_MAX} bytes")))
        }
        Ok(Some(status)) if status.success() => Ok(outputs.stdout.bytes),
        Ok(Some(status)) => Err(failed(format!("it ended with {status}"))),
        Ok(None) => Err(failed(format!("it took longer than {limit:?} and was ended"))),
        Err(error) => Err(failed(format!("its output can't be read: {error}"))),
    }
}

/// Ends the child, all that it started in its group, and takes its status, so that its id is free.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // It may have ended by itself meanwhile; then there is nobody to be told.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What a child writes, read side by side: it must not wait for a reader of one while the other is
/// waited for.
struct Outputs {
    stdout: Output,
    stderr: Output,
}

struct Output {
    pipe: Option<File>,
    bytes: Zeroizing<Vec<u8>>,
    max: usize,
    /// Whether there was more than `max`.
    is_over: bool,
}

impl Outputs {
    fn of(child: &mut Child) -> Self {
        let output = |pipe: Option<OwnedFd>, max| Output {
            pipe: pipe.map(File::from),
            bytes: Zeroizing::default(),
            max,
            is_over: false,
        };
        Self {
            stdout: output(child.stdout.take().map(OwnedFd::from), STDOUT_BYTES_MAX),
            stderr: output(child.stderr.take().map(OwnedFd::from), STDERR_BYTES_MAX),
        }
    }

    /// Reads until the child has ended and what it wrote is read; `None` when it takes too long, or
    /// prints too much.
    fn read_until(
        &mut self,
        child: &mut Child,
        deadline: Instant,
    ) -> io::Result<Option<ExitStatus>> {
        loop {
            // Looked at first: what it wrote before its end is in the pipes by then.
            let status = child.try_wait()?;
            let wait = if status.is_some() { 0 } else { TICK_MS };
            let has_more = self.read_what_is_there(wait)?;
            match status {
                // More may be there, but of what it left running, not of the child itself.
                Some(status) if !has_more || Instant::now() >= deadline => return Ok(Some(status)),
                _ if self.stdout.is_over || Instant::now() >= deadline => return Ok(None),
                _ => {}
            }
        }
    }

    /// Waits at most so many milliseconds for output; whether some was read.
    fn read_what_is_there(&mut self, wait_ms: i64) -> io::Result<bool> {
        let mut open: Vec<&mut Output> =
            [&mut self.stdout, &mut self.stderr].into_iter().filter(|o| o.pipe.is_some()).collect();
        let mut polled: Vec<PollFd<'_>> = Vec::with_capacity(open.len());
        for output in &open {
            polled.extend(
                output
                    .pipe
                    .iter()
                    .map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)),
            );
        }
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: wait_ms * 1_000_000 };
        match poll(&mut polled, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(polled);
        let mut has_read = false;
        for (output, _) in open.iter_mut().zip(ready).filter(|(_, is_ready)| *is_ready) {
            has_read |= output.read_once()?;
        }
        Ok(has_read)
    }
}

impl Output {
    /// Reads once from a pipe that has something or is at its end; whether something came.
    fn read_once(&mut self) -> io::Result<bool> {
        let Some(pipe) = &mut self.pipe else { return Ok(false) };
        let mut buffer = Zeroizing::new([0; 4096]);
        let count = pipe.read(&mut buffer[..])?;
        if count == 0 {
            self.pipe = None;
            return Ok(false);
        }
        let room = self.max.saturating_sub(self.bytes.len()).min(count);
        self.is_over |= room < count;
        self.bytes.extend_from_slice(buffer.get(..room).unwrap_or_default());
        Ok(true)
    }
}

/// Text of another program for a log: on one line, and no word in it that may be a secret.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let is_separator = |c: char| c.is_whitespace() || c.is_control() || "\"'`,;()<>{}=".contains(c);
    let words = text.split(is_separator).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.map(|w| if may_be_secret(w) { "[redacted]" } else { w }).collect();
    words.join(" ")
}

/// Tokens are long and have digits; so have paths and addresses, which help.
fn may_be_secret(word: &str) -> bool {
    let is_place = word.starts_with('/') || (word.contains("://") && !word.contains(['@', '?']));
    let has_digit = word.bytes().any(|b| b.is_ascii_digit());
    word.contains('@') || (word.len() >= 20 && has_digit && !is_place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit_ms: u64) -> Result<String, CommandFailure> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        let printed = run(&argv, "registry.test", Duration::from_millis(limit_ms))?;
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }

    #[test]
    fn what_it_prints_comes_back() {
        assert_eq!(sh("cat; echo; pwd", 10_000).expect("well"), "registry.test\n/\n");
        assert_eq!(sh("exec </dev/null; printf x", 10_000).expect("well"), "x");
        // Both outputs at once, more than a pipe holds.
        let both = "head -c 60000 /dev/zero; head -c 300000 /dev/zero >&2; printf end";
        let printed = sh(both, 20_000).expect("well");
        assert!(printed.len() == 60_003 && printed.ends_with("end"));
    }

    #[test]
    fn what_it_leaves_running_is_not_waited_for() {
        let began = Instant::now();
        let printed = sh("sleep 60 & printf done", 60_000).expect("well");
        assert_eq!(printed, "done");
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn one_that_fails_is_told_with_what_it_says() {
        let failure = sh("echo 'no  role\nfor r.test' >&2; exit 3", 10_000).expect_err("failed");
        assert!(failure.reason.contains('3'), "{failure:?}");
        assert_eq!(failure.stderr, "no role for r.test");
        let failure = sh(
            "echo token=eyJhbGciOiJFUzI1NiJ9.e30 a:b@c /etc/x1/abcdefghijklmnopq >&2; false",
            10_000,
        );
        let stderr = failure.expect_err("failed").stderr;
        assert_eq!(stderr, "token [redacted] [redacted] /etc/x1/abcdefghijklmnopq");
        let failure = sh("head -c 70000 /dev/zero", 10_000).expect_err("too much");
        assert!(failure.reason.contains("65536"), "{failure:?}");
        let failure = sh("head -c 70000 /dev/zero >&2; false", 10_000).expect_err("failed");
        assert!(failure.stderr.len() <= STDERR_BYTES_MAX);
    }

    #[test]
    fn one_that_hangs_is_ended_with_all_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        let script =
            format!("sh -c 'echo $$ >{0}.t; mv {0}.t {0}; sleep 60' & wait", file.display());
        let failure = sh(&script, 1500).expect_err("too long");
        assert!(failure.reason.contains("longer than 1.5s"), "{failure:?}");
        let pid = std::fs::read_to_string(&file).expect("it had started");
        let of_it = format!("/proc/{}", pid.trim());
        let ends = Instant::now() + Duration::from_secs(10);
        let is_gone = || {
            // A zombie that nobody has waited for yet has no memory any more.
            std::fs::read_to_string(format!("{of_it}/cmdline")).is_ok_and(|c| c.is_empty())
                || !Path::new(&of_it).exists()
        };
        while !is_gone() {
            assert!(Instant::now() < ends, "{of_it} still runs");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn only_a_program_of_ours_is_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("helper");
        std::fs::write(&path, "#!/bin/sh\necho ran\n").expect("a file");
        let mode = |mode: u32| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
        };
        let argv = [path.to_str().expect("UTF-8").to_owned()];
        for (bits, says) in [(0o600, "chmod"), (0o777, "chmod"), (0o720, "chmod")] {
            mode(bits);
            let failure = run(&argv, "", COMMAND_LIMIT).expect_err("refused");
            assert!(failure.reason.contains(says), "{bits:o}: {failure:?}");
        }
        mode(0o755);
        assert_eq!(&**run(&argv, "", COMMAND_LIMIT).expect("run"), b"ran\n");
    }
}

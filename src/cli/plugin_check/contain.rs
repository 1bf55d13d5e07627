//! Starts the process that runs the checks, hears what it finds, and says who is to blame when it
//! ends too soon or not at all.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use ringport_plugin_conformance::{Event, Finding, PROBES, Probe, Problem, Report};

use super::{PluginCheckArgs, StageArg};

/// A plugin that tells more in one line is not believed.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// How often a silent child is looked at: one that has ended may have left its events open with a
/// process that it started.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// What is kept of standard error: its end.
const LAST_WORDS_BYTES: usize = 2048;
/// Makes malloc overwrite what is freed, so that a use after it is seen; its cache of each thread
/// would be left out.
const OVERWRITE_FREED: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0");
/// By these words malloc's own checks end a process.
const WORDS_OF_MALLOC: [&str; 7] =
    ["free()", "malloc()", "malloc_", "munmap_chunk()", "realloc()", "double free", "corrupted "];

/// How the child's part ended.
enum End {
    /// By itself, after its last probe.
    Done,
    /// Nothing was heard of it for too long.
    Stuck,
    /// In the middle of something.
    Died(ExitStatus),
}

/// Runs one stage of a check in a process of its own and adds what it finds.
pub(super) fn run_child(
    stage: StageArg,
    args: &PluginCheckArgs,
    report: &mut Report,
) -> io::Result<()> {
    let patience = Duration::from_secs(args.patience);
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = spawn(stage, args, theirs)?;
    let last_words = child.stderr.take().map(keep_end);
    ours.set_read_timeout(Some(LOOK_INTERVAL))?;
    let (probe, heard_all) = hear(&mut child, BufReader::new(ours), patience, report);
    let end = end_of(&mut child, patience, heard_all)?;
    // A process that the plugin has started may still hold the pipe; its words are not waited for.
    let words = last_words.and_then(|words| words.recv_timeout(Duration::from_secs(1)).ok());
    if let Some(finding) = blame(probe, &end, &words.unwrap_or_default(), args.patience) {
        report.add(Event::Found(finding));
    }
    Ok(())
}

fn spawn(stage: StageArg, args: &PluginCheckArgs, events: UnixStream) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["plugin", "check", "--calls", &args.calls.to_string()]);
    if let Some(config) = &args.config {
        command.arg("--config").arg(config);
    }
    let name = stage.to_possible_value().map(|value| value.get_name().to_owned());
    command.arg("--stage").arg(name.unwrap_or_default()).arg("--").arg(&args.file);
    if stage == StageArg::Contract {
        command.env(OVERWRITE_FREED.0, OVERWRITE_FREED.1);
    }
    command.stdin(OwnedFd::from(events)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
}

/// Takes in the child's events. Gives the probe that it was in when no more came, and whether
/// that was because it had ended or closed its side; else it was silent for too long, and is killed.
fn hear(
    child: &mut Child,
    mut events: BufReader<UnixStream>,
    patience: Duration,
    report: &mut Report,
) -> (Option<&'static Probe>, bool) {
    let (mut probe, mut line) = (None, Vec::new());
    let (mut heard, mut has_ended) = (Instant::now(), false);
    loop {
        let room = LINE_BYTES_MAX.saturating_sub(line.len() as u64);
        match (&mut events).take(room).read_until(b'\n', &mut line) {
            Ok(0) => return (probe, true),
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => continue,
                io::ErrorKind::ConnectionReset => return (probe, true),
                // Nothing has come for a moment, so what came before its end has been read.
                io::ErrorKind::WouldBlock if has_ended => return (probe, true),
                io::ErrorKind::WouldBlock if heard.elapsed() < patience => {
                    has_ended = child.try_wait().is_ok_and(|status| status.is_some());
                    continue;
                }
                _ => {
                    let _ = child.kill();
                    return (probe, false);
                }
            },
        }
        heard = Instant::now();
        if let Ok(event) = serde_json::from_slice::<Event>(&line) {
            match &event {
                Event::Began(name) => probe = PROBES.iter().find(|probe| probe.name == name),
                Event::Ended(_) => probe = None,
                _ => {}
            }
            report.add(event);
        }
        line.clear();
    }
}

/// Waits for the child, which has closed its events or was killed.
fn end_of(child: &mut Child, patience: Duration, heard_all: bool) -> io::Result<End> {
    let deadline = Instant::now() + patience;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill()?;
                child.wait()?;
                return Ok(End::Stuck);
            }
        }
    };
    Ok(match heard_all {
        false => End::Stuck,
        true if status.success() || status.code() == Some(1) => End::Done,
        true => End::Died(status),
    })
}

/// Reads all there is and gives the end of it, when the last writer has closed.
fn keep_end(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
            let surplus = kept.len().saturating_sub(LAST_WORDS_BYTES);
            kept.drain(..surplus);
        }
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    });
    receiver
}

/// Which rule a plugin broke that stopped the check, if it did.
fn blame(probe: Option<&Probe>, end: &End, words: &str, patience: u64) -> Option<Finding> {
    let place = probe.map_or("between two probes", |probe| probe.name);
    let (rule, expected, found, remedy) = match end {
        // A plugin that calls exit ends the process well, and not its probe.
        End::Done if probe.is_none() => return None,
        End::Done => (16, "hooks that return", "the process was ended".to_owned(), NO_EXIT),
        End::Stuck => {
            let rule = probe.map_or(13, |probe| probe.stuck);
            let found = format!("no end within {patience} s");
            (rule, "hooks that return", found, NO_WAITING)
        }
        End::Died(status) => match status.signal() {
            None => {
                let code = status.code().unwrap_or_default();
                let found = format!("the process was ended with status {code}");
                (16, "hooks that return", found, NO_EXIT)
            }
            Some(signal) => {
                let is_abort = signal == rustix::process::Signal::ABORT.as_raw();
                let of_malloc = WORDS_OF_MALLOC.iter().any(|word| words.contains(word));
                let of_stack = words.contains("stack smashing");
                let rule = match (is_abort && !of_stack, probe) {
                    (true, _) if !of_malloc => 16,
                    (true, _) | (_, None) => 10,
                    (_, Some(probe)) => probe.crash,
                };
                let remedy = if rule == 16 { NO_UNWINDING } else { NO_WILD_POINTERS };
                (rule, "a plugin that does not crash", signal_name(signal), remedy)
            }
        },
    };
    let last_line = words.lines().rev().find(|line| !line.trim().is_empty());
    let last_line = last_line.map(|line| format!(", with the words {:?}", line.trim()));
    let found = format!("{found} in rule {rule}, \"{place}\"{}", last_line.unwrap_or_default());
    Some(Problem::new(expected, found, remedy).breaks(rule))
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        _ => "",
    };
    format!("ended by signal {signal}{name}")
}

const NO_EXIT: &str = "return a status; the process is the host's to end";
const NO_WAITING: &str = "hooks must not block, sleep or loop; what is slow belongs into refresh";
const NO_UNWINDING: &str =
    "catch every exception and panic in the hook and return RINGPORT_INTERNAL; never abort";
const NO_WILD_POINTERS: &str = "free only what is yours, once; read only `len` bytes of what is \
                                borrowed, and only during the call; a debugger shows the place";

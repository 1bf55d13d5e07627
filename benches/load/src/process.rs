//! Processes that end with us, whatever becomes of us: by their drop, by a panic's unwinding, and
//! when we are killed by the signal that the kernel sends to orphans. What they have started
//! themselves is of their group, and ends with their drop.
//!
//! Between this program and the server stands, for an instant, this program again (`exec`): it
//! pins itself, asks for that signal, and becomes the server.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{PidfdFlags, Signal};

use crate::machine;

/// How long a server may take to end before it is killed.
const END_MAX: Duration = Duration::from_secs(10);

/// A server's process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Can be read when it has ended.
    end: OwnedFd,
}

impl Process {
    /// Starts a program on these cores; what it prints goes to the file.
    ///
    /// # Errors
    /// What could not be opened or started.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        cores: &[usize],
        log: &Path,
        environment: &[(&str, String)],
    ) -> Result<Process, String> {
        let own = std::env::current_exe().map_err(|e| format!("own program: {e}"))?;
        let failed = |e: std::io::Error| format!("{}: {e}", log.display());
        let out = File::options().create(true).append(true).open(log).map_err(failed)?;
        let err = out.try_clone().map_err(failed)?;
        let cores = cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let mut child = Command::new(own)
            .args(["exec", "--cores", &cores, "--parent", &std::process::id().to_string(), "--"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|e| format!("{}: {e}", program.display()))?;
        match open(&child) {
            Ok(end) => Ok(Process { child, end }),
            Err(error) => {
                // Who cannot be watched is not let loose.
                let _ = child.kill().and_then(|()| child.wait());
                Err(format!("{}: watching its process: {error}", program.display()))
            }
        }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ends within so long, or has ended.
    pub(crate) fn ends_within(&self, longest: Duration) -> bool {
        let longest = Timespec::try_from(longest).ok();
        let mut end = [PollFd::new(&self.end, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut end, longest.as_ref())).is_ok_and(|ended| ended > 0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = machine::pid(self.child.id()) {
            // Who is gone needs no signal.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
            self.ends_within(END_MAX);
            // It did not end, or left others behind. Until it is waited for the number is its own.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn open(child: &Child) -> std::io::Result<OwnedFd> {
    let pid = machine::pid(child.id()).ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Becomes the program: what `exec` of the command line does. Returns only what went wrong.
pub(crate) fn become_server(cores: &[usize], parent: u32, program: &[String]) -> String {
    if let Err(error) = machine::pin(cores) {
        return error;
    }
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        return format!("asking for a signal at the parent's end: {error}");
    }
    let is_orphan = rustix::process::getppid() != machine::pid(parent);
    if is_orphan {
        return "the run is over".to_owned();
    }
    let Some((name, arguments)) = program.split_first() else { return "no program".to_owned() };
    let error = Command::new(name).args(arguments).exec();
    format!("{name}: {error}")
}

/// A program by its name, on the `PATH` or where daemons are.
pub(crate) fn find(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(daemons);
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}

/// The first line that a program prints of itself.
pub(crate) fn version(program: &Path, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

//! A network of the run's own: a namespace with nothing in it but loopback.
//!
//! What an administrator has set for the whole machine reaches into loopback: BBR's pacing timers
//! alone took nginx two thirds of its throughput in a virtual machine, and packet filters have
//! their rules. In a namespace of its own a run is the same on every machine. It takes root,
//! `unshare` and `ip`; without them the machine's own loopback is used, and the record says so.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::process;

const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// The word by which this program knows that it runs inside.
const INSIDE: &str = "RINGPORT_BENCH_INSIDE";

/// Which network a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    /// A namespace with nothing but loopback.
    Own,
    /// The machine's loopback, with the machine's settings.
    Host,
}

/// Becomes this program again inside a namespace, unless it is inside already. Comes back only
/// when it is inside, or when it cannot: then with the reason.
///
/// # Errors
/// Why there can be no namespace.
pub(crate) fn enter() -> Result<(), String> {
    if is_inside() {
        return prepare();
    }
    if !rustix::process::geteuid().is_root() {
        return Err("a network namespace takes root".to_owned());
    }
    let find = |name: &str| process::find(name).ok_or_else(|| format!("no {name} on the PATH"));
    let (unshare, _) = (find("unshare")?, find("ip")?);
    let own = std::env::current_exe().map_err(|e| format!("own program: {e}"))?;
    let probe = Command::new(&unshare).args(["--net", "true"]).output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        return Err("the kernel refuses a network namespace".to_owned());
    }
    let error = Command::new(unshare)
        .args(["--net", "--"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(format!("unshare: {error}"))
}

/// Whether this program runs in a namespace of its own.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// What the record says of the network.
pub(crate) fn describe() -> String {
    let place = if is_inside() { "a namespace of its own" } else { "the machine's loopback" };
    let congestion = std::fs::read_to_string(CONGESTION).unwrap_or_default();
    format!("{place}, {}", congestion.trim())
}

fn prepare() -> Result<(), String> {
    let ip = process::find("ip").ok_or("no ip on the PATH")?;
    let up = Command::new(ip).args(["link", "set", "lo", "up"]).output();
    if !up.as_ref().is_ok_and(|output| output.status.success()) {
        return Err(format!("ip link set lo up: {up:?}: --network host does without it"));
    }
    // CUBIC is what nearly all machines have; a namespace may be refused it where the machine
    // itself does not use it. Either keeps time by acknowledgements instead of timers. Where neither
    // can be had, `describe` says what there is.
    let set = |name: &str| std::fs::write(CONGESTION, name);
    let _ = set("cubic").or_else(|_| set("reno"));
    Ok(())
}

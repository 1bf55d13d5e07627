//! Small file systems of a test's own: a tmpfs that can be full and grow, and an ext4 in a file
//! whose power can be cut. Mounting needs root; a machine that refuses makes the test skip, in
//! so many words.

use super::process::{Ran, run};
use super::scratch::Scratch;
use super::{ms, secs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The ioctl number of EXT4_IOC_SHUTDOWN, `_IOR('X', 125, __u32)`; XFS has the same.
const SHUTDOWN: u32 = 0x8004_587d;
/// EXT4_GOING_FLAGS_NOLOGFLUSH: what the journal has not written yet is lost, too.
const NO_LOG_FLUSH: u32 = 2;

fn program(name: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(name);
    // Daemons' and mounts' tools are in sbin, which users may not have on their PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(arguments).env("PATH", format!("{path}:/usr/sbin:/sbin"));
    run(command, secs(60))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a folder of the tests")
}

/// Whether this machine lets us mount; tells what is missing when it does not.
pub fn may_mount(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        super::tell(&format!("{test}: SKIPPED, mounting needs root"));
        return false;
    }
    true
}

/// A file system in memory, mounted on a folder of its own.
pub struct Tmpfs {
    path: PathBuf,
    // After the mount in the order of drops: an emptied folder.
    _scratch: Scratch,
}

impl Tmpfs {
    /// Mounts one with these options, such as `size=64m`; `None`, and a line that says so, where
    /// that is not allowed.
    pub fn mount(test: &str, options: &str) -> Option<Tmpfs> {
        if !may_mount(test) {
            return None;
        }
        let scratch = Scratch::new("tmpfs");
        let path = scratch.dir("mount");
        let options = format!("mode=0700,{options}");
        let ran = program("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", text(&path)]);
        if !ran.ok() {
            super::tell(&format!("{test}: SKIPPED, no tmpfs: {}", ran.stderr.trim()));
            return None;
        }
        Some(Tmpfs { path, _scratch: scratch })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes its options, with all that is in it.
    pub fn remount(&self, options: &str) {
        program("mount", &["-o", &format!("remount,{options}"), text(&self.path)]).expect_ok();
    }

    /// Bytes that may still be written.
    pub fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.path).expect("the state of a tmpfs");
        found.f_bavail * found.f_frsize
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(&self.path);
    }
}

/// Unmounts, lazily when somebody is still in there: nothing must hold up the end of a test.
fn unmount(path: &Path) {
    if !program("umount", &[text(path)]).ok() {
        let _ = program("umount", &["--lazy", text(path)]);
    }
}

/// An ext4 in a file, behind a loop device, whose power can be cut.
pub struct CutDisk {
    image: PathBuf,
    path: PathBuf,
    device: Option<String>,
    scratch: Scratch,
}

impl CutDisk {
    /// Makes and mounts one of `mebibytes`; `None`, and a line that says why, where that is not
    /// possible.
    pub fn mount(test: &str, mebibytes: u64) -> Option<CutDisk> {
        if !may_mount(test) {
            return None;
        }
        let scratch = Scratch::new("disk");
        let image = scratch.path().join("image");
        let path = scratch.dir("mount");
        let mut disk = CutDisk { image, path, device: None, scratch };
        let made = disk.format(mebibytes).and_then(|()| disk.attach()).and_then(|()| {
            // Only a power cut that works shows anything.
            disk.try_cut()?;
            if disk.detach() { disk.attach() } else { Err("a busy loop device".to_owned()) }
        });
        match made {
            Ok(()) => Some(disk),
            Err(reason) => {
                super::tell(&format!("{test}: SKIPPED, no power to cut: {}", reason.trim()));
                None
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How much of it is in use, in percent.
    pub fn used_percent(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.path).expect("the state of an ext4");
        100 - 100 * found.f_bavail / found.f_blocks.max(1)
    }

    /// Makes everything written so far durable, as the kernel does by itself from time to time.
    pub fn sync(&self) {
        if let Ok(folder) = std::fs::File::open(&self.path) {
            let _ = rustix::fs::syncfs(folder);
        }
    }

    /// Cuts the power: what has not been synced is gone, and every further write fails.
    pub fn cut(&self) {
        self.try_cut().unwrap_or_else(|reason| panic!("the power can not be cut: {reason}"));
    }

    /// Power is back: everything that ran on it must have ended. Recovers by the journal.
    pub fn power_on(&mut self) {
        assert!(self.detach(), "the loop device is still in use after 30 s");
        self.attach().unwrap_or_else(|reason| panic!("no mount after a power cut: {reason}"));
    }

    /// A wrapper for commands (as of `Setup::run_by`) that gives them another boot id, as a
    /// machine has after its power was cut. Bound over /proc in a mount namespace of the
    /// process's own.
    pub fn next_boot(&self, number: u64) -> Vec<String> {
        let id = format!("{:08x}-0000-4000-8000-{number:012x}\n", std::process::id());
        let id = self.scratch.file("boot_id", id);
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
        words.iter().map(|&word| word.to_owned()).chain([text(&id).to_owned()]).collect()
    }

    fn format(&self, mebibytes: u64) -> Result<(), String> {
        let file = std::fs::File::create(&self.image).map_err(|e| e.to_string())?;
        file.set_len(mebibytes << 20).map_err(|e| e.to_string())?;
        worked(&program("mkfs.ext4", &["-q", "-F", text(&self.image)]))
    }

    fn attach(&mut self) -> Result<(), String> {
        let ran = program("losetup", &["--find", "--show", text(&self.image)]);
        worked(&ran)?;
        let device = ran.stdout.trim().to_owned();
        self.device = Some(device.clone());
        worked(&program("mount", &["-t", "ext4", &device, text(&self.path)]))
    }

    /// Unmounts and frees the device; `false` when somebody keeps it busy. Panics never: it is
    /// part of the drop.
    fn detach(&mut self) -> bool {
        let Some(device) = self.device.take() else { return true };
        unmount(&self.path);
        let _ = program("losetup", &["--detach", &device]);
        let name = device.rsplit('/').next().unwrap_or_default();
        let backing = PathBuf::from(format!("/sys/block/{name}/loop/backing_file"));
        // The device goes when its last user has; until then two would write into one image.
        // Another test may have taken the freed device for an image of its own.
        let is_ours = || {
            let held = std::fs::read_to_string(&backing).unwrap_or_default();
            held.trim() == text(&self.image)
        };
        let started = Instant::now();
        while is_ours() && started.elapsed() < secs(30) {
            std::thread::sleep(ms(5));
        }
        !is_ours()
    }

    fn try_cut(&self) -> Result<(), String> {
        // std and rustix have no safe call for it; perl is on every Debian.
        let script = "open(my $f, '<', $ARGV[0]) or die \"open: $!\\n\"; \
                      my $flags = pack('L', $ARGV[2]); \
                      ioctl($f, $ARGV[1], $flags) or die \"ioctl: $!\\n\";";
        let (ioctl, flags) = (SHUTDOWN.to_string(), NO_LOG_FLUSH.to_string());
        worked(&program("perl", &["-e", script, text(&self.path), &ioctl, &flags]))
    }
}

impl Drop for CutDisk {
    fn drop(&mut self) {
        let _ = self.detach();
    }
}

fn worked(ran: &Ran) -> Result<(), String> {
    if ran.ok() { Ok(()) } else { Err(ran.stderr.clone()) }
}

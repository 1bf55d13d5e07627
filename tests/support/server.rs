//! Ringport itself: a config written, the binary started, asked, drained, started again.

use super::http;
use super::process::{Process, Signal};
use super::scratch::{Scratch, files_below};
use super::{ms, ports, secs, wait_until};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// How long a start may take; a debug build on two busy cores needs some.
const START_BOUND: Duration = secs(30);

/// One `[[upstream]]` of the config.
#[derive(Clone)]
pub struct Upstream {
    lines: Vec<String>,
}

impl Upstream {
    /// A namespace with one endpoint URL; loopback addresses are allowed.
    pub fn new(namespace: &str, endpoint: &str) -> Upstream {
        let lines =
            vec![format!("namespace = \"{namespace}\""), format!("endpoints = [\"{endpoint}\"]")];
        Upstream { lines }.set("allow_private = [\"127.0.0.0/8\"]")
    }

    /// One more key; the same key set before is replaced.
    pub fn set(mut self, line: &str) -> Upstream {
        let key = |l: &str| l.split('=').next().unwrap_or_default().trim().to_owned();
        self.lines.retain(|old| key(old) != key(line));
        self.lines.push(line.to_owned());
        self
    }
}

/// What a server is started with.
pub struct Setup {
    scratch: Scratch,
    upstreams: Vec<Upstream>,
    server: Vec<String>,
    routing: Vec<String>,
    storage: Vec<String>,
    more: Vec<String>,
    root: Option<PathBuf>,
    addr: Option<SocketAddr>,
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
    tls: bool,
    access_log: bool,
}

impl Setup {
    /// Nothing declared yet; `what` names the scratch folder.
    pub fn new(what: &str) -> Setup {
        Setup {
            scratch: Scratch::new(what),
            upstreams: Vec::new(),
            server: Vec::new(),
            routing: Vec::new(),
            storage: Vec::new(),
            more: Vec::new(),
            root: None,
            addr: None,
            wrapper: Vec::new(),
            environment: Vec::new(),
            tls: false,
            access_log: true,
        }
    }

    /// The folder that goes with the server, for password files and the like.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Declares an upstream.
    pub fn upstream(mut self, upstream: Upstream) -> Setup {
        self.upstreams.push(upstream);
        self
    }

    /// A line of `[server]`.
    pub fn server(mut self, line: &str) -> Setup {
        self.server.push(line.to_owned());
        self
    }

    /// A line of `[routing]`.
    pub fn routing(mut self, line: &str) -> Setup {
        self.routing.push(line.to_owned());
        self
    }

    /// A line of `[storage]`.
    pub fn storage(mut self, line: &str) -> Setup {
        self.storage.push(line.to_owned());
        self
    }

    /// Whole sections that stand last, such as `[[plugin]]`.
    pub fn more(mut self, sections: &str) -> Setup {
        self.more.push(sections.to_owned());
        self
    }

    /// The registry speaks TLS only, with these files.
    pub fn by_tls(mut self, certificate: &Path, key: &Path) -> Setup {
        self.tls = true;
        self.server(&format!("tls_certificate = {certificate:?}\ntls_key = {key:?}"))
    }

    /// No access log: what is measured is not to be measured with it.
    pub fn without_access_log(mut self) -> Setup {
        self.access_log = false;
        self
    }

    /// The store lies there and not in the scratch folder.
    pub fn root(mut self, root: &Path) -> Setup {
        self.root = Some(root.to_path_buf());
        self
    }

    /// The registry listens there and not on a port of its choice.
    pub fn at(mut self, addr: SocketAddr) -> Setup {
        self.addr = Some(addr);
        self
    }

    /// The server is started by this command, which must end as `exec` of what follows it.
    pub fn run_by(mut self, command: &[String]) -> Setup {
        self.wrapper = command.to_vec();
        self
    }

    /// A variable of its environment, which otherwise is the test's without any proxy.
    pub fn environment(mut self, name: &str, value: &str) -> Setup {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until `/readyz` is 200.
    pub fn start(self) -> Server {
        let mut server = self.prepare();
        server.start_again();
        server
    }

    /// Writes the configuration and starts nothing yet.
    pub fn prepare(self) -> Server {
        let addr = self.addr.unwrap_or_else(ports::free);
        let admin = ports::free();
        let root = self.root.clone().unwrap_or_else(|| self.scratch.path().join("store"));
        let config = self.scratch.file("ringport.toml", self.text(addr, admin, &root));
        let log = self.scratch.path().join("ringport.log");
        let Setup { scratch, wrapper, environment, .. } = self;
        Server { addr, admin, root, config, log, wrapper, environment, process: None, scratch }
    }

    fn text(&self, addr: SocketAddr, admin: SocketAddr, root: &Path) -> String {
        let listen = if self.tls { "listen = []\ntls_listen" } else { "listen" };
        let mut text = format!("[server]\n{listen} = [\"{addr}\"]\nadmin = \"{admin}\"\n");
        if let Ok(driver) = std::env::var("RINGPORT_TEST_DRIVER")
            && !self.server.iter().any(|line| line.starts_with("driver"))
        {
            text.push_str(&format!("driver = \"{driver}\"\n"));
        }
        let section = |text: &mut String, lines: &[String]| {
            for line in lines {
                text.push_str(line);
                text.push('\n');
            }
        };
        section(&mut text, &self.server);
        text.push_str(&format!("[storage]\nroot = \"{}\"\n", root.display()));
        section(&mut text, &self.storage);
        text.push_str("[routing]\n");
        section(&mut text, &self.routing);
        let access = if self.access_log { "stdout" } else { "off" };
        text.push_str(&format!("[log]\nlevel = \"info\"\naccess = \"{access}\"\n"));
        for upstream in &self.upstreams {
            text.push_str("[[upstream]]\n");
            section(&mut text, &upstream.lines);
        }
        section(&mut text, &self.more);
        text
    }
}

/// A running Ringport.
pub struct Server {
    /// The registry.
    pub addr: SocketAddr,
    /// Health, metrics and explanations.
    pub admin: SocketAddr,
    root: PathBuf,
    config: PathBuf,
    log: PathBuf,
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
    // Before `scratch`: the process ends before its files go.
    process: Option<Process>,
    scratch: Scratch,
}

impl Server {
    /// The folder that goes with it.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The configuration file.
    pub fn config(&self) -> &PathBuf {
        &self.config
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running server").pid()
    }

    /// `http://<address>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// GET of the registry, over a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> http::Answer {
        http::get(self.addr, target)
    }

    /// HEAD of the registry, over a connection of its own.
    #[track_caller]
    pub fn head(&self, target: &str) -> http::Answer {
        http::head(self.addr, target)
    }

    /// A connection to the registry.
    #[track_caller]
    pub fn connect(&self) -> http::Connection {
        http::Connection::open(self.addr)
    }

    /// Ends it by SIGTERM and waits for the exit; `None` when it is not gone after `bound`.
    pub fn terminate(&mut self, bound: Duration) -> Option<ExitStatus> {
        let mut process = self.process.take()?;
        process.signal(Signal::TERM);
        let status = process.wait_for_exit(bound);
        if status.is_none() {
            self.process = Some(process);
        } else {
            self.await_refusal();
        }
        status
    }

    /// Waits until its ports refuse. The kernel takes a ring apart after the process is gone, and
    /// until then the old listeners still take connections, only to reset them.
    fn await_refusal(&self) {
        for addr in [self.addr, self.admin] {
            wait_until("the ports of an ended server to refuse", secs(10), || {
                std::net::TcpStream::connect_timeout(&addr, ms(500)).is_err()
            });
        }
    }

    /// Sends SIGTERM and comes back at once.
    pub fn ask_to_end(&self) {
        self.process.as_ref().expect("a running server").signal(Signal::TERM);
    }

    /// The exit status, if it ends within `bound`.
    pub fn wait_for_exit(&mut self, bound: Duration) -> Option<ExitStatus> {
        self.process.as_mut()?.wait_for_exit(bound)
    }

    /// Kills it without notice.
    pub fn kill(&mut self) {
        self.process = None;
        self.await_refusal();
    }

    /// Ends it in order and starts it on the same store and ports.
    pub fn restart(&mut self) {
        let status = self.terminate(secs(40)).expect("an exit within 40 s of SIGTERM");
        assert!(status.success(), "SIGTERM: {status}\n{}", self.log_text());
        self.start_again();
    }

    /// Starts it (again) on its store and ports.
    pub fn start_again(&mut self) {
        self.launch();
        if let Err(status) = self.await_ready() {
            panic!("ringport ended at its start ({status}):\n{}", self.log_text());
        }
    }

    /// Starts it and comes back at once.
    pub fn launch(&mut self) {
        let binary = env!("CARGO_BIN_EXE_ringport").to_owned();
        let words: Vec<&String> = self.wrapper.iter().chain([&binary]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("serve").arg("--config").arg(&self.config);
        command.env("RUST_BACKTRACE", "1");
        for proxy in ["http_proxy", "https_proxy", "no_proxy"] {
            command.env_remove(proxy).env_remove(proxy.to_ascii_uppercase());
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::spawn(command, "ringport", &self.log));
    }

    /// Waits until `/readyz` of the launched process is 200; its exit status when it ends instead.
    pub fn await_ready(&mut self) -> Result<(), ExitStatus> {
        self.await_200("/readyz")
    }

    /// The same for `/healthz`: it serves, though perhaps not everything.
    pub fn await_healthy(&mut self) -> Result<(), ExitStatus> {
        self.await_200("/healthz")
    }

    fn await_200(&mut self, path: &str) -> Result<(), ExitStatus> {
        let admin = self.admin;
        let process = self.process.as_mut().expect("a launched server");
        let mut ended = None;
        wait_until(&format!("ringport's {path}"), START_BOUND, || {
            ended = process.wait_for_exit(Duration::ZERO);
            ended.is_some() || http::try_get(admin, path).is_ok_and(|answer| answer.status() == 200)
        });
        ended.map_or(Ok(()), Err)
    }

    /// All that it wrote to its outputs.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether the process lives and answers.
    pub fn assert_alive(&mut self) {
        let running = self.process.as_mut().is_some_and(Process::is_running);
        assert!(running, "ringport ended:\n{}", self.log_text());
        assert_eq!(http::get(self.admin, "/healthz").status(), 200);
    }

    /// Memory that is its own alone (RssAnon), now.
    pub fn rss_bytes(&self) -> u64 {
        self.status_kib("RssAnon:") * 1024
    }

    /// The most memory it ever had resident (VmHWM), file pages included.
    pub fn rss_peak_bytes(&self) -> u64 {
        self.status_kib("VmHWM:") * 1024
    }

    /// Makes `rss_peak_bytes` start again from now.
    pub fn forget_rss_peak(&self) {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5");
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    fn status_kib(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the status of a running server");
        let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
    }

    /// The exposition text of `/metrics`.
    pub fn metrics(&self) -> String {
        let answer = http::get(self.admin, "/metrics");
        assert_eq!(answer.status(), 200, "/metrics: {}", answer.text());
        answer.text()
    }

    /// The sum over all series of a metric whose labels contain every one of `labels`, each
    /// written as in the exposition: `key="value"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics();
        let of_name = text.lines().filter_map(|line| line.strip_prefix(name));
        of_name
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter(|rest| labels.iter().all(|label| rest.contains(label)))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Where stored content of a digest lies.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').expect("a digest");
        self.root.join("blobs").join(algorithm).join(&hex[..2]).join(hex)
    }

    /// Whether content of this digest is in the store.
    pub fn has_blob(&self, digest: &str) -> bool {
        self.blob_path(digest).exists()
    }

    /// Every file of stored content.
    pub fn blobs(&self) -> Vec<PathBuf> {
        files_below(&self.root.join("blobs"))
    }

    /// Files in staging.
    pub fn staged(&self) -> Vec<PathBuf> {
        files_below(&self.root.join("staging"))
    }

    /// Waits until staging is empty: what failed was cleaned up, what was right was moved.
    #[track_caller]
    pub fn await_empty_staging(&self, bound: Duration) {
        assert!(self.root.join("staging").is_dir(), "the store has a staging folder");
        wait_until("an empty staging folder", bound, || self.staged().is_empty());
    }

    /// Waits until content of this digest is stored.
    #[track_caller]
    pub fn await_blob(&self, digest: &str) {
        wait_until("content in the store", secs(20), || self.has_blob(digest));
    }

    /// Every stored file hashes to its name: nothing bad was committed. One that is evicted while
    /// this looks around is not stored any more.
    #[track_caller]
    pub fn assert_store_is_right(&self) {
        for path in self.blobs() {
            let bytes = match std::fs::read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                read => read.expect("a stored file"),
            };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let digest = match name.len() {
                128 => super::images::sha512(&bytes),
                _ => super::images::sha256(&bytes),
            };
            assert!(digest.ends_with(&format!(":{name}")), "{} is {digest}", path.display());
        }
    }
}

//! TLS to clients: real clients with a private authority, versions and ALPN, plain HTTP on the port
//! for TLS, certificates that change under running connections, client certificates with what is
//! wrong with them, handshakes that never end, bodies that are cut.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;
use support::clients::{Containerd, ContainersImage, curl};
use support::images;
use support::lying::{Answer, End, LyingUpstream};
use support::origin::Origin;
use support::rig::{NS, REPOSITORY, declared};
use support::scratch::Scratch;
use support::server::{Server, Setup, Upstream};
use support::tls::{Authority, Client, Ended, Kind, Pair, Refused, self_signed};
use support::{http, ms, ports, secs, wait_until};
use tokio_rustls::rustls::AlertDescription as Alert;
use tokio_rustls::rustls::version::{TLS12, TLS13};

/// A server with an address for TLS beside the plain one.
struct Secured {
    server: Server,
    tls: SocketAddr,
    authority: Authority,
    shown: Pair,
}

impl Secured {
    fn start(setup: Setup) -> Secured {
        let (tls, authority) = (ports::free(), Authority::new("The Tests' Own CA"));
        let shown = authority.server();
        let (certificate, key) = shown.write(setup.scratch(), "server");
        setup.scratch().file("ca.crt", &authority.pem);
        let server = setup
            .server(&format!("tls_listen = [\"{tls}\"]"))
            .server(&format!("tls_certificate = {certificate:?}\ntls_key = {key:?}"))
            .start();
        Secured { server, tls, authority, shown }
    }

    fn url(&self) -> String {
        format!("https://{}", self.tls)
    }

    fn ca(&self) -> String {
        self.server.scratch().path().join("ca.crt").display().to_string()
    }

    fn client(&self) -> Client {
        Client::new(&self.authority)
    }

    /// Writes another pair over the one in use.
    fn exchange(&mut self) {
        self.shown = self.authority.server();
        self.shown.write(self.server.scratch(), "server");
    }

    fn handshakes(&self, result: &str) -> f64 {
        let label = format!("result=\"{result}\"");
        self.server.metric("ringport_tls_handshakes_total", &[&label])
    }

    /// They are counted when the client has its alert already.
    #[track_caller]
    fn await_handshakes(&self, result: &str, count: f64) {
        wait_until(&format!("{count} {result}"), secs(10), || self.handshakes(result) == count);
    }

    fn reload(&self) -> http::Answer {
        http::send_body(self.server.admin, "POST", "/reload", "text/plain", b"")
    }
}

/// A lying upstream with one blob behind a server with TLS.
struct Behind {
    upstream: LyingUpstream,
    secured: Secured,
    bytes: Vec<u8>,
    path: String,
    target: String,
}

impl Behind {
    fn start(what: &str, size: usize, server: &[&str]) -> Behind {
        Behind::with(Setup::new(what), size, server)
    }

    fn with(setup: Setup, size: usize, server: &[&str]) -> Behind {
        let upstream = LyingUpstream::start();
        let setup = server.iter().fold(setup, |setup, line| setup.server(line));
        let secured = Secured::start(setup.upstream(declared(&upstream)));
        let bytes = images::random_bytes("behind", size);
        let digest = upstream.add_blob(REPOSITORY, &bytes);
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        let target = format!("{path}?ns={NS}");
        Behind { upstream, secured, bytes, path, target }
    }

    /// Asks for the blob by TLS, and it is right.
    #[track_caller]
    fn expect_right(&self, client: &Client) {
        let reply = client.ask(self.secured.tls, &self.target).expect("a session and an answer");
        assert_eq!((reply.status, &reply.ending), (200, &Ended::Whole), "{}", reply.head);
        assert!(reply.body == self.bytes, "wrong bytes");
    }
}

// ---- versions, protocols, clients -------------------------------------------------------------

#[test]
fn tls_1_2_and_1_3_carry_blobs_cold_and_warm_on_both_drivers() {
    for driver in ["io_uring", "epoll"] {
        let driver = format!("driver = \"{driver}\"");
        let behind = Behind::start("tls-versions", 20 << 20, &[&driver]);
        let Behind { secured, .. } = &behind;
        for version in [&TLS12, &TLS13] {
            let client = Client::with(&secured.authority, &["http/1.1"], &[version], None);
            behind.expect_right(&client);
            behind.expect_right(&client);
            let mut connection = client.connect(secured.tls).unwrap();
            let range = connection.send(&behind.target, "Range: bytes=70000-9000000\r\n");
            let part = range.and_then(|()| connection.reply()).unwrap();
            assert_eq!((part.status, part.ending), (206, Ended::Whole), "{}", part.head);
            assert!(part.body == behind.bytes[70_000..=9_000_000], "wrong bytes of a range");
            // The same connection goes on: a miss, an error, and the end that is said.
            let missing = connection.get("/v2/org/none/manifests/latest?ns=lying.example").unwrap();
            assert_eq!((missing.status, missing.ending), (404, Ended::Whole), "{}", missing.head);
            connection.send("/v2/", "Connection: close\r\n").unwrap();
            assert_eq!(connection.reply().unwrap().status, 200);
            assert_eq!(connection.ending(), Ended::Closed, "close_notify when all was said");
        }
        assert_eq!(behind.upstream.count("GET", &behind.path), 1, "one download");
        // Whoever speaks plain gets the same from the same store.
        assert!(secured.server.get(&behind.target).body == behind.bytes);
        assert!(secured.handshakes("full") >= 2.0);
        assert!(secured.handshakes("resumed") >= 2.0, "tickets are taken");
    }
}

#[test]
fn only_http_1_1_is_chosen_and_h2_alone_is_refused() {
    let behind = Behind::start("tls-alpn", 1000, &[]);
    let secured = &behind.secured;
    let offers: [(&[&str], bool); 4] =
        [(&["http/1.1"], true), (&["h2", "http/1.1"], true), (&[], true), (&["h2"], false)];
    for version in [&TLS12, &TLS13] {
        for (offer, is_served) in offers {
            let client = Client::with(&secured.authority, offer, &[version], None);
            match client.ask(secured.tls, &behind.target) {
                Ok(reply) => assert!(is_served && reply.body == behind.bytes, "{offer:?}"),
                Err(refused) => {
                    assert!(!is_served, "{offer:?}: {refused:?}");
                    assert_eq!(refused, Refused::Alert(Alert::NoApplicationProtocol));
                }
            }
        }
    }
    secured.await_handshakes("no_common_protocol", 2.0);
    // A client that does not trust the certificate says so, and is counted.
    let stranger = Client::new(&Authority::new("A stranger"));
    assert!(stranger.connect(secured.tls).is_err());
    let what = "the client's alert in the metrics";
    wait_until(what, secs(10), || secured.handshakes("refused_by_client") == 1.0);
}

#[test]
fn curl_by_either_version_and_not_by_older_ones() {
    let behind = Behind::start("tls-curl", 3 << 20, &[]);
    let secured = &behind.secured;
    let (ca, scratch) = (secured.ca(), secured.server.scratch());
    let url = format!("{}{}", secured.url(), behind.target);
    for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"], &["--http2"]] {
        let arguments: Vec<&str> = ["--cacert", &ca].into_iter().chain(version.to_vec()).collect();
        let Some((status, head, body)) = curl(scratch, &arguments, &url) else { return };
        assert_eq!(status, 200, "{version:?}: {head}");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body == behind.bytes, "{version:?}: wrong bytes");
    }
    // OpenSSL refuses 1.1 by itself unless it is told otherwise.
    let old = ["--cacert", &ca, "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"];
    let command = std::process::Command::new("curl").args(old).arg(&url).output().unwrap();
    assert_eq!(command.status.code(), Some(35), "{}", String::from_utf8_lossy(&command.stderr));
    secured.await_handshakes("no_common_version", 1.0);
}

#[test]
fn skopeo_podman_and_ctr_with_a_private_authority() {
    let scratch = Scratch::new("tls-real");
    let images = &images::all()[..2];
    let Some(origin) = Origin::with_images(&scratch, "docker.io", "library/", images) else {
        return;
    };
    let Some(containerd) = Containerd::start(&scratch) else { return };
    let setup = Setup::new("tls-real").routing("default_upstream = \"docker.io\"");
    let setup = setup.upstream(Upstream::new("docker.io", &origin.url()));
    let (authority, people) = (Authority::new("CA"), Authority::new("Clients"));
    drop(authority);
    let ca = setup.scratch().file("clients-ca.pem", &people.pem);
    let setup =
        setup.server(&format!("client_ca_file = {ca:?}\nclient_certificate = \"required\""));
    let secured = Secured::start(setup);
    let folder = scratch.dir("certificates");
    std::fs::write(folder.join("ca.crt"), &secured.authority.pem).unwrap();
    let shown = people.client("ci", Kind::Good);
    std::fs::write(folder.join("client.cert"), &shown.certificate).unwrap();
    std::fs::write(folder.join("client.key"), &shown.key).unwrap();

    let clients = ContainersImage::new(&scratch).trusting(&folder);
    let at = |file: &str| folder.join(file).display().to_string();
    let (ca, pair) = (at("ca.crt"), (at("client.cert"), at("client.key")));
    containerd.mirror_everything_with(
        &secured.url(),
        &format!("  ca = {ca:?}\n  client = [[{:?}, {:?}]]\n", pair.0, pair.1),
    );
    for image in images {
        let expected = &image.root().digest;
        let reference = format!("docker.io/library/{}:latest", image.name);
        let direct = format!("{}/{reference}", secured.tls);
        let Some((ran, copied)) = clients.skopeo_copy(&direct, image.name) else { return };
        assert!(ran.ok(), "skopeo: {}", ran.stderr);
        let manifest = std::fs::read(copied.join("manifest.json")).unwrap();
        assert_eq!(&images::sha256(&manifest), expected, "skopeo");
        let Some(ran) = clients.podman_pull(&direct) else { return };
        assert!(ran.ok(), "podman: {}", ran.stderr);
        let digests = clients.podman_digests(&direct).unwrap();
        assert!(digests.contains(expected.as_str()), "podman: {digests}");
        let ran = containerd.pull(&reference);
        assert!(ran.ok(), "ctr: {}{}", ran.stdout, ran.stderr);
        assert_eq!(&containerd.digest_of(&reference), expected, "ctr");
    }
    assert!(secured.handshakes("full") >= 3.0, "all of that was TLS");
    assert_eq!(secured.handshakes("resumed"), 0.0, "a ticket would outlive its certificate");
    // Without their certificate the same clients get nothing.
    std::fs::remove_file(folder.join("client.cert")).unwrap();
    std::fs::remove_file(folder.join("client.key")).unwrap();
    let (ran, _) = clients.skopeo_copy(&format!("{}/library/x", secured.tls), "none").unwrap();
    assert!(ran.stderr.contains("certificate required"), "{}", ran.stderr);
}

// ---- what is not TLS ---------------------------------------------------------------------------

#[test]
fn plain_http_on_the_port_for_tls_is_told_at_once() {
    let secured = Secured::start(Setup::new("tls-plain").server("head_timeout = \"60s\""));
    // A whole request, and the mere beginning of one: neither waits for a time limit.
    for sent in ["GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", "PUT /v2/a", "G"] {
        let began = Instant::now();
        let mut stream = TcpStream::connect(secured.tls).unwrap();
        stream.set_read_timeout(Some(secs(20))).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        let mut all = String::new();
        // RST would be an error.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream.read_to_string(&mut all).unwrap();
        assert!(all.starts_with("HTTP/1.1 400 "), "{all}");
        assert!(all.contains("https://") && all.contains("UNSUPPORTED"), "{all}");
        assert!(began.elapsed() < secs(30), "not by the time limit");
    }
    secured.await_handshakes("plain_http", 3.0);
    // And the other way round, on the plain port.
    let client = secured.client();
    assert!(matches!(client.connect(secured.server.addr), Err(Refused::Other(_))));
    // Bytes that are neither: an alert or the end, and nobody else is hurt.
    let mut stream = TcpStream::connect(secured.tls).unwrap();
    stream.write_all(&[0x16, 3, 1, 0xff, 0xff, 0, 1, 2]).unwrap();
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
    assert_eq!(client.ask(secured.tls, "/v2/").unwrap().status, 200);
}

/// A client that begins a handshake and says no more.
fn hang(secured: &Secured) -> TcpStream {
    let mut stream = TcpStream::connect(secured.tls).unwrap();
    stream.set_read_timeout(Some(secs(10))).unwrap();
    stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    stream
}

#[test]
fn handshakes_that_hang_keep_nobody_out() {
    let setup = Setup::new("tls-many").server("workers = 1\nconnections_max = 8");
    let secured = Secured::start(setup.server("head_timeout = \"60s\""));
    let mut hanging: Vec<TcpStream> = (0..4).map(|_| hang(&secured)).collect();
    for _ in 0..3 {
        // All places for handshakes are taken: a newcomer ends the oldest one, and is served.
        assert_eq!(secured.client().ask(secured.tls, "/v2/").unwrap().status, 200);
        assert!(is_ended(&mut hanging.remove(0)), "the oldest one was ended");
        hanging.push(hang(&secured));
    }
    secured.await_handshakes("timeout", 3.0);
}

#[test]
fn a_handshake_that_drips_ends_at_its_time_limit() {
    let secured = Secured::start(Setup::new("tls-slow").server("head_timeout = \"2s\""));
    let (mut silent, mut drips) = (TcpStream::connect(secured.tls).unwrap(), hang(&secured));
    silent.set_read_timeout(Some(secs(20))).unwrap();
    wait_until("the end of a handshake that drips", secs(20), || {
        std::thread::sleep(ms(200));
        drips.write_all(&[0]).is_err() || secured.handshakes("timeout") >= 2.0
    });
    assert!(is_ended(&mut drips) && is_ended(&mut silent));
    wait_until("no connection", secs(10), || {
        secured.server.metric("ringport_connections", &["worker=\"0\""]) <= 1.0
    });
}

fn is_ended(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

// ---- certificates that change ------------------------------------------------------------------

#[test]
fn a_renewed_certificate_is_taken_up_under_running_connections() {
    let mut behind = Behind::start("tls-renew", 2 << 20, &[]);
    let (tls, client) = (behind.secured.tls, behind.secured.client());
    let mut old = client.connect(tls).unwrap();
    let first = behind.secured.shown.der();
    assert_eq!((old.certificate(), old.get("/v2/").unwrap().status), (first.clone(), 200));
    assert!(client.connect(tls).unwrap().is_resumed(), "a ticket works");

    behind.secured.exchange();
    let answer = behind.secured.reload();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let second = behind.secured.shown.der();
    let mut new = client.connect(tls).unwrap();
    assert!(!new.is_resumed(), "tickets end with their certificate");
    assert_eq!((new.certificate(), new.get("/v2/").unwrap().status), (second.clone(), 200));
    let still = old.get(&behind.target).unwrap();
    assert!(still.body == behind.bytes, "the old connection goes on");

    // Without a word to the server, as certbot does it; in two steps, so that for a while the two
    // files do not fit.
    behind.secured.exchange();
    let third = behind.secured.shown.der();
    assert_ne!(third, second);
    wait_until("the renewed certificate", secs(20), || {
        client.connect(tls).unwrap().certificate() == third
    });
    assert_eq!(old.get("/v2/").unwrap().status, 200);
    assert_eq!(new.get("/v2/").unwrap().status, 200);
    let server = &behind.secured.server;
    assert_eq!(server.metric("ringport_tls_reloads_total", &[]), 2.0);
    assert_eq!(server.metric("ringport_tls_reloads_refused_total", &[]), 0.0);
    // A reload that finds the same files changes nothing: tickets go on.
    drop(client.connect(tls).unwrap().get("/v2/").unwrap());
    assert_eq!(behind.secured.reload().status(), 200);
    assert!(client.connect(tls).unwrap().is_resumed());
    let not_after = server.metric("ringport_tls_certificate_not_after_seconds", &[]);
    assert!(not_after > 1.7e9, "{not_after}");
}

#[test]
fn a_broken_pair_is_refused_and_the_one_before_goes_on() {
    let mut secured = Secured::start(Setup::new("tls-broken"));
    let client = secured.client();
    let shown = secured.shown.der();
    let path = |file: &str| secured.server.scratch().path().join(file);
    let (certificate, key) = (path("server.pem"), path("server.key"));
    let good_key = std::fs::read(&key).unwrap();
    let breakages: [(&str, &dyn Fn(), &str); 4] = [
        ("another's key", &|| write(&key, secured.authority.server().key.as_bytes()), "another"),
        ("no key", &|| write(&key, b"nothing"), "server.tls_key"),
        ("an open key", &|| open_to_all(&key, &good_key), "chmod 600"),
        ("no certificate", &|| write(&certificate, b""), "server.tls_certificate"),
    ];
    for (what, break_it, word) in breakages {
        break_it();
        let answer = secured.reload();
        assert_eq!(answer.status(), 409, "{what}: {}", answer.text());
        assert!(answer.text().contains(word), "{what}: {}", answer.text());
        assert_eq!(client.connect(secured.tls).unwrap().certificate(), shown, "{what}");
        write(&key, &good_key);
    }
    // The certificate is still empty: that is noticed without a word, too.
    let refused = || secured.server.metric("ringport_tls_reloads_refused_total", &[]) >= 1.0;
    wait_until("the refusal in the metrics", secs(20), refused);
    let ready = http::get(secured.server.admin, "/readyz");
    assert_eq!(ready.status(), 200, "{}", ready.text());
    assert!(
        ready.text().contains("warning: tls: key `server.tls_certificate`"),
        "{}",
        ready.text()
    );
    assert!(secured.server.log_text().contains("those from before go on"));
    assert_eq!(client.ask(secured.tls, "/v2/").unwrap().status, 200);
    secured.exchange();
    let whole = || !http::get(secured.server.admin, "/readyz").text().contains("warning");
    wait_until("a good pair to be taken up", secs(20), whole);
    assert_eq!(client.connect(secured.tls).unwrap().certificate(), secured.shown.der());
}

fn write(path: &Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn open_to_all(path: &Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    write(path, content);
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
}

#[test]
fn files_that_cannot_be_used_are_told_before_the_start() {
    let setup = Setup::new("tls-check");
    let (one, other) = (Authority::new("a").server(), Authority::new("b").server());
    let (certificate, _) = one.write(setup.scratch(), "one");
    let (_, key) = other.write(setup.scratch(), "other");
    let tls = format!(
        "tls_listen = [\"127.0.0.1:0\"]\ntls_certificate = {certificate:?}\ntls_key = {key:?}"
    );
    let mut server = setup.server(&tls).prepare();
    let binary = env!("CARGO_BIN_EXE_ringport");
    let check = std::process::Command::new(binary)
        .args(["check", "--config"])
        .arg(server.config())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert_eq!(check.status.code(), Some(1), "{said}");
    for word in ["server.tls_key", "other.key", "expected the private key of", "another one's"] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
    server.launch();
    let status = server.await_ready().expect_err("it does not start");
    assert_eq!(status.code(), Some(1));
    assert!(server.log_text().contains("another one's"), "{}", server.log_text());
}

// ---- client certificates -----------------------------------------------------------------------

#[test]
fn client_certificates_are_verified_and_what_is_wrong_is_said_by_the_alert() {
    let (people, strangers) = (Authority::new("Clients"), Authority::new("Strangers"));
    let wrong = [
        ("expired", people.client("a", Kind::Expired), Alert::CertificateExpired),
        ("not yet", people.client("a", Kind::NotYet), Alert::CertificateExpired),
        ("for servers", people.client("a", Kind::ForServers), Alert::UnsupportedCertificate),
        ("foreign", strangers.client("a", Kind::Good), Alert::UnknownCA),
        ("self-signed", self_signed("a"), Alert::UnknownCA),
    ];
    let good = people.client("ci", Kind::Good);
    for asked in ["optional", "required"] {
        let setup = Setup::new("tls-people");
        let ca = setup.scratch().file("people.pem", &people.pem);
        let lines = format!("client_ca_file = {ca:?}\nclient_certificate = \"{asked}\"");
        let secured = Secured::start(setup.server(&lines));
        for version in [&TLS12, &TLS13] {
            let ask = |pair: Option<&Pair>| {
                let versions = [version];
                let client = Client::with(&secured.authority, &["http/1.1"], &versions, pair);
                // Twice: what is refused once is not let in by a ticket.
                let first = client.ask(secured.tls, "/v2/").map(|reply| reply.status);
                assert_eq!(client.ask(secured.tls, "/v2/").map(|reply| reply.status), first);
                first
            };
            assert_eq!(ask(Some(&good)), Ok(200), "{asked}");
            for (what, pair, alert) in &wrong {
                assert_eq!(ask(Some(pair)), Err(Refused::Alert(*alert)), "{asked} {what}");
            }
            let none = match asked {
                "optional" => Ok(200),
                _ => Err(Refused::Alert(Alert::CertificateRequired)),
            };
            assert_eq!(ask(None), none, "{asked}: without one");
        }
        secured.await_handshakes("bad_client_certificate", 20.0);
        let without = if asked == "required" { 4.0 } else { 0.0 };
        secured.await_handshakes("no_client_certificate", without);
        assert_eq!(secured.handshakes("resumed"), 0.0);
    }
}

// ---- bodies ------------------------------------------------------------------------------------

#[test]
fn a_body_that_is_cut_ends_without_the_word_that_all_was_said() {
    let behind = Behind::start("tls-cut", 4 << 20, &[]);
    let right = behind.bytes.clone();
    let short = || Answer::right().ending(End::Fin(1 << 20));
    // It breaks off, and so does each try to go on.
    behind.upstream.script("GET", &behind.path, [short().ranges(support::lying::Ranges::Refuse)]);
    let reply = behind.secured.client().ask(behind.secured.tls, &behind.target).unwrap();
    assert_eq!((reply.status, &reply.ending), (200, &Ended::Cut), "{}", reply.head);
    assert!(reply.body.len() < right.len() && right.starts_with(&reply.body));
    let (ca, scratch) = (behind.secured.ca(), behind.secured.server.scratch());
    let url = format!("{}{}", behind.secured.url(), behind.target);
    let out = scratch.path().join("cut");
    let mut command = std::process::Command::new("curl");
    command.args(["-sS", "--cacert", &ca, "-o"]).arg(&out).arg(&url);
    let curl = command.output().unwrap();
    // 18: a partial file; 56: what OpenSSL calls an unexpected end.
    let code = curl.status.code().unwrap_or_default();
    assert!([18, 56].contains(&code), "{code}: {}", String::from_utf8_lossy(&curl.stderr));
    behind.upstream.script("GET", &behind.path, [Answer::right()]);
    behind.expect_right(&behind.secured.client());
}

#[test]
fn bodies_of_requests_are_read_away_and_pipelined_requests_answered() {
    let secured = Secured::start(Setup::new("tls-bodies"));
    let mut connection = secured.client().connect(secured.tls).unwrap();
    let body = "x".repeat(40_000);
    let put = format!("PUT /v2/nothing HTTP/1.1\r\nHost: m\r\nContent-Length: 40000\r\n\r\n{body}");
    let get = "GET /v2/ HTTP/1.1\r\nHost: m\r\n\r\n";
    connection.stream.write_all(format!("{put}{get}{put}{get}{get}").as_bytes()).unwrap();
    connection.stream.flush().unwrap();
    let statuses: Vec<u16> = (0..5).map(|_| connection.reply().unwrap().status).collect();
    assert_eq!(statuses[1..2], statuses[4..5], "{statuses:?}");
    assert!(statuses[0] >= 400 && statuses[1] == 200 && statuses[3] == 200, "{statuses:?}");
}

#[test]
fn clients_that_take_nothing_cost_little_memory() {
    let behind = Behind::start("tls-memory", 48 << 20, &[]);
    let client = behind.secured.client();
    behind.expect_right(&client);
    let server = &behind.secured.server;
    let before = server.rss_bytes();
    let count = 100;
    let connections: Vec<_> = (0..count)
        .map(|_| {
            let mut connection = client.connect(behind.secured.tls).unwrap();
            connection.send(&behind.target, "").unwrap();
            connection
        })
        .collect();
    let open = || server.metric("ringport_connections", &[]) >= f64::from(count);
    wait_until("all connections", secs(20), open);
    // Until all stand still, with as much as their clients' sockets take.
    let mut last = 0;
    wait_until("all answers to stand still", secs(30), || {
        let before = std::mem::replace(&mut last, server.rss_bytes());
        std::thread::sleep(ms(500));
        before.abs_diff(last) < 64 << 10
    });
    let grown = server.rss_bytes().saturating_sub(before) / count as u64;
    support::tell(&format!("a TLS connection that takes nothing: {} KiB", grown >> 10));
    assert!(grown < 200 << 10, "{grown} bytes each");
    // And each of them can still go on.
    for mut connection in connections.into_iter().take(3) {
        let reply = connection.reply().unwrap();
        assert!(reply.ending == Ended::Whole && reply.body == behind.bytes);
    }
}

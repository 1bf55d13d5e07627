//! What the kit asks: requests as clients send them, and requests as nobody should.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringport_plugin_abi as abi;

use crate::world::World;

/// Of more upstreams than this only the first are asked about.
const UPSTREAMS_ASKED: usize = 8;
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// One request, in bytes: it may hold anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) kind: u32,
    pub(crate) method: Vec<u8>,
    pub(crate) query_ns: Vec<u8>,
    pub(crate) header_ns: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) reference: Vec<u8>,
    pub(crate) client: Option<IpAddr>,
    pub(crate) ns_source: u32,
    pub(crate) ns: Vec<u8>,
    pub(crate) repository: Vec<u8>,
    pub(crate) principal: Vec<u8>,
    /// The value of every header that the plugin asked for; `None`: not sent.
    pub(crate) header: Option<Vec<u8>>,
}

impl Request {
    fn new(world: &World, query_ns: &str, header_ns: &str, name: &str) -> Request {
        let (ns_source, ns, repository) = world.read_ns(query_ns, header_ns, name);
        Request {
            kind: abi::KIND_MANIFEST,
            method: b"GET".to_vec(),
            query_ns: query_ns.into(),
            header_ns: header_ns.into(),
            name: name.into(),
            reference: b"latest".to_vec(),
            client: Some(Ipv4Addr::new(192, 0, 2, 7).into()),
            ns_source,
            ns: ns.into(),
            repository: repository.into(),
            principal: Vec::new(),
            header: None,
        }
    }

    /// One line for a message.
    pub(crate) fn describe(&self) -> String {
        let show = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes.get(..40).unwrap_or(bytes)).into_owned();
            format!("{text:?}")
        };
        format!(
            "{} kind {} name {} reference {} ns {} header {}",
            String::from_utf8_lossy(&self.method),
            self.kind,
            show(&self.name),
            show(&self.reference),
            show(&self.query_ns),
            show(&self.header_ns)
        )
    }

    /// The request with what `bit` (`RINGPORT_BY_*`) stands for made different; `None` for a bit
    /// that is unknown.
    pub(crate) fn varied(&self, bit: u64) -> Option<(&'static str, Request)> {
        let mut other = self.clone();
        let what = match bit {
            abi::BY_KIND => {
                let is_manifest = self.kind == abi::KIND_MANIFEST;
                other.kind = if is_manifest { abi::KIND_BLOB } else { abi::KIND_MANIFEST };
                "KIND"
            }
            abi::BY_METHOD => {
                other.method = if self.method == b"GET" { b"PUT".into() } else { b"GET".into() };
                "METHOD"
            }
            abi::BY_REFERENCE => {
                let is_latest = self.reference == b"latest";
                other.reference = if is_latest { b"v1.2.3".into() } else { b"latest".into() };
                "REFERENCE"
            }
            abi::BY_CLIENT => {
                other.client = Some(Ipv4Addr::new(10, 1, 2, 3).into());
                "CLIENT"
            }
            abi::BY_PRINCIPAL => {
                other.principal = b"somebody-else".into();
                "PRINCIPAL"
            }
            abi::BY_HEADERS => {
                other.header = Some(b"another value".into());
                "HEADERS"
            }
            _ => return None,
        };
        Some((what, other))
    }
}

/// What clients send, for every upstream and by every way of naming one.
pub(crate) fn ordinary(world: &World) -> Vec<Request> {
    let mut all = Vec::new();
    for upstream in world.upstreams.iter().take(UPSTREAMS_ASKED) {
        for ns in [Some(&upstream.canonical_name), upstream.aliases.first()].into_iter().flatten() {
            all.extend(kinds(&Request::new(world, ns, "", "library/alpine")));
            all.push(Request::new(world, "", ns, "org/app"));
            all.push(Request::new(world, "", "", &format!("{ns}/org/team/app")));
            all.push(Request::new(world, "", "", &format!("proxy/{ns}/org/app")));
        }
    }
    for name in ["alpine", "library/alpine", "team/app", "org/a/b/c/d", "a"] {
        all.extend(kinds(&Request::new(world, "", "", name)));
    }
    let undeclared = "undeclared.example";
    all.push(Request::new(world, undeclared, "", "org/app"));
    all.push(Request::new(world, "", undeclared, "org/app"));
    all.push(Request::new(world, "", "", "undeclared.example:5000/org/app"));
    for (method, principal) in [("PUT", "ci"), ("POST", "ci"), ("PATCH", ""), ("DELETE", "admin")] {
        let mut push = Request::new(world, "", "", "team/app");
        (push.method, push.principal) = (method.into(), principal.into());
        all.push(push);
    }
    let mut other = Request::new(world, "", "", "library/alpine");
    other.client = Some(Ipv6Addr::LOCALHOST.into());
    other.header = Some(b"value".to_vec());
    all.push(other.clone());
    other.client = None;
    other.header = Some(Vec::new());
    all.push(other);
    all
}

/// A request for each kind of thing.
fn kinds(request: &Request) -> Vec<Request> {
    let with = |kind: u32, method: &str, reference: &str| Request {
        kind,
        method: method.into(),
        reference: reference.into(),
        ..request.clone()
    };
    vec![
        with(abi::KIND_MANIFEST, "GET", "latest"),
        with(abi::KIND_MANIFEST, "HEAD", "3.20"),
        with(abi::KIND_MANIFEST, "GET", DIGEST),
        with(abi::KIND_BLOB, "GET", DIGEST),
        with(abi::KIND_TAGS, "GET", ""),
        with(abi::KIND_REFERRERS, "GET", DIGEST),
    ]
}

/// Bytes that a reader must survive: empty, of the greatest length and beyond, dots, not UTF-8,
/// with NUL, with formats of printf, with ends of lines.
pub(crate) fn hostile_bytes() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    let texts = [
        "",
        ".",
        "..",
        "../../../etc/passwd",
        "/",
        "//",
        "a//b",
        "a/",
        "%s%n%p",
        "\r\nX: y",
        "A",
        "[",
        "*",
        ":",
        "a:5000",
        "a.b.c.d",
        "..a",
        "proxy/",
        "proxy//",
        "proxy/a.b/",
    ];
    all.extend(texts.iter().map(|text| text.as_bytes().to_vec()));
    all.push(b"a".repeat(255));
    all.push(b"a/".repeat(127));
    all.push(b".".repeat(255));
    all.push(b"a".repeat(256));
    all.push(b"b".repeat(5_000));
    all.push("\u{e9}".repeat(127).into_bytes());
    all.extend([vec![0xff, 0xfe], vec![0xc3], vec![0xed, 0xa0, 0x80], vec![0]]);
    all.push(b"a\0b".to_vec());
    all
}

/// Every hostile string in every place of an else ordinary request.
pub(crate) fn hostile(world: &World) -> Vec<Request> {
    let first = world.upstreams.first().map(|u| u.canonical_name.as_str()).unwrap_or_default();
    let base = Request::new(world, first, "", "library/alpine");
    let mut all = Vec::new();
    for bytes in hostile_bytes() {
        let places: [fn(&mut Request, Vec<u8>); 8] = [
            |r, b| (r.name, r.repository) = (b.clone(), b),
            |r, b| r.reference = b,
            |r, b| (r.query_ns, r.ns) = (b.clone(), b),
            |r, b| {
                (r.header_ns, r.ns, r.ns_source) = (b.clone(), b, abi::NS_HEADER);
                r.query_ns.clear();
            },
            |r, b| r.method = b,
            |r, b| r.principal = b,
            |r, b| r.header = Some(b),
            |r, b| {
                (r.name, r.repository, r.ns_source) = (b.clone(), b, abi::NS_NONE);
                (r.query_ns, r.ns) = (Vec::new(), Vec::new());
            },
        ];
        for put in places {
            let mut request = base.clone();
            put(&mut request, bytes.clone());
            all.push(request);
        }
    }
    let mut unknown = base;
    (unknown.kind, unknown.ns_source) = (999, 77);
    all.push(unknown);
    all
}

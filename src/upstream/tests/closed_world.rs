//! Addresses that nobody declared, in every form a URL or a name server can give them: refused
//! before anything is dialled, by every way that an upstream can write one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::origin::{Answer, Origin, ok, redirect, status};
use super::world::{World, failure, get, namespace, request};
use crate::oci::Namespace;
use crate::upstream::dns::LookUp;
use crate::upstream::{Method, UpstreamError};

/// Not public, and not 127.0.0.1, which the tests' upstream may dial.
const FORBIDDEN: [Ipv4Addr; 12] = [
    Ipv4Addr::new(127, 0, 0, 2),
    Ipv4Addr::new(127, 255, 255, 254),
    Ipv4Addr::new(0, 0, 0, 0),
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(100, 64, 0, 1),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(172, 16, 0, 1),
    Ipv4Addr::new(192, 168, 0, 1),
    Ipv4Addr::new(198, 18, 0, 1),
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::new(255, 255, 255, 255),
];

const FORBIDDEN_V6: [&str; 14] = [
    "::",
    "::1",
    "fe80::1",
    "fe80::1%25lo",
    "fe80::1%lo",
    "fd00::1",
    "fd00:ec2::254",
    "fc00::1",
    "ff02::1",
    "fec0::1",
    "2001:db8::1",
    "2001::1",
    "100::1",
    "0:0:0:0:0:0:0:1",
];

/// How a host can be written that means this address.
fn forms_of(address: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = address.octets();
    let all = address.to_bits();
    let (high, low) = (all >> 16, all & 0xffff);
    vec![
        address.to_string(),
        format!("{address}."),
        format!("{all}"),
        format!("{all:#x}"),
        format!("0{all:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{}", all & 0xff_ffff),
        format!("{a}.{b}.{low}"),
        format!("%3{}{}", a / 10 % 10, &address.to_string()[1..]),
        format!("user@{address}"),
        format!("[::ffff:{address}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[::{address}]"),
        format!("[64:ff9b::{address}]"),
        format!("[2002:{high:x}:{low:x}::]"),
        format!("n-{a}-{b}-{c}-{d}.test"),
    ]
}

fn forms() -> Vec<String> {
    let v6 = FORBIDDEN_V6.iter().map(|address| format!("[{address}]"));
    let names = ["localhost", "LOCALHOST", "localhost.", "ip6-localhost", "metadata.internal"];
    let v4 = FORBIDDEN.into_iter().flat_map(forms_of);
    v4.chain(v6).chain(names.map(str::to_owned)).collect()
}

/// `n-127-0-0-2.test` has that address, every other name all that are forbidden.
fn names() -> Box<LookUp> {
    Box::new(|name| {
        let digits = name.strip_prefix("n-").and_then(|rest| rest.strip_suffix(".test"));
        let address = digits.and_then(|digits| digits.replace('-', ".").parse::<IpAddr>().ok());
        Ok(address.map_or_else(|| FORBIDDEN.map(IpAddr::V4).to_vec(), |address| vec![address]))
    })
}

/// One port on which whoever is dialled on this machine notices.
fn traps() -> (u16, Vec<TcpListener>) {
    let addresses = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 255, 255, 254)];
    let bind = |port: u16| -> std::io::Result<Vec<TcpListener>> {
        addresses.iter().map(|&ip| TcpListener::bind(SocketAddr::from((ip, port)))).collect()
    };
    loop {
        let first = TcpListener::bind("127.0.0.2:0").expect("a port");
        let port = first.local_addr().expect("an address").port();
        drop(first);
        if let Ok(traps) = bind(port) {
            traps.iter().for_each(|trap| trap.set_nonblocking(true).expect("a flag"));
            return (port, traps);
        }
    }
}

/// A refusal that comes before a dial.
fn is_refusal(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::Blocked { .. }
        | UpstreamError::Redirect { .. }
        | UpstreamError::Denied { .. }
        | UpstreamError::Token { .. } => true,
        UpstreamError::Unreachable { reason, .. } => reason.contains("no address"),
        _ => false,
    }
}

#[test]
fn no_form_of_a_forbidden_address_is_dialled() {
    let (port, traps) = traps();
    let all = Arc::new(forms());
    assert!(all.len() >= 200, "{} forms", all.len());
    let scripted = all.clone();
    let origin = Origin::start(move |seen| {
        let mut parts = seen.path().rsplit('/');
        let number = parts.next().and_then(|number| number.parse::<usize>().ok());
        let form = number.and_then(|number| scripted.get(number)).expect("a form");
        match parts.next() {
            Some("redirect") => redirect(&format!("http://{form}:{port}/x")),
            Some("twice") => redirect(&format!("redirect/{}", number.unwrap_or_default())),
            Some("relative") => redirect(&format!("//{form}:{port}/x")),
            Some("realm") => status(
                "401 Unauthorized",
                &format!("WWW-Authenticate: Bearer realm=\"http://{form}:{port}/token\"\r\n"),
            ),
            _ => ok(b""),
        }
    });
    let ways = ["redirect", "relative", "twice", "realm"];
    let keys = format!("endpoints = [\"{}\"]", origin.url(""));
    let asked = all.clone();
    World::with_names(&keys, names).run(move |client| {
        let asked = asked.clone();
        async move {
            for way in ways {
                for (number, form) in asked.iter().enumerate() {
                    let path = match way {
                        "twice" => format!("/v2/team/app/twice/{number}"),
                        way => format!("/v2/team/app/{way}/{number}"),
                    };
                    let error = failure(get(&client, &path).await);
                    assert!(is_refusal(&error), "{way} {form}: {error}");
                }
            }
        }
    });
    for trap in &traps {
        let nobody = trap.accept().map(|_| ()).expect_err("nobody came");
        assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    }
    eprintln!("{} forms by {} ways: none was dialled", all.len(), ways.len());
}

/// The name's address changes after each look-up, as its time to live of 0 allows.
#[test]
fn the_address_that_was_checked_is_the_one_that_is_dialled() {
    let origin =
        Origin::start(|_| Answer::SendAndClose(super::origin::response("200 OK", "", b"x")));
    let port = origin.address.port();
    let trap = TcpListener::bind(("127.0.0.2", port)).expect("the same port");
    trap.set_nonblocking(true).expect("a flag");
    let rebinding: fn() -> Box<LookUp> = || {
        let turns = std::sync::atomic::AtomicUsize::new(0);
        Box::new(move |_| {
            let turn = turns.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let address = if turn.is_multiple_of(2) { "127.0.0.1" } else { "127.0.0.2" };
            Ok(vec![address.parse().expect("an address")])
        })
    };
    let names: Vec<String> = (0..40).map(|n| format!("http://n{n}.test:{port}")).collect();
    let declared = names.iter().enumerate().map(|(n, url)| {
        let private = "allow_private = [\"127.0.0.1/32\"]";
        format!("[[upstream]]\nnamespace = \"n{n}.test\"\n{private}\nendpoints = [\"{url}\"]\n")
    });
    let declared: String = declared.collect();
    let keys = format!("endpoints = [\"{}\"]\n{declared}", origin.url(""));
    World::with_names(&keys, rebinding).run(|client| async move {
        let (mut well, mut refused) = (0, 0);
        for n in 0..40 {
            let namespace = Namespace::parse(&format!("n{n}.test")).expect("a namespace");
            for _ in 0..3 {
                let ask = request(Method::Get, "/v2/team/app/blobs/x");
                match client.exchange(&namespace, ask).await {
                    Ok(_) => well += 1,
                    Err(UpstreamError::Blocked { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(well >= 40 && refused >= 40, "{well} well, {refused} refused");
    });
    let nobody = trap.accept().map(|_| ()).expect_err("nobody came");
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

/// A name server that hangs keeps neither a worker nor the names of others waiting.
#[test]
fn a_name_server_that_hangs_holds_up_only_those_who_wait_for_it() {
    static HUNG: OnceLock<()> = OnceLock::new();
    let origin = Origin::start(|_| ok(b"x"));
    let hanging: fn() -> Box<LookUp> = || {
        Box::new(|name| {
            while name.starts_with("hangs") && HUNG.get().is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(vec!["127.0.0.1".parse().expect("an address")])
        })
    };
    let port = origin.address.port();
    let declared = |name: &str| {
        format!(
            "[[upstream]]\nnamespace = \"{name}\"\nendpoints = [\"http://{name}:{port}\"]\n\
             connect_timeout = \"400ms\"\nallow_private = [\"127.0.0.1/32\"]\n"
        )
    };
    let more = format!("{}{}", declared("hangs.test"), declared("well.test"));
    let keys = format!("endpoints = [\"{}\"]\n{more}", origin.url(""));
    World::with_names(&keys, hanging).run(|client| async move {
        let at = |name: &str| Namespace::parse(name).expect("a namespace");
        let ask = || request(Method::Get, "/v2/team/app/blobs/x");
        let (hangs, well) = (at("hangs.test"), at("well.test"));
        let waiting = (0..20).map(|_| client.exchange(&hangs, ask()));
        let others = async {
            for _ in 0..20 {
                client.exchange(&namespace(), ask()).await.expect("an address needs no name");
                client.exchange(&well, ask()).await.expect("another name");
            }
            assert!(HUNG.get().is_none(), "nobody had to wait for it");
        };
        let waiting = futures_util::future::join_all(waiting);
        let (late, ()) = futures_util::future::join(waiting, others).await;
        for late in late {
            let error = late.err().expect("a failure");
            assert!(error.is_timeout(), "{error}");
        }
        HUNG.set(()).expect("once");
    });
}

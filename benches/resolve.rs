//! What a decision costs: the standard resolver linked in and loaded from its `.so`, remembered
//! and asked anew; a plugin in C in front of it; and the clock, which every call reads twice.
//!
//! `cargo bench --bench resolve`

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use ringport::config::Config;
use ringport::oci::Namespace;
use ringport::plugin::{Chain, RequestKind, ResolveRequest, WorkerChain};

const UPSTREAMS: &str = "
[[upstream]]
namespace = 'docker.io'
[[upstream]]
namespace = 'ghcr.io'
[[upstream]]
namespace = 'quay.io'
[[upstream]]
namespace = 'registry.corp'
";
const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn worker(resolvers: &str, plugins: &str) -> WorkerChain {
    let routing = "default_upstream = 'docker.io'\nhosted = ['team/*', 'ci/*']";
    let text = format!("[routing]\nresolvers = [{resolvers}]\n{routing}\n{UPSTREAMS}{plugins}");
    let config = Config::parse(&text, "bench.toml").expect("a configuration");
    Chain::load(&config).expect("loads").start_worker(0).expect("starts")
}

fn plugin(name: &str, path: &Path, config: &str) -> String {
    format!("[[plugin]]\nname = {name:?}\npath = {path:?}\n[plugin.config]\n{config}\n")
}

/// The shared object of a workspace member, copied to where only we may write.
fn built(library: &str, folder: &Path) -> PathBuf {
    let bench = std::env::current_exe().expect("the bench's own path");
    let path = folder.join(format!("{library}.so"));
    std::fs::copy(bench.with_file_name(format!("lib{library}.so")), &path).expect("is built");
    closed_to_others(&path);
    path
}

fn compiled(source: &str, folder: &Path) -> PathBuf {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let path = folder.join("c.so");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-I"]);
    cc.arg(plugins.join("abi/include")).arg("-o").args([&path, &plugins.join(source)]);
    assert!(cc.status().expect("a C compiler").success());
    closed_to_others(&path);
    path
}

fn closed_to_others(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).expect("chmod");
}

fn resolve(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let standard = built("ringport_plugin_standard", folder.path());
    let corp = compiled("minimal-c/minimal.c", folder.path());
    let loaded = "default_upstream = 'docker.io'\nhosted = ['team/*', 'ci/*']";
    let chains = [
        ("linked in", worker("'standard'", "")),
        ("loaded", worker("'loaded'", &plugin("loaded", &standard, loaded))),
        ("with a C plugin", worker("'c', 'standard'", &plugin("c", &corp, ""))),
    ];
    let ns = Namespace::parse("ghcr.io").expect("a namespace");
    let request = |name: &'static str, ns| ResolveRequest {
        method: "GET",
        kind: RequestKind::Blob,
        ns,
        header: None,
        name,
        reference: DIGEST,
        client: Some([10, 1, 2, 3].into()),
        principal: None,
        head: None,
    };
    let requests = [
        ("ns", request("some-org/some-application", Some(&ns))),
        ("library", request("alpine", None)),
        ("path", request("ghcr.io/some-org/some-application", None)),
        ("hosted", request("team/some-application", None)),
    ];
    for (chain_name, chain) in &chains {
        let mut group = c.benchmark_group(*chain_name);
        for (name, request) in &requests {
            chain.resolve(request).expect("answered");
            group.bench_function(format!("{name}, asked anew"), |b| {
                b.iter(|| black_box(chain.resolve_anew(black_box(request))));
            });
            group.bench_function(format!("{name}, remembered"), |b| {
                b.iter(|| black_box(chain.resolve(black_box(request))));
            });
        }
        group.finish();
    }
    c.bench_function("the clock, twice", |b| b.iter(|| black_box(Instant::now().elapsed())));
}

criterion_group!(benches, resolve);
criterion_main!(benches);

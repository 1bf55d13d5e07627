//! Compares the Rust twin with the C header by a probe that the C compiler builds.
//!
//! Both directions: a field or constant that stands in only one of the two fails. No field can
//! hide, because each struct's fields must fill it without a gap (rule: no implicit padding).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringport_plugin_abi as abi;

type Values = BTreeMap<String, u64>;

/// One struct of both languages: its fields in order, with the Rust offsets.
struct Shape {
    c_name: &'static str,
    size: usize,
    fields: Vec<(&'static str, usize)>,
}

macro_rules! shape {
    ($c:literal, $t:ty, $($field:ident),+ $(,)?) => {
        Shape {
            c_name: $c,
            size: size_of::<$t>(),
            fields: vec![$((stringify!($field), offset_of!($t, $field))),+],
        }
    };
}

fn shapes() -> Vec<Shape> {
    vec![
        shape!("ringport_str", abi::Str, ptr, len),
        shape!("ringport_header", abi::Header, name, value),
        shape!(
            "ringport_upstream",
            abi::Upstream,
            size,
            flags,
            canonical_name,
            aliases,
            alias_count,
            credentials,
            credential_count,
        ),
        shape!(
            "ringport_configure_args",
            abi::ConfigureArgs,
            size,
            worker_count,
            name,
            config,
            upstreams,
            upstream_count,
            pools,
            pool_count,
            remote_tiers,
            remote_tier_count,
        ),
        shape!(
            "ringport_resolve_request",
            abi::ResolveRequest,
            size,
            kind,
            method,
            query_ns,
            header_ns,
            name,
            reference,
            client_address,
            client_address_len,
            reserved,
            ns_source,
            header_count,
            ns,
            repository,
            principal,
            headers,
        ),
        shape!(
            "ringport_candidate",
            abi::Candidate,
            size,
            reserved,
            upstream,
            repository,
            credential,
            forward_ns,
        ),
        shape!(
            "ringport_place_request",
            abi::PlaceRequest,
            size,
            kind,
            moment,
            reserved,
            upstream,
            repository,
            digest,
            media_type,
            content_bytes,
        ),
        shape!(
            "ringport_placement",
            abi::Placement,
            size,
            storage_class,
            pool,
            ttl_ms,
            priority,
            reserved,
        ),
        shape!(
            "ringport_remote",
            abi::Remote,
            size,
            purpose,
            method,
            url,
            headers,
            header_count,
            expires_unix_ms,
        ),
        shape!(
            "ringport_host",
            abi::Host,
            size,
            reserved,
            abi_major,
            abi_minor,
            product,
            emit_upstream,
            emit_hosted,
            emit_rule,
            emit_error,
            emit_freshness,
            features,
            emit_candidate,
            emit_immutable,
            emit_cacheable,
            emit_placement,
            emit_remote,
            want_header,
            want_refresh,
        ),
        shape!(
            "ringport_plugin",
            abi::Plugin,
            size,
            reserved,
            magic,
            abi_major,
            abi_minor,
            capabilities,
            name,
            version,
            configure,
            worker_start,
            resolve,
            worker_stop,
            destroy,
            place,
            refresh,
        ),
    ]
}

fn constants() -> Vec<(&'static str, u64)> {
    let status = |value: abi::Status| u64::try_from(value).expect("statuses are not negative");
    vec![
        ("RINGPORT_ABI_MAJOR", abi::ABI_MAJOR.into()),
        ("RINGPORT_ABI_MINOR", abi::ABI_MINOR.into()),
        ("RINGPORT_PLUGIN_MAGIC", abi::PLUGIN_MAGIC),
        ("RINGPORT_PLUGIN_SIZE_MIN", abi::PLUGIN_SIZE_MIN as u64),
        ("RINGPORT_NAME_BYTES_MAX", abi::NAME_BYTES_MAX as u64),
        ("RINGPORT_VERSION_BYTES_MAX", abi::VERSION_BYTES_MAX as u64),
        ("RINGPORT_CANDIDATES_MAX", abi::CANDIDATES_MAX as u64),
        ("RINGPORT_REPOSITORY_BYTES_MAX", abi::REPOSITORY_BYTES_MAX as u64),
        ("RINGPORT_RULE_BYTES_MAX", abi::RULE_BYTES_MAX as u64),
        ("RINGPORT_ERROR_BYTES_MAX", abi::ERROR_BYTES_MAX as u64),
        ("RINGPORT_FRESHNESS_MS_MAX", abi::FRESHNESS_MS_MAX),
        ("RINGPORT_MS_UNSET", abi::MS_UNSET),
        ("RINGPORT_HEADERS_MAX", abi::HEADERS_MAX as u64),
        ("RINGPORT_HEADER_NAME_BYTES_MAX", abi::HEADER_NAME_BYTES_MAX as u64),
        ("RINGPORT_HEADER_VALUE_BYTES_MAX", abi::HEADER_VALUE_BYTES_MAX as u64),
        ("RINGPORT_REFRESH_MS_MIN", abi::REFRESH_MS_MIN),
        ("RINGPORT_REFRESH_MS_MAX", abi::REFRESH_MS_MAX),
        ("RINGPORT_PRIORITY_MAX", status(abi::PRIORITY_MAX)),
        ("RINGPORT_REMOTES_MAX", abi::REMOTES_MAX as u64),
        ("RINGPORT_REMOTE_HEADERS_MAX", abi::REMOTE_HEADERS_MAX as u64),
        ("RINGPORT_STRING_BYTES_MAX", abi::STRING_BYTES_MAX as u64),
        ("RINGPORT_REMOTE_BYTES_MAX", abi::REMOTE_BYTES_MAX as u64),
        ("RINGPORT_CAN_PLACE", abi::CAN_PLACE),
        ("RINGPORT_CAN_REFRESH", abi::CAN_REFRESH),
        ("RINGPORT_HOST_REMOTE_TIER", abi::HOST_REMOTE_TIER),
        ("RINGPORT_BY_KIND", abi::BY_KIND),
        ("RINGPORT_BY_METHOD", abi::BY_METHOD),
        ("RINGPORT_BY_REFERENCE", abi::BY_REFERENCE),
        ("RINGPORT_BY_CLIENT", abi::BY_CLIENT),
        ("RINGPORT_BY_PRINCIPAL", abi::BY_PRINCIPAL),
        ("RINGPORT_BY_HEADERS", abi::BY_HEADERS),
        ("RINGPORT_BYTES_UNKNOWN", abi::BYTES_UNKNOWN),
        ("RINGPORT_NS_NONE", abi::NS_NONE.into()),
        ("RINGPORT_NS_QUERY", abi::NS_QUERY.into()),
        ("RINGPORT_NS_HEADER", abi::NS_HEADER.into()),
        ("RINGPORT_NS_PATH", abi::NS_PATH.into()),
        ("RINGPORT_MOMENT_STORE", abi::MOMENT_STORE.into()),
        ("RINGPORT_MOMENT_STORED", abi::MOMENT_STORED.into()),
        ("RINGPORT_CLASS_CACHE", abi::CLASS_CACHE.into()),
        ("RINGPORT_CLASS_PINNED", abi::CLASS_PINNED.into()),
        ("RINGPORT_CLASS_PASS_THROUGH", abi::CLASS_PASS_THROUGH.into()),
        ("RINGPORT_REMOTE_READ", abi::REMOTE_READ.into()),
        ("RINGPORT_REMOTE_WRITE", abi::REMOTE_WRITE.into()),
        ("RINGPORT_OK", status(abi::OK)),
        ("RINGPORT_DECLINE", status(abi::DECLINE)),
        ("RINGPORT_NOT_FOUND", status(abi::NOT_FOUND)),
        ("RINGPORT_DENIED", status(abi::DENIED)),
        ("RINGPORT_UNAVAILABLE", status(abi::UNAVAILABLE)),
        ("RINGPORT_INVALID", status(abi::INVALID)),
        ("RINGPORT_INTERNAL", status(abi::INTERNAL)),
        ("RINGPORT_KIND_MANIFEST", abi::KIND_MANIFEST.into()),
        ("RINGPORT_KIND_BLOB", abi::KIND_BLOB.into()),
        ("RINGPORT_KIND_TAGS", abi::KIND_TAGS.into()),
        ("RINGPORT_KIND_REFERRERS", abi::KIND_REFERRERS.into()),
        ("RINGPORT_UPSTREAM_FORWARD_NS", abi::UPSTREAM_FORWARD_NS.into()),
        ("RINGPORT_UPSTREAM_PLAIN_HTTP", abi::UPSTREAM_PLAIN_HTTP.into()),
    ]
}

fn header_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include/ringport_plugin.h")
}

/// What Rust believes; the keys are the C expressions that the probe evaluates.
fn rust_values() -> Values {
    let mut values = Values::new();
    for (name, value) in constants() {
        values.insert(name.to_owned(), value);
    }
    for shape in shapes() {
        values.insert(format!("sizeof({})", shape.c_name), shape.size as u64);
        for (field, offset) in shape.fields {
            values.insert(format!("offsetof({}, {field})", shape.c_name), offset as u64);
        }
    }
    values.insert("sizeof(ringport_status)".to_owned(), size_of::<abi::Status>() as u64);
    values
}

/// Compiles and runs a program that prints each expression's value in C.
fn c_values(expressions: impl Iterator<Item = String>) -> Values {
    let mut source = String::from(
        "#include \"ringport_plugin.h\"\n#include <inttypes.h>\n#include <stdio.h>\n\
         int main(void) {\n",
    );
    for expression in expressions {
        writeln!(
            source,
            "printf(\"%s=%\" PRIu64 \"\\n\", \"{expression}\", (uint64_t){expression});"
        )
        .unwrap();
    }
    source.push_str("return 0;\n}\n");
    // Tests run in parallel, and two runs may share the folder.
    static PROBES: AtomicUsize = AtomicUsize::new(0);
    let number = PROBES.fetch_add(1, Ordering::Relaxed);
    let stem = format!("abi-probe-{}-{number}", std::process::id());
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(stem);
    let c_file = program.with_extension("c");
    std::fs::write(&c_file, source).unwrap();
    compile(&["-o".as_ref(), program.as_os_str(), c_file.as_os_str()]);
    let output = Command::new(&program).output().expect("the probe runs");
    std::fs::remove_file(&c_file).unwrap();
    std::fs::remove_file(&program).unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let pairs = text.lines().map(|line| line.rsplit_once('=').expect("name=value"));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// Runs the C compiler with every warning an error.
fn compile(arguments: &[&std::ffi::OsStr]) {
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpadded", "-pedantic", "-Werror", "-I"])
        .arg(header_path().parent().unwrap())
        .args(arguments)
        .output()
        .expect("a C compiler called `cc` is needed for this test (Debian: apt install gcc)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_twin_equals_the_header() {
    let rust = rust_values();
    let c = c_values(rust.keys().cloned());
    for (name, value) in &rust {
        assert_eq!(c.get(name), Some(value), "{name}: C on the left, Rust on the right");
    }
}

#[test]
fn no_field_is_missing_from_the_comparison() {
    for shape in shapes() {
        let field_size = |field: &str| format!("sizeof((({} *)0)->{field})", shape.c_name);
        let c = c_values(shape.fields.iter().map(|(field, _)| field_size(field)));
        let mut end = 0;
        for (field, offset) in &shape.fields {
            assert_eq!(*offset as u64, end, "a gap or a hidden field before {field}");
            end += c[&field_size(field)];
        }
        assert_eq!(shape.size as u64, end, "a gap or a hidden field ends {}", shape.c_name);
    }
}

/// A plugin built for an older minor must find everything where it was: the first field of each
/// later minor begins where the struct of the minor before ended.
#[test]
fn nothing_of_an_older_minor_moved() {
    let ends_of_1_0 = [
        (offset_of!(abi::Upstream, credentials), 40),
        (offset_of!(abi::ConfigureArgs, pools), 56),
        (offset_of!(abi::ResolveRequest, ns_source), 112),
        (offset_of!(abi::Host, features), 72),
        (offset_of!(abi::Plugin, place), abi::PLUGIN_SIZE_MIN),
    ];
    for (found, expected) in ends_of_1_0 {
        assert_eq!(found, expected);
    }
}

#[test]
fn no_constant_or_struct_of_the_header_is_missing_from_the_comparison() {
    let header = std::fs::read_to_string(header_path()).unwrap();
    let compared: BTreeSet<_> = constants().into_iter().map(|(name, _)| name).collect();
    let defined = header.lines().filter_map(|line| line.strip_prefix("#define "));
    for definition in defined {
        let name = definition.split([' ', '(']).next().unwrap();
        assert!(compared.contains(name) || name == "RINGPORT_PLUGIN_H", "{name} is not compared");
    }
    let compared: BTreeSet<_> = shapes().into_iter().map(|shape| shape.c_name).collect();
    for line in header.lines().filter(|line| line.ends_with('{')) {
        let Some(name) = line.strip_prefix("typedef struct ") else { continue };
        let name = name.trim_end_matches(" {");
        assert!(compared.contains(name), "{name} is not compared");
    }
}

#[test]
fn the_header_keeps_to_its_budget_and_compiles_alone() {
    let header = std::fs::read_to_string(header_path()).unwrap();
    let lines = header.lines().count();
    assert!(lines <= 600, "{lines} lines; a contract that nobody reads protects nobody");
    assert!(header.lines().all(|line| line.len() <= 100), "a line is longer than 100 columns");
    let only_syntax = ["-x", "c", "-fsyntax-only"].map(std::ffi::OsStr::new);
    let path = header_path();
    compile(&[&only_syntax[..], &[path.as_os_str()]].concat());
}

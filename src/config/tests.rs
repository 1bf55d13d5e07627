//! Whole texts in, a `Config` or problems out.

mod access;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::oci::Namespace;

const REFERENCE: &str = include_str!("../../config/ringport.toml");

/// The least file with one upstream.
const ONE: &str = "[[upstream]]\nnamespace = \"ghcr.io\"\n";

fn namespace(text: &str) -> Namespace {
    Namespace::parse(text).expect(text)
}

fn parse(text: &str) -> Config {
    Config::parse(text, "t.toml").unwrap_or_else(|error| panic!("{error}\n---\n{text}"))
}

fn problems(text: &str) -> Vec<Problem> {
    match Config::parse(text, "t.toml") {
        Ok(config) => panic!("accepted: {config:?}\n---\n{text}"),
        Err(error) => error.problems().to_vec(),
    }
}

/// The text's single problem, as it is printed.
fn problem(text: &str) -> String {
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].to_string()
}

#[test]
fn an_empty_file_is_a_hosted_only_registry_with_the_defaults() {
    let config = parse("");
    assert_eq!(config.server.listen, ["127.0.0.1:5000".parse().unwrap()]);
    assert_eq!(config.server.admin, "127.0.0.1:5001".parse().ok());
    assert_eq!(config.server.driver, Driver::Auto);
    assert_eq!(config.storage.max_size, 100 << 30);
    assert_eq!((config.storage.verify_rate, config.storage.verify_interval), (200 << 20, None));
    assert_eq!(config.routing.resolvers, ["standard"]);
    assert_eq!(config.routing.default_upstream, None);
    assert_eq!(config.routing.hosted, ["*"]);
    assert!(config.upstreams.is_empty() && config.plugins.is_empty());
    assert_eq!(config.log.access, AccessTarget::Stdout);
}

#[test]
fn a_login_in_a_url_is_refused_and_not_shown() {
    for url in ["http://user:canary@p.example:1", "user:canary@p.example:1", "user:canary@"] {
        for key in ["proxy", "endpoints"] {
            let value = if key == "proxy" { format!("{url:?}") } else { format!("[{url:?}]") };
            let told = problem(&format!("[[upstream]]\nnamespace = \"a.io\"\n{key} = {value}\n"));
            assert!(!told.contains("canary") && told.contains("[redacted]"), "{told}");
        }
    }
}

#[test]
fn the_example_of_the_design_is_read() {
    let config = parse(
        r#"
        [server]
        listen = ["127.0.0.1:5000", "[::1]:5000"]
        admin = "off"
        [storage]
        max_size = "100GiB"
        verify_rate = "50MiB"
        verify_interval = "7d"
        [[storage.pool]]
        name = "nvme0"
        path = "/mnt/nvme0"
        max_size = "1TiB"
        [[storage.pool]]
        name = "nvme1"
        path = "/mnt/nvme1"
        [routing]
        resolvers = ["corp", "standard"]
        default_upstream = "docker.io"
        hosted = ["team/*"]
        [[upstream]]
        namespace = "Docker.IO"
        aliases = ["index.docker.io"]
        endpoints = ["https://registry-1.docker.io"]
        tag_ttl = "90s"
        allow_private = ["10.0.0.0/8"]
        forward_ns = true
        cold_ranges = "unverified"
        background_fill = false
        max_size = "20GiB"
        [[plugin]]
        name = "corp"
        path = "/usr/lib/ringport/libcorp.so"
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
        [plugin.config]
        rules = [{ from = "a", to = "b" }]
        [log]
        access = "/var/log/ringport/access.log"
        "#,
    );
    assert_eq!(config.server.listen.len(), 2);
    assert_eq!(config.server.admin, None);
    let pools: Vec<_> =
        config.storage.pools.iter().map(|pool| (pool.name.as_str(), pool.max_size)).collect();
    assert_eq!(pools, [("nvme0", Some(1 << 40)), ("nvme1", None)]);
    let week = Duration::from_secs(7 * 24 * 3600);
    assert_eq!(config.storage.verify_rate, 50 << 20);
    assert_eq!(config.storage.verify_interval, Some(week));
    assert_eq!(config.routing.default_upstream, Some(namespace("docker.io")));
    assert_eq!(config.routing.hosted, ["team/*"]);
    let upstream = config.upstream(&namespace("index.docker.io")).expect("the alias");
    assert_eq!(upstream.namespace.as_str(), "docker.io");
    assert_eq!(upstream.endpoints[0].host, "registry-1.docker.io");
    assert_eq!(upstream.tag_ttl, Duration::from_secs(90));
    assert_eq!(upstream.allow_private[0].to_string(), "10.0.0.0/8");
    assert!(upstream.forward_ns);
    assert_eq!(upstream.cold_ranges, ColdRanges::Unverified);
    assert!(!upstream.background_fill);
    assert_eq!(upstream.max_size, Some(20 << 30));
    assert!(config.plugins[0].config.contains_key("rules"));
    assert_eq!(config.log.access, AccessTarget::File("/var/log/ringport/access.log".into()));
}

#[test]
fn an_upstream_needs_no_more_than_its_namespace() {
    let config =
        parse("[[upstream]]\nnamespace = \"docker.io\"\n[[upstream]]\nnamespace = \"h:5000\"");
    let written = |index: usize| config.upstreams[index].endpoints[0].to_string();
    assert_eq!(written(0), "https://registry-1.docker.io");
    assert_eq!(written(1), "https://h:5000");
    assert_eq!(config.upstreams[0].aliases.len(), 3);
    assert_eq!(config.upstreams[0].token_realms, ["auth.docker.io"]);
    assert!(config.upstreams[1].aliases.is_empty());
    // A name that the file gives to another upstream is not taken as implied.
    let claimed = parse(
        "[[upstream]]\nnamespace = \"docker.io\"\n[[upstream]]\nnamespace = \"index.docker.io\"",
    );
    assert!(!claimed.upstreams[0].aliases.contains(&namespace("index.docker.io")));
    assert_eq!(claimed.upstreams[0].aliases.len(), 2);
}

#[test]
fn default_upstream_may_be_an_alias_and_becomes_canonical() {
    let text = "[routing]\ndefault_upstream = \"index.docker.io\"\n\
                [[upstream]]\nnamespace = \"docker.io\"";
    let config = parse(text);
    assert_eq!(config.routing.default_upstream, Some(namespace("docker.io")));
    assert!(config.routing.hosted.is_empty());
}

/// Each with the place, the key, what was expected, what was found and the way out.
#[test]
fn problems_name_place_key_expectation_finding_and_remedy() {
    let cases = [
        (
            "[server]\nlisten = [\"127.0.0.1:5000\"]\n  lissten = 1",
            "t.toml:3:3: key `server.lissten`: expected one of the keys listen, tls_listen, ",
            "found `lissten`; did you mean `listen`?",
        ),
        (
            "[sever]\n",
            "t.toml:1:2: key `sever`: expected one of the keys server, ",
            "did you mean `server`?",
        ),
        (
            "[[upstream]]\nnamespace = \"a.io\"\n[[upstream]]\nnamespace = \"b.io\"\n\
             tag_tll = \"5m\"",
            "t.toml:5:1: key `upstream[1].tag_tll`: ",
            "did you mean `tag_ttl`?",
        ),
        ("[server]\ncolour = 1", "t.toml:2:1: key `server.colour`: ", "remove it"),
        (
            "[[upstream]]\nnamespace = \"a.io\"\ntag_ttl = \"5 parsecs\"",
            "t.toml:3:11: key `upstream[0].tag_ttl`: expected a duration such as ",
            "found string \"5 parsecs\"; `",
        ),
        (
            "[[upstream]]\nnamespace = \"a.io\"\ntag_ttl = 300",
            "t.toml:3:11: key `upstream[0].tag_ttl`: expected a duration such as ",
            "found integer `300`",
        ),
        ("[server]\nworkers = -1", "t.toml:2:11: key `server.workers`: ", "-1"),
        (
            "[server]\nworkers = 5000",
            "t.toml:2:11: key `server.workers`: expected a number from 0 to 1024, found 5000",
            "",
        ),
        (
            "[server]\nlisten = \"127.0.0.1:5000\"",
            "t.toml:2:10: key `server.listen`: expected a sequence, found string ",
            "",
        ),
        (
            "[server]\nlisten = [\"127.0.0.1:1\", \"localhost:5000\"]",
            "t.toml:2:26: key `server.listen`: expected an address with a port",
            "write \"127.0.0.1:5000\"",
        ),
        (
            "[log]\nformat = \"jsn\"",
            "t.toml:2:10: key `log.format`: expected \"text\" or \"json\", found string \"jsn\"",
            "did you mean \"json\"?",
        ),
        (
            "[[upstream]]\nendpoints = [\"https://a\"]",
            "t.toml:1:1: key `upstream[0].namespace`: expected the key `namespace`, found none",
            "",
        ),
        ("[server\n", "t.toml:1:8: expected valid TOML, found ", ""),
        ("[server]\nworkers = 1\nworkers = 2", "t.toml:3:1: ", "duplicate"),
    ];
    for (text, start, end) in cases {
        let printed = problem(text);
        assert!(printed.starts_with(start), "{printed}\n--- should start with\n{start}");
        assert!(printed.contains(end), "{printed}\n--- should contain\n{end}");
    }
}

#[test]
fn columns_count_characters() {
    let text = "plugin = [{ name = \"é\", path = \"/p\", colour = 1 }]";
    assert!(problem(text).starts_with("t.toml:1:38: key `plugin[0].colour`"), "{}", problem(text));
}

#[test]
fn checks_over_several_keys() {
    let cases = [
        ("[server]\nlisten = []", "server.listen", "empty"),
        ("[server]\nlisten = [\"1.2.3.4:5\", \"1.2.3.4:5\"]", "server.listen", "twice"),
        ("[server]\nadmin = \"0.0.0.0:5001\"", "server.admin", "admin_public = true"),
        (
            "[server]\nlisten = [\"127.0.0.1:5001\"]\nadmin = \"127.0.0.1:5001\"",
            "server.admin",
            "port",
        ),
        ("[server]\nhead_timeout = \"0s\"", "server.head_timeout", "1ms to 1d"),
        ("[storage]\nmax_size = \"1KiB\"", "storage.max_size", "1MiB"),
        ("[storage]\nverify_rate = \"1KiB\"", "storage.verify_rate", "at least 1MiB"),
        ("[storage]\nverify_interval = \"0s\"", "storage.verify_interval", "write \"off\""),
        ("[storage]\nverify_interval = \"no\"", "storage.verify_interval", "or \"off\""),
        ("[storage]\nroot = \"\"", "storage.root", "a path"),
        ("[[storage.pool]]\nname = \"A b\"\npath = \"/x\"", "storage.pool[0].name", "lower-case"),
        (
            "[storage]\nroot = \"/x\"\n[[storage.pool]]\nname = \"a\"\npath = \"/x\"",
            "storage.pool[0].path",
            "of its own",
        ),
        ("[[storage.pool]]\nname = \"root\"\npath = \"/x\"", "storage.pool[0].name", "itself"),
        (
            "[[storage.pool]]\nname = \"a\"\npath = \"/x\"\nmax_size = \"1KiB\"",
            "storage.pool[0].max_size",
            "1MiB",
        ),
        (
            "[[upstream]]\nnamespace = \"ghcr.io\"\nmax_size = \"1KiB\"",
            "upstream[0].max_size",
            "1MiB",
        ),
        ("[routing]\nresolvers = []", "routing.resolvers", "[\"standard\"]"),
        ("[routing]\nresolvers = [\"standart\"]", "routing.resolvers", "mean \"standard\"?"),
        ("[routing]\nresolvers = [\"zebra\"]", "routing.resolvers", "[[plugin]] name = \"zebra\""),
        ("[routing]\nresolvers = [\"standard\", \"standard\"]", "routing.resolvers", "twice"),
        ("[routing]\nhosted = [\"Team/*\"]", "routing.hosted", "lower-case"),
        ("[routing]\nhosted = [\"/team\"]", "routing.hosted", "slash"),
        ("[routing]\nhosted = [\"\"]", "routing.hosted", "1 to 255"),
        (
            "[routing]\ndefault_upstream = \"x.io\"",
            "routing.default_upstream",
            "namespace = \"x.io\"",
        ),
        ("[[plugin]]\nname = \"p\"\npath = \"p.so\"", "plugin[0].path", "absolute"),
        ("[[plugin]]\nname = \"standard\"\npath = \"/p.so\"", "plugin[0].name", "built-in"),
        (
            "[[plugin]]\nname = \"p\"\npath = \"/p.so\"\nsha256 = \"ABC\"",
            "plugin[0].sha256",
            "sha256sum",
        ),
    ];
    for (text, key, word) in cases {
        let printed = problem(text);
        assert!(printed.contains(&format!("key `{key}`")), "{printed}");
        assert!(printed.contains(word), "{printed}\n--- should contain {word}");
    }
    assert!(parse("[server]\nadmin = \"0.0.0.0:5001\"\nadmin_public = true").server.admin_public);
    assert_eq!(parse("[server]\nlisten = [\"0.0.0.0:5000\"]").server.listen.len(), 1);
    assert_eq!(
        parse("[server]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]").server.listen.len(),
        2
    );
}

#[test]
fn checks_of_one_upstream() {
    let cases = [
        ("endpoints = []", "endpoints", "leave the key out"),
        ("endpoints = [\"https://a\", \"https://a/\"]", "endpoints", "twice"),
        ("endpoints = [\"https://u:p@a\"]", "endpoints", "password_file"),
        ("aliases = [\"ghcr.io\"]", "aliases", "ghcr.io twice"),
        ("aliases = [\"https://x.io\"]", "aliases", "registry host"),
        ("allow_private = [\"10.0.0.1/8\"]", "allow_private", "write \"10.0.0.0/8\""),
        ("allow_private = [\"10.0.0.1\"]", "allow_private", "write \"10.0.0.1/32\""),
        ("username = \"ci\"", "username", "add `password_file`"),
        ("password_file = \"p\"", "password_file", "add `username`"),
        ("username = \"a:b\"\npassword_file = \"p\"", "username", "colons"),
        ("credential_command = []", "credential_command", "absolute path"),
        ("credential_command = [\"helper\", \"get\"]", "credential_command", "without a shell"),
        (
            "token_file = \"t\"\ncredential_command = [\"/h\"]",
            "credential_command",
            "remove the others",
        ),
        (
            "endpoints = [\"http://a\"]\ncredential_command = [\"/h\"]",
            "endpoints",
            "https:// endpoint",
        ),
        ("proxy = \"http://u:p@a\"", "proxy", "proxy_password_file"),
        ("proxy_username = \"u\"", "proxy_username", "`proxy_password_file` beside it"),
        ("proxy_password_file = \"p\"", "proxy_password_file", "add `proxy_username`"),
        (
            "proxy = \"none\"\nproxy_username = \"u\"\nproxy_password_file = \"p\"",
            "proxy_username",
            "`proxy` with a URL",
        ),
        (
            "proxy = \"http://a\"\nendpoints = [\"http://127.0.0.1\"]\ntoken_file = \"t\"",
            "proxy",
            "https://",
        ),
        ("token_file = \"t\"\nusername = \"c\"\npassword_file = \"p\"", "token_file", "both"),
        ("client_cert = \"c\"", "client_cert", "add `client_key`"),
        ("client_key = \"c\"", "client_key", "add `client_cert`"),
        ("stall_timeout = \"2d\"", "stall_timeout", "1ms to 1d"),
        ("fills_max = 0", "fills_max", "from 1 to"),
        ("negative_ttl = \"61m\"", "negative_ttl", "from 0s to 1h"),
        ("immutable_tags = [\"\"]", "immutable_tags", "library/*:v*"),
        ("immutable_tags = [\"org/app\"]", "immutable_tags", "as a whole"),
        ("immutable_tags = [\"org:v1:x\"]", "immutable_tags", "as a whole"),
        ("immutable_tags = [\"org/app:v1?\"]", "immutable_tags", "as a whole"),
        ("token_realms = [\"https://auth.x/\"]", "token_realms", "host of a token server"),
        (
            "endpoints = [\"https://a\", \"http://b\"]\ntoken_file = \"t\"",
            "endpoints",
            "http://b; this upstream has credentials",
        ),
        (
            "endpoints = [\"http://localhost:5000\"]\ntoken_file = \"t\"",
            "endpoints",
            "loopback addresses",
        ),
    ];
    for (lines, key, word) in cases {
        let printed = problem(&format!("{ONE}{lines}\n"));
        assert!(printed.contains(&format!("key `upstream[0].{key}`")), "{printed}");
        assert!(printed.contains(word), "{printed}\n--- should contain {word}");
    }
    let local = "endpoints = [\"http://127.0.0.1:5711\", \"http://[::1]:1\"]\ntoken_file = \"t\"";
    assert!(parse(&format!("{ONE}{local}")).upstreams[0].has_credentials());
    assert_eq!(
        problems("[[upstream]]\nnamespace = \"a.io\"\n[[upstream]]\nnamespace = \"A.io:443\"")
            .len(),
        1
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let text = "[server]\nlisten = []\nworkers = 9999\n\
                [[upstream]]\nnamespace = \"a.io\"\nusername = \"x\"";
    assert_eq!(problems(text).len(), 3);
    let printed = Config::parse(text, "t.toml").expect_err("refused").to_string();
    assert_eq!(printed.lines().count(), 3, "{printed}");
}

#[test]
fn load_looks_at_the_files_that_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    let file = folder.path().join("c.toml");
    let text = format!("{ONE}username = \"u\"\npassword_file = {password:?}\n");
    std::fs::write(&file, text).expect("written");

    let missing = Config::load(&file).expect_err("no password file").to_string();
    assert!(missing.contains("c.toml:4:17: key `upstream[0].password_file`"), "{missing}");
    std::fs::write(&password, "hunter2").expect("written");
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o644)).expect("mode set");
    let open = Config::load(&file).expect_err("open to all").to_string();
    assert!(open.contains("mode 0644") && open.contains("chmod 600"), "{open}");
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).expect("mode set");
    assert!(Config::load(&file).is_ok());

    let none = Config::load(&folder.path().join("none.toml")).expect_err("not there");
    assert!(none.to_string().contains("none.toml"), "{none}");
}

#[test]
fn the_embedded_configuration_serves_the_public_registries() {
    let config = Config::embedded().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.routing.default_upstream, Some(namespace("docker.io")));
    for host in ["ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "public.ecr.aws", "lscr.io"] {
        assert!(config.upstream(&namespace(host)).is_some(), "{host}");
    }
    assert!(config.upstreams.iter().all(|upstream| upstream.endpoints.iter().all(|e| e.https)));
    assert!(config.upstreams.iter().all(|upstream| upstream.allow_private.is_empty()));
}

#[test]
fn the_command_line_overrides_and_keeps_the_admin_address_apart() {
    let mut config = parse("");
    let listen = vec!["127.0.0.1:7000".parse().unwrap()];
    config.override_with(listen.clone(), Some("/data".into())).expect("accepted");
    assert_eq!((config.server.listen, config.storage.root), (listen, "/data".into()));
    let mut config = parse("");
    config.override_with(Vec::new(), None).expect("accepted");
    assert_eq!(config, parse(""));
    let admin = vec!["127.0.0.1:5001".parse().unwrap()];
    let refused = config.override_with(admin, None).expect_err("the admin address");
    assert!(refused.to_string().contains("127.0.0.1:5001"), "{refused}");
}

// ---- config/ringport.toml and the effective configuration -----------------------------------

/// The reference with every `#key = ...` and `#[...]` line switched on.
fn reference_with_all_keys() -> String {
    let switch = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => {
            key.to_owned()
        }
        _ => line.to_owned(),
    };
    REFERENCE.lines().map(switch).collect::<Vec<_>>().join("\n")
}

/// `server.listen`, `upstream.tag_ttl`, ...; what is below `plugin.config` is the plugin's.
fn key_paths(table: &toml::Table, path: &str, into: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            _ if path == "plugin.config" => _ = into.insert(path),
            toml::Value::Table(inner) => key_paths(inner, &path, into),
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                let tables = items.iter().filter_map(toml::Value::as_table);
                tables.for_each(|inner| key_paths(inner, &path, into));
            }
            _ => _ = into.insert(path),
        }
    }
}

fn keys_of(text: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    key_paths(&text.parse().expect("TOML"), "", &mut keys);
    keys
}

/// A configuration in which every key of the schema has a value.
fn full() -> Config {
    let mut config = parse(
        "[[storage.pool]]\nname = \"n\"\npath = \"/n\"\n[[upstream]]\nnamespace = \"docker.io\"\n\
         [routing]\ndefault_upstream = \"docker.io\"\n\
         [[plugin]]\nname = \"p\"\npath = \"/p.so\"\nconfig = { a = 1 }\n\
         [auth.token]\nrealm = \"https://a\"\nservice = \"s\"\nissuer = \"i\"\n\
         key_files = [\"/k\"]\n[[hosted]]\nrepositories = [\"*\"]\nmax_size = \"1GiB\"\n\
         max_tags = 1\nkeep_last = 1\nkeep_newer = \"1d\"",
    );
    config.auth.htpasswd_file = Some("/h".into());
    config.server.tls = Some(ServerTls {
        listen: vec!["127.0.0.1:5443".parse().unwrap()],
        certificate: "/f".into(),
        key: "/f".into(),
        client_ca_file: Some("/f".into()),
        client_certificate: ClientCertificate::Optional,
    });
    config.plugins[0].sha256 = Some("0".repeat(64));
    config.storage.pools[0].max_size = Some(1 << 40);
    let upstream = &mut config.upstreams[0];
    upstream.credentials.push(CredentialConfig {
        name: "c".into(),
        rotate: true,
        username: Some("u".into()),
        password_file: Some("/f".into()),
        token_file: Some("/f".into()),
        credential_command: Some(vec!["/f".into()]),
    });
    upstream.username = Some("u".into());
    upstream.max_size = Some(1 << 30);
    upstream.credential_command = Some(vec!["/f".into()]);
    upstream.proxy = ProxyConfig::Direct;
    upstream.proxy_username = Some("u".into());
    for path in [
        &mut upstream.password_file,
        &mut upstream.token_file,
        &mut upstream.ca_file,
        &mut upstream.client_cert,
        &mut upstream.client_key,
        &mut upstream.proxy_password_file,
    ] {
        *path = Some("/f".into());
    }
    config
}

#[test]
fn the_reference_explains_every_key_of_the_schema() {
    let schema = keys_of(&full().to_toml().expect("written"));
    let reference = keys_of(&reference_with_all_keys());
    assert_eq!(schema, reference);
    assert!(schema.len() > 40, "{schema:?}");
    for line in REFERENCE.lines().filter(|line| line.starts_with('#')) {
        let prose = line == "#" || line.starts_with("# ");
        assert!(prose || line.contains(" = ") || line.starts_with("#["), "{line}");
    }
}

#[test]
fn the_reference_shows_the_defaults() {
    let reference = parse(REFERENCE);
    let implied = parse("[[upstream]]\nnamespace = \"docker.io\"");
    assert_eq!(reference, implied);
    // With all keys on, the kinds of login exclude each other: the only problems, there with each
    // of the two places that a login has.
    let problems = problems(&reference_with_all_keys());
    assert_eq!(problems.len(), 4, "{problems:#?}");
    let of = |key: &str| problems.iter().filter(|p| p.key.ends_with(key)).count();
    assert_eq!((of("token_file"), of("credential_command")), (2, 2), "{problems:#?}");
}

#[test]
fn the_effective_configuration_reads_back_as_itself() {
    for config in [parse(""), parse(REFERENCE), Config::embedded().unwrap()] {
        let written = config.to_toml().expect("written");
        assert_eq!(parse(&written), config, "{written}");
    }
    let mut off = parse(
        "[server]\nadmin = \"off\"\n[storage]\nverify_interval = \"36h\"\n[log]\naccess = \"./a.log\"\nlevel = \"trace\"",
    );
    off.server.driver = Driver::IoUring;
    assert_eq!(parse(&off.to_toml().expect("written")), off);
}

#[test]
fn named_credentials_and_remote_tiers_are_checked() {
    let upstream = "[[upstream]]\nnamespace = \"a.example\"\n";
    let named = |lines: &str| format!("{upstream}[[upstream.credential]]\n{lines}\n");
    let tier = |tier: &str| format!("[storage]\nremote_tiers = [{tier}]");
    let twice = format!(
        "{}[[upstream.credential]]\nname = \"c\"\ntoken_file = \"/t\"",
        named("name = \"c\"\ntoken_file = \"/t\"")
    );
    let clear = "[[upstream]]\nnamespace = \"a.example\"\nendpoints = [\"http://a.example\"]\n\
                 [[upstream.credential]]\nname = \"c\"\ntoken_file = \"/t\"";
    let cases = [
        (named("name = \"c\""), "expected `username` with `password_file`, `token_file`, or"),
        (named("name = \"c\"\nusername = \"u\""), "expected `password_file` beside it"),
        (named("name = \"C\"\ntoken_file = \"/t\""), "found \"C\""),
        (twice, "found \"c\" twice"),
        (clear.to_owned(), "expected an https:// endpoint"),
        (tier("\"https://s3.example/bucket\""), "expected an address without a path"),
        (tier("\"http://s3.example\""), "expected an https:// address"),
        (tier("\"https://a\", \"https://a:443\""), "found https://a twice"),
        ("[[plugin]]\nname = \"p\"\npath = \"/p\"\nbudget = \"2s\"".into(), "from 1us to 1s"),
    ];
    for (text, fragment) in cases {
        let printed = problem(&text);
        assert!(printed.contains(fragment), "{fragment:?} is not in: {printed}");
    }
    let good = parse(&format!("{}{}", tier("\"http://127.0.0.1:9000\"\n"), ""));
    assert_eq!(good.storage.remote_tiers[0].to_string(), "http://127.0.0.1:9000");
    assert!(good.storage.remote_allow_private.is_empty());
    let open =
        parse(&format!("{}\nremote_allow_private = [\"10.0.0.0/8\"]", tier("\"https://a\"")));
    assert_eq!(open.storage.remote_allow_private[0].to_string(), "10.0.0.0/8");
    let good = parse(&named("name = \"c\"\nusername = \"u\"\npassword_file = \"/p\""));
    assert_eq!(good.upstreams[0].credentials[0].name, "c");
    assert!(good.upstreams[0].has_credentials());
}

#[test]
fn the_effective_configuration_holds_no_secret() {
    let config = parse(
        "[[plugin]]\nname = \"p\"\npath = \"/p.so\"\n[plugin.config]\napi_token = \"hunter2\"\n\
         url = \"kept\"\ntoken_file = \"/kept\"\nnested = { Password = \"hunter2\" }\n\
         secrets = [\"hunter2\", { client_secret = \"hunter2\" }]",
    );
    let written = config.to_toml().expect("written");
    assert!(!written.contains("hunter2"), "{written}");
    assert!(written.contains("kept") && written.contains("/kept"), "{written}");
    assert!(written.contains("[redacted]"));
}

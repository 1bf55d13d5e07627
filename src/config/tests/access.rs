//! `[auth]`, `[[hosted]]`, `pull` of an upstream.

use super::*;
use crate::oci::{RepositoryName, Tag};

const TOKEN: &str = "[auth.token]\nrealm = \"https://a/token\"\nservice = \"s\"\nissuer = \"i\"\n";

fn user(name: &str) -> Subject {
    Subject::User(name.to_owned())
}

fn hosted(lines: &str) -> String {
    format!("[[hosted]]\nrepositories = [\"team/*\"]\n{lines}\n")
}

#[test]
fn without_a_word_everyone_pulls_who_logged_in_pushes_and_nobody_deletes() {
    let config = parse("[[upstream]]\nnamespace = \"a.io\"");
    let rule = config.hosted_rule(&RepositoryName::parse("any/name").unwrap());
    assert_eq!(rule, &config.hosted_otherwise);
    assert_eq!(rule.pull, [Subject::Anonymous]);
    assert_eq!(rule.push, [Subject::Authenticated]);
    assert!(rule.delete.is_empty() && !rule.anonymous_mount);
    assert_eq!(rule.missing_references, MissingReferences::Refused);
    assert_eq!(config.upstreams[0].pull, [Subject::Anonymous]);
    assert_eq!(config.auth.catalog, [Subject::Authenticated]);
    assert!(!config.has_login());
    // A table that says nothing more is the built-in rule for its names.
    let empty =
        HostedRule { repositories: vec!["*".into()], ..parse(&hosted("")).hosted[0].clone() };
    assert_eq!(empty, config.hosted_otherwise);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let config = parse(
        "[[hosted]]\nrepositories = [\"team/app\", \"tools/*\"]\ndelete = [\"alice\"]\n\
         [[hosted]]\nrepositories = [\"team/*\"]\npush = [\"bob\", \"authenticated\"]\n\
         immutable_tags = [\"v*\"]",
    );
    let cases = [
        ("team/app", Some("team/app")),
        ("tools/a/b", Some("tools/*")),
        ("team/app2", Some("team/*")),
        ("team/a/b", Some("team/*")),
        ("team", None),
        ("teamx/app", None),
        ("x/team/app", None),
    ];
    for (name, expected) in cases {
        let name = RepositoryName::parse(name).unwrap();
        let rule = config.hosted_rule(&name);
        let is_declared = *rule != config.hosted_otherwise;
        assert_eq!(rule.pattern_for(&name).filter(|_| is_declared), expected, "{name}");
    }
    assert_eq!(config.hosted[0].delete, [user("alice")]);
    assert_eq!(config.hosted[1].push, [user("bob"), Subject::Authenticated]);
    let tag = |tag: &str| Tag::parse(tag).unwrap();
    assert_eq!(config.hosted[1].immutable_pattern_for(&tag("v1")), Some("v*"));
    assert_eq!(config.hosted[1].immutable_pattern_for(&tag("latest")), None);
}

#[test]
fn problems_of_access_name_the_way_out() {
    let cases = [
        ("[auth]\nrealm = \"a\\\"b\"".to_owned(), "auth.realm", "without \" and \\"),
        ("[auth]\ncatalog = [\"Anonymous\"]".into(), "auth.catalog", "mean \"anonymous\"?"),
        ("[auth]\ncatalog = [\"\"]".into(), "auth.catalog", "1 to 256 bytes"),
        ("[auth]\nhtpaswd_file = \"h\"".into(), "auth.htpaswd_file", "mean `htpasswd_file`?"),
        (format!("{TOKEN}key_files = []"), "auth.token.key_files", "remove [auth.token]"),
        (TOKEN.into(), "auth.token.key_files", "found none"),
        (
            format!("{TOKEN}key_files = [\"k\"]").replace("https://a/token", "a/token"),
            "auth.token.realm",
            "https://auth.example/token",
        ),
        ("[[hosted]]\nrepositories = []".into(), "hosted[0].repositories", "write [\"*\"]"),
        ("[[hosted]]\nrepositories = [\"A/*\"]".into(), "hosted[0].repositories", "lower-case"),
        ("[[hosted]]\npull = []".into(), "hosted[0].repositories", "found none"),
        (hosted("immutable_tags = [\"a:b\"]"), "hosted[0].immutable_tags", "the tag alone"),
        (
            hosted("missing_references = \"in_index\""),
            "hosted[0].missing_references",
            "mean \"in_indexes\"?",
        ),
        (hosted("max_size = \"1KiB\""), "hosted[0].max_size", "at least 1MiB"),
        (hosted("max_tags = 0"), "hosted[0].max_tags", "from 1 to"),
        (hosted("keep_last = 0"), "hosted[0].keep_last", "from 1 to"),
        (hosted("keep_newer = \"0s\""), "hosted[0].keep_newer", "leave the key out"),
        (format!("{ONE}pull = [\"authenticate\"]"), "upstream[0].pull", "\"authenticated\"?"),
    ];
    for (text, key, word) in cases {
        let printed = problem(&text);
        assert!(printed.contains(&format!("key `{key}`")), "{printed}");
        assert!(printed.contains(word), "{printed}\n--- should contain {word}");
    }
}

/// "anonymous" for push, delete or the catalog, on loopback and off it, with the word and without.
#[test]
fn everyone_may_write_off_loopback_only_by_a_word_of_its_own() {
    let open = ["push = [\"anonymous\"]", "delete = [\"alice\", \"anonymous\"]"].map(hosted);
    let catalog = "[auth]\ncatalog = [\"anonymous\"]\n".to_owned();
    for text in open.into_iter().chain([catalog]) {
        assert!(parse(&text).advice().len() <= 1, "loopback");
        let public = format!("[server]\nlisten = [\"127.0.0.1:1\", \"[::]:5000\"]\n{text}");
        let printed = problem(&public);
        assert!(
            printed.contains("\"anonymous\" while the registry listens on [::]:5000"),
            "{printed}"
        );
        assert!(printed.contains("anonymous_writes_public = true"), "{printed}");
        let word = "anonymous_writes_public = true\n";
        let said = match public.contains("[auth]\n") {
            true => public.replace("[auth]\n", &format!("[auth]\n{word}")),
            false => format!("[auth]\n{word}{public}"),
        };
        assert!(parse(&said).auth.anonymous_writes_public);
        // The command line can't do what the file can't.
        let listen = vec!["0.0.0.0:5000".parse().unwrap()];
        let refused = parse(&text).override_with(listen.clone(), None).expect_err(&text);
        assert!(refused.to_string().contains("--listen 0.0.0.0:5000"), "{refused}");
        parse(&said).override_with(listen, None).expect("meant");
    }
    let tls = "[server]\ntls_listen = [\"[::]:5000\"]\ntls_certificate = \"c\"\ntls_key = \"k\"\n";
    let printed = problem(&format!("{tls}{}", hosted("push = [\"anonymous\"]")));
    assert!(printed.contains("listens on [::]:5000"), "{printed}");
    let pull = format!("[server]\nlisten = [\"0.0.0.0:1\"]\n{}", hosted("pull = [\"anonymous\"]"));
    parse(&pull);
}

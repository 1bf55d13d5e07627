//! The house rules, as tests: layers, doors, `unsafe`, sizes, headers, words, dependencies, and
//! documents that say what the code does.
//!
//! The tables that the rules go by stand in ARCHITECTURE.md behind `<!-- tidy: NAME -->`. A rule
//! that is in the way is changed there, in the open; every message says what to do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "nothing here runs on a worker")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FILE_LINES_WARN: usize = 300;
const FUNCTION_LINES_MAX: usize = 70;
const ARCHITECTURE_LINES_MAX: usize = 250;
const README_LINES_MAX: usize = 150;
const ABI_HEADER_LINES_MAX: usize = 600;

#[test]
fn imports_go_downward() {
    let layers = layers();
    let mut excused: BTreeSet<(String, String)> = BTreeSet::new();
    for row in table("siblings") {
        excused.insert((ticked(&row[0]).remove(0), ticked(&row[1]).remove(0)));
    }
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for source in sources("src").filter(|s| !s.module.is_empty()) {
        let own = layers.get(&source.module);
        for (line, import) in source.imports() {
            let at = format!("{}:{line}: `{}` imports `{import}`", source.path, source.module);
            let pair = (source.module.clone(), import.clone());
            match (own, layers.get(&import)) {
                _ if import == source.module => {}
                (Some(own), Some(other)) if other < own => {}
                (Some(own), Some(other)) if other == own && excused.contains(&pair) => {
                    seen.insert(pair);
                }
                (Some(own), Some(other)) => wrong.push(format!(
                    "{at}, layer {other} from layer {own}: move what both need below them, let \
                     the layer above join them, or (same layer only) excuse it with a reason in \
                     ARCHITECTURE.md, table `siblings`"
                )),
                _ => wrong.push(format!("{at}: put both into ARCHITECTURE.md, table `layers`")),
            }
        }
    }
    for (from, to) in excused.difference(&seen) {
        wrong.push(format!(
            "ARCHITECTURE.md excuses `{from}` → `{to}`, which nothing needs: remove the row"
        ));
    }
    report(&wrong);
}

#[test]
fn every_module_has_a_layer() {
    let lib = read("src/lib.rs");
    let declared = lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';'));
    let declared: BTreeSet<String> = declared.map(str::to_owned).collect();
    let listed: BTreeSet<String> = layers().into_keys().collect();
    let wrong: Vec<String> = declared
        .symmetric_difference(&listed)
        .map(|module| {
            format!(
                "`{module}` stands in only one of src/lib.rs and ARCHITECTURE.md, table `layers`: \
                 give it its layer there, and a row in the code map"
            )
        })
        .collect();
    report(&wrong);
}

#[test]
fn one_crate_one_door() {
    let mut wrong = Vec::new();
    let all: Vec<Source> = sources("src").filter(|s| !s.is_test).collect();
    for row in table("doors") {
        let places = ticked(&row[1]);
        for name in ticked(&row[0]) {
            for source in &all {
                let is_door = places.iter().any(|place| source.path.starts_with(place.as_str()));
                for line in uses_of(&source.code, &name).filter(|_| !is_door) {
                    wrong.push(format!(
                        "{}:{line}: `{name}` may be named in {} only: call what that module \
                         offers, or extend it there",
                        source.path,
                        places.join(" and ")
                    ));
                }
            }
        }
    }
    report(&wrong);
}

#[test]
fn unsafe_stands_only_where_it_is_listed() {
    let listed: BTreeSet<String> = table("unsafe").iter().flat_map(|r| ticked(&r[0])).collect();
    let has_unsafe = |source: &Source| words(&source.code).any(|word| word == "unsafe");
    let all = sources("src").chain(sources("plugins")).chain(sources("tests"));
    let found: BTreeSet<String> = all.filter(has_unsafe).map(|source| source.path).collect();
    let wrong: Vec<String> = found
        .difference(&listed)
        .map(|path| {
            format!(
                "{path} uses `unsafe`: find a safe way (rustix often has one), or list the file \
                 with its reason in ARCHITECTURE.md, table `unsafe`"
            )
        })
        .chain(listed.difference(&found).map(|path| {
            format!("{path} is listed in ARCHITECTURE.md, table `unsafe`, but has none: remove it")
        }))
        .collect();
    report(&wrong);
}

#[test]
fn files_stay_small() {
    let mut wrong = Vec::new();
    for source in sources("src").chain(sources("plugins")).filter(|s| !s.is_test) {
        let lines = source.code.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!(
                "{}: {lines} lines, at most {FILE_LINES_MAX}: split it along its nouns",
                source.path
            ));
        } else if lines > FILE_LINES_WARN {
            // Past the test harness, which keeps what a passing test prints to itself.
            let _ = writeln!(
                std::io::stderr(),
                "tidy: {}: {lines} lines; {FILE_LINES_WARN} is the aim",
                source.path
            );
        }
    }
    let documents = [
        ("ARCHITECTURE.md", ARCHITECTURE_LINES_MAX, "move detail into the folders' headers"),
        ("README.md", README_LINES_MAX, "move detail into docs/"),
        ("plugins/abi/include/ringport_plugin.h", ABI_HEADER_LINES_MAX, "the contract must fit"),
    ];
    for (path, lines_max, remedy) in documents {
        let lines = read(path).lines().count();
        if lines > lines_max {
            wrong.push(format!("{path}: {lines} lines, at most {lines_max}: {remedy}"));
        }
    }
    report(&wrong);
}

#[test]
fn functions_fit_a_screen() {
    let mut wrong = Vec::new();
    for source in sources("src").chain(sources("plugins")).filter(|s| !s.is_test) {
        let lines: Vec<&str> = source.code.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let Some((indent, name)) = function(line) else { continue };
            // rustfmt puts the closing brace below the first letter of the function.
            let close = format!("{}}}", " ".repeat(indent));
            let opens = |l: &&str| l.ends_with('{') || l.ends_with('}') || l.ends_with(';');
            let Some(head) = lines[start..].iter().position(opens) else { continue };
            if !lines[start + head].ends_with('{') {
                continue;
            }
            let end = lines[start + head..].iter().skip(1).position(|l| l.starts_with(&close));
            let length = end.map_or(0, |n| head + n + 2);
            if length > FUNCTION_LINES_MAX {
                wrong.push(format!(
                    "{}:{}: `{name}` has {length} lines, at most {FUNCTION_LINES_MAX}: give its \
                     steps names",
                    source.path,
                    start + 1
                ));
            }
        }
    }
    report(&wrong);
}

#[test]
fn every_folder_opens_with_its_header() {
    let mut wrong = Vec::new();
    for module in layers().into_keys() {
        let path = format!("src/{module}/mod.rs");
        if !root().join(&path).exists() {
            continue;
        }
        let text = read(&path);
        let header: Vec<&str> = text.lines().map_while(|l| l.strip_prefix("//!")).collect();
        let whole = header.join("\n");
        for (part, found) in [
            ("what it is, in its first line", header.first().is_some_and(|l| !l.is_empty())),
            ("`May import:`", whole.contains("May import:")),
            ("an `**Invariant:**`", whole.contains("**Invariant:**")),
            ("what is deliberately absent", whole.to_lowercase().contains("absent")),
        ] {
            if !found {
                wrong.push(format!("{path}: its header lacks {part}: begin the file with it"));
            }
        }
        let allowed = whole.split("May import:").nth(1).unwrap_or_default();
        let allowed = allowed.split("\n\n").next().unwrap_or_default();
        if allowed.contains("everything") || allowed.is_empty() {
            continue;
        }
        let allowed: BTreeSet<&str> = words(allowed).collect();
        let own = sources("src").filter(|s| s.module == module && !s.is_test);
        let imports: BTreeSet<String> =
            own.flat_map(|s| s.imports()).map(|(_, import)| import).collect();
        for import in imports.iter().filter(|i| **i != module && !allowed.contains(i.as_str())) {
            wrong.push(format!(
                "{path}: imports `{import}`, which its `May import:` does not name: name it there \
                 or do without"
            ));
        }
    }
    report(&wrong);
}

#[test]
fn nothing_unfinished_and_no_place_of_one_machine() {
    // Spelled in two halves, so that this file does not trip over itself.
    let everywhere = [
        (concat!("to", "do!"), "finish it, or take it out"),
        (concat!("unim", "plemented!"), "finish it, or answer with an error that says so"),
        (concat!("FIX", "ME"), "fix it, or open an issue"),
        (concat!("/wo", "rk/"), "name no machine's folders: use a path relative to the repository"),
        (concat!("/ho", "me/"), "name no machine's folders: use a path relative to the repository"),
        (concat!("/tmp", "/"), "make a folder with tempfile"),
    ];
    let in_code = [
        (concat!("fn ge", "t_"), "a getter is named after what it returns"),
        (concat!("Mana", "ger"), "say what it does"),
        (concat!("Hel", "per"), "say what it does"),
    ];
    let mut wrong = Vec::new();
    for path in text_files() {
        let text = read(&path);
        let is_code = path.ends_with(".rs") && !path.starts_with("tests/");
        for (at, line) in text.lines().enumerate() {
            let words = everywhere.iter().chain(in_code.iter().filter(|_| is_code));
            for (word, remedy) in words.filter(|(word, _)| line.contains(word)) {
                wrong.push(format!("{path}:{}: `{word}`: {remedy}", at + 1));
            }
        }
    }
    report(&wrong);
}

#[test]
fn dependencies_are_used_and_explained() {
    let explained: BTreeSet<String> =
        table("dependencies").iter().flat_map(|r| ticked(&r[0])).collect();
    let (mut wrong, mut all) = (Vec::new(), BTreeSet::new());
    for (manifest, folder) in manifests() {
        let folders =
            [format!("{folder}src"), format!("{folder}tests"), format!("{folder}benches")];
        let there = folders.iter().filter(|folder| root().join(folder).is_dir());
        let own: Vec<Source> = there.flat_map(|folder| sources(folder)).collect();
        let (mut section, text) = (String::new(), read(&manifest));
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                name.clone_into(&mut section);
            }
            let is_test = section == "dev-dependencies";
            let Some((name, _)) = line.split_once(" = ") else { continue };
            if (!is_test && section != "dependencies") || name.starts_with('#') {
                continue;
            }
            all.insert(name.to_owned());
            let known_as = name.replace('-', "_");
            let mut own = own.iter().filter(|s| is_test || !s.is_test);
            let used = own.any(|s| uses_of(&s.whole, &known_as).next().is_some());
            // Loaded as a file: its name is only a string there.
            let is_loaded = is_test && name.starts_with("ringport-plugin-");
            if !used && !is_loaded {
                wrong.push(format!("{manifest}: `{name}` in [{section}] is used nowhere: drop it"));
            }
        }
        if folder.starts_with("plugins/") && text.lines().any(|l| l.starts_with("ringport =")) {
            wrong.push(format!("{manifest}: a plugin must not know the host, only abi and sdk"));
        }
    }
    for name in all.symmetric_difference(&explained) {
        wrong.push(format!(
            "`{name}` stands in only one of the manifests and ARCHITECTURE.md, table \
             `dependencies`: say there what it is for, or drop it"
        ));
    }
    report(&wrong);
}

#[test]
fn what_operators_see_is_documented() {
    let operations = read("docs/OPERATIONS.md");
    let mut wrong = Vec::new();
    let mut require = |what: &str, name: &str, document: &str, in_document: &str| {
        if !in_document.contains(&format!("`{name}")) {
            wrong.push(format!("{what} `{name}` is not in {document}: say there what it means"));
        }
    };
    for source in sources("src").filter(|s| !s.is_test) {
        let metrics = source.path.starts_with("src/telemetry/metrics")
            || source.path.starts_with("src/server/")
            || source.path.starts_with("src/plugin/");
        for text in string_literals(&source.text).filter(|_| metrics) {
            let is_name = text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let is_metric = text.starts_with("ringport_") || text.starts_with("process_");
            if is_name && is_metric && !text.starts_with("ringport_plugin_entry") {
                require("the metric", &text, "docs/OPERATIONS.md", &operations);
            }
        }
    }
    let entry = read("src/telemetry/access_log/entry.rs");
    let line = entry.split("struct Line<'a> {").nth(1).and_then(|rest| rest.split('}').next());
    let line = line.expect("the access log's fields in `struct Line`");
    for field in line.lines().filter(|l| !l.contains('#')).filter_map(|l| l.split_once(':')) {
        require("the access log's field", field.0.trim(), "docs/OPERATIONS.md", &operations);
    }
    let hacking = read("docs/HACKING.md");
    for source in sources("src").chain(sources("tests")) {
        let text = read(&source.path);
        let of_tests = |word: &&str| {
            ["RINGPORT_TEST_", "RINGPORT_ATTACK_"].iter().any(|prefix| word.starts_with(prefix))
        };
        for name in words(&text).filter(of_tests) {
            require("the variable", name, "docs/HACKING.md", &hacking);
        }
    }
    report(&wrong);
}

#[test]
fn documents_link_to_what_is_there() {
    let mut wrong = Vec::new();
    for path in text_files().filter(|path| path.ends_with(".md")) {
        let folder = Path::new(&path).parent().unwrap_or(Path::new("")).to_owned();
        let text = read(&path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let is_outside = target.is_empty() || target.contains("://");
            if !is_outside && !root().join(&folder).join(target).exists() {
                wrong.push(format!("{path} links to {target}, which is not there: mend the link"));
            }
        }
    }
    for (document, must) in [
        ("README.md", "cargo run --release"),
        ("README.md", "tests/run"),
        ("README.md", "](ARCHITECTURE.md)"),
        ("README.md", "](config/ringport.toml)"),
        ("README.md", "](plugins/README.md)"),
        ("ARCHITECTURE.md", "](config/ringport.toml)"),
        ("CHANGELOG.md", "## [Unreleased]"),
    ] {
        if !read(document).contains(must) {
            wrong.push(format!("{document} has lost `{must}`: readers look for it there"));
        }
    }
    report(&wrong);
}

// ---- what the rules read -------------------------------------------------------------------

/// One Rust file.
struct Source {
    /// From the repository's root.
    path: String,
    /// The first folder below `src`; empty outside of it and for `lib.rs` and `main.rs`.
    module: String,
    is_test: bool,
    /// As it is, without the inline module `tests`.
    text: String,
    /// The same with comments and the insides of strings blanked; lines stay where they are.
    code: String,
    /// Like `code`, but with the inline tests.
    whole: String,
}

impl Source {
    fn read(path: String) -> Source {
        let whole_text = read(&path);
        let text = without_inline_tests(&whole_text).to_owned();
        let below = path.strip_prefix("src/").unwrap_or_default();
        let first = below.split('/').next().unwrap_or_default();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        let module = if ["lib", "main"].contains(&module) { "" } else { module };
        let is_test =
            path.contains("/tests/") || path.ends_with("tests.rs") || path.starts_with("tests/");
        let code = code_only(&text);
        Source {
            module: module.to_owned(),
            is_test,
            code,
            whole: code_only(&whole_text),
            text,
            path,
        }
    }

    /// The modules of the crate's root that it names, with their lines.
    fn imports(&self) -> Vec<(usize, String)> {
        if self.is_test {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || "_:$".contains(c)) {
                continue;
            }
            let line = self.code[..at].matches('\n').count() + 1;
            let rest = &self.code[at + "crate::".len()..];
            found.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
        // `super` often enough in a row leads to the root, too.
        let depth = self.path.matches('/').count() - usize::from(self.path.ends_with("/mod.rs"));
        let way_up = "super::".repeat(depth);
        for (at, _) in self.code.match_indices(&way_up).filter(|_| depth > 0) {
            let line = self.code[..at].matches('\n').count() + 1;
            let rest = &self.code[at + way_up.len()..];
            found.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
        found
    }
}

/// The first segments of `a::b` or `{a::b, c}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| words(text).next().unwrap_or_default().to_owned();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Lines on which the crate `name` is named at the head of a path.
fn uses_of<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.lines().enumerate().filter_map(move |(at, line)| {
        let named = line.match_indices(name).any(|(start, _)| {
            let before = line[..start].trim_end();
            let after = &line[start + name.len()..];
            let is_head = !before.ends_with("::") || before.ends_with(" ::");
            let is_word = !line[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let is_use = before.ends_with("use") && (after == ";" || after.starts_with(" as "));
            let goes_on = after.starts_with("::") || is_use;
            is_word && goes_on && (is_head || before == "::")
        });
        named.then_some(at + 1)
    })
}

/// The column and the name of a function that begins on this line.
fn function(line: &str) -> Option<(usize, &str)> {
    let text = line.trim_start();
    let before = text.split("fn ").next()?;
    let is_prefix = before.split_whitespace().all(|word| {
        ["const", "async", "unsafe", "extern", "\"\"", "\" \""].contains(&word)
            || word.starts_with("pub")
            || word.ends_with(')')
    });
    let name = text.strip_prefix(before)?.strip_prefix("fn ")?;
    let name = words(name).next()?;
    is_prefix.then_some((line.len() - text.len(), name))
}

fn without_inline_tests(text: &str) -> &str {
    let mut from = 0;
    while let Some(found) = text[from..].find("#[cfg(test)]\n") {
        let start = from + found;
        let mut rest = text[start..].lines().skip_while(|line| line.starts_with('#'));
        if rest.next().is_some_and(|l| l.starts_with("mod ") && l.ends_with('{')) {
            return &text[..start];
        }
        from = start + 1;
    }
    text
}

/// Blanks comments and the insides of strings and characters.
fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or(' ');
    let (mut out, mut i) = (String::with_capacity(text.len()), 0);
    while i < chars.len() {
        let begins_raw = at(i) == 'r' && (at(i + 1) == '"' || at(i + 1) == '#');
        let is_word =
            i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_') && at(i - 1) != 'b';
        let end = if at(i) == '/' && at(i + 1) == '/' {
            (i..chars.len()).find(|&n| at(n) == '\n').unwrap_or(chars.len())
        } else if begins_raw && !is_word && raw_string_end(&chars, i).is_some() {
            raw_string_end(&chars, i).unwrap_or(i)
        } else if at(i) == '"' {
            let mut end = i + 1;
            while end < chars.len() && at(end) != '"' {
                end += if at(end) == '\\' { 2 } else { 1 };
            }
            end + 1
        } else if at(i) == '\'' && (at(i + 2) == '\'' || at(i + 1) == '\\') {
            (i + 2..chars.len()).find(|&n| at(n) == '\'').map_or(i + 1, |n| n + 1)
        } else {
            out.push(at(i));
            i += 1;
            continue;
        };
        let is_string = at(i) == '"';
        out.push_str(if is_string { "\"" } else { "" });
        out.extend((i..end.min(chars.len())).map(at).filter(|&c| c == '\n'));
        out.push_str(if is_string { "\"" } else { "" });
        i = end;
    }
    out
}

fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    (open + 1..chars.len()).find_map(|n| {
        let closes = chars[n] == '"' && chars[n + 1..].iter().take(hashes).all(|&c| c == '#');
        closes.then_some(n + 1 + hashes)
    })
}

/// Simple string literals, without escapes.
fn string_literals(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn layers() -> BTreeMap<String, usize> {
    let number = |row: &[String]| row[0].parse::<usize>().expect("a layer's number");
    table("layers")
        .iter()
        .flat_map(|row| ticked(&row[1]).into_iter().map(|module| (module, number(row))))
        .collect()
}

/// The rows of the table behind `<!-- tidy: NAME -->` in ARCHITECTURE.md.
#[track_caller]
fn table(name: &str) -> Vec<Vec<String>> {
    let text = read("ARCHITECTURE.md");
    let mark = format!("<!-- tidy: {name} -->\n");
    let rest = text.split_once(&mark).map(|(_, rest)| rest);
    let rest = rest.unwrap_or_else(|| panic!("ARCHITECTURE.md has lost its table {mark}"));
    let rows = rest.lines().take_while(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| row.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "ARCHITECTURE.md: no rows follow {mark}");
    rows
}

/// What stands in backticks.
fn ticked(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Each package's manifest, and its folder with a slash at the end (empty for the root).
fn manifests() -> Vec<(String, String)> {
    let mut all = vec![("Cargo.toml".to_owned(), String::new())];
    for group in ["plugins", "benches"] {
        let members = fs::read_dir(root().join(group)).expect("the members' folder");
        let members = members.map(|entry| entry.expect("an entry").file_name());
        for member in members.filter_map(|name| name.into_string().ok()) {
            let manifest = format!("{group}/{member}/Cargo.toml");
            if root().join(&manifest).exists() {
                all.push((manifest, format!("{group}/{member}/")));
            }
        }
    }
    all
}

fn sources(folder: &str) -> impl Iterator<Item = Source> {
    let rust = files_below(folder).into_iter().filter(|path| path.ends_with(".rs"));
    rust.map(Source::read)
}

/// Everything that people read.
fn text_files() -> impl Iterator<Item = String> {
    let folders = ["src", "plugins", "tests", "config", "docs", ".ci"].iter().flat_map(|folder| {
        if root().join(folder).is_dir() { files_below(folder) } else { Vec::new() }
    });
    let top = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md", "Cargo.toml"];
    let is_text = |path: &String| {
        let ends = [".rs", ".md", ".toml", ".h", ".c", "Makefile", "run", ".service"];
        ends.iter().any(|end| path.ends_with(end))
    };
    folders.filter(is_text).chain(top.map(str::to_owned))
}

fn files_below(folder: &str) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.trim_end_matches('/').to_owned()]);
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root().join(&folder));
        for entry in entries.unwrap_or_else(|e| panic!("{folder}: {e}")) {
            let entry = entry.expect("an entry of a folder");
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            match entry.file_type().expect("its type").is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[track_caller]
fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

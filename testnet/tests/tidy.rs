//! Rules of the house that the compiler does not enforce, checked with every `cargo test`.
//!
//! It reads the source of the workspace as text and never builds or changes anything. A finding names the file, the line,
//! the rule and what to do instead. Start with [`Workspace::read`]; each test states one rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Lines of one Rust file. A longer one hides more than one decision.
const FILE_LINES_MAX: usize = 1000;

/// Lines of one function, its signature and braces included. The aim is 70; what is longer than this is split.
const FUNCTION_LINES_MAX: usize = 100;

const CRATES: [&str; 4] = ["protocol", "policy", "node", "testnet"];

/// What may lie in the repository's root, besides names that begin with a dot.
const ROOT_ENTRIES: [&str; 16] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "justfile",
    "node",
    "policy",
    "protocol",
    "rustfmt.toml",
    "specs",
    "testnet",
];

/// One Rust file, taken apart. `code` and `comments` have the lines of the file, with everything else blanked;
/// text and character literals are in neither.
struct Source {
    path: String,
    lines: usize,
    text: String,
    code: String,
    comments: String,
}

struct Workspace {
    root: PathBuf,
    sources: Vec<Source>,
}

impl Workspace {
    fn read() -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut sources = Vec::new();
        for name in CRATES {
            collect(&root.join(name), name, &mut sources)?;
        }
        Ok(Self { root, sources })
    }

    fn file(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.root.join(name))
    }

    /// Every line of code, as path, number and text.
    fn code_lines(&self) -> impl Iterator<Item = (&str, usize, &str)> {
        self.sources
            .iter()
            .flat_map(|source| source.code.lines().enumerate().map(|(at, line)| (source.path.as_str(), at + 1, line)))
    }

    /// Findings for lines of code that `bad` objects to.
    fn object(&self, bad: impl Fn(&str, &str) -> Option<String>) -> Vec<String> {
        self.code_lines()
            .filter_map(|(path, number, line)| bad(path, line).map(|what| format!("{path}:{number}: {what}")))
            .collect()
    }
}

/// Reads the Rust files beneath a folder, in the order of their names.
fn collect(folder: &Path, name: &str, sources: &mut Vec<Source>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                collect(&entry.path(), &path, sources)?;
            }
        } else if path.ends_with(".rs") {
            let text = fs::read_to_string(entry.path())?;
            let (code, comments) = take_apart(&text);
            sources.push(Source { path, lines: text.lines().count(), text, code, comments });
        }
    }
    Ok(())
}

/// Splits Rust source into code and comments, each with the lines of the whole.
fn take_apart(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
    let mut at = 0;
    while at < chars.len() {
        let (length, kind) = token(&chars, at);
        for char in chars.iter().skip(at).take(length) {
            let blank = if *char == '\n' { '\n' } else { ' ' };
            code.push(if kind == Kind::Code { *char } else { blank });
            comments.push(if kind == Kind::Comment { *char } else { blank });
        }
        at += length;
    }
    (code, comments)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// The length in characters of what begins at `at`, at least one, and what it is. Code goes one character at a time.
fn token(chars: &[char], at: usize) -> (usize, Kind) {
    let get = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    let in_word = |back: usize| at.checked_sub(back).and_then(|i| chars.get(i)).is_some_and(|c| is_word(*c));
    match (get(0), get(1)) {
        ('/', '/') => (chars.iter().skip(at).take_while(|c| **c != '\n').count(), Kind::Comment),
        ('/', '*') => (block_comment(chars, at), Kind::Comment),
        ('"', _) => (until_quote(chars, at, '"'), Kind::Literal),
        ('\'', '\\') => (until_quote(chars, at, '\''), Kind::Literal),
        ('\'', _) if get(2) == '\'' => (3, Kind::Literal),
        ('r', '"' | '#') if !in_word(1) || (matches!(chars.get(at - 1), Some('b' | 'c')) && !in_word(2)) => {
            let hashes = chars.iter().skip(at + 1).take_while(|c| **c == '#').count();
            if get(1 + hashes) == '"' { (raw_string(chars, at, hashes), Kind::Literal) } else { (1, Kind::Code) }
        }
        _ => (1, Kind::Code),
    }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The length of a literal with escapes, from its opening to its closing quote.
fn until_quote(chars: &[char], at: usize, quote: char) -> usize {
    let mut length = 1;
    while let Some(char) = chars.get(at + length) {
        length += if *char == '\\' { 2 } else { 1 };
        if *char == quote {
            break;
        }
    }
    length.min(chars.len() - at)
}

fn raw_string(chars: &[char], at: usize, hashes: usize) -> usize {
    let mut length = hashes + 2;
    while let Some(char) = chars.get(at + length) {
        length += 1;
        let closing = chars.iter().skip(at + length).take(hashes).filter(|c| **c == '#').count();
        if *char == '"' && closing == hashes {
            return length + hashes;
        }
    }
    chars.len() - at
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut length, mut depth) = (2, 1);
    while depth > 0 && at + length < chars.len() {
        match (chars.get(at + length), chars.get(at + length + 1)) {
            (Some('*'), Some('/')) => (length, depth) = (length + 2, depth - 1),
            (Some('/'), Some('*')) => (length, depth) = (length + 2, depth + 1),
            _ => length += 1,
        }
    }
    length.min(chars.len() - at)
}

/// The words of a line, each with what stands before and after it.
fn words(line: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    line.split(|c| !is_word(c)).filter(|word| !word.is_empty()).map(move |word| {
        let start = word.as_ptr() as usize - line.as_ptr() as usize;
        let before = line.get(..start).unwrap_or_default().trim_end();
        (before, word, line.get(start + word.len()..).unwrap_or_default())
    })
}

/// Whether a path is the module `name` (`name.rs`, or a file beneath `name/`).
fn is_module(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

#[track_caller]
fn assert_tidy(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}\n  {}\n", findings.join("\n  "));
}

#[test]
fn source_is_taken_apart_correctly() {
    // Text, then its code and its comments without the blanks.
    let cases = [
        ("a // b\nc", "a\nc", "//b\n"),
        ("a /* b /* c */ d */ e", "ae", "/*b/*c*/d*/"),
        (r#"f("x // \" y") // z"#, "f()", "//z"),
        (r##"f(r#"x " y"#, b'"', '\'', 'a)"##, "f(,b,,'a)", ""),
        ("r#type br\"q\" bar\"q\"", "r#typebbar", ""),
        ("\"a\nb\" c", "\nc", "\n"),
        ("\"open", "", ""),
        ("/* open", "", "/*open"),
    ];
    for (text, code, comments) in cases {
        let found = take_apart(text);
        assert_eq!((found.0.replace(' ', ""), found.1.replace(' ', "")), (code.into(), comments.into()), "{text}");
        assert_eq!((found.0.len(), found.1.len()), (text.len(), text.len()), "{text}");
    }
    let found: Vec<_> = words("let a = b::c(d);").map(|(_, word, _)| word).collect();
    assert_eq!(found, ["let", "a", "b", "c", "d"]);
    assert!(is_module("node/src/mesh.rs", "node/src/mesh") && is_module("node/src/mesh/a.rs", "node/src/mesh"));
    assert!(!is_module("node/src/mesh2.rs", "node/src/mesh"));
}

#[test]
fn each_outer_library_has_one_home() {
    let workspace = Workspace::read().expect("the source is readable");
    // The certificates of the bulk plane are those of libp2p, so that one key is one identity.
    let certificates = |path: &str| path == "node/src/bulk/tls.rs" || path.starts_with("node/tests/crossing/");
    // Tests of a plane may play its peers, and speak as they do.
    let is_module =
        |path: &str, module: &str| is_module(path, module) || is_module(path, &module.replace("/src/", "/tests/"));
    let findings = workspace.object(|path, line| {
        words(line).find_map(|(_, word, after)| {
            let home = match word {
                "libp2p" if certificates(path) && after.starts_with("::identity") => return None,
                "libp2p_tls" => is_module(path, "node/src/mesh") || certificates(path),
                _ if word == "libp2p" || word.starts_with("libp2p_") => is_module(path, "node/src/mesh"),
                "quinn" | "quinn_udp" | "rustls" => {
                    is_module(path, "node/src/bulk")
                        || is_module(path, "node/src/crossing")
                        // What the bulk plane is measured against.
                        || path.starts_with("testnet/src/bench/")
                }
                "pkcs8" => is_module(path, "node/src/keys") || is_module(path, "protocol/src/model_key"),
                "p256" => is_module(path, "protocol/src/model_key"),
                "sled" => is_module(path, "node/src/catalogue"),
                "saphyr_parser" => is_module(path, "node/src/models/card"),
                "tokio_tun" => is_module(path, "testnet/src/wan"),
                _ if word == "cedar_policy" || word.starts_with("cedar_policy_") => path.starts_with("policy/"),
                _ => true,
            };
            (!home).then(|| format!("names `{word}`"))
        })
    });
    assert_tidy(
        "libp2p is named only in node/src/mesh* (and `libp2p::identity`, `libp2p_tls` in node/src/bulk/tls.rs), quinn and \
         rustls only in node/src/bulk* and testnet/src/bench, sled only in node/src/catalogue*, pkcs8 only in node/src/keys* and protocol/src/model_key.rs, p256 only there, saphyr_parser only in node/src/models/card*, tokio_tun only in testnet/src/wan*, \
         cedar_policy only in policy/: translate to our own words there",
        &findings,
    );
}

#[test]
fn only_the_border_makes_permissions() {
    let workspace = Workspace::read().expect("the source is readable");
    let mut findings = workspace.object(|path, line| {
        words(line).find_map(|(before, word, after)| {
            let literal = matches!(word, "Outbound" | "Inbound") && after.trim_start().starts_with('{');
            let declared = ["struct", "impl", "for", "->"].iter().any(|earlier| before.ends_with(earlier));
            let elsewhere = path != "protocol/src/border.rs";
            (literal && !declared && elsewhere).then(|| format!("makes or takes apart a `{word}`"))
        })
    });
    let border = workspace.sources.iter().find(|source| source.path == "protocol/src/border.rs").expect("the border");
    for name in ["Outbound", "Inbound"] {
        // Private fields keep other modules from making one; no trait may make a second one out of it.
        let (before, after) = border.code.split_once(&format!("pub struct {name} {{")).expect("it is declared there");
        let derives = before.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if words(derives).any(|(_, word, _)| ["Clone", "Copy", "Default", "Deserialize"].contains(&word)) {
            findings.push(format!("protocol/src/border.rs: `{name}` can be made without a decision"));
        }
        let fields = after.split('}').next().unwrap_or_default();
        if fields.lines().any(|line| line.trim_start().starts_with("pub")) {
            findings.push(format!("protocol/src/border.rs: `{name}` has a field that is not private"));
        }
    }
    assert_tidy("only protocol/src/border.rs makes a permission to move bytes: ask it for one", &findings);
}

#[test]
fn the_pure_crates_reach_for_nothing() {
    const AMBIENT: [&str; 5] = ["env", "fs", "net", "process", "thread"];
    const OUTER: [&str; 8] = ["tokio", "rand", "getrandom", "libp2p", "quinn", "sled", "axum", "hyper"];
    let workspace = Workspace::read().expect("the source is readable");
    let pure = |path: &str| path.starts_with("protocol/src/") || path.starts_with("policy/src/");
    let mut findings = workspace.object(|path, line| {
        if !pure(path) {
            return None;
        }
        words(line).find_map(|(before, word, after)| {
            let ambient = AMBIENT.contains(&word) && (before.ends_with("std::") || in_std_group(before));
            let outer = OUTER.contains(&word) && (after.starts_with("::") || before.ends_with("use"));
            let clock = word == "now" && before.ends_with("::") && after.starts_with('(');
            (ambient || outer || clock || word == "SystemTime" || word == "Instant").then(|| format!("names `{word}`"))
        })
    });
    for name in ["protocol", "policy"] {
        let manifest = workspace.file(&format!("{name}/Cargo.toml")).expect("the manifest");
        let dependencies = section(&manifest, "dependencies");
        findings.extend(
            dependencies.iter().filter(|d| OUTER.contains(&d.as_str())).map(|d| format!("{name}/Cargo.toml: `{d}`")),
        );
    }
    assert_tidy(
        "protocol and policy take clock, randomness, disk and network as arguments or return them as effects",
        &findings,
    );
}

/// Whether what stands before a word on its line opens a `std::{` group that is still open, at its first level.
fn in_std_group(before: &str) -> bool {
    before.rsplit_once("std::{").is_some_and(|(_, group)| {
        let depth = group.matches('{').count().checked_sub(group.matches('}').count());
        depth == Some(0) && !group.ends_with("::")
    })
}

/// The keys of one section of a manifest.
fn section(manifest: &str, name: &str) -> BTreeSet<String> {
    let head = format!("[{name}]");
    let lines = manifest.lines().skip_while(|line| line.trim() != head).skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', '=', ' ']).next())
        .filter(|key| !key.is_empty() && !key.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let workspace = Workspace::read().expect("the source is readable");
    let allowed: BTreeMap<&str, &[&str]> = [
        ("protocol", &[][..]),
        ("policy", &["alliance-protocol"]),
        ("policy/proofs", &["alliance-protocol", "alliance-policy"]),
        ("node", &["alliance-protocol", "alliance-policy", "alliance-proofs"]),
        ("testnet", &["alliance-protocol", "alliance-policy", "alliance-node"]),
    ]
    .into();
    let mut findings = Vec::new();
    for (name, allowed) in allowed {
        let manifest = workspace.file(&format!("{name}/Cargo.toml")).expect("the manifest");
        let mut named = section(&manifest, "dependencies");
        named.extend(section(&manifest, "build-dependencies"));
        for edge in named.iter().filter(|key| key.starts_with("alliance-") && !allowed.contains(&key.as_str())) {
            findings.push(format!("{name}/Cargo.toml: depends on `{edge}`"));
        }
    }
    assert_tidy("dependencies point one way: protocol <- policy <- proofs <- node <- testnet", &findings);
}

#[test]
fn files_are_named_for_what_they_decide() {
    let workspace = Workspace::read().expect("the source is readable");
    let vague = ["util", "common", "helper", "types", "misc"];
    let findings: Vec<_> = workspace
        .sources
        .iter()
        .filter(|source| source.path.split('/').any(|part| vague.iter().any(|word| part.starts_with(word))))
        .map(|source| source.path.clone())
        .collect();
    assert_tidy("a type lives in the module that upholds its invariant; name the file for that", &findings);
}

#[test]
fn every_module_says_what_it_does() {
    let workspace = Workspace::read().expect("the source is readable");
    let findings: Vec<_> = workspace
        .sources
        .iter()
        .filter(|source| !source.text.trim_start().starts_with("//! "))
        .map(|source| format!("{}:1", source.path))
        .collect();
    assert_tidy("every module begins with `//!` and a sentence: what it does and what it never does", &findings);
}

#[test]
fn nothing_is_left_unfinished() {
    let workspace = Workspace::read().expect("the source is readable");
    let mut findings = workspace.object(|_, line| {
        words(line).find_map(|(_, word, after)| {
            let bad = matches!(word, "dbg" | "todo" | "unimplemented") && after.starts_with('!');
            bad.then(|| format!("`{word}!`"))
        })
    });
    for source in &workspace.sources {
        for (at, line) in source.comments.lines().enumerate() {
            if words(line).any(|(_, word, _)| matches!(word, "FIXME" | "TODO" | "XXX" | "HACK")) {
                findings.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    assert_tidy("finish it, or say in the documentation what is missing and what happens instead", &findings);
}

#[test]
fn files_and_functions_are_short() {
    let workspace = Workspace::read().expect("the source is readable");
    let mut findings = Vec::new();
    for source in &workspace.sources {
        if source.lines > FILE_LINES_MAX {
            findings.push(format!("{}: {} lines, more than {FILE_LINES_MAX}", source.path, source.lines));
        }
        for (line, name, length) in functions(&source.code) {
            if length > FUNCTION_LINES_MAX {
                let path = &source.path;
                findings.push(format!("{path}:{line}: `{name}` has {length} lines, more than {FUNCTION_LINES_MAX}"));
            }
        }
    }
    assert_tidy("split it where a decision ends", &findings);
}

/// The functions of formatted code: line, name and length. A function ends at the closing brace that is indented as its
/// first line is; one that begins and ends on one line, or has no body, is left out.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((_, _, after)) = words(line).find(|(_, word, _)| *word == "fn") else { continue };
        let name = words(after).next().map(|(_, word, _)| word.to_owned()).unwrap_or_default();
        if name.is_empty() || line.trim_end().ends_with([';', '}', ',']) {
            continue;
        }
        let own = indent(line);
        let end = lines.iter().skip(at + 1).position(|later| {
            indent(later) == own && (later.trim_start().starts_with('}') || later.trim_end().ends_with(';'))
        });
        found.extend(end.map(|end| (at + 1, name, end + 2)));
    }
    found
}

#[test]
fn functions_are_measured_correctly() {
    let code = "fn a() {\n    1\n}\n\ntrait T {\n    fn b();\n    fn c(\n        x: u8,\n    ) -> u8;\n    fn d(\n        x: u8,\n    ) {\n        2;\n    }\n}\n";
    let found = functions(code);
    let expected = [(1, "a".to_owned(), 3), (7, "c".to_owned(), 3), (10, "d".to_owned(), 5)];
    assert_eq!(found, expected);
}

#[test]
fn source_is_ascii_outside_text() {
    let workspace = Workspace::read().expect("the source is readable");
    let mut findings = Vec::new();
    for source in &workspace.sources {
        for (at, line) in source.code.lines().zip(source.comments.lines()).enumerate() {
            if !line.0.is_ascii() || !line.1.is_ascii() {
                findings.push(format!("{}:{}: {}{}", source.path, at + 1, line.0.trim(), line.1.trim()));
            }
        }
    }
    assert_tidy(
        "code and comments are ASCII, so that no letter looks like another; law packs and text are exempt",
        &findings,
    );
}

#[test]
fn every_queue_has_a_bound() {
    let workspace = Workspace::read().expect("the source is readable");
    let findings = workspace.object(|_, line| {
        words(line).find(|(_, word, _)| word.starts_with("unbounded")).map(|(_, word, _)| format!("`{word}`"))
    });
    assert_tidy("queues are bounded; what is more is refused with a code", &findings);
}

#[test]
fn the_root_holds_the_house_and_nothing_else() {
    let workspace = Workspace::read().expect("the source is readable");
    let findings: Vec<_> = root_entries(&workspace.root)
        .expect("the root is readable")
        .into_iter()
        .filter(|name| !name.starts_with('.') && !ROOT_ENTRIES.contains(&name.as_str()))
        .collect();
    assert_tidy(
        "a crate lives inside protocol, policy, node or testnet; prose lives in root files, specs and modules",
        &findings,
    );
}

/// What lies in the root: what git keeps, or, away from a repository, all but the build output.
fn root_entries(root: &Path) -> io::Result<BTreeSet<String>> {
    let listed = Command::new("git").arg("-C").arg(root).args(["ls-tree", "--name-only", "HEAD"]).output();
    if let Some(output) = listed.ok().filter(|output| output.status.success()) {
        return Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect());
    }
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root)? {
        names.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    names.remove("target");
    Ok(names)
}

#[test]
fn the_lock_file_holds_nothing_banned() {
    let workspace = Workspace::read().expect("the source is readable");
    let deny = workspace.file("deny.toml").expect("deny.toml");
    let lock = workspace.file("Cargo.lock").expect("Cargo.lock");
    let bans: Vec<_> = deny.lines().filter_map(|line| quoted(line.trim().strip_prefix("{ crate = ")?)).collect();
    assert!(bans.len() >= 10, "deny.toml has its bans, one to a line: {bans:?}");
    let mut findings = Vec::new();
    let (mut name, mut packages) = ("", 0);
    for line in lock.lines() {
        if let Some(found) = line.strip_prefix("name = ").and_then(quoted) {
            (name, packages) = (found, packages + 1);
        } else if let Some(version) = line.strip_prefix("version = ").and_then(quoted) {
            findings.extend(
                bans.iter()
                    .filter(|ban| banned(ban, name, version))
                    .map(|ban| format!("Cargo.lock: {name} {version} is banned by `{ban}`: cargo update -p {name}")),
            );
        } else if line.starts_with("source = \"git+") {
            findings.push(format!("Cargo.lock: {name} comes from git: only the crate registry is a source"));
        }
    }
    assert!(packages > 100, "Cargo.lock lists its packages");
    assert_tidy("deny.toml says why", &findings);
}

/// The text between the first two quotes.
fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

/// Whether a ban (`name`, or `name:<version`) covers a package.
fn banned(ban: &str, name: &str, version: &str) -> bool {
    match ban.split_once(":<") {
        None => ban == name,
        Some((crate_name, floor)) => crate_name == name && numbers(version) < numbers(floor),
    }
}

/// The three numbers of a version. A pre-release counts as the release before, which errs towards a ban.
fn numbers(version: &str) -> (Vec<u64>, bool) {
    let plain = version.split('+').next().unwrap_or_default();
    let (core, pre) = plain.split_once('-').map_or((plain, ""), |(core, pre)| (core, pre));
    (core.split('.').map(|part| part.parse().unwrap_or(0)).collect(), pre.is_empty())
}

#[test]
fn versions_are_compared_as_numbers() {
    assert!(banned("quinn-proto:<0.11.19", "quinn-proto", "0.11.9"));
    assert!(banned("quinn-proto:<0.11.19", "quinn-proto", "0.11.19-rc.1"));
    assert!(!banned("quinn-proto:<0.11.19", "quinn-proto", "0.11.19"));
    assert!(!banned("quinn-proto:<0.11.19", "quinn-proto", "0.12.0+x"));
    assert!(!banned("quinn-proto:<0.11.19", "quinn", "0.1.0"));
    assert!(banned("openssl", "openssl", "9.9.9"));
}

#[test]
fn clauses_are_unique_and_citations_resolve() {
    let workspace = Workspace::read().expect("the source is readable");
    let mut findings = Vec::new();
    let mut clauses = BTreeSet::new();
    for (name, text) in specifications(&workspace.root).expect("specs is readable") {
        // A clause begins its line: `**STATEMENT-3**`.
        for clause in text.lines().filter_map(|line| line.strip_prefix("**")?.split("**").next()) {
            if clause.rsplit_once('-').is_some_and(|(_, n)| n.parse::<u32>().is_ok()) && !clauses.insert(clause.to_owned())
            {
                findings.push(format!("specs/{name}: `{clause}` is there twice"));
            }
        }
    }
    assert!(!clauses.is_empty(), "the specifications have clauses");
    let families: BTreeSet<&str> = clauses.iter().filter_map(|clause| Some(clause.rsplit_once('-')?.0)).collect();
    for source in &workspace.sources {
        for (at, line) in source.comments.lines().enumerate() {
            for cited in line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
                let family = cited.rsplit_once('-').filter(|(_, n)| n.parse::<u32>().is_ok()).map(|(family, _)| family);
                if family.is_some_and(|family| families.contains(family)) && !clauses.contains(cited) {
                    findings.push(format!("{}:{}: cites `{cited}`, which no specification has", source.path, at + 1));
                }
            }
        }
    }
    assert_tidy("a clause has one number for ever, and code cites clauses that exist", &findings);
}

#[test]
fn bounds_in_the_specifications_exist() {
    let workspace = Workspace::read().expect("the source is readable");
    let limits = workspace.file("protocol/src/limits.rs").expect("the bounds");
    let mut findings = Vec::new();
    for (name, text) in specifications(&workspace.root).expect("specs is readable") {
        for (at, line) in text.lines().enumerate() {
            let named = words(line).map(|(_, word, _)| word).filter(|word| word.len() > 4 && word.ends_with("_MAX"));
            for bound in named.filter(|bound| !limits.contains(&format!("pub const {bound}:"))) {
                findings.push(format!("specs/{name}:{}: `{bound}`", at + 1));
            }
        }
    }
    assert_tidy("a bound that others rely on stands in protocol/src/limits.rs, with unit and reason", &findings);
}

/// The specifications: name and text.
fn specifications(root: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root.join("specs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(found)
}

//! Who may import whom: facts flow one way, and each package has its place. A new arrow is a line here, so that
//! it is seen; a module without a line is an error, as is a line that nothing needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Each module, the modules that it uses, and the packages. The order is that of the flow, from the domain up:
/// a source never sees the metrics or the store, only the commands know the configuration, SQLite stays in the
/// store, and the text formats in the exposition.
#[rustfmt::skip]
const LAYERS: [(&str, &str, &str); 23] = [
    ("time", "", "serde humantime"),
    ("tls", "", "serde"),
    ("window", "time", "serde"),
    ("call", "time tls", "serde"),
    ("record", "time tls", "serde_json thiserror wide"),
    ("batch", "call source time window", "hashbrown"),
    ("aws", "source time",
     "tokio aws_config aws_credential_types aws_smithy_runtime_api aws_smithy_types governor"),
    ("source", "aws batch call record time tls window",
     "tokio tracing serde serde_json thiserror libdeflater flate2 memchr simdutf8 uuid xxhash_rust hashbrown walkdir \
      globset humantime bytesize fastrand aws_config aws_sdk_athena aws_sdk_cloudtrail aws_sdk_cloudwatchlogs"),
    ("sample_trail", "time", "serde_json flate2 uuid fastrand"),
    ("series", "call tls", "hashbrown xxhash_rust"),
    ("totals", "call series time tls", "hashbrown"),
    ("store", "batch call series time tls totals window", "tokio rusqlite thiserror humantime hashbrown postcard"),
    ("metrics", "batch source store time", "prometheus rustix"),
    ("status", "store time", ""),
    ("shutdown", "", "tokio"),
    ("worker", "metrics shutdown source status store time", "tokio tracing thiserror"),
    ("exposition", "call metrics series time tls totals", "bytes prometheus flate2 crc32fast hashbrown"),
    ("http", "exposition metrics shutdown status time",
     "tokio hyper hyper_util bytes tracing humantime thiserror serde serde_saphyr rustls tokio_rustls aws_lc_rs x509_cert \
      bcrypt base64 governor"),
    ("logging", "", "tracing tracing_subscriber tracing_logfmt"),
    ("config", "aws call exposition logging series source store tls window", "config thiserror humantime bytesize strsim"),
    ("cli", "logging", "clap humantime"),
    ("commands",
     "aws batch cli config exposition http logging metrics sample_trail shutdown source status store time tls window \
      worker",
     "tokio tracing serde_json humantime bytesize tempfile fastrand sd_notify aws_sdk_athena aws_sdk_cloudtrail \
      aws_sdk_cloudwatchlogs aws_sdk_sts"),
    ("main", "cli commands worker", "clap"),
];

/// What is pure: no clock, no files, no network, no threads.
const PURE: [&str; 8] = [
    "time", "tls", "window", "call", "record", "batch", "series", "totals",
];

/// Only these ask what time it is; all else is told. `time` has the function that they ask.
const READ_THE_CLOCK: [&str; 3] = ["commands", "http", "worker"];

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// The program of each module, without its tests and comments; submodules belong to their module.
fn modules() -> BTreeMap<String, String> {
    let mut modules: BTreeMap<String, String> = BTreeMap::new();
    let mut folders = vec![PathBuf::from(SOURCES)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(SOURCES).unwrap();
            let module = below.iter().next().unwrap().to_str().unwrap();
            let module = module.strip_suffix(".rs").unwrap_or(module);
            *modules.entry(module.to_owned()).or_default() += &program(&path);
        }
    }
    modules.remove("lib").expect("the map of the modules");
    modules
}

/// A file's text up to its tests, without comments.
fn program(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let (program, tests) = text
        .split_once("\n#[cfg(test)]\n")
        .unwrap_or((&text, "\n}\n"));
    let (_, after) = tests.split_once("\n}\n").unwrap();
    assert_eq!(after, "", "{}: tests stand last", path.display());
    let lines = program.lines();
    let code = lines.map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    code.flat_map(|line| [line, "\n"]).collect()
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The parts of `text` before and after each `path::` that stands at the start of a path.
fn around<'t>(text: &'t str, path: &str) -> Vec<(&'t str, &'t str)> {
    let parts: Vec<&str> = text.split(path).collect();
    let pairs = parts.windows(2).map(|pair| (pair[0], pair[1]));
    pairs
        .filter(|(before, _)| !before.trim_end_matches("::").ends_with(is_name))
        .collect()
}

/// The names that follow `path::`: one, or each of a group in braces.
fn names_after(text: &str, path: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, rest) in around(text, path) {
        let mut depth = 0;
        let mut first = String::new();
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            let group = rest.starts_with('{');
            match c {
                _ if depth == 0 && (group || !is_name(c)) => break,
                ',' if depth == 1 => first.push(','),
                c if depth <= 1 && (is_name(c) || c == ':') => first.push(c),
                _ => {}
            }
        }
        let paths = first.split(',').filter(|path| !path.is_empty());
        names.extend(paths.filter_map(|path| Some(path.split(':').next()?.to_owned())));
    }
    names
}

/// The packages of `Cargo.toml` that the program is built from, as the code writes them.
fn packages() -> Vec<String> {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("\n[dependencies]\n").unwrap();
    let (dependencies, _) = rest.split_once("\n[").unwrap();
    let lines = dependencies
        .lines()
        .filter_map(|line| line.split_once(" = "));
    let names = lines.filter(|(name, _)| !name.starts_with('#'));
    names.map(|(name, _)| name.replace('-', "_")).collect()
}

/// Whether `text` has a path that starts with `package`.
fn uses_package(text: &str, package: &str) -> bool {
    !around(text, &format!("{package}::")).is_empty()
}

#[test]
fn modules_use_what_their_layer_says_and_nothing_else() {
    let packages = packages();
    let allowed: BTreeMap<&str, _> = LAYERS
        .iter()
        .map(|(module, modules, packages)| {
            let words = |text: &str| -> BTreeSet<String> {
                text.split_whitespace().map(str::to_owned).collect()
            };
            (*module, (words(modules), words(packages)))
        })
        .collect();
    let modules = modules();
    let mut found = BTreeMap::new();
    for (module, text) in &modules {
        let own = match module.as_str() {
            "main" => "cloudtrail_tls_exporter::",
            _ => "crate::",
        };
        let mut used = names_after(text, own);
        used.remove(module.as_str());
        // Where our `config` is imported, `config::` is ours and not the package.
        let named = packages.iter().cloned();
        let named = named.filter(|package| !used.contains(package) && uses_package(text, package));
        let named: BTreeSet<String> = named.collect();
        found.insert(module.as_str(), (used, named));
    }
    let differences: Vec<String> = found
        .keys()
        .chain(allowed.keys())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|module| found.get(**module) != allowed.get(**module))
        .map(|module| {
            let (is, may) = (found.get(module), allowed.get(module));
            format!("{module}\n  uses    {is:?}\n  allowed {may:?}")
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn each_package_is_used() {
    let all: String = modules().into_values().collect();
    let idle: Vec<String> = packages()
        .into_iter()
        .filter(|package| !uses_package(&all, package))
        .collect();
    assert_eq!(idle, Vec::<String>::new());
}

#[test]
fn few_modules_read_the_clock_and_the_domain_does_nothing_but_count() {
    for (module, text) in modules() {
        let asks = text.contains("Timestamp::now");
        assert!(
            !asks || READ_THE_CLOCK.contains(&module.as_str()),
            "{module} reads the clock"
        );
        let asks = text.contains("SystemTime::now");
        assert!(!asks || module == "time", "{module} reads the clock");
        if PURE.contains(&module.as_str()) {
            for word in ["fs", "net", "env", "io", "process", "thread", "sync::mpsc"] {
                let path = format!("std::{word}");
                assert!(!text.contains(&path), "{module} uses {path}");
            }
            assert!(!text.contains("Instant"), "{module} measures time");
        }
    }
}

#[test]
fn paths_are_found_in_every_form() {
    let text =
        "use crate::{a::{b, c}, d,\n  e_f::g};\nuse mycrate::x;\nlet y = crate::h::i(crate::j);";
    let found: Vec<String> = names_after(text, "crate::").into_iter().collect();
    assert_eq!(found, ["a", "d", "e_f", "h", "j"]);
    assert!(uses_package("use config::File;", "config"));
    assert!(uses_package("x: ::config::File", "config"));
    assert!(!uses_package(
        "use crate::config::File; my_config::x()",
        "config"
    ));
}

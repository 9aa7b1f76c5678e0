//! The web configuration, file by file: `tests/web_config` has one for each rule, and `outcomes.txt` what
//! `check-config` tells of each, to the letter. They are written after exporter-toolkit's own cases.

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use programs::run;
use support::BINARY;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/web_config");
const OUTCOMES: &str = include_str!("web_config/outcomes.txt");
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/least.ok.toml");

/// Exit code and all that `check-config` tells of a web configuration, run in its folder.
fn check(home: &Path, config: &str, web: &str) -> (i32, String) {
    let mut command = Command::new(BINARY);
    command.args([
        "check-config",
        "--config.file",
        config,
        "--web.config.file",
        web,
    ]);
    let output = run(command.env_clear().current_dir(home), b"");
    let told = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(told).unwrap(),
    )
}

/// What is told of every file of the folder.
fn outcomes() -> BTreeMap<String, (i32, String)> {
    let home = tempfile::tempdir().unwrap();
    certificates::deliver(home.path());
    let mut outcomes = BTreeMap::new();
    for entry in fs::read_dir(FOLDER).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(stem) = name.strip_suffix(".yml") {
            fs::copy(Path::new(FOLDER).join(&name), home.path().join(&name)).unwrap();
            let (code, told) = check(home.path(), CONFIG, &name);
            // The first lines of a success are about the configuration.
            let told = told
                .lines()
                .filter(|line| !line.contains(CONFIG) && !line.contains("every"));
            let told: String = told.flat_map(|line| [line, "\n"]).collect();
            outcomes.insert(stem.to_owned(), (code, told));
        }
    }
    outcomes
}

#[test]
fn every_file_has_its_outcome() {
    let outcomes = outcomes();
    let mut found = String::new();
    for (name, (code, told)) in &outcomes {
        let expected = if name.ends_with(".good") { 0 } else { 2 };
        assert_eq!(*code, expected, "{name}: {told}");
        write!(found, "== {name}\n{told}").unwrap();
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(format!("{FOLDER}/outcomes.txt"), &found).unwrap();
        return;
    }
    assert_eq!(found, OUTCOMES);
}

#[test]
fn no_secret_of_a_file_is_told() {
    let home = tempfile::tempdir().unwrap();
    certificates::deliver(home.path());
    let key = fs::read_to_string(home.path().join("server.key")).unwrap();
    let line = key.lines().nth(1).unwrap();
    for text in [
        "basic_auth_users: {alice: SECRET}\n".to_owned(),
        "basic_auth_users: [SECRET]\n".to_owned(),
        "basic_auth_users: {alice: {SECRET: 1}}\n".to_owned(),
        "basic_auth_users: SECRET\n".to_owned(),
        "tls_server_config: {cert_file: server.crt, key: SECRET}\n".to_owned(),
        "tls_server_config: {cert_file: server.crt, key: [SECRET]}\n".to_owned(),
        "basic_auth_users: {alice: SECRET\n".to_owned(),
    ] {
        let text = text.replace("SECRET", line);
        fs::write(home.path().join("web.yml"), &text).unwrap();
        let (code, told) = check(home.path(), CONFIG, "web.yml");
        assert_eq!(code, 2, "{text}");
        assert!(!told.contains(line), "{told}");
    }
}

#[test]
fn both_configurations_are_told_at_once_and_paths_start_at_the_file() {
    let home = tempfile::tempdir().unwrap();
    let below = home.path().join("below");
    fs::create_dir(&below).unwrap();
    certificates::deliver(&below);
    let tls = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n";
    fs::write(below.join("web.yml"), tls).unwrap();
    let (code, told) = check(home.path(), CONFIG, "below/web.yml");
    assert_eq!(code, 0, "{told}");
    assert!(
        told.ends_with("\nbelow/web.yml is valid: TLS, HTTP/2\n"),
        "{told}"
    );
    let absolute = below.join("server.key").display().to_string();
    fs::write(
        home.path().join("web.yml"),
        tls.replace("server.key", &absolute),
    )
    .unwrap();

    let (code, told) = check(home.path(), "none.toml", "web.yml");
    let expected = "error: the configuration has 1 problem\n  cannot read none.toml: No such file or directory (os error 2)\n\
                    the web configuration web.yml has 1 problem\n  tls_server_config.cert_file = \"server.crt\": \
                    cannot be read: No such file or directory (os error 2)\n";
    assert_eq!((code, told.as_str()), (2, expected));
    let (code, told) = check(home.path(), CONFIG, "none.yml");
    let expected = "error: the web configuration none.yml has 1 problem\n  cannot be read: \
                    No such file or directory (os error 2)\n";
    assert_eq!((code, told.as_str()), (2, expected));
}

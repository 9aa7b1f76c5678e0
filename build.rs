//! Tells the program what it was built from and with.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=BUILD_REVISION");
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    let given = env::var("BUILD_REVISION").ok();
    let revision = given.or_else(|| first_line("git", &["rev-parse", "--short=12", "HEAD"]));
    let compiler = first_line(
        &env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()),
        &["--version"],
    );
    println!(
        "cargo::rustc-env=BUILD_REVISION={}",
        revision.as_deref().unwrap_or("unknown")
    );
    let number = compiler.as_deref().and_then(|line| line.split(' ').nth(1));
    println!(
        "cargo::rustc-env=BUILD_RUSTC={}",
        number.unwrap_or("unknown")
    );
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}

//! Records the commit that the library is built from, for `summary.json`; with "-dirty" where the files that results
//! depend on are not those of the commit.

use std::process::Command;

/// What results depend on, from this folder.
const SOURCES: [&str; 8] = [
    "src",
    "Cargo.toml",
    "../gumbel",
    "../gumbel-data",
    "../gumbel-fused",
    "../gumbel-vae",
    "../../Cargo.toml",
    "../../Cargo.lock",
];

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}

fn main() {
    for path in ["../../.git/HEAD", "../../.git/refs/heads"].iter().chain(&SOURCES) {
        println!("cargo:rerun-if-changed={path}");
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return };
    let status = git(&[&["status", "--porcelain", "--"], &SOURCES[..]].concat());
    let mark = if status.is_some_and(|s| s.is_empty()) { "" } else { "-dirty" };
    println!("cargo:rustc-env=GUMBEL_COMMIT={commit}{mark}");
}

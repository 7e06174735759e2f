//! `gumbel report` from outside.

mod common;

use common::{fails, succeeds};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn gumbel(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gumbel"));
    command.args(args).env_remove("GUMBEL_DATA").current_dir(folder).output().unwrap()
}

#[test]
fn pages_and_event_files_of_runs() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let small = ["--epochs", "2", "--hidden", "16", "--train-limit", "400", "--eval-limit", "100", "--quiet"];
    for seed in ["0", "1"] {
        let out = format!("runs/s{seed}");
        let own = ["train", "--latent", "categorical:4", "--seed", seed, "--out", &out];
        succeeds(&gumbel(here, &[&own[..], &small].concat()));
    }
    // One run: in its folder.
    assert_eq!(succeeds(&gumbel(here, &["report", "runs/s0"])), "runs/s0/report.html\n");
    let page = fs::read_to_string(here.join("runs/s0/report.html")).unwrap();
    assert!(page.contains("<title>s0</title>") && page.contains("One finished run"));
    // Its name is also that of the folder in which one stands; the page is the same.
    assert_eq!(succeeds(&gumbel(&here.join("runs/s0"), &["report", ".", "--out", "again.html"])), "again.html\n");
    assert_eq!(fs::read_to_string(here.join("runs/s0/again.html")).unwrap(), page);
    // Several: here.
    let both = ["report", "runs/s0", "runs/s1"];
    let told = succeeds(&gumbel(here, &[&both[..], &["--title", "A & B", "--json"]].concat()));
    assert_eq!(told, "{\"out\":\"report.html\"}\n");
    let page = fs::read_to_string(here.join("report.html")).unwrap();
    assert!(page.contains("<title>A &amp; B</title>"));
    // Event files alone, and with a page.
    assert_eq!(succeeds(&gumbel(here, &[&both[..], &["--tensorboard", "events"]].concat())), "events\n");
    assert!(here.join("events/s1/test/events.out.tfevents.0.gumbel").is_file());
    let told = succeeds(&gumbel(here, &["report", "runs/s0", "--tensorboard", "e", "--out", "e.html"]));
    assert_eq!(told, "e.html\ne\n");

    fails(&gumbel(here, &["report"]), 2, &["RUN"]);
    fails(&gumbel(here, &["report", "runs"]), 1, &["runs: expected a run folder, found no config.toml in it"]);
    fails(&gumbel(here, &["report", "runs/s0", "--out", "a.pdf"]), 2, &["--out a.pdf", ".html"]);
    fails(&gumbel(here, &["report", "runs/s0", "runs/../runs/s0"]), 1, &["another name", "\"s0\" twice"]);
    fails(&gumbel(here, &["report", "runs/s0", "--out", "none/a.html"]), 1, &["cannot write none/a.html"]);
    fs::write(here.join("runs/s1/summary.json"), "{\"dataset\":").unwrap();
    fails(&gumbel(here, &both), 1, &["runs/s1/summary.json", "cut short"]);
    fs::remove_file(here.join("runs/s1/summary.json")).unwrap();
    succeeds(&gumbel(here, &both));
    assert!(fs::read_to_string(here.join("report.html")).unwrap().contains("unfinished, epoch 2 of 2"));

    // A run in the place of the old one has no page about that.
    let own = ["train", "--latent", "categorical:4", "--out", "runs/s0", "--overwrite"];
    succeeds(&gumbel(here, &[&own[..], &small].concat()));
    assert!(!here.join("runs/s0/report.html").exists());
}

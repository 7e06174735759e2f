//! `gumbel reproduce` from outside.

mod common;

use common::{fails, succeeds, text};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn gumbel(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gumbel"));
    command.args(args).env_remove("GUMBEL_DATA").current_dir(folder).output().unwrap()
}

/// An experiment of one's own on the generated data set.
fn experiment(folder: &Path, grid: &str) {
    let own = folder.join("own");
    fs::create_dir_all(&own).unwrap();
    let published = r#"
        title = "Glyphs & more"
        seeds = 2
        [[table]]
        title = "Bound"
        metric = "bound"
        row = "latent"
        rows = ["categorical4", "binary3"]
        [[table.column]]
        title = "direct"
        cells = ["own/{row}-direct"]
        paper = [230.5, nan]
        [[curves]]
        title = "Curves"
        metric = "bound"
        lines = ["own/categorical4-direct"]
        [[step]]
        title = "Samples"
        command = ["sample", "{run:categorical4-direct-s0}", "--rows", "1", "--out", "{out}/samples.png"]
        picture = "samples.png"
    "#;
    fs::write(own.join("published.toml"), published).unwrap();
    fs::write(own.join("grid.toml"), grid).unwrap();
}

const GRID: &str = r#"
    [run]
    latent = ["categorical:4", "binary:3"]
    epochs = 6
    hidden = "16"
    train-limit = 2000
    eval-limit = 100
    checkpoint-every = 5
    seed = { from = 0, to = 2 }
    [cell.direct]
    estimator = "direct"
    [quick]
    epochs = 1
"#;

#[test]
fn an_experiment_of_ones_own_also_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    experiment(here, GRID);
    let listed = succeeds(&gumbel(here, &["reproduce", "own/", "--dry-run"]));
    let cells: Vec<&str> = listed.lines().map(|line| line.split_whitespace().last().unwrap()).collect();
    let seeds = |seed| cells.iter().filter(|cell| cell.ends_with(seed)).count();
    assert_eq!((cells.len(), seeds("-s0"), seeds("-s1")), (4, 2, 2), "{listed}");
    assert!(cells[..2].iter().all(|cell| cell.ends_with("-s0")), "the first seed of all cells comes first: {listed}");

    let told = succeeds(&gumbel(here, &["reproduce", "own/", "--out", "a", "--json", "--quiet"]));
    let lines: Vec<serde_json::Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert_eq!((&lines[0]["paper"], &lines[1]["paper"]), (&230.5.into(), &serde_json::Value::Null));
    assert!(lines.iter().all(|line| line["n"] == 2 && line["mean"].is_number() && line["se"].is_number()), "{told}");
    let page = fs::read_to_string(here.join("a/report/index.html")).unwrap();
    for part in ["<title>Glyphs &amp; more</title>", "paper 230.5", "data-file=\"own/results/", "image/png;base64,"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(here.join("a/own/results/samples.png").is_file());

    // Killed twice on the way, it ends with the same tables.
    for _ in 0..2 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gumbel"));
        child.args(["reproduce", "own/", "--out", "b", "--quiet"]).current_dir(here);
        let mut child = child.env_remove("GUMBEL_DATA").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(400));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(succeeds(&gumbel(here, &["reproduce", "own/", "--out", "b", "--json", "--quiet"])), told);
    // Again: nothing is trained, nothing changes.
    let record = here.join("b/own/results/binary3-direct-s1.json");
    let before = (fs::read(&record).unwrap(), fs::metadata(&record).unwrap().modified().unwrap());
    assert_eq!(succeeds(&gumbel(here, &["reproduce", "own/", "--out", "b", "--json", "--quiet"])), told);
    assert_eq!((fs::read(&record).unwrap(), fs::metadata(&record).unwrap().modified().unwrap()), before);
    // A record is enough, but for the run whose samples are drawn.
    fs::remove_dir_all(here.join("b/own/runs")).unwrap();
    let listed = succeeds(&gumbel(here, &["reproduce", "own/", "--out", "b", "--dry-run"]));
    let of = |status: &str| listed.lines().filter(|line| line.starts_with(status)).count();
    assert_eq!((of("recorded "), of("new ")), (3, 1), "{listed}");
    assert!(listed.contains("new       categorical4-direct-s0"), "{listed}");
    assert_eq!(succeeds(&gumbel(here, &["reproduce", "own/", "--out", "b", "--json", "--quiet"])), told);
    assert!(!here.join("b/own/runs/binary3-direct-s0").exists());
    // Of a quick look it is none.
    fs::remove_dir_all(here.join("b/own/runs")).unwrap();
    let listed = succeeds(&gumbel(here, &["reproduce", "own/", "--out", "b", "--quick", "--dry-run"]));
    assert!(!listed.contains("recorded"), "{listed}");
    // The report alone, from the records.
    let told_again = succeeds(&gumbel(here, &["reproduce", "own/", "--results", "b", "--out", "c", "--json"]));
    assert_eq!(told_again, told);
    assert!(!here.join("c/own").exists());

    // A folder without records says so, one that is not there is an error.
    fs::create_dir(here.join("empty")).unwrap();
    let output = gumbel(here, &["reproduce", "own/", "--results", "empty", "--out", "d"]);
    succeeds(&output);
    assert!(text(&output.stderr).contains("no record of any run was found: empty/EXPERIMENT/results"));
    fails(&gumbel(here, &["reproduce", "own/", "--results", "nowhere"]), 1, &["read folder nowhere", "No such file"]);
    fails(&gumbel(here, &["reproduce", "own/", "--results", "own/grid.toml"]), 1, &["read folder own/grid.toml"]);

    // A quick look says so.
    succeeds(&gumbel(here, &["reproduce", "own/", "--quick", "--quiet"]));
    let page = fs::read_to_string(here.join("runs/quick/reproduce.md")).unwrap();
    assert!(page.contains("A quick look") && page.contains("gumbel reproduce own --quick"), "{page}");
    assert!(page.contains("Its picture: [samples.png](own/results/samples.png)."), "{page}");
    // Also when its records are looked at later, and where only one grid has changed since.
    let told = succeeds(&gumbel(here, &["reproduce", "own/", "--results", "runs/quick", "--out", "e", "--json"]));
    assert_eq!(told.matches("\"quick\":true").count(), 2, "{told}");
    let page = fs::read_to_string(here.join("e/report/index.html")).unwrap();
    assert!(page.contains("(a quick look)") && page.contains("(quick)"));
    experiment(here, &GRID.replace("epochs = 6", "epochs = 7"));
    let output = gumbel(here, &["reproduce", "own/", "--results", "b", "--out", "f", "--json"]);
    assert!(succeeds(&output).lines().all(|line| line.contains("\"mean\":null")));
    let note = "not shown: own/results/binary3-direct-s0.json: a run with epochs = 6, expected 7";
    assert!(text(&output.stderr).contains(note), "{}", text(&output.stderr));
    let record = fs::read_to_string(here.join("runs/quick/own/results/binary3-direct-s0.json")).unwrap();
    assert!(
        record.contains("\"epochs\":\"1\"") && !here.join("runs/quick/own/results/binary3-direct-s1.json").exists()
    );
}

/// Ctrl-C reaches a step that would take hours; what was trained stays, and the page is written.
#[cfg(unix)]
#[test]
fn a_step_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    experiment(here, GRID);
    let published = fs::read_to_string(here.join("own/published.toml")).unwrap();
    let sample = r#""sample", "{run:categorical4-direct-s0}", "--rows", "1", "--out", "{out}/samples.png""#;
    let endless = r#""diagnose", "{run:categorical4-direct-s0}", "--draws", "100000000", "--out", "{out}/samples.svg""#;
    let published =
        published.replace(sample, endless).replace("picture = \"samples.png\"", "picture = \"samples.svg\"");
    assert!(published.contains("diagnose") && published.contains("samples.svg"));
    fs::write(here.join("own/published.toml"), published).unwrap();
    let said = here.join("said");
    let mut child = Command::new(env!("CARGO_BIN_EXE_gumbel"))
        .args(["reproduce", "own/", "--seeds", "1", "--out", "a"])
        .current_dir(here)
        .env_remove("GUMBEL_DATA")
        .stdout(Stdio::null())
        .stderr(fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    // Its title is the last that is said before it begins.
    while !fs::read_to_string(&said).unwrap().contains("own: Samples") {
        assert_eq!(child.try_wait().unwrap(), None, "{}", fs::read_to_string(&said).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let said = fs::read_to_string(&said).unwrap();
    assert!(said.contains("stopped: 2 of 2 cells are finished"), "{said}");
    assert!(said.contains("go on with: gumbel reproduce own/ --seeds 1 --out a"), "{said}");
    assert!(here.join("a/report/index.html").is_file() && !here.join("a/own/results/samples.svg").exists());
}

#[test]
fn what_cannot_be_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (name, code, part) in [
        ("table9", 2, "did you mean table1"),
        ("", 2, "expected all, table1"),
        ("none/", 2, "or a folder with a published.toml"),
        ("no/ne", 1, "cannot find no/ne: No such file"),
    ] {
        fails(&gumbel(here, &["reproduce", name]), code, &[part]);
    }
    fails(&gumbel(here, &["reproduce"]), 2, &["EXPERIMENTS"]);
    fails(&gumbel(here, &["reproduce", "table1", "--seeds", "0"]), 2, &["--seeds"]);
    fails(&gumbel(here, &["reproduce", "table1", "--results", "a", "--jobs", "2"]), 2, &["--results"]);
    experiment(here, "[run]\nlatnt = \"binary:3\"\n");
    fails(&gumbel(here, &["reproduce", "own/"]), 2, &["own/grid.toml: line 2", "did you mean latent?"]);
    experiment(here, "[run]\nlatent = []\n");
    fails(&gumbel(here, &["reproduce", "own/"]), 2, &["line 2", "expected at least one value"]);
    experiment(here, "[run]\nlatent = [\"binary:3\", \"binary:-3\"]\n");
    fails(&gumbel(here, &["reproduce", "own/"]), 2, &["binary:-3", "in the cell binary-3"]);
    experiment(here, "[quick]\nepochs = [1, 2]\n");
    fails(&gumbel(here, &["reproduce", "own/"]), 2, &["line 1", "epochs: expected one value for all cells"]);
    experiment(here, GRID);
    fs::write(here.join("own/published.toml"), "titel = \"A\"").unwrap();
    fails(&gumbel(here, &["reproduce", "own/"]), 2, &["own/published.toml: line 1: unknown field `titel`"]);
    // What this build cannot train: refused alone, named beside others.
    #[cfg(not(feature = "burn"))]
    {
        fails(
            &gumbel(here, &["reproduce", "figure5"]),
            2,
            &["figure5/grid.toml", "model = conv", "in the cell faces-s0"],
        );
        let output = gumbel(here, &["reproduce", "all", "--dry-run"]);
        assert!(!succeeds(&output).contains("faces-s0"));
        let noted = text(&output.stderr);
        assert!(noted.contains("not trained: figure5: ") && noted.contains("model = conv"), "{noted}");
    }
    // Names of cells that no grid has, and steps that cannot be taken.
    experiment(here, GRID);
    let published = fs::read_to_string(here.join("own/published.toml")).unwrap();
    for (old, new, parts) in [
        (
            "own/{row}-direct",
            "own/{row}-direkt",
            &["\"own/categorical4-direkt\"", "did you mean categorical4-direct?"][..],
        ),
        ("own/{row}-direct", "mine/{row}", &["\"mine/categorical4\" of no experiment that is known here"]),
        ("own/{row}-direct", "direct", &["expected cells as EXPERIMENT/CELL, found \"direct\""]),
        ("direct-s0}", "nope-s0}", &["found \"categorical4-nope-s0\" in the step \"Samples\""]),
        ("direct-s0}", "direct-s2}", &["\"categorical4-direct-s2\", whose seed is not, in the step \"Samples\""]),
        ("seeds = 2", "seeds = 0", &["seeds = 0: expected at least 1"]),
        (
            "\"sample\", \"{run:categorical4-direct-s0}\", \"--rows\", \"1\", \"--out\", \"{out}/samples.png\"",
            "",
            &["command: "],
        ),
        ("picture =", "quick = [\"--out\"]\npicture =", &["quick: ", "found 1 words"]),
    ] {
        assert!(published.contains(old));
        fs::write(here.join("own/published.toml"), published.replace(old, new)).unwrap();
        fails(&gumbel(here, &["reproduce", "own/"]), 2, &[&["own/published.toml: "], parts].concat());
    }
    assert!(!here.join("runs").exists());

    // A failed cell does not stop the others, and a record that was cut short is named.
    experiment(
        here,
        &GRID
            .replace("[cell.direct]", "[cell.wild]\ndataset = \"mnist\"\n[cell.direct]")
            .replace("epochs = 6", "epochs = 1"),
    );
    let output =
        gumbel(here, &["reproduce", "own/", "--seeds", "1", "--quiet", "--offline", "--out", "o", "--data-dir", "x"]);
    fails(&output, 1, &["of 4 cells and steps failed, the first own/", "-wild-s0: ", "mnist"]);
    let record = here.join("o/own/results/categorical4-direct-s0.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, &text[..text.len() / 2]).unwrap();
    fails(&gumbel(here, &["reproduce", "own/", "--results", "o", "--out", "p"]), 1, &["direct-s0.json", "cut short"]);
}

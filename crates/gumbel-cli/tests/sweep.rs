//! `gumbel sweep` and `gumbel collect` from outside: children, kills, several processes on one folder.

mod common;

use common::{succeeds, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Keys of runs that are small enough for tests.
const SMALL: &str = "hidden = \"16\"\ntrain-limit = 400\neval-limit = 100\neval-every = 1\n";

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gumbel"));
    command.args(args).env_remove("GUMBEL_DATA");
    command
}

fn gumbel(args: &[&str]) -> Output {
    program(args).output().unwrap()
}

/// The right exit code, and a last line on stderr that names what was expected and found.
#[track_caller]
fn fails(output: &Output, code: i32, parts: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    let last = message.lines().last().unwrap_or("");
    assert!(last.starts_with("gumbel: "), "{message}");
    parts.iter().for_each(|part| assert!(last.contains(part), "{part:?} is not in: {last}"));
}

fn json(lines: &str) -> Vec<serde_json::Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// A folder with a grid file, and the names of both and of the sweep's folder.
struct Place {
    _folder: tempfile::TempDir,
    grid: String,
    out: PathBuf,
}

impl Place {
    fn new(grid: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grid.toml");
        fs::write(&path, grid).unwrap();
        let (grid, out) = (path.to_str().unwrap().to_string(), folder.path().join("out"));
        Place { _folder: folder, grid, out }
    }

    fn command(&self, more: &[&str]) -> Command {
        program(&[&["sweep", &self.grid, "--out", self.out.to_str().unwrap()], more].concat())
    }

    fn sweep(&self, more: &[&str]) -> Output {
        self.command(more).output().unwrap()
    }

    fn start(&self, more: &[&str]) -> Child {
        self.command(more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// Metrics without times.
fn figures(folder: &Path) -> Vec<serde_json::Value> {
    let mut lines = json(&fs::read_to_string(folder.join("metrics.jsonl")).unwrap());
    for line in &mut lines {
        let fields = line.as_object_mut().unwrap();
        fields.retain(|name, _| !["train_seconds", "seconds", "step_ms"].contains(&name.as_str()));
    }
    lines
}

/// The same bits in all cells.
#[track_caller]
fn same(a: &Path, b: &Path, cells: &[String]) {
    for cell in cells {
        let (a, b) = (a.join(cell), b.join(cell));
        assert_eq!(figures(&a), figures(&b), "{cell}");
        let best = |folder: &Path| fs::read(folder.join("best.safetensors")).unwrap();
        assert!(best(&a) == best(&b), "{cell}: another model");
    }
}

/// The names of the cells, the longest first.
fn names(place: &Place) -> Vec<String> {
    let listed = json(&succeeds(&place.sweep(&["--dry-run", "--json"])));
    listed.iter().map(|line| line["cell"].as_str().unwrap().to_string()).collect()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(120), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(unix)]
fn signal(kind: &str, pid: u32) {
    Command::new("kill").args([kind, &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
}

#[test]
fn from_a_grid_to_a_table() {
    let place = Place::new(&format!(
        "[run]\nlatent = [\"categorical:4\", \"binary:4\"]\nepochs = 2\nseed = [0, 1]\n{SMALL}\
         [cell.exact]\nestimator = \"exact\"\n[cell.rloo]\nestimator = \"rloo\"\nsamples = 2\nlatent = \"binary:4\"\n"
    ));
    let names = names(&place);
    assert_eq!(names.len(), 6);
    assert!(!place.out.exists(), "it was to do nothing");
    // Shares: each cell once, whatever stands there already.
    let half = |index: &str| {
        let lines = json(&succeeds(&place.sweep(&["--index", index, "--of", "2", "--jobs", "2", "--json"])));
        lines.into_iter().map(|line| (line["cell"].as_str().unwrap().to_string(), line)).collect::<Vec<_>>()
    };
    let mut both = half("0");
    assert_eq!(both.len(), 3);
    both.extend(half("1"));
    for (cell, line) in &both {
        assert_eq!(line["status"], "finished", "{line}");
        let summary = fs::read_to_string(place.out.join(cell).join("summary.json")).unwrap();
        assert_eq!(line["bound"], json(&summary.replace('\n', ""))[0]["test"]["bound"]);
        assert!(line["seconds"].as_f64().unwrap() > 0.0 && line["best_epoch"].is_u64() && line["nll"].is_number());
        assert_eq!(line["folder"].as_str().unwrap(), place.out.join(cell).to_str().unwrap());
    }
    let mut seen: Vec<&str> = both.iter().map(|(cell, _)| cell.as_str()).collect();
    seen.sort();
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort();
    assert_eq!(seen, sorted);
    assert!(sorted.contains(&"rloo-s1") && sorted.contains(&"categorical4-exact-s0"), "{sorted:?}");

    // Nothing is left to do, and every way of saying so.
    let again = json(&succeeds(&place.sweep(&["--json"])));
    assert!(again.len() == 6 && again.iter().all(|line| line["status"] == "skipped"));
    let output = place.sweep(&["--quiet"]);
    assert_eq!((succeeds(&output).as_str(), output.stderr.len()), ("", 0));
    let output = place.sweep(&[]);
    assert!(succeeds(&output).starts_with("6 cells are finished, 0 of them now: "));
    assert_eq!(text(&output.stderr).lines().filter(|line| line.starts_with("skipped ")).count(), 6);
    assert!(succeeds(&place.sweep(&["--dry-run"])).lines().all(|line| line.starts_with("finished  ")));
    // A cell is the run that `train` would make of it.
    let alone = place.out.with_file_name("alone");
    let flags = ["--latent", "binary:4", "--estimator", "rloo", "--samples", "2", "--epochs", "2", "--seed", "1"];
    let small = ["--hidden", "16", "--train-limit", "400", "--eval-limit", "100", "--eval-every", "1"];
    let out = alone.join("rloo-s1");
    succeeds(&gumbel(&[&["train", "--out", out.to_str().unwrap(), "--quiet"], &flags[..], &small].concat()));
    same(&place.out, &alone, &["rloo-s1".to_string()]);
    assert_eq!(fs::read(out.join("config.toml")).unwrap(), fs::read(place.out.join("rloo-s1/config.toml")).unwrap());
    // More epochs for all: they go on.
    let more = json(&succeeds(&place.sweep(&["--set", "epochs=3", "--json"])));
    assert!(more.iter().all(|line| line["status"] == "finished"));
    assert_eq!(figures(&place.out.join("rloo-s1")).len(), 9);
    fails(&place.sweep(&[]), 2, &["epochs = 2: expected at least 3", "--out"]);

    let out = place.out.to_str().unwrap();
    let table = succeeds(&gumbel(&["collect", out]));
    assert_eq!(table.lines().count(), 2 + 3, "{table}");
    assert!(table.starts_with("| latent | estimator | samples | seeds | valid bound |"), "{table}");
    assert_eq!(table.matches("| **binary:4** |").count(), 1, "{table}");
    let rows = json(&succeeds(&gumbel(&["collect", out, "--json", "--columns", "estimator,bound"])));
    assert_eq!((rows.len(), &rows[0]["bound"]["n"]), (3, &2.into()));
    let file = place.out.with_file_name("table.csv");
    let csv = ["collect", out, "--csv", "--columns", "latent,nll", "--out", file.to_str().unwrap()];
    assert!(succeeds(&gumbel(&csv)).trim_end().ends_with("table.csv"));
    assert!(fs::read_to_string(&file).unwrap().starts_with("latent,seeds,best,nll,nll_se,nll_n\n"));
    fails(&gumbel(&["collect", out, "--columns", "boundd"]), 2, &["columns = boundd", "did you mean bound?"]);
    for empty in [",", "bound, ", ""] {
        let output = gumbel(&["collect", out, "--columns", empty]);
        fails(&output, 2, &["columns = (an empty name): expected settings, or figures"]);
    }
    fails(&gumbel(&["collect", out, "--csv", "--json"]), 2, &["--csv"]);
    fs::remove_file(place.out.join("rloo-s0/summary.json")).unwrap();
    let output = gumbel(&["collect", out]);
    succeeds(&output);
    let noted = text(&output.stderr);
    assert!(noted.contains("unfinished: ") && noted.contains("rloo-s0, epoch 3 of 3"), "{noted}");
    fs::write(place.out.join("rloo-s0/summary.json"), "{\"dataset\":").unwrap();
    fails(&gumbel(&["collect", out]), 1, &["rloo-s0/summary.json", "cut short"]);
    fails(&gumbel(&["collect", place.out.join(".sweep").to_str().unwrap()]), 1, &["at least one finished run"]);
}

#[test]
fn wrong_grids_and_flags_are_usage_errors_before_anything_runs() {
    let place = Place::new("[run]\nlatent = [\"binary:4\", \"pairwise:4\"]\nseed = { from = 0, to = 1 }\n");
    for (more, parts) in [
        (&["--index", "2", "--of", "2"][..], &["--index", "less than 2", "found 2"][..]),
        (&["--index", "-1", "--of", "2"], &["-1", "--index", "0..=1000000"]),
        (&["--index", "0"], &["--of"]),
        (&["--of", "3"], &["--index"]),
        (&["--of", "0", "--index", "0"], &["--of"]),
        (&["--jobs", "0"], &["--jobs"]),
        (&["--set", "epochs"], &["--set", "KEY=VALUE"]),
        (&["--set", "epochs=0"], &["epochs = 0"]),
        (&["--set", "epochz=1"], &["did you mean epochs?"]),
        (&["--set", "estimator=disarm"], &["line 2", "latent = pairwise:4", "in the cell pairwise4-s0"]),
        (&["--stale", "0"], &["--stale"]),
        (&["--print-sbatch", "--dry-run"], &["--dry-run"]),
        (&["--print-sbatch", "--time", "1; rm"], &["--time"]),
        (&["--time", "1:00"], &["--print-sbatch"]),
    ] {
        fails(&place.sweep(more), 2, parts);
    }
    fs::write(&place.grid, "[run]\nlatnt = \"binary:4\"\n").unwrap();
    fails(&place.sweep(&[]), 2, &["grid.toml: line 2: unknown key \"latnt\" (did you mean latent?)"]);
    fails(&gumbel(&["sweep", "no-such.toml"]), 1, &["no-such.toml"]);
    fs::write(&place.grid, "[run]\nlatent = \"binary:4\"\nlr = [0.1, 0.2, 0.1]\n").unwrap();
    fails(&place.sweep(&[]), 2, &["grid.toml: line 3: lr: expected other values, found 0.1 twice"]);
    fs::write(&place.grid, "[cell.a]\nlr = 0.1\n[cell.b]\nlr = 0.1\n").unwrap();
    fails(&place.sweep(&[]), 2, &["expected other settings in every cell, found the same in a-s0 and b-s0"]);
    // A share without a cell says so.
    fs::write(&place.grid, "[run]\nlr = [0.1, 0.2]\n").unwrap();
    let output = place.sweep(&["--index", "2", "--of", "3"]);
    succeeds(&output);
    let said = text(&output.stderr);
    assert!(said.contains("share 2 of 3 has nothing to do: there are 2 cells, those of 0 to 1"), "{said}");
    let output = place.sweep(&["--print-sbatch", "--of", "3"]);
    assert!(succeeds(&output).contains("--array=0-2") && text(&output.stderr).contains("3 tasks for 2 cells"));
    fs::remove_dir_all(&place.out).ok();
    // Another run in the folder of a cell.
    fs::write(&place.grid, "[run]\nlr = [0.1, 0.2]\n").unwrap();
    let folder = place.out.join("lr_0.2-s0");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), "lr = 0.3\n").unwrap();
    fails(&place.sweep(&[]), 2, &["lr_0.2-s0/config.toml", "lr = 0.3, found lr = 0.2", "--out"]);
    // Something else there.
    fs::remove_file(folder.join("config.toml")).unwrap();
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    let expected = "expected nothing, or the run of the cell lr_0.2-s0, found notes.txt: --out";
    fails(&place.sweep(&[]), 1, &["lr_0.2-s0: ", expected]);
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "mine").unwrap();
    fails(&place.sweep(&[]), 1, &["the run of the cell lr_0.2-s0, found no folder: --out"]);
    assert_eq!(fs::read_dir(&place.out).unwrap().count(), 1, "nothing has begun");
}

#[test]
fn one_failure_does_not_stop_the_others() {
    let grid = "[run]\nlatent = \"categorical:4\"\nepochs = 2\nlr = [0.001, 1e30, 0.002]\n";
    let place = Place::new(&format!("{grid}{SMALL}"));
    let output = place.sweep(&["--json", "--jobs", "2", "--quiet"]);
    fails(&output, 1, &["1 of 3 cells failed: lr_1e30-s0: training diverged", "try a smaller lr"]);
    assert_eq!(text(&output.stderr).lines().count(), 1);
    let lines = json(&text(&output.stdout));
    let status = |name: &str| lines.iter().find(|line| line["cell"] == name).unwrap()["status"].clone();
    assert_eq!(["lr_0.001-s0", "lr_1e30-s0", "lr_0.002-s0"].map(status), ["finished", "failed", "finished"]);
    let failed = lines.iter().find(|line| line["status"] == "failed").unwrap();
    assert!(failed["error"].as_str().unwrap().starts_with("training diverged at step ") && failed["bound"].is_null());
    let output = place.sweep(&[]);
    fails(&output, 1, &["1 of 3 cells failed"]);
    let said = text(&output.stderr);
    assert_eq!(said.matches("skipped lr_0.00").count(), 2, "{said}");
    assert!(said.contains("\nfailed lr_1e30-s0: training diverged"), "{said}");
}

/// A signal to the sweep alone: its children save checkpoints, and the same command ends with the same bits.
#[cfg(unix)]
#[test]
fn a_sweep_that_is_stopped_goes_on_with_the_same_bits() {
    let grid = format!("[run]\nlatent = [\"categorical:4\", \"binary:4\", \"binary:3\"]\nepochs = 150\n{SMALL}");
    let (place, whole) = (Place::new(&grid), Place::new(&grid));
    let names = names(&place);
    for kind in ["-TERM", "-INT"] {
        let before = std::time::SystemTime::now();
        let child = place.start(&["--jobs", "2", "--json", "--set", "epochs=150"]);
        let began = |name: &&String| {
            let checkpoint = fs::metadata(place.out.join(name).join("checkpoint/latest.safetensors"));
            checkpoint.and_then(|found| found.modified()).is_ok_and(|saved| saved > before)
        };
        wait_for("new checkpoints", || names.iter().filter(began).count() >= 2);
        signal(kind, child.id());
        let output = child.wait_with_output().unwrap();
        fails(&output, 130, &["stopped: ", "of 3 cells are finished", "gumbel sweep ", "--jobs 2 --set epochs=150"]);
        assert_eq!(text(&output.stderr).lines().filter(|line| line.starts_with("gumbel: ")).count(), 1);
        let statuses: Vec<_> = json(&text(&output.stdout)).iter().map(|line| line["status"].clone()).collect();
        assert!(statuses.contains(&"stopped".into()), "{statuses:?}");
    }
    succeeds(&place.sweep(&["--jobs", "2"]));
    succeeds(&whole.sweep(&["--jobs", "2", "--quiet"]));
    same(&place.out, &whole.out, &names);
}

/// Children of a process.
#[cfg(unix)]
fn children(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Eight sweeps on one folder, of which now one, now its training, now both are killed: the same bits as of one that
/// nobody disturbed. What a killed sweep leaves goes on alone, and is not disturbed by the others.
#[cfg(unix)]
#[test]
fn eight_sweeps_share_a_folder_whoever_is_killed() {
    const SWEEPS: usize = 8;
    let grid = format!(
        "[run]\nlatent = [\"categorical:4\", \"binary:4\", \"binary:3\"]\nepochs = 100\n\
         seed = {{ from = 0, to = 3 }}\n{SMALL}"
    );
    let (place, whole) = (Place::new(&grid), Place::new(&grid));
    let names = names(&place);
    let start = || {
        let mut command = place.command(&["--jobs", "1", "--quiet", "--stale", "3"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut sweeps: Vec<Child> = (0..SWEEPS).map(|_| start()).collect();
    let finished = || names.iter().filter(|name| place.out.join(name).join("summary.json").exists()).count();
    let (mut state, mut kills) = (1u64, 0);
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let began = Instant::now();
    while finished() < names.len() {
        assert!(began.elapsed() < Duration::from_secs(300), "{} of {} cells", finished(), names.len());
        std::thread::sleep(Duration::from_millis(20 + random(130) as u64));
        let victim = &mut sweeps[random(SWEEPS)];
        let trainings = children(victim.id());
        let what = random(3);
        if kills < 24 && victim.try_wait().unwrap().is_none() {
            if what != 1 {
                signal("-9", victim.id());
            }
            if what != 0 {
                trainings.iter().for_each(|child| signal("-9", *child));
            }
            kills += 1;
        }
        // One whose training was killed ends with a failure in the end; then, too, another one comes.
        for sweep in &mut sweeps {
            if sweep.try_wait().unwrap().is_some() && finished() < names.len() {
                *sweep = start();
            }
        }
    }
    for sweep in &mut sweeps {
        sweep.wait().unwrap();
    }
    assert!(kills > 3, "{kills} kills: the cells are too small");
    let last = json(&succeeds(&place.sweep(&["--json", "--stale", "3"])));
    assert!(last.len() == names.len() && last.iter().all(|line| line["status"] == "skipped"));
    succeeds(&whole.sweep(&["--jobs", "2", "--quiet"]));
    same(&place.out, &whole.out, &names);
}

/// A training that nobody waits for any more, since its sweep was killed, is left alone until it ends.
#[cfg(unix)]
#[test]
fn the_training_of_a_killed_sweep_is_waited_for() {
    let place = Place::new(&format!("[run]\nlatent = \"binary:4\"\nepochs = 100\n{SMALL}"));
    let mut first = place.start(&["--json"]);
    wait_for("the first checkpoint", || place.out.join("s0/checkpoint/latest.safetensors").exists());
    let training = children(first.id());
    signal("-9", first.id());
    first.wait().unwrap();
    let lines = json(&succeeds(&place.sweep(&["--json", "--stale", "1"])));
    assert_eq!(lines.len(), 1);
    if !training.is_empty() {
        // It may have ended before the second one looked for the first time.
        let status = lines[0]["status"].as_str().unwrap();
        assert!(["elsewhere", "skipped"].contains(&status), "{status}");
        assert!(lines[0]["bound"].is_number());
    }
}

#[test]
fn the_script_for_slurm_is_one() {
    let place = Place::new(&format!("[run]\nseed = {{ from = 0, to = 9 }}\n{SMALL}"));
    let more = ["--print-sbatch", "--time", "1:30:00", "--set", "attributes=it's", "--jobs", "2", "--threads", "3"];
    let script = succeeds(&place.sweep(&[&more[..], &["--set", "attributes="]].concat()));
    for part in [
        "#!/bin/bash\n",
        "#SBATCH --array=0-9\n",
        "#SBATCH --time=1:30:00\n",
        "#SBATCH --cpus-per-task=6\n",
        "#SBATCH --signal=B:TERM@120\n",
        "#SBATCH --requeue\n",
        "--jobs 2 --threads 3",
        "--index \"$SLURM_ARRAY_TASK_ID\" --of 10 &",
        "scontrol requeue",
    ] {
        assert!(script.contains(part), "{part:?} is not in: {script}");
    }
    assert!(succeeds(&place.sweep(&["--print-sbatch", "--of", "4"])).contains("--array=0-3\n"));
    assert!(!place.out.exists());
    // The script by itself, as the second of three tasks: its share is done.
    #[cfg(unix)]
    {
        let script = succeeds(&place.sweep(&["--print-sbatch", "--of", "3", "--set", "epochs=1"]));
        let path = place.out.with_file_name("job.sh");
        fs::write(&path, script).unwrap();
        let output = Command::new("bash").arg(&path).env("SLURM_ARRAY_TASK_ID", "1").output().unwrap();
        assert!(succeeds(&output).starts_with("3 cells are finished, 3 of them now: "));
    }
}

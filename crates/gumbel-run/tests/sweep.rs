//! Sweeps: grids, what is done with cells, and tables of runs. The program itself sweeps in the tests of `gumbel-cli`.

use gumbel_run::collect::{self, Mean, Run, Table};
use gumbel_run::config::Given;
use gumbel_run::folder::{Files, Start, prepare};
use gumbel_run::metrics::Summary;
use gumbel_run::sweep::{self, Cell, Done, Grid, Options, Standing, Status, Watcher};
use gumbel_run::{Config, Registry, Result, store};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn read(text: &str) -> Result<Grid> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.toml");
    fs::write(&path, text).unwrap();
    Grid::read(&path)
}

fn cells_with(text: &str, over: &[(&str, &str)]) -> Result<Vec<Cell>> {
    let over: Given = over.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    read(text)?.cells(&Registry::standard(), &over)
}

fn cells(text: &str) -> Result<Vec<Cell>> {
    cells_with(text, &[])
}

fn names(cells: &[Cell]) -> Vec<&str> {
    cells.iter().map(|cell| cell.name.as_str()).collect()
}

#[test]
fn a_grid_is_the_product_of_its_lists_in_the_order_of_the_file() {
    let grid = "out = \"runs/here\"\n[run]\n\
                latent = [\"categorical:50\", \"categorical:2x3\"]\nhidden = [\"40,20\", \"16\"]\n\
                seed = { from = 3, to = 4 }\nepochs = 7\n";
    let all = cells(grid).unwrap();
    assert_eq!(
        names(&all)[..3],
        ["categorical50-hidden_40-20-s3", "categorical50-hidden_40-20-s4", "categorical50-hidden_16-s3"]
    );
    assert_eq!((all.len(), all[7].name.as_str()), (8, "categorical2x3-hidden_16-s4"));
    let last = &all[7].config;
    assert_eq!((last.text("hidden"), last.seed(), last.whole("epochs")), ("16", 4, 7));
    assert_eq!(all[7].folder(Path::new("x")), Path::new("x/categorical2x3-hidden_16-s4"));
    assert_eq!(read(grid).unwrap().out(), Path::new("runs/here"));
    assert_eq!(read("[run]\n").unwrap().out(), Path::new("runs/table"));
    // Nothing varies.
    assert_eq!(names(&cells("").unwrap()), ["s0"]);
    assert_eq!(names(&cells("[run]\nseed = 5\nlatent = [\"binary:4\"]\n").unwrap()), ["s5"]);
    // What is said above the file does not vary any more.
    let over = cells_with(grid, &[("hidden", "8"), ("seed", "9")]).unwrap();
    assert_eq!(names(&over), ["categorical50-s9", "categorical2x3-s9"]);
    assert_eq!((over[0].config.text("hidden"), over[0].config.seed()), ("8", 9));
}

#[test]
fn ranges_have_both_ends_and_no_crumbs() {
    let values = |range: &str, key: &str| -> Vec<String> {
        let all = cells(&format!("[run]\nlatent = \"categorical:4\"\n{key} = {range}\n")).unwrap();
        all.iter().map(|cell| cell.config.settings().get(key).unwrap().to_string()).collect()
    };
    assert_eq!(values("{ from = 0, to = 6, step = 3 }", "seed"), ["0", "3", "6"]);
    assert_eq!(values("{ from = 0, to = 5, step = 3 }", "seed"), ["0", "3"]);
    assert_eq!(values("{ from = 0.1, to = 0.5, step = 0.1 }", "lr"), ["0.1", "0.2", "0.3", "0.4", "0.5"]);
    assert_eq!(values("{ from = 1e-3, to = 2e-3, step = 5e-4 }", "lr"), ["0.001", "0.0015", "0.002"]);
    assert_eq!(values("{ from = 0x10, to = 17 }", "seed"), ["16", "17"]);
    // Sizes that overflow where they are subtracted or added.
    let (least, most) = (i128::MIN, i128::MAX);
    let error = cells(&format!("[run]\nseed = {{ from = 0, to = {most}, step = {most} }}\n")).unwrap_err().to_string();
    assert!(error.contains("seed"), "{error}");
    for range in [format!("from = {least}, to = {most}"), format!("from = {least}, to = 0")] {
        let error = cells(&format!("[run]\nseed = {{ {range} }}\n")).unwrap_err().to_string();
        assert!(error.contains("from at most to"), "{error}");
    }
}

#[test]
fn named_cells_have_their_own_keys_and_every_combination_of_the_others() {
    let all = cells(
        "[run]\nlatent = [\"binary:4\", \"categorical:4\"]\nepochs = 3\nseed = [0, 1]\n\
         [cell.b-first]\npreset = \"paper-direct\"\nepsilon = [0.5, 1]\n\
         [cell.a-second]\npreset = \"paper-gsm\"\ntemperature = 0.5\nlatent = \"categorical:7\"\n[cell.third]\n",
    )
    .unwrap();
    assert_eq!(all.len(), 8 + 2 + 4);
    assert_eq!(
        names(&all)[..3],
        ["binary4-b-first-epsilon_0.5-s0", "binary4-b-first-epsilon_1-s0", "binary4-b-first-epsilon_0.5-s1"]
    );
    assert_eq!(names(&all)[8..12], ["a-second-s0", "a-second-s1", "binary4-third-s0", "binary4-third-s1"]);
    let gsm = &all[8].config;
    assert_eq!((gsm.text("estimator"), gsm.latent().text.as_str()), ("straight-through", "categorical:7"));
    assert_eq!((gsm.real("temperature"), gsm.whole("epochs")), (0.5, 3));
}

#[test]
fn what_is_no_grid_is_refused_with_its_line() {
    for (text, parts) in [
        (
            "[run]\nlatent = \"binary:4\"\nepochz = [1]\n",
            &["line 3: unknown key \"epochz\" (did you mean epochs?)"][..],
        ),
        ("[run]\n[cell.a]\nepochz = 1\n", &["line 3", "epochs"]),
        ("latent = \"binary:4\"\n", &["line 1: unknown key \"latent\"", "[run]"]),
        ("[runs]\n", &["line 1", "did you mean run?"]),
        ("[cell.\".hidden\"]\n", &["line 1: expected a name without a dot before it"]),
        ("out = 3\n", &["line 1: out: expected the name of a folder, found integer"]),
        ("[run\n", &["line 1"]),
        ("run = 3\n", &["line 1: run: expected a table"]),
        ("cell = 3\n", &["line 1: cell: expected tables [cell.NAME]"]),
        ("[cell]\nlr = 3\n", &["line 2", "cell.lr"]),
        ("[run]\nlr = []\n", &["line 2: lr = []: expected at least one value"]),
        ("[run]\nhidden = [[400, 200], [30]]\n", &["line 2: hidden", "\"400,200\""]),
        ("[run]\nlr = 1979-05-27\n", &["line 2: lr: expected a value", "datetime"]),
        ("[run]\nseed = { from = 3, to = 2 }\n", &["line 2: seed", "from at most to", "from 3, to 2, step 1"]),
        ("[run]\nseed = { from = 0, to = 9, step = 0 }\n", &["line 2: seed", "step above 0"]),
        ("[run]\nseed = { from = 0, to = 1e300 }\n", &["at most 20000 values"]),
        ("[run]\nseed = { from = -9223372036854775808, to = 9223372036854775807 }\n", &["at most 20000 values"]),
        ("[run]\nseed = { from = 0 }\n", &["line 2: seed: expected { from = A, to = B }"]),
        ("[run]\nseed = { from = 0, two = 1 }\n", &["line 2", "did you mean to?"]),
        ("[run]\nseed = { from = 0, to = \"x\" }\n", &["line 2: seed: to: expected a number, found string"]),
        ("[run]\nlr = { from = 0.1, to = nan }\n", &["line 2: lr"]),
        ("[run]\nlr = [0.1,\n\"fast\"]\n", &["line 2: lr", "in the cell lr_fast-s0"]),
        ("[run]\nlr = [0.1, -1]\n", &["line 2: lr = -1", "greater than 0", "in the cell lr_-1-s0"]),
        (
            "[run]\nlatent = [\"binary:4\", \"pairwise:4\"]\n[cell.a]\n[cell.b]\nestimator = \"disarm\"\n",
            &["line 2: latent = pairwise:4: expected", "in the cell pairwise4-b-s0"],
        ),
        (
            "[run]\nengine = \"fused\"\nlikelihood = [\"bernoulli\", \"gaussian\"]\n",
            &[
                "line 2: engine = fused: expected",
                "fused needs likelihood = bernoulli",
                "in the cell likelihood_gaussian-s0",
            ],
        ),
        ("[run]\nestimator = \"exact\"\nepsilon = 1\n", &["line 3: epsilon", "estimator = direct", "in the cell s0"]),
        ("[run]\nlr = [0.1,\n0.1]\n", &["line 3: lr: expected other values, found 0.1 twice"]),
        ("[run]\nseed = [1, 1]\n", &["seed: expected other values, found 1 twice"]),
        ("[cell.\"a/b\"]\nlr = 1\n[cell.a-b]\n", &["another name for every cell", "two cells a-b-s0"]),
        ("[cell.a]\nlr = 1\n[cell.b]\nlr = 1\n", &["other settings in every cell, found the same in a-s0 and b-s0"]),
        ("[cell.a]\nlr = 1\n[cell.a]\n", &["line 3: duplicate key: a"]),
        (
            "[run]\nseed = { from = 0, to = 999 }\nlr = { from = 1, to = 999 }\n",
            &["expected at most 20000 cells, found 999000"],
        ),
    ] {
        let error = cells(text).map(|cells| cells.len()).expect_err(text);
        let message = error.to_string();
        assert!(error.is_usage() && message.contains("table.toml: ") && !message.contains('\n'), "{message}");
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
    // What needs Burn, in a build without it.
    #[cfg(not(feature = "burn"))]
    for (text, parts) in [
        (
            "[run]\nlatent = [\"categorical:10\", \"categorical:2000\"]\nestimator = \"exact\"\n",
            &["engine = auto", "states to enumerate", "this build has no autodiff", "cell categorical2000-s0"][..],
        ),
        (
            "[run]\nlatent = \"binary:4\"\ndevice = [\"cpu\", \"wgpu\"]\n",
            &["device = cpu", "this build has no autodiff engine", "in the cell device_wgpu-s0"],
        ),
        ("[run]\n[cell.a]\n[cell.b]\nmodel = \"conv\"\n", &["line 4: model = conv: expected mlp", "in the cell b-s0"]),
    ] {
        let message = cells(text).map(|cells| cells.len()).expect_err(text).to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} are not in: {message}");
    }
    let error = cells_with("[run]\nlr = 0.1\n", &[("epochz", "1")]).unwrap_err();
    assert!(error.is_usage() && error.to_string().starts_with("epochz = 1: expected"), "{error}");
    let error = cells_with("[run]\nlr = 0.1\n", &[("lr", "0")]).unwrap_err();
    assert_eq!(error.to_string(), "lr = 0: expected a finite number greater than 0, in the cell s0");
    assert!(Grid::read(Path::new("no/such.toml")).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn the_longest_cells_come_first() {
    let mut all = cells(
        "[run]\nepochs = [1, 10]\nlatent = [\"categorical:10\", \"binary:10\", \"categorical:50\"]\n\
         [cell.direct]\nestimator = \"direct\"\n[cell.exact]\nestimator = \"exact\"\n",
    )
    .unwrap();
    sweep::longest_first(&mut all);
    assert_eq!(all[0].name, "epochs_10-binary10-exact-s0");
    let place = |name: &str| all.iter().position(|cell| cell.name == name).unwrap();
    assert!(place("epochs_10-categorical50-direct-s0") < place("epochs_10-categorical10-direct-s0"));
    assert!(all.iter().all(|cell| cell.work.is_finite() && cell.work > 0.0));
    let mut again: Vec<Cell> = all.iter().rev().cloned().collect();
    sweep::longest_first(&mut again);
    assert_eq!(names(&again), names(&all));
}

/// Remembers what it is told.
#[derive(Default)]
struct Heard(Vec<String>);

impl Watcher for Heard {
    fn started(&mut self, cell: &Cell, _: &Path) {
        self.0.push(format!("started {}", cell.name));
    }
    fn ended(&mut self, done: &Done<'_>) {
        self.0.push(format!("{} {}", done.status.name(), done.cell.name));
    }
}

fn broken(jobs: usize) -> Options {
    let program = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/broken.sh"));
    Options { program, words: vec![], more: vec![], threads: 1, jobs, limit: Duration::from_secs(120) }
}

#[cfg(unix)]
#[test]
fn whatever_fails_in_a_cell_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let all = cells("[run]\nseed = { from = 0, to = 4 }\n").unwrap();
    let mut heard = Heard::default();
    let done = sweep::run(&all, folder.path(), &broken(1), &mut heard).unwrap();
    let found: Vec<_> =
        done.iter().map(|d| (d.cell.name.as_str(), d.status, d.error.as_deref().unwrap_or(""))).collect();
    assert_eq!(
        found,
        [
            ("s0", Status::Failed, "the run has ended without a whole summary.json of its settings"),
            ("s1", Status::Failed, "it is broken"),
            ("s2", Status::Stopped, "stopped at step 7"),
            ("s3", Status::Failed, "the process was killed: signal: 9 (SIGKILL)"),
            ("s4", Status::Failed, "the process has ended with 3 and said nothing"),
        ]
    );
    assert_eq!(heard.0[..4], ["started s0", "failed s0", "started s1", "failed s1"]);
    // The next sweep tries again.
    sweep::run(&all, folder.path(), &broken(3), &mut Heard::default()).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("calls")).unwrap().lines().count(), 10);
    let own = fs::read_dir(sweep::own_folder(folder.path())).unwrap();
    let claims = own.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("claim"));
    assert_eq!(claims.count(), 0);
    let missing = Options { program: "no/such/program".into(), ..broken(1) };
    let done = sweep::run(&all[..1], folder.path(), &missing, &mut Heard::default()).unwrap();
    assert!(done[0].error.as_ref().unwrap().starts_with("cannot start no/such/program"), "{done:?}");
}

/// Two at a time: one waits for what the other has, and does not try again what has just failed there.
#[cfg(unix)]
#[test]
fn what_fails_in_one_sweep_is_not_tried_by_another_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let all = cells("[run]\nseed = 5\n").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let options = Options { limit: Duration::from_secs(1), ..broken(1) };
                let done = sweep::run(&all, folder.path(), &options, &mut Heard::default()).unwrap();
                assert_eq!((done.len(), done[0].status), (1, Status::Failed));
                assert_eq!(done[0].error.as_deref(), Some("it is slowly broken"));
            });
        }
    });
    assert_eq!(fs::read_to_string(folder.path().join("calls")).unwrap().lines().count(), 1);
}

/// The claim of a process on another machine, as its file has it.
const FOREIGN: &str = r#"{"host":"elsewhere","machine":"another","pid":1,"nonce":"1"}"#;

#[cfg(unix)]
#[test]
fn what_another_machine_has_is_left_to_it_for_as_long_as_it_gives_signs_of_life() {
    let folder = tempfile::tempdir().unwrap();
    let all = cells("[run]\nseed = [1, 4]\n").unwrap();
    let own = sweep::own_folder(folder.path());
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("s1.claim"), FOREIGN).unwrap();
    let (began, limit) = (Instant::now(), Duration::from_secs(2));
    let mut heard = Heard::default();
    let done = sweep::run(&all, folder.path(), &Options { limit, ..broken(1) }, &mut heard).unwrap();
    assert_eq!(heard.0, ["started s4", "failed s4", "started s1", "failed s1"], "the other one first");
    assert!(done.len() == 2 && began.elapsed() >= limit, "{:?}", began.elapsed());
}

/// A sweep that has slept for too long: its cell has become that of another machine, which dies in its turn.
#[cfg(unix)]
#[test]
fn a_claim_that_is_lost_ends_its_training_and_is_won_again_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let all = cells("[run]\nseed = 5\n").unwrap();
    let claim = sweep::own_folder(folder.path()).join("s5.claim");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            while !claim.exists() || !folder.path().join("calls").exists() {
                assert!(began.elapsed() < Duration::from_secs(60));
                std::thread::sleep(Duration::from_millis(5));
            }
            store::write_atomic(&claim, FOREIGN.as_bytes()).unwrap();
        });
        let options = Options { limit: Duration::from_secs(1), ..broken(1) };
        let mut heard = Heard::default();
        let done = sweep::run(&all, folder.path(), &options, &mut heard).unwrap();
        assert_eq!(done[0].error.as_deref(), Some("it is slowly broken"));
        assert_eq!(heard.0, ["started s5", "started s5", "failed s5"]);
    });
    assert!(!claim.exists());
}

#[cfg(unix)]
#[test]
fn a_folder_of_something_else_is_refused_before_anything_begins() {
    let folder = tempfile::tempdir().unwrap();
    let all = cells("[run]\nlr = [0.1, 0.2]\n").unwrap();
    let other = Files::new(&all[1].folder(folder.path()));
    prepare(&other, Start::Fresh).unwrap();
    fs::write(other.metrics(), "").unwrap();
    let refused = || sweep::run(&all, folder.path(), &broken(1), &mut Heard::default()).unwrap_err().to_string();
    let message = refused();
    assert!(message.contains("lr_0.2-s0: expected nothing, or the run of the cell lr_0.2-s0"), "{message}");
    assert!(message.contains("metrics.jsonl without a config.toml"), "{message}");
    fs::write(other.config(), all[0].config.to_toml()).unwrap();
    assert!(refused().contains("the run was started with lr = 0.1, found lr = 0.2"), "{}", refused());
    fs::write(other.config(), all[1].config.to_toml()).unwrap();
    assert_eq!(sweep::standing(&all[1], other.folder()).unwrap(), Standing::Started);
    // It has come further than the grid asks for.
    fs::write(other.summary(), serde_json::to_string(&summary(&all[1].config, 99, [1.0; 3])).unwrap()).unwrap();
    assert!(refused().contains("epochs = 8: expected at least 99"), "{}", refused());
    assert!(!folder.path().join("calls").exists());
    // As far, but without its model; then with it.
    fs::write(other.summary(), serde_json::to_string(&summary(&all[1].config, EPOCHS, [1.0; 3])).unwrap()).unwrap();
    assert_eq!(sweep::standing(&all[1], other.folder()).unwrap(), Standing::Started);
    store::write_model(&other.best(), &Default::default(), "", &all[1].digest()).unwrap();
    assert!(matches!(sweep::standing(&all[1], other.folder()).unwrap(), Standing::Finished(_)));
    let whole = fs::read(other.summary()).unwrap();
    fs::write(other.summary(), &whole[..whole.len() / 2]).unwrap();
    assert_eq!(sweep::standing(&all[1], other.folder()).unwrap(), Standing::Started);
}

/// What the runs here have where nobody says otherwise.
const EPOCHS: usize = 8;

/// A summary with bounds of validation, of the test, and of the test at the last epoch.
fn summary(config: &Config, epochs: usize, [valid, test, last]: [f64; 3]) -> Summary {
    let line = |split: &str, bound: f64| {
        serde_json::json!({
            "epoch": epochs, "step": 8, "split": split, "images": 100, "bound": bound, "reconstruction": bound - 1.0,
            "kl": 1.0, "nll": bound - 0.5, "paper_loss": null, "seconds": 1.0, "step_ms": 1.0,
        })
    };
    let text = |key: &str| config.settings().get(key).unwrap().to_string();
    serde_json::from_value(serde_json::json!({
        "dataset": text("dataset"), "latent": text("latent"), "estimator": text("estimator"), "kl": text("kl"),
        "epochs": epochs, "best_epoch": epochs, "valid": line("valid", valid), "test": line("test", test),
        "final_test": line("test", last), "seconds": 2.0, "steps": 8, "parameters": 9, "seed": config.seed(),
        "threads": 1, "engine": "fused", "device": "cpu", "version": "0.1.0", "commit": "unknown",
    }))
    .unwrap()
}

/// A folder with a finished run.
fn finished(folder: &Path, given: &[(&str, &str)], bounds: [f64; 3]) -> Files {
    let epochs = EPOCHS.to_string();
    let config = Config::new(&Registry::standard(), &[&[("epochs", &epochs[..])], given].concat()).unwrap();
    let files = Files::new(folder);
    fs::create_dir_all(folder).unwrap();
    fs::write(files.config(), config.to_toml()).unwrap();
    fs::write(files.summary(), serde_json::to_string(&summary(&config, EPOCHS, bounds)).unwrap()).unwrap();
    files
}

fn find(folder: &Path) -> Result<collect::Found> {
    collect::find(&Registry::standard(), folder)
}

fn table(runs: &[Run], columns: Option<&[&str]>) -> Result<Table> {
    let columns: Option<Vec<String>> = columns.map(|c| c.iter().map(|name| name.to_string()).collect());
    Table::new(&Registry::standard(), runs, columns.as_deref())
}

#[test]
fn seeds_are_averaged_and_the_best_row_is_that_of_the_validation() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join("some").join(name);
    for (name, lr, seed, bounds) in [
        ("a0", "0.1", "0", [10.0, 20.0, 21.0]),
        ("a1", "0.1", "1", [12.0, 24.0, 25.0]),
        ("a2", "0.1", "2", [14.0, 28.0, 29.0]),
        // Its test is better, its validation is not.
        ("b0", "0.2", "0", [13.0, 1.0, 2.0]),
    ] {
        finished(&at(name), &[("latent", "categorical:4"), ("lr", lr), ("seed", seed)], bounds);
    }
    // Another latent is not compared with these; of an estimator of its own it lacks epsilon.
    finished(&at("deep/c0"), &[("latent", "binary:4"), ("estimator", "exact"), ("lr", "0.1")], [1.0, 2.0, 3.0]);
    fs::create_dir_all(at(".hidden")).unwrap();
    fs::write(at(".hidden/summary.json"), "{").unwrap();
    let found = find(folder.path()).unwrap();
    assert_eq!((found.runs.len(), found.unfinished.len()), (5, 0));
    let all = table(&found.runs, None).unwrap();
    let lines: Vec<String> = all.markdown().lines().map(String::from).collect();
    assert_eq!(
        lines[0],
        "| latent | estimator | lr | seeds | valid bound | test bound | -ln p(x) | KL | final bound | final -ln p(x) | \
         final KL | seconds |"
    );
    assert_eq!(lines.len(), 5);
    assert!(
        lines[2].starts_with("| **categorical:4** | **direct** | **0.1** | **3** | **12.00 ± 1.15** |"),
        "{lines:?}"
    );
    assert!(lines[2].contains("| **24.00 ± 2.31** | **23.50 ± 2.31** | **1.00 ± 0.00** |"), "{lines:?}");
    assert!(lines[3].starts_with("| categorical:4 | direct | 0.2 | 1 | 13.00 | 1.00 |"), "{lines:?}");
    assert!(lines[4].starts_with("| binary:4 | exact | 0.1 | 1 | 1.00 | 2.00 |"), "one row alone is not the best");

    let some = table(&found.runs, Some(&["bound", "epsilon", "preset"])).unwrap();
    let csv = some.csv();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "epsilon,preset,seeds,best,bound,bound_se,bound_n");
    assert!(lines[1].ends_with(",none,3,true,24,2.309401076758503,3"), "{csv}");
    assert!(lines[2].ends_with(",none,1,false,1,,1") && lines[3] == ",none,1,false,2,,1", "{csv}");
    let json = all.json();
    assert_eq!((&json[0]["seeds"], &json[0]["best"]), (&serde_json::json!([0, 1, 2]), &true.into()));
    assert_eq!(json[0]["final_bound"]["mean"], 25.0);
    assert_eq!((&json[0]["settings"]["lr"], &json[1]["bound"]["se"]), (&"0.1".into(), &serde_json::Value::Null));
    let error = table(&found.runs, Some(&["bund"])).map(drop).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("did you mean bound?"), "{error}");
    let error = table(&found.runs, Some(&["seed"])).map(drop).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("rows may differ"), "{error}");
    assert_eq!(Mean::of(&[]), None);
}

#[test]
fn runs_that_have_seen_the_validation_images_are_no_rivals() {
    let folder = tempfile::tempdir().unwrap();
    let latent = ("latent", "categorical:4");
    finished(&folder.path().join("a"), &[latent], [5.0; 3]);
    finished(&folder.path().join("b"), &[latent, ("train-on", "all")], [1.0; 3]);
    finished(&folder.path().join("c"), &[latent, ("lr", "0.1")], [6.0; 3]);
    let best: Vec<bool> =
        table(&find(folder.path()).unwrap().runs, None).unwrap().rows.iter().map(|row| row.is_best).collect();
    assert_eq!(best, [true, false, false]);
    // Nor are those of other images.
    finished(&folder.path().join("d"), &[latent, ("eval-limit", "3")], [0.5; 3]);
    let table = table(&find(folder.path()).unwrap().runs, None).unwrap();
    assert_eq!(table.rows.iter().map(|row| row.is_best).collect::<Vec<_>>(), [true, false, false, false]);
}

#[test]
fn what_cannot_stand_in_a_table_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let refused = |parts: &[&str]| {
        let message = find(folder.path()).map(|found| found.runs.len()).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in: {message}"));
    };
    finished(&at("a"), &[], [1.0; 3]);
    let run = finished(&at("b"), &[("seed", "1")], [1.0; 3]);
    let (config, whole) = (fs::read(run.config()).unwrap(), fs::read_to_string(run.summary()).unwrap());
    fs::write(run.summary(), &whole[..whole.len() / 2]).unwrap();
    refused(&["b/summary.json: expected the summary of a run, found one that was cut short"]);
    fs::write(run.summary(), "{}").unwrap();
    refused(&["b/summary.json: expected the summary of a run, found something else"]);
    fs::write(run.summary(), whole.replace("\"version\":\"0.1.0\"", "\"version\":\"9.9.9\"")).unwrap();
    refused(&["b/summary.json: expected version 0.1.0 as in ", "a/summary.json, found version 9.9.9"]);
    fs::write(run.summary(), whole.replace("\"seed\":1", "\"seed\":7")).unwrap();
    refused(&["b/summary.json: expected the summary of its config.toml with seed = 1, found one of seed = 7"]);
    fs::write(run.summary(), &whole).unwrap();
    fs::remove_file(run.config()).unwrap();
    refused(&["b: expected a run folder with config.toml and summary.json, found no config.toml in it"]);
    fs::write(run.config(), "lr = [").unwrap();
    refused(&["b/config.toml: expected the configuration of a run, found line 1"]);
    fs::write(run.config(), &config).unwrap();
    assert_eq!(find(folder.path()).unwrap().runs.len(), 2);
    // The same run twice would count twice.
    finished(&at("c"), &[("seed", "1")], [1.0; 3]);
    let twice = table(&find(folder.path()).unwrap().runs, None).map(drop).unwrap_err().to_string();
    assert!(twice.contains("c: expected a run unlike the others, found the settings and the seed of "), "{twice}");
    fs::remove_dir_all(at("c")).unwrap();

    // One that goes on to more epochs, one that has not come to its first evaluation, and no run at all.
    let config = Config::new(&Registry::standard(), &[("seed", "1"), ("epochs", "30")]).unwrap();
    fs::write(run.config(), config.to_toml()).unwrap();
    let started = Files::new(&at("d"));
    prepare(&started, Start::Fresh).unwrap();
    fs::write(started.config(), config.to_toml()).unwrap();
    fs::create_dir_all(at("e")).unwrap();
    fs::write(at("e").join("config.toml"), "title = \"a page\"").unwrap();
    let found = find(folder.path()).unwrap();
    let unfinished: Vec<_> = found.unfinished.iter().map(|run| (run.epoch, run.epochs)).collect();
    assert_eq!((found.runs.len(), unfinished), (1, vec![(EPOCHS, 30), (0, 30)]));
    assert!(find(&at("none")).unwrap_err().to_string().contains("cannot read"));
}

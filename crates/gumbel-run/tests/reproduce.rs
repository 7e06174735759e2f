//! The tables and figures made again: every number of the page is one of a record, and the pages in the repository are
//! those of its records.

use gumbel_run::Registry;
use gumbel_run::reproduce::{self, Experiment, Record, Results, Side, Verdict};
use gumbel_run::sweep::Cell;
use roxmltree::{Document, ParsingOptions};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn all() -> Vec<Experiment> {
    reproduce::find("all").unwrap()
}

fn read(folder: &Path, experiments: &[Experiment]) -> Results {
    Results::read(folder, experiments.iter().map(|e| e.name.as_str())).unwrap()
}

/// The records of the repository.
fn committed(experiments: &[Experiment]) -> Results {
    reproduce::results(experiments, &Registry::standard(), &repository().join("experiments")).unwrap()
}

/// A record whose figures are told by its bound.
fn record(cell: &str, seed: u64, bound: f64) -> Value {
    let line = |split: &str, epoch: usize, bound: f64| {
        json!({"epoch": epoch, "step": 10, "split": split, "images": 100, "bound": bound, "bound_kind": "exact",
            "reconstruction": bound - 1.0, "kl": 1.0, "nll": bound - 0.25, "paper_loss": bound + 0.5,
            "accuracy": 0.9, "train_seconds": 1.0, "seconds": 2.0, "step_ms": 0.5})
    };
    let summary = json!({"dataset": "mnist", "latent": "categorical:10", "estimator": "direct", "kl": "off",
        "epochs": 4, "best_epoch": 2, "valid": line("valid", 2, bound + 1.0), "test": line("test", 2, bound),
        "final_test": line("test", 4, bound + 0.125), "seconds": 3.0, "steps": 20, "parameters": 7, "seed": seed,
        "threads": 1, "engine": "fused", "arithmetic": "avx512", "device": "cpu", "version": "0.1.0", "commit": "abc"});
    json!({"cell": cell, "command": format!("gumbel train --seed {seed} --out runs/{cell}"),
        "settings": {"seed": seed.to_string()}, "summary": summary,
        "curve": {"epoch": [2, 4], "train_seconds": [0.5, 1.0], "bound": [bound, bound + 0.125],
            "accuracy": [0.5, 0.9]}})
}

fn write(folder: &Path, experiment: &str, record: &Value) -> PathBuf {
    let folder = folder.join(experiment).join("results");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}.json", record["cell"].as_str().unwrap()));
    fs::write(&path, record.to_string()).unwrap();
    path
}

/// Whether a text has a number with a point in it.
fn has_decimal(text: &str) -> bool {
    text.as_bytes().windows(3).any(|w| w[0].is_ascii_digit() && w[1] == b'.' && w[2].is_ascii_digit())
}

/// The numbers of a text.
fn numbers(text: &str) -> Vec<f64> {
    let all = text.split(|c: char| !c.is_ascii_digit() && !".+-e".contains(c));
    all.filter_map(|part| part.trim_end_matches('.').parse().ok()).collect()
}

/// Whether a number stands in a text as it was rounded there.
fn stands_in(value: f64, text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit() && !".+-e".contains(c)).any(|part| {
        let digits = part.split_once('.').map_or(0, |(_, rest)| rest.split('e').next().unwrap_or(rest).len());
        let rounded = if part.contains('e') { format!("{value:.digits$e}") } else { format!("{value:.digits$}") };
        !part.is_empty() && rounded.parse::<f64>() == part.parse()
    })
}

/// Checks every number of a page against the files that it names, and the published ones against what was published;
/// says how many there are. No figure of a table or of a comparison is without a source.
fn traced(page: &str, folder: &Path) -> usize {
    let published: Vec<f64> = all()
        .iter()
        .flat_map(|experiment| &experiment.published.tables)
        .flat_map(|table| &table.columns)
        .flat_map(|column| column.paper.iter().chain(&column.authors).copied())
        .collect();
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let page = Document::parse_with_options(page, options).unwrap_or_else(|e| panic!("{e}"));
    let mut files: HashMap<String, Value> = HashMap::new();
    let mut value = |file: &str, place: &str| -> Value {
        let json = files.entry(file.into()).or_insert_with(|| {
            // Of a file with many objects a line.
            let (path, line) = match file.split_once(".jsonl:") {
                Some((path, line)) => (format!("{path}.jsonl"), line.parse::<usize>().unwrap() - 1),
                None => (file.to_string(), 0),
            };
            let text = fs::read_to_string(folder.join(path)).unwrap();
            serde_json::from_str(if file.contains(".jsonl:") { text.lines().nth(line).unwrap() } else { &text })
                .unwrap()
        });
        json.pointer(place).unwrap_or_else(|| panic!("{file} has no {place}")).clone()
    };
    let mut count = 0;
    for node in page.descendants() {
        if let Some(sources) = node.attribute("data-source") {
            let all: Vec<&str> = sources.split(' ').collect();
            let (percent, in_list) = (all[0].ends_with("accuracy"), node.attribute("class") == Some("number"));
            let scale = if percent && !in_list { 100.0 } else { 1.0 };
            let values: Vec<f64> = all
                .iter()
                .map(|source| {
                    let (file, place) = source.split_once('#').unwrap();
                    value(file, place).as_f64().unwrap() * scale
                })
                .collect();
            let shown: f64 = node.attribute("data-value").unwrap().parse().unwrap();
            let (n, sum) = (values.len() as f64, values.iter().sum::<f64>());
            let mean = sum / n;
            assert!((shown - mean).abs() <= 1e-9 * mean.abs(), "{sources}: {shown} is shown, {mean} stands there");
            // What can be read, with its standard error; below it what was published, and the difference.
            let own = |node: roxmltree::Node<'_, '_>| -> String {
                let kept = |n: &roxmltree::Node<'_, '_>| n.is_text() && !n.ancestors().any(|a| a.has_tag_name("small"));
                node.descendants().filter(kept).filter_map(|n| n.text()).collect()
            };
            let read = own(node);
            let read_scale = if percent && in_list { 100.0 } else { 1.0 };
            assert!(stands_in(read_scale * mean, &read), "{sources}: {mean} is read as {read:?}");
            if let Some((_, error)) = read.split_once('±') {
                let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
                let se = (squares / (n - 1.0) / n).sqrt();
                assert!(stands_in(se, error), "{sources}: {se} is read as {error:?}");
            }
            for below in node.descendants().filter(|n| n.has_tag_name("small")) {
                let text: String = below.descendants().filter(|n| n.is_text()).filter_map(|n| n.text()).collect();
                let Some(theirs) = text.strip_prefix("paper ") else { continue };
                let found = numbers(theirs);
                assert!(found.len() == 2 && stands_in(mean - found[0], theirs), "{sources}: {theirs:?} beside {mean}");
            }
            count += 1;
        }
        if let Some(file) = node.attribute("data-file") {
            let list = |name: &str| node.attribute(name).unwrap().split(' ').map(String::from).collect::<Vec<_>>();
            let field = node.attribute("data-field").unwrap();
            for (i, (number, y)) in list("data-line").iter().zip(list("data-y")).enumerate() {
                let there = value(file, &format!("/curve/{field}/{number}"));
                assert_eq!(there.as_f64(), y.parse().ok(), "{file}: {field} {number}");
                let over = node.attribute("data-over").unwrap();
                let x = value(file, &format!("/curve/{over}/{number}"));
                assert_eq!(x.as_f64(), list("data-x")[i].parse().ok());
                count += 1;
            }
        }
    }
    let texts = || page.descendants().filter(|node| node.is_text());
    for node in texts().filter(|node| has_decimal(node.text().unwrap())) {
        let text = node.text().unwrap();
        let within = |name: &str| node.ancestors().any(|a| a.has_tag_name(name));
        if within("small") {
            let theirs = |text: &str| numbers(text).iter().all(|n| published.contains(n));
            let place = ["paper ", "authors' code "].iter().find_map(|name| text.strip_prefix(name));
            assert!(place.is_none_or(theirs), "{text:?} was not published");
        }
        let sourced = node.ancestors().any(|a| a.has_attribute("data-source"));
        let prose = within("code") || within("svg") || within("p") || within("small");
        let settings = node.ancestors().any(|a| a.attribute("class") == Some("help"));
        // The columns of the claims are sentences; their comparisons are not.
        let sentence = node.ancestors().any(|a| a.attribute("class") == Some("claims")) && !within("li");
        let checked = (within("td") || within("details")) && !within("th") && !sentence;
        assert!(!checked || sourced || prose || settings, "{text:?} has no source");
    }
    // Links lead somewhere.
    let ids: Vec<&str> = page.descendants().filter_map(|node| node.attribute("id")).collect();
    for link in page.descendants().filter_map(|node| node.attribute("href")).filter(|link| *link != "data:,") {
        assert!(link.strip_prefix('#').is_some_and(|id| ids.contains(&id)), "{link}");
    }
    count
}

#[test]
fn every_number_of_the_repositorys_page_stands_in_a_record() {
    let (folder, experiments) = (repository().join("experiments"), all());
    let results = committed(&experiments);
    let page = reproduce::html(&experiments, &reproduce::claims().unwrap(), &results, false).unwrap();
    let tables = experiments.iter().flat_map(|experiment| reproduce::tables(experiment, &results));
    let cells =
        tables.flat_map(|table| table.rows).flat_map(|row| row.cells).filter(|cell| cell.ours.is_some()).count();
    assert!(traced(&page, &folder) > 10 * cells && cells > 100, "{cells}");
    // The pictures that were committed are in it.
    assert!(page.matches("<img").count() >= 3);
}

#[test]
fn the_records_of_the_repository_are_whole_runs_of_its_grids() {
    let experiments = all();
    let results = committed(&experiments);
    assert!(results.left_out().is_empty(), "{:#?}", results.left_out());
    for experiment in &experiments {
        assert!(!results.is_quick(&experiment.name), "{} has records of a quick look", experiment.name);
    }
}

#[test]
fn what_claims_and_steps_refer_to_is_in_the_repository() {
    for stated in reproduce::claims().unwrap().into_iter().filter_map(|claim| claim.stated) {
        assert!(reproduce::names().contains(&stated.experiment.as_str()), "{}", stated.experiment);
        stated.evidence.iter().for_each(|file| assert!(repository().join(file).is_file(), "{file}"));
    }
    for step in all().into_iter().flat_map(|experiment| experiment.published.steps) {
        step.committed.iter().for_each(|file| assert!(repository().join("docs").join(file).is_file(), "{file}"));
    }
}

#[test]
fn the_page_of_the_repository_is_that_of_its_records() {
    let experiments = all();
    let results = committed(&experiments);
    let made = reproduce::markdown(&experiments, &reproduce::claims().unwrap(), &results, false, false);
    let stands = fs::read_to_string(repository().join("docs/reproduce.md")).unwrap();
    let hint = "gumbel reproduce all --results experiments --out FOLDER writes it to FOLDER/reproduce.md";
    assert!(stands == made, "docs/reproduce.md is not what the records say: {hint}");
    for published in ["180.31", "200.88", "155.37"] {
        assert!(made.contains(published), "{published}");
    }
}

#[test]
fn means_differences_and_verdicts_come_from_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (seed, bound) in [(0, 165.0), (1, 166.0)] {
        write(here, "table1", &record(&format!("mnist-categorical10-direct-s{seed}"), seed, bound));
    }
    write(here, "table1", &record("mnist-categorical10-gsm-s0", 0, 170.0));
    write(here, "table2", &record("mnist-labels_50-direct-d1-s1", 1, 90.0));
    let experiments = all();
    let results = read(here, &experiments);
    let tables = reproduce::tables(&experiments[0], &results);
    let cells = &tables[0].rows[0].cells;
    let ours = cells[1].ours.unwrap();
    assert_eq!((ours.mean, ours.se, ours.n), (165.5, Some(0.5), 2));
    assert!((cells[1].difference().unwrap() - 0.24).abs() < 1e-9 && cells[1].is_better() == Some(false));
    assert!(cells[1].best && !cells[2].best && cells[0].ours.is_none());
    // Of an accuracy more is better.
    let table2 = reproduce::find("table2").unwrap().remove(0);
    let cell = &reproduce::tables(&table2, &results)[0].rows[0].cells[0];
    assert_eq!((cell.ours.unwrap().mean, cell.paper, cell.is_better()), (90.0, Some(92.6), Some(false)));
    let printed =
        r#"{"estimator":"direct","spec":"direct:kl","epsilon":0.1,"objective":"bound","bias":0.0123456,"std":1.5}"#;
    fs::create_dir_all(here.join("figure1/results")).unwrap();
    fs::write(here.join("figure1/results/diagnose.jsonl"), printed).unwrap();
    let results = read(here, &experiments);
    let page = reproduce::html(&experiments, &reproduce::claims().unwrap(), &results, false).unwrap();
    assert!(
        traced(&page, here) > 20 && page.contains("data-source=\"figure1/results/diagnose.jsonl:1#/bias\">1.23e-2<")
    );
    // What few lines say stands in the other page too.
    assert!(page.contains("diagnose.jsonl:1#/std\">1.5<"));
    let text = reproduce::markdown(&experiments, &[], &results, false, true);
    assert!(text.contains("| direct:kl | bound | 0.1 | - | 1.23e-2 | 1.5 | - | - |"), "{text}");
    // Records of older versions have no decoder passes; where there are some, they are a third axis.
    assert!(!page.contains("data-over=\"decoder_passes\""));
    let mut passes = record("mnist-categorical10-direct-s0", 0, 165.0);
    passes["curve"]["decoder_passes"] = json!([22.0, 44.0]);
    write(here, "table1", &passes);
    let results = read(here, &experiments);
    let page = reproduce::html(&experiments, &reproduce::claims().unwrap(), &results, false).unwrap();
    assert!(traced(&page, here) > 22 && page.contains("data-over=\"decoder_passes\" data-x=\"22.0 44.0\""));
    let text = reproduce::markdown(&experiments, &[], &results, false, true);
    assert!(text.contains("| 10 | direct | test bound | 165.26 | **165.50 ± 0.50 (n = 2)** | +0.24 |"), "{text}");

    let judged = |fair: &[(&str, &str)], as_authors: &[(&str, &str)]| {
        let mut claim = reproduce::claims().unwrap().remove(0);
        let side = |cell: &str| match cell.split_once('+') {
            None => Side::One(cell.into()),
            Some((a, b)) => Side::Mean(vec![a.into(), b.into()]),
        };
        let pairs = |all: &[(&str, &str)]| all.iter().map(|(a, b)| [side(a), side(b)]).collect();
        (claim.fair, claim.as_authors) = (pairs(fair), pairs(as_authors));
        claim.fair_metric = Some("nll".into());
        reproduce::judged(&claim, &results)
    };
    let claim = |fair: &[(&str, &str)], as_authors: &[(&str, &str)]| judged(fair, as_authors).verdict;
    let (direct, gsm) = ("table1/mnist-categorical10-direct", "table1/mnist-categorical10-gsm");
    let missing = "table1/mnist-categorical20-gsm";
    assert_eq!(claim(&[(direct, gsm)], &[(direct, gsm)]), Verdict::Holds);
    assert_eq!(claim(&[(gsm, direct)], &[(direct, gsm)]), Verdict::OnlyAsTheAuthorsRanIt);
    assert_eq!(claim(&[(gsm, direct)], &[(gsm, direct)]), Verdict::DoesNotHold);
    assert_eq!(claim(&[(direct, gsm), (gsm, direct)], &[]), Verdict::HoldsInPart);
    assert_eq!(claim(&[(direct, gsm)], &[(direct, missing)]), Verdict::Open);
    // A side that is there says what it has to say.
    let one = judged(&[(direct, missing)], &[(direct, gsm)]);
    assert_eq!(one.verdict, Verdict::Open);
    assert_eq!(one.verdict_text(), "as the authors run it: holds; on equal terms: open: runs are missing");
    // Another figure on equal terms; the mean of several cells, if all are there, over the seeds that all have.
    let both = judged(&[(direct, &format!("{direct}+{gsm}"))], &[(&format!("{direct}+{missing}"), gsm)]);
    let figures = |i: usize| both.compared[i].means.map(|means| means.map(|mean| mean.mean));
    assert_eq!((figures(0), figures(1)), (None, Some([164.75, (164.75 + 169.75) / 2.0])));
    assert_eq!((both.as_authors, both.fair), ((0, 0, 1), (1, 1, 1)));
    assert!(both.compared[1].text().contains("better than the mean of table1/mnist-"), "{}", both.compared[1].text());
}

#[test]
fn bounds_are_compared_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let (mut slow, fast) = (record("a-s0", 0, 165.0), record("b-s0", 0, 166.0));
    slow["curve"] = json!({"epoch": [2, 3, 4], "train_seconds": [0.5, 0.9, 3.0], "bound": [170.0, 167.0, 160.0]});
    write(folder.path(), "own", &slow);
    write(folder.path(), "own", &fast);
    let results = Results::read(folder.path(), ["own"]).unwrap();
    let mut claim = reproduce::claims().unwrap().into_iter().find(|claim| claim.at_equal_time).unwrap();
    claim.as_authors = vec![["a", "b"].map(|cell| Side::One(format!("own/{cell}")))];
    claim.fair = vec![];
    let judged = reproduce::judged(&claim, &results);
    assert_eq!(judged.compared[0].means.map(|means| means.map(|mean| mean.mean)), Some([167.0, 166.125]));
    assert_eq!(judged.verdict, Verdict::DoesNotHold);
}

#[test]
fn claims_belong_to_the_runs_of_the_authors_side() {
    let of = |names: &[&str]| {
        let all = reproduce::claims().unwrap();
        all.into_iter().filter(|claim| claim.is_of(|name| names.contains(&name))).collect::<Vec<_>>()
    };
    // Their other side is that of table1-bound.
    let claims = of(&["table1"]);
    assert!(
        claims.iter().any(|c| c.fair.iter().flatten().flat_map(Side::cells).any(|c| c.starts_with("table1-bound/")))
    );
    assert!(of(&["table1-bound"]).is_empty());
    assert!(of(&["figure1"]).iter().all(|claim| claim.stated.is_some()) && !of(&["figure1"]).is_empty());
}

/// An experiment of one's own whose quick look has fewer epochs.
fn own(folder: &Path, epochs: usize) -> Experiment {
    let own = folder.join("own");
    fs::create_dir_all(&own).unwrap();
    let published = "title = \"T\"\n[[table]]\ntitle = \"B\"\nmetric = \"bound\"\nrow = \"of\"\n\
        rows = [\"direct\", \"exact\"]\n\
        [[table.column]]\ntitle = \"ours\"\ncells = [\"own/{row}\"]\n[[curves]]\ntitle = \"C\"\nmetric = \"bound\"\n\
        lines = [\"own/direct\"]\n";
    let grid = format!(
        "[run]\nlatent = \"categorical:4\"\nepochs = {epochs}\nestimator = [\"direct\", \"exact\"]\n\
         [quick]\nepochs = 1\n"
    );
    fs::write(own.join("published.toml"), published).unwrap();
    fs::write(own.join("grid.toml"), grid).unwrap();
    Experiment::open(&own).unwrap()
}

/// The record that a cell would leave.
fn left(cell: &Cell) -> Value {
    let mut record = record(&cell.name, 0, 100.0);
    let settings = cell.config.settings().iter().map(|(key, value)| (key.to_string(), json!(value.to_string())));
    record["settings"] = Value::Object(settings.collect());
    record
}

#[test]
fn quick_records_are_named_and_those_of_another_grid_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (here, registry) = (folder.path(), Registry::standard());
    let experiment = own(here, 5);
    let grid = experiment.grid.as_ref().unwrap();
    let whole = grid.cells(&registry, &Default::default()).unwrap();
    let quick = grid.cells(&registry, grid.quick()).unwrap();
    write(here, "own", &left(&quick[0]));
    // What is computed does not depend on some settings; a record of an older version does not know all of them.
    let mut other = left(&whole[1]);
    other["settings"]["checkpoint-every"] = json!("7");
    other["settings"].as_object_mut().unwrap().remove("lr-decay").unwrap();
    write(here, "own", &other);
    let pages = |experiment: &Experiment, quick: bool| {
        let results = reproduce::results(std::slice::from_ref(experiment), &registry, here).unwrap();
        let one = std::slice::from_ref(experiment);
        let page = reproduce::html(one, &[], &results, quick).unwrap();
        traced(&page, here);
        let left_out: Vec<String> = results.left_out().iter().map(String::from).collect();
        (page, reproduce::markdown(one, &[], &results, quick, true), left_out)
    };
    let (page, text, left_out) = pages(&experiment, false);
    assert!(left_out.is_empty(), "{left_out:?}");
    assert!(text.contains("| direct | ours | test bound | 100.00 (quick) |"));
    assert!(text.contains("| exact | ours | test bound | 100.00 |"), "{text}");
    assert!(text.contains("A quick look") && text.contains("gumbel reproduce own --quick"), "{text}");
    for part in ["(a quick look)", "100.00 (quick)", "direct (quick)", "direct-s0 (quick)", "<code>epochs = 5</code>"] {
        assert!(page.contains(part), "{part}");
    }
    // The grid is changed, its quick look is not.
    let (page, text, left_out) = pages(&own(here, 7), false);
    assert_eq!(left_out.len(), 1);
    assert!(left_out[0].starts_with("own/results/exact-s0.json: a run with epochs = 5, expected 7"), "{left_out:?}");
    assert!(text.contains("| exact | ours | test bound | - |") && text.contains(&left_out[0]), "{text}");
    assert!(page.contains("Records that are not shown"));
    // A record of no cell.
    let mut foreign = left(&whole[0]);
    foreign["cell"] = json!("arm-s0");
    write(here, "own", &foreign);
    let (_, _, left_out) = pages(&own(here, 5), false);
    assert_eq!(left_out, ["own/results/arm-s0.json: no cell of the grid of own"]);
}

#[test]
fn figures_of_an_epoch_are_points_of_the_curve() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "table1", &record("fashion-mnist-categorical10-direct-s0", 0, 165.0));
    let mut experiment = reproduce::find("table1").unwrap().remove(0);
    experiment.published.tables.retain(|form| form.epoch == Some(30));
    let results = Results::read(folder.path(), ["table1"]).unwrap();
    // The record has epochs 2 and 4.
    assert_eq!(reproduce::tables(&experiment, &results)[0].rows[0].cells[1].ours, None);
    experiment.published.tables[0].epoch = Some(4);
    let cell = &reproduce::tables(&experiment, &results)[0].rows[0].cells[1];
    assert_eq!((cell.ours.unwrap().mean, cell.authors), (165.125, Some(223.16)));
    assert_eq!(cell.sources, ["table1/results/fashion-mnist-categorical10-direct-s0.json#/curve/bound/1"]);
}

#[test]
fn broken_records_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = record("mnist-categorical10-direct-s0", 0, 165.0);
    let path = write(folder.path(), "table1", &whole);
    assert!(Record::read(&path).is_ok());
    let text = whole.to_string();
    for (broken, part) in [
        (text[..text.len() / 2].to_string(), "cut short"),
        ("[]".into(), "something else"),
        (String::new(), "cut short"),
        (text.replace("\"command\"", "\"comand\""), "unknown field `comand`"),
        (text.replace("direct-s0\"", "gsm-s0\""), "that of mnist-categorical10-gsm-s0"),
        (text.replace("\"epoch\":[2,4]", "\"epoch\":[2]"), "other numbers than epochs"),
    ] {
        fs::write(&path, broken).unwrap();
        let error = Results::read(folder.path(), ["table1"]).unwrap_err().to_string();
        assert!(error.contains("direct-s0.json: expected the record of a run") && error.contains(part), "{error}");
    }
    // What is not there is not read.
    assert_eq!(Results::read(folder.path(), ["table2"]).unwrap().runs("table2/a").len(), 0);
}

//! Pages about runs, and event files: every figure is that of the run's files, and nothing in a file breaks the page.

use gumbel_run::folder::Files;
use gumbel_run::report::{self, Run};
use gumbel_run::{Config, Quiet, Registry, Result, Start, train};
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Small runs, trained once for all tests: two of one data set and kind, a coupled one, and one that was stopped.
struct Place {
    folder: tempfile::TempDir,
}

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let cells: [(&str, &[(&str, &str)]); 3] = [
        ("direct", &[("latent", "categorical:4"), ("seed", "1")]),
        ("exact", &[("latent", "categorical:4"), ("estimator", "exact"), ("lr", "3e-3")]),
        ("tree", &[("latent", "spanning-tree:4"), ("kl", "off")]),
    ];
    for (name, more) in cells {
        let small =
            [("epochs", "3"), ("hidden", "16"), ("train-limit", "400"), ("eval-limit", "100"), ("eval-every", "1")];
        let config = Config::new(&Registry::standard(), &[&small, more].concat()).unwrap();
        let data = config.load(&gumbel_data::Source::default(), &mut |_| {}).unwrap();
        train(&config, &data, &folder.path().join(name), Start::Fresh, &mut Quiet).unwrap();
    }
    let place = Place { folder };
    // What a run that was killed after its second epoch has.
    let cut = place.copy("exact", place.folder.path(), "killed");
    fs::remove_file(cut.join("summary.json")).unwrap();
    Files::PICTURES.iter().for_each(|name| fs::remove_file(cut.join(name)).unwrap());
    let lines = fs::read_to_string(cut.join("metrics.jsonl")).unwrap();
    let kept: String = lines.lines().filter(|l| !l.contains("\"epoch\":3")).map(|l| format!("{l}\n")).collect();
    fs::write(cut.join("metrics.jsonl"), kept).unwrap();
    place
});

impl Place {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn copy(&self, name: &str, to: &Path, as_name: &str) -> PathBuf {
        let to = to.join(as_name);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(self.at(name)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() && entry.file_name() != ".lock" {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        to
    }
}

const ALL: [&str; 4] = ["direct", "exact", "tree", "killed"];

fn open(folders: &[PathBuf]) -> Result<Vec<Run>> {
    let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    report::open_all(&Registry::standard(), &folders)
}

fn page(folders: &[PathBuf]) -> String {
    report::html(&open(folders).unwrap(), None).unwrap()
}

fn all() -> Vec<PathBuf> {
    ALL.map(|name| PLACE.at(name)).into()
}

#[track_caller]
fn parsed(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).unwrap_or_else(|e| panic!("{e}"))
}

fn named<'a, 'd>(document: &'a Document<'d>, name: &'a str) -> impl Iterator<Item = Node<'a, 'd>> {
    document.descendants().filter(move |node| node.has_tag_name(name))
}

/// Everything in a run's files: what stands at `summary.json#/a/b` or `metrics.jsonl:3#/b`.
fn looked_up(folder: &Path, source: &str) -> f64 {
    let (file, pointer) = source.split_once('#').unwrap();
    let (file, line) = file.split_once(':').map_or((file, None), |(file, line)| (file, Some(line)));
    let text = fs::read_to_string(folder.join(file)).unwrap();
    let text = line.map_or(text.as_str(), |line| text.lines().nth(line.parse::<usize>().unwrap() - 1).unwrap());
    let json: Value = serde_json::from_str(text).unwrap();
    json.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{source}"))
}

/// The run of a node: that of its section, of its row, or of its curve.
fn run_of(node: Node<'_, '_>) -> usize {
    let number = |id: &str| id.strip_prefix("run-").and_then(|n| n.parse::<usize>().ok()).map(|n| n - 1);
    for up in node.ancestors() {
        let row = up.has_tag_name("tr").then(|| up.descendants().find_map(|n| n.attribute("href"))).flatten();
        let id = up.attribute("data-run").or(row.map(|href| &href[1..])).or(up.attribute("id"));
        if let Some(found) = id.and_then(number) {
            return found;
        }
    }
    panic!("{node:?} is of no run");
}

#[test]
fn every_figure_is_that_of_its_file() {
    let (folders, page) = (all(), page(&all()));
    let document = parsed(&page);
    let (mut figures, mut points) = (0, 0);
    let mut sources = HashSet::new();
    for node in document.descendants().filter(|node| node.has_attribute("data-value")) {
        let (value, source) = (node.attribute("data-value").unwrap(), node.attribute("data-source").unwrap());
        let run = run_of(node);
        let expected = looked_up(&folders[run], source);
        assert_eq!(value.parse::<f64>().unwrap(), expected, "{} {source}", ALL[run]);
        // What people read is the same number, rounded; of an estimate after a sign.
        let text: String = node.descendants().filter_map(|n| n.text().filter(|_| n.is_text())).collect();
        let text = text.trim_start_matches(['≈', '\u{a0}']);
        let digits = text.split_once('.').map_or(0, |(_, digits)| digits.len());
        let scale = if source.ends_with("accuracy") { 100.0 } else { 1.0 };
        assert_eq!(text, format!("{:.*}", digits, scale * expected), "{source}");
        sources.insert((run, source.to_string()));
        figures += 1;
    }
    for node in named(&document, "g").filter(|node| node.has_attribute("data-y")) {
        let data = |key: &str| node.attribute(format!("data-{key}").as_str()).unwrap();
        let list = |key: &str| data(key).split(' ').map(|text| text.parse::<f64>().unwrap()).collect::<Vec<_>>();
        let folder = &folders[run_of(node)];
        let (xs, ys, epochs, lines) = (list("x"), list("y"), list("epoch"), list("line"));
        assert!(xs.len() == ys.len() && epochs.len() == ys.len() && lines.len() == ys.len() && !ys.is_empty());
        for i in 0..ys.len() {
            for (key, value) in [(data("field"), ys[i]), (data("over"), xs[i]), ("epoch", epochs[i])] {
                assert_eq!(looked_up(folder, &format!("metrics.jsonl:{}#/{key}", lines[i])), value);
            }
            points += 1;
        }
        let polyline = node.children().find(|n| n.has_tag_name("polyline")).unwrap();
        assert_eq!(polyline.attribute("points").unwrap().split(' ').count(), ys.len());
    }
    // Three epochs, of one run two, two splits, bound by epoch and time at least.
    assert!(points >= (3 * 3 + 2) * 2 * 2, "{points}");
    assert!(figures >= 3 * 10, "{figures}");
    for (run, place) in [(0, "test/bound"), (0, "final_test/nll"), (1, "test/kl"), (2, "test/bound"), (1, "seconds")] {
        assert!(sources.contains(&(run, format!("summary.json#/{place}"))), "{place} of {}", ALL[run]);
    }
    assert!(!sources.iter().any(|(run, source)| *run == 3 && source.starts_with("summary")));
}

#[test]
fn the_page_is_whole_and_its_links_lead_somewhere() {
    for folders in [all(), vec![PLACE.at("direct")], vec![PLACE.at("killed")]] {
        let page = page(&folders);
        assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">\n"));
        let document = parsed(&page);
        let ids: Vec<&str> = document.descendants().filter_map(|node| node.attribute("id")).collect();
        assert_eq!(ids.len(), ids.iter().collect::<HashSet<_>>().len(), "{ids:?}");
        let links: Vec<&str> = named(&document, "a").map(|node| node.attribute("href").unwrap()).collect();
        assert!(links.len() >= 2 + 2 * folders.len());
        links.iter().for_each(|link| assert!(ids.contains(&&link[1..]) && link.starts_with('#'), "{link}"));
        // Nothing from elsewhere.
        for node in document.descendants() {
            assert!(
                !["script", "img", "iframe", "object"].contains(&node.tag_name().name()) || {
                    node.attribute("src").is_none_or(|src| src.starts_with("data:image/"))
                }
            );
            assert!(!node.has_tag_name("link") || node.attribute("href") == Some("data:,"));
            assert!(!node.attributes().any(|a| a.name().starts_with("on")), "{node:?}");
        }
        assert!(!page.contains("http:") && !page.contains("https:"));
        let images: Vec<_> = named(&document, "img").collect();
        let finished = folders.iter().filter(|f| f.join("summary.json").exists()).count();
        assert_eq!(images.len(), 3 * finished);
        assert!(images.iter().all(|image| image.attribute("alt").is_some_and(|alt| alt.len() > 10)));
        // Headings go down by one.
        let mut level = 0;
        for node in document.descendants().filter(|n| ["h1", "h2", "h3"].contains(&n.tag_name().name())) {
            let next: usize = node.tag_name().name()[1..].parse().unwrap();
            assert!(next <= level + 1, "{node:?}");
            level = next;
        }
        // All rows of a table have as many cells.
        for table in named(&document, "table") {
            let body = table.children().find(|n| n.has_tag_name("tbody")).unwrap();
            let cells = |row: Node<'_, '_>| row.children().filter(|n| n.is_element()).count();
            let counts: HashSet<usize> = body.children().filter(|n| n.is_element()).map(cells).collect();
            assert_eq!(counts.len(), 1);
            let heads = table.descendants().filter(|n| n.has_tag_name("th") && n.attribute("scope") == Some("col"));
            assert_eq!(heads.count(), counts.into_iter().next().unwrap());
        }
    }
    assert!(page(&all()).contains("unfinished, epoch 2 of 3"));
    assert!(page(&all()).contains("4 runs, 1 of them unfinished"));
    assert!(!page(&[PLACE.at("direct")]).contains(">unfinished"));
}

#[test]
fn pictures_are_those_of_the_folder() {
    let page = page(&[PLACE.at("tree")]);
    let document = parsed(&page);
    for (image, name) in named(&document, "img").zip(Files::PICTURES) {
        use base64::Engine as _;
        let (_, data) = image.attribute("src").unwrap().split_once(";base64,").unwrap();
        let bytes = base64::prelude::BASE64_STANDARD.decode(data).unwrap();
        assert_eq!(bytes, fs::read(PLACE.at("tree").join(name)).unwrap(), "{name}");
    }
}

#[test]
fn the_best_of_what_can_be_compared_is_bold() {
    let runs = all();
    let page = page(&runs);
    let document = parsed(&page);
    let rows: Vec<_> = {
        let table = named(&document, "table").next().unwrap();
        let body = table.children().find(|n| n.has_tag_name("tbody")).unwrap();
        body.children().filter(|n| n.is_element()).collect()
    };
    let bounds: Vec<f64> = runs.iter().take(2).map(|run| looked_up(run, "summary.json#/test/bound")).collect();
    let best = if bounds[0] <= bounds[1] { 0 } else { 1 };
    let bold = |row: usize, source: &str| {
        let cell = rows[row].children().find(|n| n.attribute("data-source") == Some(source)).unwrap();
        cell.children().any(|n| n.has_tag_name("strong"))
    };
    assert!(bold(best, "summary.json#/test/bound") && !bold(1 - best, "summary.json#/test/bound"));
    // Of its kind there is no other; the KL has no best; what is unfinished has not won.
    assert!(!bold(2, "summary.json#/test/bound") && !bold(best, "summary.json#/test/kl"));
    assert!(!rows[3].descendants().any(|n| n.has_tag_name("strong")));
    // The columns are what differs: the latents, estimators, rates and seeds do, the epochs do not.
    let heads: Vec<&str> =
        named(&document, "th").filter(|n| n.has_attribute("data-column")).filter_map(|n| n.text()).collect();
    assert!(["run", "latent", "estimator", "lr", "seed", "bound"].iter().all(|head| heads.contains(head)), "{heads:?}");
    assert!(!heads.contains(&"epochs") && !heads.contains(&"hidden"));
    // What the program chooses for the latent is no column.
    assert!(!heads.contains(&"epsilon") && page.contains("Settings that differ because of those shown"));
}

#[test]
fn the_same_runs_give_the_same_bytes_wherever_they_lie() {
    let elsewhere = tempfile::tempdir().unwrap();
    let copies: Vec<PathBuf> = ALL.iter().map(|name| PLACE.copy(name, elsewhere.path(), name)).collect();
    let text = page(&all());
    assert_eq!(text, page(&copies));
    let out = elsewhere.path().join("a.html");
    report::write(&out, &open(&copies).unwrap(), None).unwrap();
    assert_eq!(fs::read_to_string(out).unwrap(), text);
    assert!(
        !text.contains(elsewhere.path().to_str().unwrap()) && !text.contains(PLACE.folder.path().to_str().unwrap())
    );
}

#[cfg(unix)]
#[test]
fn no_text_breaks_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let name = "</title><script>alert(1)</script>&\"'\u{1b}[31m\u{202e}]]>\u{fffe}-->";
    let hostile = PLACE.copy("exact", folder.path(), &name.replace('/', "\u{2215}"));
    let config = fs::read_to_string(hostile.join("config.toml")).unwrap();
    assert!(config.contains("hidden = \"16\""));
    let summary = fs::read_to_string(hostile.join("summary.json")).unwrap();
    let mut summary: Value = serde_json::from_str(&summary).unwrap();
    for key in ["engine", "arithmetic", "device", "version", "commit"] {
        summary[key] = format!("<b onclick='x'>{key}</b>&amp;\n\u{0}</section>").into();
    }
    fs::write(hostile.join("summary.json"), summary.to_string()).unwrap();
    let runs = open(&[hostile, PLACE.at("direct")]).unwrap();
    let title = "<h1>\"&'</title><script>";
    let text = report::html(&runs, Some(title)).unwrap();
    let document = parsed(&text);
    assert_eq!(named(&document, "script").count(), 1);
    assert!(named(&document, "b").next().is_none());
    assert_eq!(named(&document, "title").next().unwrap().text(), Some(title));
    assert!(!text.contains(['\u{0}', '\u{1b}', '\u{fffe}']) && !text.contains("<script>alert"));
    assert_eq!(named(&document, "section").count(), 4);
}

#[test]
fn values_at_the_end_of_the_floats_have_places() {
    let folder = tempfile::tempdir().unwrap();
    let wild = PLACE.copy("exact", folder.path(), "wild");
    let lines = fs::read_to_string(wild.join("metrics.jsonl")).unwrap();
    let values = [1.7e308, -1.7e308, 0.0, 5e-324, 1e17, -1e-300];
    let lines = lines.lines().enumerate().map(|(i, line)| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for (shift, key) in ["bound", "nll", "paper_loss", "accuracy", "train_seconds"].into_iter().enumerate() {
            line[key] = values[(i + shift) % values.len()].into();
        }
        format!("{line}\n")
    });
    fs::write(wild.join("metrics.jsonl"), lines.collect::<String>()).unwrap();
    let page = page(&[wild]);
    let document = parsed(&page);
    for node in named(&document, "polyline").filter(|node| node.parent().unwrap().has_attribute("data-y")) {
        for pair in node.attribute("points").unwrap().split(' ') {
            let (x, y) = pair.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((0.0..=420.0).contains(&x) && (0.0..=270.0).contains(&y), "{pair}");
        }
    }
    assert!(!page.contains(">NaN"));
}

#[test]
fn the_first_epochs_of_a_long_run_do_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let long = PLACE.copy("killed", folder.path(), "long");
    let lines = fs::read_to_string(long.join("metrics.jsonl")).unwrap();
    let mut line: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let line = |epoch: i32| {
        line["epoch"] = epoch.into();
        line["bound"] = if epoch <= 2 { 1e3 / f64::from(epoch) } else { 100.0 - f64::from(epoch) / 10.0 }.into();
        format!("{line}\n")
    };
    fs::write(long.join("metrics.jsonl"), (1..=100).map(line).collect::<String>()).unwrap();
    let page = page(&[long]);
    let document = parsed(&page);
    let curve = named(&document, "g").find(|n| n.attribute("data-field") == Some("bound")).unwrap();
    let points = curve.first_element_child().unwrap().attribute("points").unwrap();
    let ys: Vec<f64> = points.split(' ').map(|pair| pair.split_once(',').unwrap().1.parse().unwrap()).collect();
    assert!(ys[0] == ys[1] && ys[1] < ys[2] && ys[99] - ys[2] > 150.0, "{ys:?}");
    assert!(page.contains("<figcaption>bound, nats per image; higher values at the edge</figcaption>"));
}

#[test]
fn the_command_makes_the_run_again() {
    let page = page(&[PLACE.at("exact")]);
    let document = parsed(&page);
    let command = named(&document, "code").next().unwrap().text().unwrap();
    assert!(
        command.starts_with("gumbel train --dataset glyphs --latent categorical:4 --estimator exact "),
        "{command}"
    );
    assert!(command.contains(" --lr 0.003 ") && command.ends_with(" --out runs/exact"), "{command}");
}

#[track_caller]
fn refused(folders: &[PathBuf], parts: &[&str]) {
    let message = open(folders).map(|_| ()).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in: {message}"));
}

#[test]
fn broken_folders_are_refused_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| PLACE.copy("direct", folder.path(), name);
    refused(&[folder.path().join("none")], &["none: expected a run folder, found no config.toml"]);
    refused(&[folder.path().to_path_buf()], &["expected a run folder"]);

    let cut = copy("cut");
    let summary = fs::read(cut.join("summary.json")).unwrap();
    for length in [0, 1, summary.len() / 2, summary.len() - 1] {
        fs::write(cut.join("summary.json"), &summary[..length]).unwrap();
        if summary[length..].iter().any(|b| !b.is_ascii_whitespace()) {
            refused(std::slice::from_ref(&cut), &["cut/summary.json", "one that was cut short"]);
        }
    }
    fs::write(cut.join("summary.json"), "[]").unwrap();
    refused(&[cut], &["cut/summary.json", "something else"]);

    let foreign = copy("foreign");
    fs::copy(PLACE.at("exact").join("summary.json"), foreign.join("summary.json")).unwrap();
    refused(&[foreign], &["foreign/summary.json", "estimator = direct", "estimator = exact"]);

    let bare = copy("bare");
    fs::write(bare.join("metrics.jsonl"), "").unwrap();
    refused(std::slice::from_ref(&bare), &["bare/metrics.jsonl: expected at least one line of metrics, found none"]);
    fs::write(bare.join("metrics.jsonl"), "{\"epoch\":1}\n").unwrap();
    refused(std::slice::from_ref(&bare), &["bare/metrics.jsonl: expected lines of metrics, found line 1"]);
    fs::remove_file(bare.join("metrics.jsonl")).unwrap();
    refused(&[bare], &["cannot read ", "bare/metrics.jsonl"]);

    let blind = copy("blind");
    let png = fs::read(blind.join("samples.png")).unwrap();
    fs::write(blind.join("samples.png"), &png[..png.len() / 2]).unwrap();
    refused(std::slice::from_ref(&blind), &["blind/samples.png: expected a PNG picture"]);
    fs::write(blind.join("samples.png"), png).unwrap();
    fs::write(blind.join("curves.svg"), "<script>").unwrap();
    refused(&[blind], &["blind/curves.svg: expected an SVG picture"]);

    fs::create_dir(folder.path().join("b")).unwrap();
    let twins = [copy("twin"), PLACE.copy("direct", &folder.path().join("b"), "twin")];
    refused(&twins, &["b/twin: expected a run of another name than ", "\"twin\" twice"]);
    refused(&[PLACE.at("direct"), PLACE.at("direct")], &["direct: expected a run of another name"]);

    let error = report::write(&folder.path().join("a.png"), &open(&all()).unwrap(), None).unwrap_err();
    assert!(error.is_usage() && error.to_string().ends_with("expected a file name that ends in .html"), "{error}");
    assert!(report::html(&[], None).unwrap_err().is_usage());
}

/// The fields of a message of protocol buffers: number and bytes, those of whole numbers as eight.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut all = vec![];
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => varint(&mut bytes).to_le_bytes().to_vec(),
            kind => {
                let length = match kind {
                    1 => 8,
                    5 => 4,
                    2 => varint(&mut bytes) as usize,
                    kind => panic!("kind {kind}"),
                };
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                value.to_vec()
            }
        };
        all.push((key >> 3, value));
    }
    all
}

/// CRC-32C bit by bit, masked.
fn checksum(data: &[u8]) -> u32 {
    let crc = data.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    });
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut rest) = (vec![], bytes);
    while !rest.is_empty() {
        let number = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(number(8), checksum(&rest[..8]));
        let data = &rest[12..12 + length];
        assert_eq!(number(12 + length), checksum(data));
        all.push(data.to_vec());
        rest = &rest[16 + length..];
    }
    all
}

fn field(fields: &[(u64, Vec<u8>)], number: u64) -> &[u8] {
    &fields.iter().find(|(n, _)| *n == number).unwrap().1
}

#[test]
fn event_files_have_the_metrics_and_pictures() {
    let out = tempfile::tempdir().unwrap();
    let runs = open(&all()).unwrap();
    report::tensorboard(out.path(), &runs).unwrap();
    let file = |place: &str| fs::read(out.path().join(place).join("events.out.tfevents.0.gumbel"));
    for run in &runs {
        for split in ["train", "valid", "test"] {
            let events = records(&file(&format!("{}/{split}", run.name)).unwrap());
            assert_eq!(field(&fields(&events[0]), 3), b"brain.Event:2");
            let lines: Vec<_> = run.metrics.iter().filter(|line| line.split == split).collect();
            assert_eq!(events.len(), lines.len() + 1);
            for (event, line) in events[1..].iter().zip(lines) {
                let event = fields(event);
                assert_eq!(field(&event, 1), line.seconds.to_le_bytes());
                assert_eq!(field(&event, 2), line.step.to_le_bytes());
                let json = serde_json::to_value(line).unwrap();
                let values = fields(field(&event, 5));
                for (number, value) in &values {
                    let value = fields(value);
                    let tag = std::str::from_utf8(field(&value, 1)).unwrap();
                    let found = f32::from_le_bytes(field(&value, 2).try_into().unwrap());
                    assert_eq!((*number, found), (1, json[tag].as_f64().unwrap() as f32), "{tag}");
                }
                let known = line.named.iter().filter(|(_, value)| value.is_some()).count();
                assert!(values.len() >= 6 + known, "{}", values.len());
            }
        }
    }
    let events = records(&file("tree").unwrap());
    assert_eq!(events.len(), 3);
    for (event, name) in events[1..].iter().zip(["samples", "reconstructions"]) {
        let value = fields(field(&fields(field(&fields(event), 5)), 1));
        assert_eq!(field(&value, 1), name.as_bytes());
        let image = fields(field(&value, 4));
        let png = fs::read(PLACE.at("tree").join(format!("{name}.png"))).unwrap();
        assert_eq!(field(&image, 4), png);
        // The header of the picture has width and height, the highest byte first.
        let header = |at: usize| u64::from(u32::from_be_bytes(png[at..at + 4].try_into().unwrap())).to_le_bytes();
        assert_eq!((field(&image, 2), field(&image, 1)), (&header(16)[..], &header(20)[..]));
    }
    assert!(file("killed").is_err(), "it has no pictures");
    let before = file("direct/test").unwrap();
    report::tensorboard(out.path(), &runs).unwrap();
    assert_eq!(file("direct/test").unwrap(), before);
}

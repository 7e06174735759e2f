//! What an experiment shows, and what was published.

use crate::collect::{measure_named, measure_names};
use crate::report::quoted;
use crate::{Error, Result};
use gumbel::registry::did_you_mean;
use serde::Deserialize;
use std::path::Path;

/// The figures of which a record keeps a curve.
pub const CURVED: [&str; 4] = ["bound", "nll", "paper_loss", "accuracy"];

/// `published.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Title.
    pub title: String,
    /// What is trained and how it is measured.
    #[serde(default)]
    pub about: String,
    /// Where the published figures stand.
    #[serde(default)]
    pub source: String,
    /// How many seeds of the grid are trained where nobody says otherwise: those from 0.
    #[serde(default = "every")]
    pub seeds: u64,
    /// What is known to differ from what was published.
    #[serde(default)]
    pub differs: Vec<String>,
    /// Runs of other experiments that are trained for this one.
    #[serde(default)]
    pub from: Vec<From>,
    /// Tables.
    #[serde(default, rename = "table")]
    pub tables: Vec<Form>,
    /// Figures of curves.
    #[serde(default)]
    pub curves: Vec<Curves>,
    /// What is done with the runs when they are there.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
    /// What steps have printed, or others have said of the runs.
    #[serde(default)]
    pub measured: Vec<Measured>,
}

fn every() -> u64 {
    u64::MAX
}

/// Runs of another experiment.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    /// Its name.
    pub experiment: String,
    /// Those cells whose names have one of these in them.
    pub only: Vec<String>,
}

impl From {
    /// Whether a cell, named as `EXPERIMENT/CELL`, is one of them.
    pub fn takes(&self, cell: &str) -> bool {
        let own = cell.split_once('/').is_some_and(|(experiment, _)| experiment == self.experiment);
        own && self.only.iter().any(|part| cell.contains(part.as_str()))
    }
}

/// A table: what stands in its rows and columns.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// Title, with the unit.
    pub title: String,
    /// Which figure of a run, as in `gumbel collect`.
    pub metric: String,
    /// The epoch whose point of the curve is shown in place of a figure of the summary: of [`CURVED`].
    #[serde(default)]
    pub epoch: Option<usize>,
    /// What the rows differ in.
    pub row: String,
    /// The names of the rows.
    pub rows: Vec<String>,
    /// Columns.
    #[serde(rename = "column")]
    pub columns: Vec<Column>,
}

/// A column of a table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Title.
    pub title: String,
    /// Which figure, if not that of the table.
    #[serde(default)]
    pub metric: Option<String>,
    /// The cells whose runs it averages, as `EXPERIMENT/CELL` without the seed; `{row}` stands for the row's name.
    #[serde(default)]
    pub cells: Vec<String>,
    /// The same written out for every row.
    #[serde(default)]
    pub by_row: Vec<Vec<String>>,
    /// Published, a figure for every row; NaN where there is none.
    #[serde(default)]
    pub paper: Vec<f64>,
    /// What the authors' code gives when it is run, or has printed, likewise.
    #[serde(default)]
    pub authors: Vec<f64>,
}

impl Column {
    /// The cells of a row.
    pub fn cells_of(&self, index: usize, row: &str) -> Vec<String> {
        match self.by_row.get(index) {
            Some(cells) => cells.clone(),
            None => self.cells.iter().map(|cell| cell.replace("{row}", row)).collect(),
        }
    }
}

/// Curves of some cells over epochs, over time, and over decoder passes where records have them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curves {
    /// Title.
    pub title: String,
    /// One of [`CURVED`].
    pub metric: String,
    /// Cells as `EXPERIMENT/CELL` without the seed; of their runs the first seed is drawn.
    pub lines: Vec<String>,
}

/// A command of this program on trained runs, and what it leaves.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it shows.
    pub title: String,
    /// The arguments; `{run:CELL}` stands for the folder of a run of this experiment, `{out}` for that of the results.
    pub command: Vec<String>,
    /// Flags with other values for a quick look.
    #[serde(default)]
    pub quick: Vec<String>,
    /// The file that takes what is printed.
    #[serde(default)]
    pub printed: Option<String>,
    /// The picture that it leaves.
    pub picture: String,
    /// One that was committed, beside the page of the repository.
    #[serde(default)]
    pub committed: Option<String>,
}

/// A table of a file with a JSON object on every line, which stands among the results.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Title, with the unit.
    pub title: String,
    /// The file.
    pub file: String,
    /// What made it, where no step did.
    #[serde(default)]
    pub command: Option<String>,
    /// Texts that say what a line is about: their place in it ([`serde_json::Value::pointer`]), and a title.
    pub names: Vec<[String; 2]>,
    /// Its figures, likewise.
    pub figures: Vec<[String; 2]>,
}

impl Measured {
    /// With more lines a table is folded, and not in Markdown.
    pub const FEW: usize = 20;

    /// The titles of the columns.
    pub fn titles(&self) -> Vec<&str> {
        self.names.iter().chain(&self.figures).map(|[_, title]| title.as_str()).collect()
    }

    /// A figure as it is read: short ones as they are, others with three digits.
    pub fn text(value: f64) -> String {
        let text = value.to_string();
        if text.len() <= 6 { text } else { format!("{value:.2e}") }
    }
}

/// Where the value of a flag stands among some words.
fn value_of(words: &[String], flag: &str) -> Option<usize> {
    let at = 1 + words.iter().skip(1).position(|word| word == flag)? + 1;
    (at < words.len()).then_some(at)
}

impl Step {
    /// What is wrong with it, if anything is.
    fn fault(&self) -> Option<String> {
        let place = format!("in the step {:?}", self.title);
        if self.command.first().is_none_or(|word| word.trim().is_empty()) {
            let found = if self.command.is_empty() { "nothing" } else { "an empty word" };
            return Some(format!("command: expected the name of a command and its arguments, found {found} {place}"));
        }
        if !self.quick.len().is_multiple_of(2) {
            let expected = "expected flags of the command with a value each";
            return Some(format!("quick: {expected}, found {} words {place}", self.quick.len()));
        }
        let flags = self.quick.chunks_exact(2).map(|pair| &pair[0]);
        let lost = flags.into_iter().find(|flag| value_of(&self.command, flag).is_none())?;
        let found = match self.command.iter().skip(1).any(|word| word == lost) {
            true => "at the end of it",
            false => "which it has not",
        };
        Some(format!("quick: expected flags of the command with a value behind them, found {lost:?}, {found}, {place}"))
    }

    /// Its command as it is read.
    pub fn shown(&self) -> String {
        let words =
            self.command.iter().map(|word| match word.strip_prefix("{run:").and_then(|w| w.strip_suffix('}')) {
                Some(cell) => format!("RUNS/{cell}"),
                None => quoted(&word.replace("{out}", "RESULTS")),
            });
        ["gumbel".to_string()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }

    /// The runs of this experiment that it reads, by the names of their cells with the seed.
    pub fn runs(&self) -> Vec<&str> {
        self.command.iter().filter_map(|word| word.strip_prefix("{run:")?.strip_suffix('}')).collect()
    }

    /// The arguments for some folders.
    pub fn arguments(&self, runs: &Path, out: &Path, quick: bool) -> Vec<String> {
        let mut all = self.command.clone();
        for pair in self.quick.chunks_exact(2).filter(|_| quick) {
            // The first word is the command itself, which no flag is.
            if let Some(value) = value_of(&all, &pair[0]) {
                all[value] = pair[1].clone();
            }
        }
        let filled = all.into_iter().map(|word| match word.strip_prefix("{run:").and_then(|w| w.strip_suffix('}')) {
            Some(cell) => runs.join(cell).to_string_lossy().into_owned(),
            None => word.replace("{out}", &out.to_string_lossy()),
        });
        filled.collect()
    }
}

impl Published {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`Error::ConfigFile`]: no TOML, other keys, a figure that runs do not have, columns with too few figures, no
    /// seeds, a step without a command or with a flag for quick looks that its command does not have, something
    /// measured whose place in its lines is none.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let wrong = |detail: String| Error::ConfigFile { path: path.to_path_buf(), detail };
        let published: Published = toml::from_str(text).map_err(|e| {
            let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
            let place = e.span().map(|s| format!("line {}: ", line(s.start))).unwrap_or_default();
            wrong(format!("{place}{}", e.message().replace('\n', " ")))
        })?;
        let known = |name: &str| match measure_named(name) {
            Some(_) => Ok(()),
            None => {
                let names = measure_names();
                let near = did_you_mean(name, &names);
                Err(wrong(format!("metric = {name:?}: expected {}{near}", names.join(", "))))
            }
        };
        for table in &published.tables {
            known(&table.metric)?;
            let metrics = [&table.metric].into_iter().chain(table.columns.iter().filter_map(|c| c.metric.as_ref()));
            if let (Some(epoch), Some(metric)) = (table.epoch, metrics.into_iter().find(|m| !CURVED.contains(&&m[..])))
            {
                let place = format!("with epoch = {epoch} in {:?}", table.title);
                return Err(wrong(format!("metric = {metric:?}: expected {} {place}", CURVED.join(", "))));
            }
            for column in &table.columns {
                column.metric.as_deref().map_or(Ok(()), known)?;
                let rows = table.rows.len();
                let of_all_or_none = |n: usize| n == 0 || n == rows;
                let lengths = [column.paper.len(), column.authors.len(), column.by_row.len()];
                if !lengths.into_iter().all(of_all_or_none) || column.cells.is_empty() == column.by_row.is_empty() {
                    let place = format!("the column {:?} of {:?}", column.title, table.title);
                    return Err(wrong(format!("expected cells and figures for {rows} rows in {place}")));
                }
            }
        }
        if let Some(curves) = published.curves.iter().find(|c| !CURVED.contains(&&c.metric[..])) {
            return Err(wrong(format!("metric = {:?} of curves: expected {}", curves.metric, CURVED.join(", "))));
        }
        if published.seeds == 0 {
            return Err(wrong("seeds = 0: expected at least 1".into()));
        }
        for measured in &published.measured {
            let mut places = measured.names.iter().chain(&measured.figures);
            if let Some([place, _]) = places.find(|[place, _]| !place.starts_with('/')) {
                let detail = format!("{place:?}: expected a place such as \"/bias\" in {:?}", measured.title);
                return Err(wrong(detail));
            }
        }
        match published.steps.iter().find_map(Step::fault) {
            Some(fault) => Err(wrong(fault)),
            None => Ok(published),
        }
    }

    /// All cells that are named, as `EXPERIMENT/CELL` without the seed.
    pub fn cells(&self) -> Vec<String> {
        let mut all: Vec<String> = vec![];
        for table in &self.tables {
            for column in &table.columns {
                all.extend(table.rows.iter().enumerate().flat_map(|(i, row)| column.cells_of(i, row)));
            }
        }
        all.extend(self.curves.iter().flat_map(|curves| curves.lines.clone()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Published> {
        Published::parse("a/published.toml".as_ref(), text)
    }

    #[test]
    fn wrong_files_are_named_with_their_lines() {
        let table = "title = \"A\"\n[[table]]\ntitle = \"B\"\nmetric = \"bound\"\nrow = \"K\"\nrows = [\"1\", \"2\"]\n";
        let column = |rest: &str| format!("{table}[[table.column]]\ntitle = \"C\"\n{rest}");
        let step = |rest: &str| format!("title = \"A\"\n[[step]]\ntitle = \"S\"\npicture = \"a.svg\"\n{rest}");
        assert!(parse(&step("command = [\"sample\", \"--rows\", \"8\"]\nquick = [\"--rows\", \"2\"]")).is_ok());
        assert!(parse(&column("cells = [\"a/{row}\"]\npaper = [1.0, nan]")).is_ok());
        for (text, part) in [
            ("titel = \"A\"", "line 1: unknown field `titel`"),
            ("title = \"A\"\nsource = 3", "line 2: invalid type"),
            (&table.replace("bound", "bond"), "line 2: missing field `column`"),
            (&column("cells = [\"a\"]\nmetric = \"bond\""), "did you mean bound?"),
            (&column("cells = [\"a\"]\npaper = [1.0]"), "expected cells and figures for 2 rows in the column \"C\""),
            (&column("paper = [1.0, 2.0]"), "expected cells and figures for 2 rows"),
            (&column("by_row = [[\"a\"]]"), "expected cells and figures for 2 rows"),
            (
                &column("cells = [\"a\"]").replace("row =", "epoch = 3\nrow =").replace("\"bound\"", "\"kl\""),
                "metric = \"kl\": expected bound, nll, paper_loss, accuracy with epoch = 3 in \"B\"",
            ),
            (
                "title = \"A\"\n[[curves]]\ntitle = \"C\"\nmetric = \"kl\"\nlines = []",
                "metric = \"kl\" of curves: expected bound, nll, paper_loss, accuracy",
            ),
            (
                "title = \"A\"\n[[measured]]\ntitle = \"M\"\nfile = \"a\"\nnames = []\nfigures = [[\"bias\", \"b\"]]",
                "\"bias\": expected a place such as \"/bias\" in \"M\"",
            ),
            ("title = \"A\"\nseeds = 0", "seeds = 0: expected at least 1"),
            ("title = \"A\"\nseeds = -1", "line 2"),
            (&step("command = []"), "command: expected the name of a command and its arguments, found nothing"),
            (&step("command = [\"\"]"), "found an empty word in the step \"S\""),
            (&step("command = [\"a\", \"--n\", \"8\"]\nquick = [\"--n\"]"), "found 1 words in the step \"S\""),
            (
                &step("command = [\"a\", \"--n\"]\nquick = [\"--n\", \"2\"]"),
                "found \"--n\", at the end of it, in the step \"S\"",
            ),
            (
                &step("command = [\"a\", \"--n\", \"8\"]\nquick = [\"--m\", \"2\"]"),
                "found \"--m\", which it has not, in the step \"S\"",
            ),
            (&step("command = [\"a\", \"8\"]\nquick = [\"a\", \"2\"]"), "found \"a\", which it has not"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("a/published.toml: ") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_step_is_filled_in() {
        let step = Step {
            title: String::new(),
            command: ["diagnose", "{run:exact-s0}", "--draws", "2000", "--out", "{out}/a.svg"].map(String::from).into(),
            quick: vec!["--draws".into(), "20".into()],
            printed: None,
            picture: "a.svg".into(),
            committed: None,
        };
        assert_eq!(step.shown(), "gumbel diagnose RUNS/exact-s0 --draws 2000 --out RESULTS/a.svg");
        let words = step.arguments("r".as_ref(), "o".as_ref(), true);
        assert_eq!(words, ["diagnose", "r/exact-s0", "--draws", "20", "--out", "o/a.svg"]);
        assert_eq!(step.arguments("r".as_ref(), "o".as_ref(), false)[3], "2000");
    }
}

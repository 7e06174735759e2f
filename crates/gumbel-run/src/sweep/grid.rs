//! Grid files: every combination of some settings, each checked before any of them runs.

use super::work::work;
use crate::config::{ConfigFile, Given, Written, every_key, name_of};
use crate::folder::{Digest, fitting_name};
use crate::{Config, Error, Registry, Result};
use gumbel::registry::did_you_mean;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The most cells of a grid: a product of lists is written faster than it is computed.
pub const MAX_CELLS: usize = 20_000;

/// A key with its alternatives.
#[derive(Debug, Clone, PartialEq)]
struct Axis {
    key: String,
    values: Vec<Written>,
    line: usize,
}

impl Axis {
    fn varies(&self) -> bool {
        self.values.len() > 1
    }

    /// What the name of a cell says of one of the values.
    fn part(&self, value: &Written) -> String {
        let text = value.text().replace(':', "").replace(',', "-");
        match self.key.as_str() {
            // These say what they are, as in the name of a run's default folder.
            "dataset" | "latent" | "estimator" => text,
            key => format!("{key}_{text}"),
        }
    }
}

/// A grid file that has been read; its settings are not checked yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    path: PathBuf,
    out: Option<PathBuf>,
    /// Keys of every cell.
    run: Vec<Axis>,
    /// Named cells with keys of their own.
    cells: Vec<(String, Vec<Axis>)>,
    /// Values that stand over all others for a quick look.
    quick: Given,
}

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Its name and that of its folder: unlike those of all other cells.
    pub name: String,
    /// Its settings.
    pub config: Config,
    /// What its training costs, roughly, in a unit of its own: for the order.
    pub work: f64,
}

impl Cell {
    /// Its run folder in the folder of a sweep.
    pub fn folder(&self, sweep: &Path) -> PathBuf {
        sweep.join(&self.name)
    }

    /// What the files of its run are known by.
    pub fn digest(&self) -> Digest {
        self.config.digest()
    }
}

impl Grid {
    /// Reads a grid file; see [`sweep`](crate::sweep) for what stands in one.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::ConfigFile`] with the line of what is no TOML, no grid or an empty list.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        Grid::parse(path, &text)
    }

    /// The same from the text of a file.
    ///
    /// # Errors
    /// As [`read`](Self::read), without those of reading.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        Reader { path, text }.grid()
    }

    /// The values of `[quick]`, which make the runs short: to be given to [`cells`](Self::cells).
    pub fn quick(&self) -> &Given {
        &self.quick
    }

    /// The folder of the sweep: that of the file, or `runs/` with the name of the file.
    pub fn out(&self) -> PathBuf {
        let stem = || self.path.file_stem().map_or("sweep".into(), |s| s.to_string_lossy().into_owned());
        self.out.clone().unwrap_or_else(|| Path::new("runs").join(stem()))
    }

    /// All cells in the order of the file, each with a configuration that has been checked. The values of `over` stand
    /// above those of the file, in all cells: a key of theirs does not vary any more.
    ///
    /// # Errors
    /// Unknown keys, cells that cannot be, two cells of one name or with the same settings, more than [`MAX_CELLS`].
    /// Cells whose engine or device cannot have the model in this build of the program cannot be either.
    pub fn cells(&self, registry: &Registry, over: &Given) -> Result<Vec<Cell>> {
        self.all(registry, over, Config::check_engine)
    }

    /// The same for reading what other builds have trained: engines and devices are those of whoever runs it.
    pub(crate) fn cells_of_any_build(&self, registry: &Registry, over: &Given) -> Result<Vec<Cell>> {
        self.all(registry, over, |_| Ok(()))
    }

    fn all(&self, registry: &Registry, over: &Given, check: fn(&Config) -> Result<()>) -> Result<Vec<Cell>> {
        let known = every_key(registry);
        for axis in self.run.iter().chain(self.cells.iter().flat_map(|(_, own)| own)) {
            if !known.contains(&axis.key.as_str()) {
                let near = did_you_mean(&axis.key, &known);
                return Err(self.error(axis.line, format!("unknown key {:?}{near}", axis.key)));
            }
        }
        let unnamed = [(String::new(), vec![])];
        let named = if self.cells.is_empty() { &unnamed[..] } else { &self.cells };
        let groups = named.iter().map(|(name, own)| {
            let own: Vec<&Axis> = own.iter().filter(|axis| !over.contains_key(&axis.key)).collect();
            let is_general = |axis: &&Axis| !over.contains_key(&axis.key) && own.iter().all(|o| o.key != axis.key);
            (name, self.run.iter().filter(is_general).collect::<Vec<_>>(), own)
        });
        let groups: Vec<_> = groups.collect();
        let sizes = groups.iter().map(|(_, general, own)| {
            general.iter().chain(own).fold(1usize, |size, axis| size.saturating_mul(axis.values.len()))
        });
        let count = sizes.fold(0usize, usize::saturating_add);
        if count > MAX_CELLS {
            return Err(self.whole(format!("expected at most {MAX_CELLS} cells, found {count}")));
        }
        let (mut cells, mut names): (Vec<Cell>, _) = (Vec::with_capacity(count), BTreeSet::new());
        let mut settings = BTreeMap::new();
        for (name, general, own) in &groups {
            let axes: Vec<&Axis> = general.iter().chain(own).copied().collect();
            let mut at = vec![0; axes.len()];
            loop {
                let chosen: Vec<(&Axis, &Written)> = axes.iter().zip(&at).map(|(a, i)| (*a, &a.values[*i])).collect();
                let cell = self.cell(registry, over, check, name, general.len(), &chosen)?;
                if !names.insert(cell.name.clone()) {
                    let expected = "expected another name for every cell";
                    return Err(self.whole(format!("{expected}, found two cells {}", cell.name)));
                }
                // A quick look may have the same value in all cells.
                let all: Vec<String> =
                    cell.config.settings().iter().map(|(key, value)| format!("{key}={value}")).collect();
                if let Some(other) = settings.insert(all, cell.name.clone()).filter(|_| over.is_empty()) {
                    let found = format!("the same in {other} and {}", cell.name);
                    return Err(self.whole(format!("expected other settings in every cell, found {found}")));
                }
                cells.push(cell);
                // The last key of the file varies fastest.
                let Some(next) = (0..at.len()).rev().find(|i| at[*i] + 1 < axes[*i].values.len()) else { break };
                at[next] += 1;
                at[next + 1..].fill(0);
            }
        }
        Ok(cells)
    }

    /// One combination of values: the first `general` are those of every cell.
    fn cell(
        &self,
        registry: &Registry,
        over: &Given,
        check: fn(&Config) -> Result<()>,
        name: &str,
        general: usize,
        chosen: &[(&Axis, &Written)],
    ) -> Result<Cell> {
        let parts = |some: &[(&Axis, &Written)]| -> Vec<String> {
            let varying = some.iter().filter(|(axis, _)| axis.varies() && axis.key != "seed");
            varying.map(|(axis, value)| axis.part(value)).collect()
        };
        let mut all = parts(&chosen[..general]);
        all.extend(Some(name.to_string()).filter(|name| !name.is_empty()));
        all.extend(parts(&chosen[general..]));
        let seed = chosen.iter().find(|(axis, _)| axis.key == "seed").map(|(_, value)| value.text());
        all.push(format!("s{}", over.get("seed").map(String::as_str).or(seed).unwrap_or("0")));
        let name = fitting_name(&all.join("-"));

        let values = chosen.iter().map(|(axis, value)| (axis.key.clone(), (*value).clone(), axis.line));
        let file = ConfigFile::of(&self.path, values.collect());
        let config = Config::resolve(registry, Some(&file), over);
        let config = config.and_then(|config| check(&config).map(|()| config)).map_err(|e| match e {
            Error::ConfigFile { path, detail } => {
                Error::ConfigFile { path, detail: format!("{detail}, in the cell {name}") }
            }
            Error::Setting { name: key, value, expected } if over.contains_key(&key) => {
                Error::Setting { name: key, value, expected: format!("{expected}, in the cell {name}") }
            }
            e if e.is_usage() => {
                let line = chosen.iter().find(|(axis, _)| axis.key == name_of(&e)).map(|(axis, _)| axis.line);
                let place = line.map_or(String::new(), |line| format!("line {line}: "));
                self.whole(format!("{place}{e}, in the cell {name}"))
            }
            other => other,
        })?;
        let work = work(&config);
        Ok(Cell { name, config, work })
    }

    fn error(&self, line: usize, detail: impl fmt::Display) -> Error {
        self.whole(format!("line {line}: {detail}"))
    }

    fn whole(&self, detail: String) -> Error {
        Error::ConfigFile { path: self.path.clone(), detail }
    }
}

/// A table of the file.
type Table<'a> = DeTable<'a>;

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn error(&self, at: Range<usize>, detail: impl fmt::Display) -> Error {
        let line = self.line(at);
        Error::ConfigFile { path: self.path.to_path_buf(), detail: format!("line {line}: {detail}") }
    }

    fn line(&self, at: Range<usize>) -> usize {
        self.text.as_bytes()[..at.start.min(self.text.len())].iter().filter(|b| **b == b'\n').count() + 1
    }

    fn grid(&self) -> Result<Grid> {
        let table = DeTable::parse(self.text).map_err(|e| {
            let (at, message) = (e.span().unwrap_or(0..0), e.message().replace('\n', " "));
            // Which one, it does not say.
            let key = self.text.get(at.clone()).filter(|key| message == "duplicate key" && !key.contains('\n'));
            self.error(at, key.map_or(message.clone(), |key| format!("{message}: {key}")))
        })?;
        let mut grid =
            Grid { path: self.path.to_path_buf(), out: None, run: vec![], cells: vec![], quick: Given::new() };
        for (key, value) in in_order(table.get_ref()) {
            let expected = |what: &str| {
                let found = value.get_ref().type_str();
                self.error(key.span(), format!("{}: expected {what}, found {found}", key.get_ref()))
            };
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("out", DeValue::String(folder)) if !folder.is_empty() => {
                    grid.out = Some(PathBuf::from(folder.as_ref()))
                }
                ("out", _) => return Err(expected("the name of a folder")),
                ("run", DeValue::Table(keys)) => grid.run = self.axes(keys)?,
                ("run", _) => return Err(expected("a table of settings")),
                ("cell", DeValue::Table(cells)) => {
                    for (name, cell) in in_order(cells) {
                        let label = name.get_ref();
                        let DeValue::Table(keys) = cell.get_ref() else {
                            let detail = format!("expected a table [cell.NAME], found cell.{label} with a value");
                            return Err(self.error(name.span(), detail));
                        };
                        if label.is_empty() {
                            return Err(self.error(name.span(), "expected a name of the cell, found nothing"));
                        }
                        if label.starts_with('.') {
                            let detail =
                                format!("expected a name without a dot before it, which hides, found {label:?}");
                            return Err(self.error(name.span(), detail));
                        }
                        grid.cells.push((label.to_string(), self.axes(keys)?));
                    }
                }
                ("cell", _) => return Err(expected("tables [cell.NAME]")),
                ("quick", DeValue::Table(keys)) => {
                    for axis in self.axes(keys)? {
                        let [value] = &axis.values[..] else {
                            let detail = format!("{}: expected one value for all cells", axis.key);
                            return Err(self.error(key.span(), detail));
                        };
                        grid.quick.insert(axis.key, value.text().to_string());
                    }
                }
                ("quick", _) => return Err(expected("a table of settings")),
                (other, _) => {
                    let near = did_you_mean(other, &["out", "run", "cell", "quick"]);
                    let detail = format!("unknown key {other:?}{near}: settings of runs stand under [run]");
                    return Err(self.error(key.span(), detail));
                }
            }
        }
        Ok(grid)
    }

    fn axes(&self, table: &Table<'_>) -> Result<Vec<Axis>> {
        let axis = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name: &std::borrow::Cow<'_, str> = key.get_ref();
            let values = self.values(name, key.span(), value.get_ref())?;
            Ok(Axis { key: name.to_string(), values, line: self.line(key.span()) })
        };
        in_order(table).into_iter().map(axis).collect()
    }

    /// The alternatives of a key.
    fn values(&self, key: &str, at: Range<usize>, value: &DeValue<'_>) -> Result<Vec<Written>> {
        match value {
            DeValue::Array(list) if list.is_empty() => {
                Err(self.error(at, format!("{key} = []: expected at least one value")))
            }
            DeValue::Array(list) => {
                let alternative = |value: &Spanned<DeValue<'_>>| {
                    scalar(value.get_ref()).ok_or_else(|| {
                        let found = value.get_ref().type_str();
                        let hint = "one value that is a list is written as text, such as \"400,200\"";
                        let detail = format!("{key}: expected numbers, texts, true or false, found {found}; {hint}");
                        self.error(value.span(), detail)
                    })
                };
                let values: Vec<Written> = list.iter().map(alternative).collect::<Result<_>>()?;
                let twice = (1..values.len()).find(|i| values[..*i].iter().any(|v| v.text() == values[*i].text()));
                match twice {
                    Some(i) => {
                        let found = values[i].text();
                        Err(self.error(list[i].span(), format!("{key}: expected other values, found {found} twice")))
                    }
                    None => Ok(values),
                }
            }
            DeValue::Table(range) => self.range(key, at, range),
            value => {
                let found = value.type_str();
                let expected = "a value, a list of alternatives, or { from = A, to = B }";
                let one = scalar(value);
                one.map(|one| vec![one])
                    .ok_or_else(|| self.error(at, format!("{key}: expected {expected}, found {found}")))
            }
        }
    }

    /// `{ from = 0, to = 2 }`, with a `step` that is 1 by default; both ends belong to it.
    fn range(&self, key: &str, at: Range<usize>, table: &Table<'_>) -> Result<Vec<Written>> {
        let form = "{ from = A, to = B } or { from = A, to = B, step = C }";
        let mut ends: [Option<Written>; 3] = [None, None, None];
        for (part, value) in in_order(table) {
            let names = ["from", "to", "step"];
            let name = part.get_ref().as_ref();
            let Some(which) = names.iter().position(|n| *n == name) else {
                let detail = format!("{key}: expected {form}, found {name:?}{}", did_you_mean(name, &names));
                return Err(self.error(part.span(), detail));
            };
            match scalar(value.get_ref()) {
                Some(number @ Written::Number(_)) => ends[which] = Some(number),
                _ => {
                    let found = value.get_ref().type_str();
                    return Err(self.error(part.span(), format!("{key}: {name}: expected a number, found {found}")));
                }
            }
        }
        let [Some(from), Some(to), step] = ends else {
            return Err(self.error(at, format!("{key}: expected {form}, found a part of it")));
        };
        let step = step.unwrap_or(Written::Number("1".into()));
        let texts = [&from, &to, &step].map(Written::text);
        let wrong = || {
            let found = format!("from {}, to {}, step {}", texts[0], texts[1], texts[2]);
            let expected = format!("from at most to, a step above 0, and at most {MAX_CELLS} values");
            self.error(at.clone(), format!("{key}: expected {expected}, found {found}"))
        };
        let most = MAX_CELLS as f64;
        if let [Ok(from), Ok(to), Ok(step)] = texts.map(str::parse::<i128>) {
            let steps = to.checked_sub(from).filter(|_| step > 0 && from <= to).map(|length| length / step);
            let steps = steps.filter(|steps| *steps < MAX_CELLS as i128).ok_or_else(wrong)?;
            return Ok((0..=steps).map(|i| Written::Number((from + i * step).to_string())).collect());
        }
        let [from, to, step] = texts.map(|text| text.parse::<f64>().unwrap_or(f64::NAN));
        // Both ends belong to it, also where the sum of steps is not quite the end.
        let steps = ((to - from) / step + 1e-9).floor();
        if !(step > 0.0 && from <= to && steps < most) {
            return Err(wrong());
        }
        // Twelve digits: 0.1 + 2 * 0.1 is 0.3 to whoever wrote the grid.
        let round = |x: f64| format!("{x:.11e}").parse::<f64>().unwrap_or(x);
        let numbers = (0..=steps as usize).map(|i| round(from + i as f64 * step));
        Ok(numbers.map(|n| Written::Number(format!("{n:?}"))).collect())
    }
}

/// The entries of a table in the order of the file.
fn in_order<'a, 'b>(table: &'a Table<'b>) -> Vec<(&'a Spanned<toml::de::DeString<'b>>, &'a Spanned<DeValue<'b>>)> {
    let mut all: Vec<_> = table.iter().collect();
    all.sort_by_key(|(key, _)| key.span().start);
    all
}

/// A value that is one, as the file of a run has it.
fn scalar(value: &DeValue<'_>) -> Option<Written> {
    match value {
        DeValue::String(text) => Some(Written::Text(text.to_string())),
        DeValue::Boolean(switch) => Some(Written::Switch(switch.to_string())),
        DeValue::Integer(number) => {
            let whole = i128::from_str_radix(number.as_str(), number.radix());
            Some(Written::Number(whole.map_or(number.as_str().to_string(), |n| n.to_string())))
        }
        DeValue::Float(number) => {
            let real = number.as_str().parse::<f64>();
            Some(Written::Number(real.map_or(number.as_str().to_string(), |n| format!("{n:?}"))))
        }
        _ => None,
    }
}

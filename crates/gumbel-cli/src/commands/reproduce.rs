//! `gumbel reproduce`.

use super::sweep::{Show, error_of, foreseen, options, places, refused, same_way, standing};
use crate::args::{Common, Reproduce};
use crate::output::{self, Failure};
use crate::registry;
use gumbel_run::metrics::Metrics;
use gumbel_run::report::quoted;
use gumbel_run::reproduce::{self, Claim, Experiment, Record, Step, Table};
use gumbel_run::store::write_atomic;
use gumbel_run::sweep::{self, Cell, Done, Status, Stop, Watcher};
use gumbel_run::{Error, Registry, folder::Files};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// The records of an experiment stand beside its runs.
const RUNS: &str = "runs";
const RESULTS: &str = "results";

/// Trains what is missing, and writes the page about it.
pub fn run(common: &Common, command: &Reproduce) -> Result<(), Failure> {
    let (mut experiments, mut failed): (Vec<Experiment>, Vec<String>) = (vec![], vec![]);
    let mut untrained: Vec<String> = vec![];
    for name in &command.experiments {
        let found = reproduce::find(name)?;
        let is_group = found.len() > 1;
        for experiment in found {
            // One of `all` that this build cannot train does not keep the others from being trained.
            if is_group
                && !untrained.contains(&experiment.name)
                && let Err(e) = experiment.check_build(registry())
            {
                untrained.push(experiment.name.clone());
                failed.push(format!("{}: {e}", experiment.name));
            }
            if experiments.iter().all(|known| known.name != experiment.name) {
                experiments.push(experiment);
            }
        }
    }
    let out = command.out.clone().unwrap_or(PathBuf::from(if command.quick { "runs/quick" } else { "runs/reproduce" }));
    if let Some(results) = &command.results {
        fs::read_dir(results).map_err(|e| Error::io("read folder", results, e))?;
        reproduce::check_names(&experiments, registry())?;
        return written(common, command, &experiments, results, &out);
    }
    let trained: Vec<Experiment> = experiments.iter().filter(|e| !untrained.contains(&e.name)).cloned().collect();
    let mut plan = reproduce::plan(&trained, registry(), command.seeds, command.quick)?;
    let kept = recorded(&trained, &mut plan, &out, command.quick)?;
    if !common.quiet {
        failed.iter().for_each(|error| output::note(&format!("not trained: {error}")));
    }
    if command.dry_run {
        for cell in &kept {
            standing(common, cell, "recorded", None)?;
        }
        let all = plan.iter().flat_map(|(name, cells)| cells.iter().map(move |cell| (name, cell)));
        return all.into_iter().try_for_each(|(name, cell)| foreseen(common, cell, &out.join(name).join(RUNS)));
    }
    let count = plan.iter().map(|(_, cells)| cells.len()).sum();
    let mut show = Show::new(common, count)?;
    let count = count + kept.len();
    show.json = false; // stdout is that of the tables
    let options = options(common, command.jobs, 120.0)?;
    let (mut stopped, mut ready) = (false, kept.len());
    for (name, cells) in &plan {
        let own = out.join(name);
        let mut keep = Keep { show: &mut show, registry: registry(), results: own.join(RESULTS), errors: vec![] };
        let done = sweep::run(cells, &own.join(RUNS), &options, &mut keep).map_err(refused)?;
        failed.append(&mut keep.errors);
        for done in &done {
            match done.status {
                Status::Failed => failed.push(format!("{name}/{}: {}", done.cell.name, error_of(done))),
                Status::Stopped => stopped = true,
                _ => ready += 1,
            }
        }
        stopped |= done.len() < cells.len();
        if stopped {
            break;
        }
    }
    let steps = trained.iter().flat_map(|e| e.published.steps.iter().map(move |step| (e, step)));
    for (experiment, step) in steps.filter(|_| !stopped) {
        match taken(common, command, experiment, step, &out, &mut show) {
            Ok(()) => {}
            Err(Failure::Stopped(_)) => {
                stopped = true;
                break;
            }
            Err(failure) => failed.push(format!("{}: {failure}", experiment.name)),
        }
    }
    show.clear();
    // Also of what is there so far.
    written(common, command, &experiments, &out, &out)?;
    if stopped {
        let again = again(common, command, &out)?;
        let what = format!("stopped: {ready} of {count} cells are finished, checkpoints of the others saved");
        return Err(Failure::Stopped(format!("{what}; go on with: {again}")));
    }
    if let Some(first) = failed.first() {
        if !common.quiet {
            failed.iter().for_each(|error| output::note(&format!("failed {error}")));
        }
        return Err(Failure::Other(format!("{} of {count} cells and steps failed, the first {first}", failed.len())));
    }
    Ok(())
}

/// Takes the cells that have a record with their settings and no run from a plan: their runs were made elsewhere, or
/// are gone. Not those that a step looks at.
fn recorded(
    experiments: &[Experiment],
    plan: &mut [(String, Vec<Cell>)],
    out: &Path,
    quick: bool,
) -> Result<Vec<Cell>, Failure> {
    let results = reproduce::results(experiments, registry(), out)?;
    let mut kept = vec![];
    for (name, cells) in plan {
        let steps: Vec<&Step> =
            experiments.iter().filter(|e| e.name == *name).flat_map(|e| &e.published.steps).collect();
        let is_kept = |cell: &mut Cell| {
            results.of(name).any(|(_, record)| record.cell == cell.name && record.is_quick == quick)
                && !cell.folder(&out.join(&*name).join(RUNS)).exists()
                && steps.iter().all(|step| !step.runs().contains(&&*cell.name))
        };
        kept.extend(cells.extract_if(.., is_kept));
    }
    Ok(kept)
}

/// The command that goes on.
fn again(common: &Common, command: &Reproduce, out: &Path) -> Result<String, Failure> {
    let mut words = vec!["gumbel".to_string(), "reproduce".into()];
    words.extend(command.experiments.iter().map(|name| quoted(name)));
    words.extend(command.quick.then(|| "--quick".to_string()));
    words.extend(command.seeds.map(|seeds| format!("--seeds {seeds}")));
    words.extend(command.jobs.map(|jobs| format!("--jobs {jobs}")));
    words.extend(["--out".into(), quoted(&out.to_string_lossy())]);
    words.extend(same_way(common)?);
    Ok(words.join(" "))
}

/// Keeps a record of every run that has ended well.
struct Keep<'a> {
    show: &'a mut Show,
    registry: &'a Registry,
    results: PathBuf,
    errors: Vec<String>,
}

impl Keep<'_> {
    fn keep(&self, done: &Done<'_>) -> Result<(), Error> {
        let record = Record::of(self.registry, &done.cell.name, &done.folder)?;
        fs::create_dir_all(&self.results).map_err(|e| Error::io("create folder", &self.results, e))?;
        record.write(&self.results)
    }
}

impl Watcher for Keep<'_> {
    fn started(&mut self, cell: &Cell, folder: &Path) {
        self.show.started(cell, folder);
    }
    fn progress(&mut self, cell: &Cell, valid: Option<&Metrics>) {
        self.show.progress(cell, valid);
    }
    fn wants_progress(&self) -> bool {
        self.show.wants_progress()
    }
    fn ended(&mut self, done: &Done<'_>) {
        if done.summary.is_some()
            && let Err(e) = self.keep(done)
        {
            self.errors.push(format!("{}: {e}", done.cell.name));
        }
        self.show.ended(done);
    }
    fn stop(&mut self) -> Stop {
        self.show.stop()
    }
}

/// Runs a step, unless what it leaves is there and no older than the runs.
fn taken(
    common: &Common,
    command: &Reproduce,
    experiment: &Experiment,
    step: &Step,
    out: &Path,
    show: &mut Show,
) -> Result<(), Failure> {
    let own = out.join(&experiment.name);
    let (runs, results) = (own.join(RUNS), own.join(RESULTS));
    let words = step.arguments(&runs, &results, command.quick);
    let time = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    let used = words.iter().map(Path::new).filter(|word| word.starts_with(&runs));
    let used: Vec<_> = used.map(|run| time(&Files::new(run).summary())).collect();
    let leaves = [Some(&step.picture), step.printed.as_ref()].into_iter().flatten();
    if leaves.map(|file| time(&results.join(file))).all(|made| made.is_some() && used.iter().all(|used| *used <= made))
    {
        return Ok(());
    }
    if !common.quiet {
        output::note(&format!("{}: {}", experiment.name, step.title));
    }
    fs::create_dir_all(&results).map_err(|e| Error::io("create folder", &results, e))?;
    let again = common.again()?;
    let mut child = Command::new(again.file);
    child.args(again.words).args(&words).args(places(common)?).arg("--quiet");
    let said = ended(child, show).map_err(|e| Failure::Other(format!("cannot run gumbel {}: {e}", words[0])))?;
    let Some(said) = said else { return Err(Failure::Stopped(format!("gumbel {}: stopped", words[0]))) };
    if !said.status.success() {
        let text = String::from_utf8_lossy(&said.stderr);
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it has said nothing");
        let last = last.strip_prefix("gumbel: ").unwrap_or(last);
        return Err(Failure::Other(format!("gumbel {}: {last}", words[0])));
    }
    match &step.printed {
        Some(file) => Ok(write_atomic(&results.join(file), &said.stdout)?),
        None => Ok(()),
    }
}

/// What a child process has said when it has ended; nothing if a signal has stopped this one, and so that.
fn ended(mut command: Command, show: &mut Show) -> io::Result<Option<Output>> {
    fn heard(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut bytes = vec![];
            pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            bytes
        })
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: Ctrl-C reaches it from here only.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn()?;
    let (stdout, stderr) = (heard(child.stdout.take()), heard(child.stderr.take()));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if show.stop() != Stop::No {
            // Its files appear whole or not at all.
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let [stdout, stderr] = [stdout, stderr].map(|thread| thread.join().unwrap_or_default());
    Ok(Some(Output { status, stdout, stderr }))
}

/// Writes the page, the same in Markdown, and with --json the tables.
fn written(
    common: &Common,
    command: &Reproduce,
    experiments: &[Experiment],
    from: &Path,
    out: &Path,
) -> Result<(), Failure> {
    let results = reproduce::results(experiments, registry(), from)?;
    if !common.quiet {
        results.left_out().iter().for_each(|what| output::note(&format!("not shown: {what}")));
        if results.is_empty() {
            let place = from.join("EXPERIMENT").join(RESULTS);
            output::note(&format!("no record of any run was found: {} would hold them", place.display()));
        }
    }
    let mut claims = reproduce::claims()?;
    claims.retain(|claim: &Claim| claim.is_of(|name| experiments.iter().any(|e| name == e.name)));
    let page = reproduce::html(experiments, &claims, &results, command.quick)?;
    let (html, text) = (out.join("report").join("index.html"), out.join("reproduce.md"));
    let folder = out.join("report");
    fs::create_dir_all(&folder).map_err(|e| Error::io("create folder", &folder, e))?;
    write_atomic(&html, page.as_bytes())?;
    let page = reproduce::markdown(experiments, &claims, &results, command.quick, from == out);
    write_atomic(&text, page.as_bytes())?;
    if common.json {
        for experiment in experiments {
            for table in reproduce::tables(experiment, &results) {
                told(experiment, &table)?;
            }
        }
        return Ok(());
    }
    super::stored::written(common, &html)?;
    super::stored::written(common, &text)
}

/// A line for every place of a table.
fn told(experiment: &Experiment, table: &Table) -> Result<(), Failure> {
    for row in &table.rows {
        for (column, cell) in table.columns.iter().zip(&row.cells) {
            output::json(&serde_json::json!({
                "experiment": experiment.name,
                "table": table.title,
                "row": row.name,
                "column": column,
                "metric": cell.metric,
                "paper": cell.paper,
                "authors": cell.authors,
                "mean": cell.ours.map(|ours| ours.mean),
                "se": cell.ours.and_then(|ours| ours.se),
                "n": cell.ours.map_or(0, |ours| ours.n),
                "quick": cell.quick,
                "sources": cell.sources,
            }))?;
        }
    }
    Ok(())
}

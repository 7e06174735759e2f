//! `gumbel sweep` and `gumbel collect`.

use crate::args::{Collect, Common, Program, Sweep};
use crate::output::{self, Failure};
use crate::registry;
use gumbel_run::collect::{self, Table};
use gumbel_run::config::Given;
use gumbel_run::metrics::Metrics;
use gumbel_run::report::quoted;
use gumbel_run::store::write_atomic;
use gumbel_run::sweep::{self, Cell, Done, Grid, Options, Standing, Status, Stop, Watcher};
use gumbel_run::{Error, folder};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Trains the cells of a grid.
pub fn run(common: &Common, command: &Sweep) -> Result<(), Failure> {
    let grid = Grid::read(&command.grid)?;
    let over: Given = command.set.iter().cloned().collect();
    let mut cells = grid.cells(registry(), &over)?;
    sweep::longest_first(&mut cells);
    let out = command.out.clone().unwrap_or_else(|| grid.out());
    if command.print_sbatch {
        let tasks = command.of.unwrap_or(cells.len());
        if tasks > cells.len() && !common.quiet {
            output::note(&format!("{tasks} tasks for {} cells: some have nothing to do", cells.len()));
        }
        return output::line(&sbatch(common, command, &out, tasks)?.trim_end());
    }
    let (shares, all) = (command.of.unwrap_or(1), cells.len());
    let index = match command.index {
        Some(index) if index < shares => index,
        Some(index) => {
            return Err(Failure::Usage(format!("--index: expected less than {shares}, as --of says, found {index}")));
        }
        None if shares == 1 => 0,
        None => return Err(Failure::Usage("--of: expected --index beside it, or --print-sbatch".into())),
    };
    let mut number = 0..;
    cells.retain(|_| number.next().is_some_and(|i: usize| i % shares == index));
    if cells.is_empty() && !common.quiet {
        output::note(&format!(
            "share {index} of {shares} has nothing to do: there are {all} cells, those of 0 to {}",
            all - 1
        ));
    }
    if command.dry_run {
        return cells.iter().try_for_each(|cell| foreseen(common, cell, &out));
    }
    let options = options(common, command.jobs, command.stale)?;
    let mut show = Show::new(common, cells.len())?;
    let done = sweep::run(&cells, &out, &options, &mut show).map_err(refused)?;
    show.clear();
    show.printed?;
    let count = |status| done.iter().filter(|d| d.status == status).count();
    let ready = count(Status::Finished) + count(Status::Skipped) + count(Status::Elsewhere);
    if done.len() < cells.len() || count(Status::Stopped) > 0 {
        let again = again(common, command, &out)?;
        return Err(Failure::Stopped(format!(
            "stopped: {ready} of {} cells are finished, checkpoints of the others saved; go on with: {again}",
            cells.len()
        )));
    }
    let failed: Vec<&Done<'_>> = done.iter().filter(|d| d.status == Status::Failed).collect();
    if let Some(first) = failed.first() {
        if !common.quiet {
            failed.iter().for_each(|d| output::note(&format!("failed {}: {}", d.cell.name, error_of(d))));
        }
        let what = format!("{} of {} cells failed", failed.len(), cells.len());
        return Err(Failure::Other(match failed.len() {
            1 => format!("{what}: {}: {}", first.cell.name, error_of(first)),
            _ => format!("{what}, the first of them {}: {}", first.cell.name, error_of(first)),
        }));
    }
    if !common.json && !common.quiet {
        let trained = count(Status::Finished);
        output::line(&format!("{ready} cells are finished, {trained} of them now: {}", out.display()))?;
    }
    Ok(())
}

/// How cells are run: one thread each, and as many at a time as there are cores for, if nobody says otherwise.
pub(super) fn options(common: &Common, jobs: Option<usize>, stale: f64) -> Result<Options, Failure> {
    let threads = common.threads.unwrap_or(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let Program { file, words } = common.again()?;
    Ok(Options {
        program: file,
        words,
        more: places(common)?,
        threads,
        jobs: jobs.unwrap_or((cores / threads).max(1)),
        limit: Duration::from_secs_f64(stale),
    })
}

pub(super) fn error_of<'a>(done: &'a Done<'_>) -> &'a str {
    done.error.as_deref().unwrap_or("no reason is known")
}

/// A folder of something else, with what can be done about it here.
pub(super) fn refused(error: Error) -> Failure {
    match error {
        Error::Changed { .. } | Error::Setting { .. } | Error::ConfigFile { .. } => {
            Failure::Usage(format!("{error}: --out chooses another folder"))
        }
        Error::Foreign { .. } => Failure::Other(format!("{error}: --out chooses another folder")),
        other => other.into(),
    }
}

/// Says what would happen to a cell.
pub(super) fn foreseen(common: &Common, cell: &Cell, out: &Path) -> Result<(), Failure> {
    let folder = cell.folder(out);
    let status = match sweep::standing(cell, &folder).map_err(refused)? {
        Standing::New => "new",
        Standing::Started => "started",
        Standing::Finished(_) => "finished",
    };
    standing(common, cell, status, Some(&folder))
}

/// What there is of a cell, and where.
pub(super) fn standing(common: &Common, cell: &Cell, status: &str, folder: Option<&Path>) -> Result<(), Failure> {
    match common.json {
        true => {
            let folder = folder.map(Path::to_string_lossy);
            output::json(&serde_json::json!({ "cell": cell.name, "folder": folder, "status": status }))
        }
        false => output::line(&format!("{status:<8}  {}", cell.name)),
    }
}

/// Where data sets are, for the processes of the cells.
pub(super) fn places(common: &Common) -> Result<Vec<OsString>, Failure> {
    let mut more = vec![];
    if let Some(folder) = common.source().data_dir {
        more.extend(["--data-dir".into(), absolute(&folder)?.into_os_string()]);
    }
    if common.offline {
        more.push("--offline".into());
    }
    Ok(more)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| Failure::Other(format!("cannot find {}: {e}", path.display())))
}

/// The command that goes on.
fn again(common: &Common, command: &Sweep, out: &Path) -> Result<String, Failure> {
    let mut words = vec!["gumbel".to_string(), "sweep".into(), quoted(&command.grid.to_string_lossy())];
    words.extend(["--out".into(), quoted(&out.to_string_lossy())]);
    words.extend(command.jobs.map(|jobs| format!("--jobs {jobs}")));
    if let (Some(index), Some(of)) = (command.index, command.of) {
        words.push(format!("--index {index} --of {of}"));
    }
    words.extend(command.set.iter().map(|(key, value)| format!("--set {}", quoted(&format!("{key}={value}")))));
    words.extend(same_way(common)?);
    Ok(words.join(" "))
}

/// The flags of all commands that a command that goes on needs too.
pub(super) fn same_way(common: &Common) -> Result<Vec<String>, Failure> {
    let mut words: Vec<String> = places(common)?.iter().map(|word| quoted(&word.to_string_lossy())).collect();
    words.extend(common.threads.map(|threads| format!("--threads {threads}")));
    Ok(words)
}

/// A script for Slurm. Its shell hears the signal that announces the end of the time, and passes it on to the sweep,
/// which passes it on to its runs; when these have saved their checkpoints, the task is put into the queue again.
fn sbatch(common: &Common, command: &Sweep, out: &Path, tasks: usize) -> Result<String, Failure> {
    let (threads, jobs) = (common.threads.unwrap_or(1), command.jobs.unwrap_or(1));
    let program = common.again()?;
    let path = |path: &Path| absolute(path).map(|path| quoted(&path.to_string_lossy()));
    let mut words = vec![path(&program.file)?];
    words.extend(program.words.iter().map(|word| quoted(&word.to_string_lossy())));
    words.extend(["sweep".into(), path(&command.grid)?]);
    words.extend(["--out".into(), path(out)?, format!("--jobs {jobs} --threads {threads}")]);
    words.extend(command.set.iter().map(|(key, value)| format!("--set {}", quoted(&format!("{key}={value}")))));
    words.extend(places(common)?.iter().map(|word| quoted(&word.to_string_lossy())));
    let name = folder::fitting_name(&out.file_name().unwrap_or("sweep".as_ref()).to_string_lossy());
    Ok(format!(
        r#"#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --cpus-per-task={cpus}
#SBATCH --time={time}
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

{words} --index "$SLURM_ARRAY_TASK_ID" --of {tasks} &
sweep=$!
# Two minutes before the end of the time: checkpoints are saved, and the task goes on in its next turn.
trap 'told=1; kill -TERM "$sweep"' TERM
wait "$sweep"
code=$?
if [ -n "$told" ]; then
    trap '' TERM
    wait "$sweep" # the signal has ended the first one
    code=$?
fi
if [ "$code" -eq 130 ]; then
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60 # until Slurm takes the task away: its end must not come first
fi
exit "$code"
"#,
        name = name.replace(char::is_whitespace, "-"),
        last = tasks - 1,
        cpus = threads * jobs,
        time = command.time,
        words = words.join(" "),
    ))
}

/// Prints what happens, and hears Ctrl-C.
pub(super) struct Show {
    /// Whether cells are told on stdout.
    pub(super) json: bool,
    /// Whether a person watches.
    talk: bool,
    /// Whether nobody watches, but somebody may read later.
    plain: bool,
    multi: MultiProgress,
    all: ProgressBar,
    bars: HashMap<String, ProgressBar>,
    signals: Arc<AtomicUsize>,
    /// The sweep goes on when stdout takes no more. The failure is told at the end.
    printed: Result<(), Failure>,
}

impl Show {
    pub(super) fn new(common: &Common, cells: usize) -> Result<Self, Failure> {
        let signals = Arc::new(AtomicUsize::new(0));
        let heard = signals.clone();
        let mut last: Option<Instant> = None;
        let handler = ctrlc::set_handler(move || {
            // A scheduler may tell every process of a task, and the shell before this one passes it on as well.
            let again = last.is_some_and(|last| last.elapsed() < Duration::from_millis(200));
            last = Some(Instant::now());
            // Asked three times: without waiting for the runs. What they have saved stands.
            if !again && heard.fetch_add(1, Ordering::SeqCst) >= 2 {
                std::process::exit(output::STOPPED.into());
            }
        });
        handler.map_err(|e| Failure::Other(format!("cannot listen for Ctrl-C: {e}")))?;
        let talk = !common.quiet && output::watched();
        let target = if talk { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
        let multi = MultiProgress::with_draw_target(target);
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} cells, {elapsed}");
        let all = multi.add(ProgressBar::new(cells as u64).with_style(style.expect("the template is correct")));
        let plain = !common.quiet && !output::watched();
        Ok(Show { json: common.json, talk, plain, multi, all, bars: HashMap::new(), signals, printed: Ok(()) })
    }

    /// Takes the bars away.
    pub(super) fn clear(&self) {
        self.multi.clear().ok();
    }

    fn say(&self, text: String) {
        if self.talk {
            self.multi.println(text).ok();
        } else if self.plain {
            output::note(&text);
        }
    }
}

impl Watcher for Show {
    fn started(&mut self, cell: &Cell, _: &Path) {
        if self.plain {
            self.say(format!("started {}", cell.name));
        }
        if self.talk {
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} epochs{msg}");
            let bar = ProgressBar::new(cell.config.whole("epochs")).with_prefix(cell.name.clone());
            let bar = bar.with_style(style.expect("the template is correct"));
            let bar = self.multi.insert_before(&self.all, bar);
            bar.tick();
            // Begun once more, after another process had the cell.
            if let Some(old) = self.bars.insert(cell.name.clone(), bar) {
                old.finish_and_clear();
            }
        }
    }

    fn progress(&mut self, cell: &Cell, valid: Option<&Metrics>) {
        if let (Some(bar), Some(line)) = (self.bars.get(&cell.name), valid) {
            bar.set_message(format!(", bound {:.3}", line.bound));
            bar.set_position(line.epoch as u64);
        }
    }

    fn wants_progress(&self) -> bool {
        self.talk
    }

    fn ended(&mut self, done: &Done<'_>) {
        if let Some(bar) = self.bars.remove(&done.cell.name) {
            bar.finish_and_clear();
            self.multi.remove(&bar);
        }
        self.all.inc(1);
        let mut text = format!("{} {}", done.status.name(), done.cell.name);
        if let Some(summary) = &done.summary {
            text += &format!(": test bound {:.3} at epoch {}", summary.test.bound, summary.best_epoch);
        }
        match &done.error {
            Some(error) => text += &format!(": {error}"),
            None if done.status == Status::Finished => text += &format!(", {:.1} s", done.seconds),
            None => {}
        }
        self.say(text);
        if self.json && self.printed.is_ok() {
            let mut line = serde_json::json!({
                "cell": done.cell.name,
                "folder": done.folder.to_string_lossy(),
                "status": done.status.name(),
                "seconds": done.seconds,
            });
            if let Some(summary) = &done.summary {
                line["best_epoch"] = summary.best_epoch.into();
                line["bound"] = summary.test.bound.into();
                line["nll"] = summary.test.nll.into();
                line["accuracy"] = summary.test.accuracy.into();
            }
            if let Some(error) = &done.error {
                line["error"] = error.as_str().into();
            }
            self.printed = output::json(&line);
        }
    }

    fn stop(&mut self) -> Stop {
        match self.signals.load(Ordering::SeqCst) {
            0 => Stop::No,
            1 => Stop::Soon,
            _ => Stop::Now,
        }
    }
}

/// Puts finished runs into a table.
pub fn collect(common: &Common, command: &Collect) -> Result<(), Failure> {
    if command.csv && common.json {
        return Err(Failure::Usage("--csv: expected without --json beside it".into()));
    }
    let found = collect::find(registry(), &command.folder)?;
    if !common.quiet {
        for run in &found.unfinished {
            output::note(&format!("unfinished: {}, epoch {} of {}", run.folder.display(), run.epoch, run.epochs));
        }
    }
    if found.runs.is_empty() {
        let found = format!("none, and {} unfinished", found.unfinished.len());
        return Err(Error::foreign(&command.folder, "at least one finished run in it", found).into());
    }
    let table = Table::new(registry(), &found.runs, command.columns.as_deref())?;
    let text = match (command.csv, common.json) {
        (true, _) => table.csv(),
        (_, true) => table.json().iter().map(|row| format!("{row}\n")).collect(),
        _ => table.markdown(),
    };
    match &command.out {
        Some(out) => {
            write_atomic(out, text.as_bytes())?;
            super::stored::written(common, out)
        }
        None => output::line(&text.trim_end()),
    }
}

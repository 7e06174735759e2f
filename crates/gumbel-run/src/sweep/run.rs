//! Running cells: a child process for each.

use super::claim::{self, Claim, Clock};
use super::{Cell, own_folder};
use crate::error::escaped;
use crate::folder::{Files, is_busy, stands};
use crate::metrics::{Metrics, Summary};
use crate::store::{read_model, write_atomic};
use crate::{Config, Error, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// How long nothing is done between two looks at the children.
const PAUSE: Duration = Duration::from_millis(20);

/// How a sweep is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program, called as `PROGRAM train --config FILE --out FOLDER --resume --threads N --quiet`: it ends with 0,
    /// with 130 where a signal has stopped it, or else says in the last line of its stderr what has failed.
    pub program: PathBuf,
    /// Words before `train`, where the program is an interpreter of it.
    pub words: Vec<OsString>,
    /// More arguments.
    pub more: Vec<OsString>,
    /// Threads of each child.
    pub threads: usize,
    /// Children at a time.
    pub jobs: usize,
    /// A claim of another process that has not been written for so long belongs to nobody any more.
    pub limit: Duration,
}

/// Whether a sweep goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// It goes on.
    No,
    /// The children save checkpoints and end.
    Soon,
    /// The children end at once: what they have saved stands.
    Now,
}

/// Watches a sweep.
pub trait Watcher {
    /// A child has been started.
    fn started(&mut self, _cell: &Cell, _folder: &Path) {}
    /// A look at a run that is going on: its last validation metrics, if there are any yet. Every half second.
    fn progress(&mut self, _cell: &Cell, _valid: Option<&Metrics>) {}
    /// Whether [`progress`](Watcher::progress) is of any use.
    fn wants_progress(&self) -> bool {
        false
    }
    /// Nothing more will happen to a cell.
    fn ended(&mut self, _done: &Done<'_>) {}
    /// Asked all the time.
    fn stop(&mut self) -> Stop {
        Stop::No
    }
}

/// How a cell has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It was trained to its end.
    Finished,
    /// It was finished before.
    Skipped,
    /// Another sweep has finished it in the meantime.
    Elsewhere,
    /// It has failed.
    Failed,
    /// A signal has stopped it; a checkpoint stands.
    Stopped,
}

impl Status {
    /// As it is told.
    pub fn name(self) -> &'static str {
        match self {
            Status::Finished => "finished",
            Status::Skipped => "skipped",
            Status::Elsewhere => "elsewhere",
            Status::Failed => "failed",
            Status::Stopped => "stopped",
        }
    }
}

/// What has become of a cell.
#[derive(Debug, Clone)]
pub struct Done<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// Its run folder.
    pub folder: PathBuf,
    /// How it has ended.
    pub status: Status,
    /// Seconds of this process' child.
    pub seconds: f64,
    /// What has failed, in one line.
    pub error: Option<String>,
    /// The summary of a finished run.
    pub summary: Option<Box<Summary>>,
}

/// What there is of a cell's run.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Nothing.
    New,
    /// A run that goes on.
    Started,
    /// A finished run.
    Finished(Box<Summary>),
}

/// What there is of a cell's run in its folder.
///
/// # Errors
/// [`Error::Changed`], [`Error::Foreign`] and others that name the file, if it is the folder of something else.
pub fn standing(cell: &Cell, folder: &Path) -> Result<Standing> {
    let files = Files::new(folder);
    let path = files.config();
    let expected = || format!("nothing, or the run of the cell {}", cell.name);
    if stands(folder)? && !folder.is_dir() {
        return Err(Error::foreign(folder, expected(), "no folder"));
    }
    if !stands(&path)? {
        for track in files.tracks() {
            if stands(&track)? {
                let found = format!("{} without a config.toml", track.strip_prefix(folder).unwrap_or(&track).display());
                return Err(Error::foreign(folder, expected(), found));
            }
        }
        // A run that was killed before it had a configuration leaves hidden files and this folder.
        let is_other = |name: &str| !name.starts_with('.') && name != "checkpoint";
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        if let Some(other) = names.find(|name| is_other(name)) {
            return Err(Error::foreign(folder, expected(), other));
        }
        return Ok(Standing::New);
    }
    Config::read(cell.config.registry(), &path)?.check_resumable(&cell.config, &path)?;
    let Ok(text) = fs::read_to_string(files.summary()) else { return Ok(Standing::Started) };
    // A summary that was cut short is written again by the run that goes on.
    let Ok(summary) = serde_json::from_str::<Summary>(&text) else { return Ok(Standing::Started) };
    let epochs = cell.config.whole("epochs");
    if summary.epochs as u64 > epochs {
        let expected = format!("at least {}: {} has come that far", summary.epochs, folder.display());
        return Err(Error::setting("epochs", epochs, escaped(&expected)));
    }
    let whole = (summary.epochs as u64, summary.seed, &summary.dataset[..], &summary.latent[..])
        == (epochs, cell.config.seed(), cell.config.text("dataset"), &cell.config.latent().text[..])
        && read_model(&files.best(), Some(&cell.digest())).is_ok();
    Ok(if whole { Standing::Finished(Box::new(summary)) } else { Standing::Started })
}

/// A child process that trains a cell.
struct Running {
    child: Child,
    claim: Claim,
    began: Instant,
    written: Instant,
    looked: Instant,
    /// How it was told to stop.
    told: Stop,
    /// Whether another process has taken the claim over.
    lost: bool,
}

/// Where a cell stands in this process.
enum Place {
    /// It is to be begun, or looked at again, but not before.
    Waiting(Instant),
    Running(Box<Running>),
    Done,
}

/// How a cell has ended, with an error or a summary.
type Ended = (Status, Option<String>, Option<Box<Summary>>);

/// What came of an attempt to begin a cell.
enum Begun {
    Running(Box<Running>),
    /// Another process has it.
    Taken,
    Done(Ended),
}

struct Sweep<'a> {
    out: &'a Path,
    options: &'a Options,
    clock: Clock,
    /// When it began, by the clock of the file system.
    began: SystemTime,
}

/// Trains cells in folders of `out`, in their order. Those that are finished are skipped, those that were begun go on,
/// those that another sweep of the same folder has are left to it: they are looked at again until they are finished, or
/// free. One that fails does not keep the others.
///
/// Children have a process group of their own: a signal reaches them from here only, and once.
///
/// # Errors
/// A folder of something else, before anything is begun; files that cannot be written. What fails in a cell is told in
/// what is returned, in the order in which cells ended. Cells that a stop has kept from beginning are not in it.
pub fn run<'a>(cells: &'a [Cell], out: &Path, options: &Options, watcher: &mut dyn Watcher) -> Result<Vec<Done<'a>>> {
    let mut standings = vec![];
    for cell in cells {
        standings.push(standing(cell, &cell.folder(out))?);
    }
    let own = own_folder(out);
    fs::create_dir_all(&own).map_err(|e| Error::io("create folder", &own, e))?;
    let mut clock = Clock::new(&own);
    let began = clock.now().map_err(|e| Error::io("write", &own, e))?;
    let mut sweep = Sweep { out, options, clock, began };
    let mut done: Vec<Done<'a>> = vec![];
    let mut end = |cell: &'a Cell, seconds: f64, (status, error, summary): Ended, watcher: &mut dyn Watcher| {
        done.push(Done { cell, folder: cell.folder(out), status, seconds, error, summary });
        watcher.ended(&done[done.len() - 1]);
    };
    let mut places: Vec<Place> = vec![];
    for (cell, standing) in cells.iter().zip(standings) {
        places.push(match standing {
            Standing::Finished(summary) => {
                end(cell, 0.0, (Status::Skipped, None, Some(summary)), watcher);
                Place::Done
            }
            _ => Place::Waiting(Instant::now()),
        });
    }
    // How long a cell that another process has is left alone.
    let patience = (options.limit / 4).min(Duration::from_secs(1));
    loop {
        let stop = watcher.stop();
        let mut free = options.jobs;
        for (cell, place) in cells.iter().zip(&mut places) {
            let Place::Running(running) = place else { continue };
            match running.child.try_wait() {
                Ok(None) => {
                    sweep.look_after(cell, running, stop, watcher);
                    free = free.saturating_sub(1);
                    continue;
                }
                Ok(Some(status)) => {
                    let seconds = running.began.elapsed().as_secs_f64();
                    let ended = sweep.conclude(cell, running, status);
                    // The claim ends last: who takes the cell next finds what has become of it.
                    let Place::Running(running) = std::mem::replace(place, Place::Done) else { continue };
                    running.claim.release();
                    match ended {
                        Some(ended) => end(cell, seconds, ended, watcher),
                        None => *place = Place::Waiting(Instant::now() + patience),
                    }
                }
                Err(e) => {
                    let error = Error::io("wait for", &options.program, e).to_string();
                    let Place::Running(running) = std::mem::replace(place, Place::Done) else { continue };
                    running.claim.release();
                    end(cell, 0.0, (Status::Failed, Some(error), None), watcher);
                }
            }
        }
        for (cell, place) in cells.iter().zip(&mut places) {
            if free == 0 || stop != Stop::No {
                break;
            }
            let Place::Waiting(since) = place else { continue };
            if *since > Instant::now() {
                continue;
            }
            match sweep.begin(cell) {
                Begun::Running(running) => {
                    watcher.started(cell, &cell.folder(out));
                    *place = Place::Running(running);
                    free -= 1;
                }
                Begun::Taken => *place = Place::Waiting(Instant::now() + patience),
                Begun::Done(ended) => {
                    end(cell, 0.0, ended, watcher);
                    *place = Place::Done;
                }
            }
        }
        let is_over = |place: &Place| match place {
            Place::Done => true,
            Place::Waiting(_) => stop != Stop::No,
            Place::Running(_) => false,
        };
        if places.iter().all(is_over) {
            return Ok(done);
        }
        std::thread::sleep(PAUSE);
    }
}

impl Sweep<'_> {
    fn own(&self, cell: &Cell, ending: &str) -> PathBuf {
        own_folder(self.out).join(format!("{}.{ending}", cell.name))
    }

    fn begin(&mut self, cell: &Cell) -> Begun {
        match self.try_to_begin(cell) {
            Ok(begun) => begun,
            Err(e) => Begun::Done((Status::Failed, Some(e.to_string()), None)),
        }
    }

    fn try_to_begin(&mut self, cell: &Cell) -> Result<Begun> {
        let Some(claim) = claim::take(&self.own(cell, "claim"), self.options.limit, &mut self.clock)? else {
            return Ok(Begun::Taken);
        };
        let begun = self.try_to_begin_claimed(cell);
        let child = match begun {
            Ok(Ok(child)) => child,
            Ok(Err(begun)) => {
                claim.release();
                return Ok(begun);
            }
            Err(e) => {
                claim.release();
                return Err(e);
            }
        };
        let now = Instant::now();
        let (began, written, looked) = (now, now, now);
        Ok(Begun::Running(Box::new(Running { child, claim, began, written, looked, told: Stop::No, lost: false })))
    }

    /// A child, or why there is none.
    fn try_to_begin_claimed(&self, cell: &Cell) -> Result<Result<Child, Begun>> {
        let folder = cell.folder(self.out);
        if let Standing::Finished(summary) = standing(cell, &folder)? {
            return Ok(Err(Begun::Done((Status::Elsewhere, None, Some(summary)))));
        }
        let failed = self.own(cell, "failed");
        let since = |time: SystemTime| time > self.began;
        if fs::metadata(&failed).and_then(|found| found.modified()).is_ok_and(since) {
            // What has just failed elsewhere would fail here as well.
            let error = fs::read_to_string(&failed).unwrap_or_default();
            return Ok(Err(Begun::Done((Status::Failed, Some(escaped(error.trim())), None))));
        }
        // The child of a sweep that was killed goes on.
        if is_busy(&Files::new(&folder)) {
            return Ok(Err(Begun::Taken));
        }
        match fs::remove_file(&failed) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("remove", failed, e)),
            _ => {}
        }
        let config = self.own(cell, "toml");
        write_atomic(&config, cell.config.to_toml().as_bytes())?;
        let said = self.own(cell, "stderr");
        let stderr = File::create(&said).map_err(|e| Error::io("write", &said, e))?;
        let mut command = Command::new(&self.options.program);
        command.args(&self.options.words).args(["train".as_ref(), "--config".as_ref(), config.as_os_str()]);
        command.args(["--out".as_ref(), folder.as_os_str(), "--resume".as_ref(), "--quiet".as_ref()]);
        command.arg("--threads").arg(self.options.threads.to_string()).args(&self.options.more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map(Ok).map_err(|e| Error::io("start", &self.options.program, e))
    }

    /// Passes a stop on, keeps the claim young, and shows how far the run is.
    fn look_after(&self, cell: &Cell, running: &mut Running, stop: Stop, watcher: &mut dyn Watcher) {
        // At once: the second signal of a kind is that.
        while running.told < stop {
            tell(&mut running.child);
            running.told = if running.told == Stop::No { Stop::Soon } else { Stop::Now };
            if running.told < stop {
                std::thread::sleep(Duration::from_millis(300)); // so close together two signals count as one
            }
        }
        if running.written.elapsed() >= (self.options.limit / 10).min(Duration::from_secs(5)) {
            running.written = Instant::now();
            // Another process has taken a claim that was not written for long: the cell is its own now.
            running.lost |= !running.claim.refresh();
            if running.lost && running.told == Stop::No {
                tell(&mut running.child);
                running.told = Stop::Soon;
            }
        }
        if watcher.wants_progress() && running.looked.elapsed() >= Duration::from_millis(500) {
            running.looked = Instant::now();
            watcher.progress(cell, last_validation(&cell.folder(self.out)).as_ref());
        }
    }

    /// What a child that has ended leaves; nothing where another process is training in its folder.
    fn conclude(&self, cell: &Cell, running: &Running, status: ExitStatus) -> Option<Ended> {
        let failed = |error: String| Some((Status::Failed, Some(error), None));
        if status.success() {
            return match standing(cell, &cell.folder(self.out)) {
                Ok(Standing::Finished(summary)) => Some((Status::Finished, None, Some(summary))),
                Ok(_) => failed("the run has ended without a whole summary.json of its settings".into()),
                Err(e) => failed(e.to_string()),
            };
        }
        if running.lost {
            return None;
        }
        let said = fs::read(self.own(cell, "stderr")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
        let line = escaped(last.strip_prefix("gumbel: ").unwrap_or(last));
        // Told before it could listen, it is killed.
        if status.code() == Some(130) || (status.code().is_none() && running.told != Stop::No) {
            return Some((Status::Stopped, Some(line).filter(|line| !line.is_empty()), None));
        }
        // The folder was free a moment ago, and is not now.
        let busy = Error::Busy { path: PathBuf::new() }.to_string();
        if line.contains(&busy) {
            return None;
        }
        let Some(code) = status.code() else { return failed(format!("the process was killed: {status}")) };
        let line = if line.is_empty() { format!("the process has ended with {code} and said nothing") } else { line };
        // Other sweeps of this folder need not try it too.
        write_atomic(&self.own(cell, "failed"), line.as_bytes()).ok();
        failed(line)
    }
}

/// Sends the signal that asks a training to save a checkpoint and to end.
fn tell(child: &mut Child) {
    #[cfg(unix)]
    rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM).ok();
    #[cfg(not(unix))]
    child.kill().ok();
}

/// The last line of validation metrics, from the end of a file that may be long.
fn last_validation(folder: &Path) -> Option<Metrics> {
    const END: u64 = 1 << 14;
    let mut file = File::open(Files::new(folder).metrics()).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END))).ok()?;
    let mut bytes = vec![];
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().filter_map(|line| serde_json::from_str::<Metrics>(line).ok()).find(|m| m.split == "valid")
}

//! The folder of a run: which files it holds, who may write in it, and how a run begins there.
//!
//! [`prepare`] creates the folder and takes its lock, and refuses, empties or keeps what it finds. Then
//! [`RunLock::claim`] makes sure that whatever was kept belongs to the run that goes on, and writes its
//! configuration.
//!
//! ```
//! use gumbel_run::folder::{Digest, Files, Start, prepare};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let files = Files::new(folder.path());
//! let run = Digest::of("seed = 0");
//! let lock = prepare(&files, Start::Fresh)?;
//! lock.claim(&run, "seed = 0\n")?;
//! assert!(prepare(&files, Start::Resume).is_err(), "another one is at work");
//! drop(lock);
//! assert!(prepare(&files, Start::Fresh).is_err(), "there is a run already");
//! prepare(&files, Start::Resume)?.claim(&run, "seed = 0\n")?;
//! # Ok::<(), gumbel_run::Error>(())
//! ```

pub use crate::digest::Digest;

use crate::atomic::sweep;
use crate::store::{read_checkpoint, read_model, write_atomic};
use crate::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// What happens to a folder that may hold a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A new run; refused if the folder holds one.
    Fresh,
    /// A new run in place of an old one.
    Overwrite,
    /// The run of the folder goes on; a new one if it was killed before it had stored anything.
    Resume,
}

/// Names of the files of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// The pictures of a finished run.
    pub const PICTURES: [&str; 3] = ["samples.png", "reconstructions.png", "curves.svg"];
    /// What else may stand beside a run: its labelled images, pictures and the page of other commands.
    const BESIDE: [&str; 4] = ["labels.json", Files::TRAVERSE, Files::ATTRIBUTES, Files::REPORT];
    /// The picture of `gumbel traverse`.
    pub const TRAVERSE: &str = "traverse.png";
    /// The picture of `gumbel attributes`.
    pub const ATTRIBUTES: &str = "attributes.png";
    /// The page of [`report`](crate::report).
    pub const REPORT: &str = "report.html";

    /// The files of a run folder.
    pub fn new(folder: &Path) -> Self {
        Files { folder: folder.to_path_buf() }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }
    /// One line per epoch and split.
    pub fn metrics(&self) -> PathBuf {
        self.folder.join("metrics.jsonl")
    }
    /// The summary of a finished run.
    pub fn summary(&self) -> PathBuf {
        self.folder.join("summary.json")
    }
    /// The latest checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.checkpoints().join("latest.safetensors")
    }
    /// The parameters of the best epoch.
    pub fn best(&self) -> PathBuf {
        self.folder.join("best.safetensors")
    }
    /// A picture or another file.
    pub fn other(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn checkpoints(&self) -> PathBuf {
        self.folder.join("checkpoint")
    }

    /// What a folder with a run is known by, what goes on with a run first: it must not outlive the rest.
    pub(crate) fn tracks(&self) -> [PathBuf; 5] {
        [self.checkpoint(), self.best(), self.summary(), self.metrics(), self.config()]
    }
}

/// The right to write in a run folder, for as long as it lives.
#[derive(Debug)]
pub struct RunLock {
    /// The lock lasts as long as the file is open; the system ends it with a process that is killed.
    _file: File,
    files: Files,
}

/// Creates the folder of a run if need be, takes its lock, sweeps what killed processes have left of half-written
/// files, and, according to `start`,
///
/// - refuses a folder that holds any file of a run ([`Start::Fresh`]),
/// - removes every file of the old run, with or without a configuration ([`Start::Overwrite`]),
/// - keeps what is there ([`Start::Resume`]): [`RunLock::claim`] checks it.
///
/// # Errors
///
/// [`Error::Busy`] if another process holds the lock, [`Error::Occupied`] if a fresh run finds another,
/// [`Error::Foreign`] if the lock is no plain file, and [`Error::Io`].
pub fn prepare(files: &Files, start: Start) -> Result<RunLock> {
    let checkpoints = files.checkpoints();
    fs::create_dir_all(&checkpoints).map_err(|e| Error::io("create folder", &checkpoints, e))?;
    let lock = RunLock::take(files)?;
    sweep(&files.folder);
    sweep(&checkpoints);
    match start {
        Start::Resume => {}
        Start::Fresh => {
            for track in files.tracks() {
                if stands(&track)? {
                    return Err(Error::Occupied { path: files.folder.clone() });
                }
            }
        }
        Start::Overwrite => {
            // The old checkpoint goes first: whatever happens then, it is never taken for one of the new run.
            let shown = Files::PICTURES.into_iter().chain(Files::BESIDE).map(|name| files.other(name));
            for old in files.tracks().into_iter().chain(shown) {
                match fs::remove_file(&old) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", old, e)),
                    _ => {}
                }
            }
        }
    }
    Ok(lock)
}

impl RunLock {
    /// Takes the lock of a folder that is there.
    fn take(files: &Files) -> Result<Self> {
        let path = files.other(".lock");
        let file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path: files.folder.clone() }),
            Err(TryLockError::Error(_)) => {} // a file system without locks: nothing to hold on to
        }
        Ok(RunLock { _file: file, files: files.clone() })
    }

    /// Checks that the checkpoint and the best model, where they are there, are whole and belong to the run `run`, and
    /// writes the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRun`] or [`Error::Foreign`] if a file does not belong there: then nothing is written;
    /// [`Error::Io`].
    pub fn claim(&self, run: &Digest, config: &str) -> Result<()> {
        if stands(&self.files.checkpoint())? {
            read_checkpoint(&self.files.checkpoint(), run)?;
        }
        if stands(&self.files.best())? {
            read_model(&self.files.best(), Some(run))?;
        }
        write_atomic(&self.files.config(), config.as_bytes())
    }
}

/// Whether a process is training in the folder just now. Nothing is written, and what holds in the next moment is not
/// known: only [`prepare`] keeps others out.
pub fn is_busy(files: &Files) -> bool {
    let opened = File::options().read(true).write(true).open(files.other(".lock"));
    opened.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Whether there is anything of that name, also a link to nothing.
pub(crate) fn stands(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

/// Opens the lock file, or creates it: its content is left alone, and no link is followed to a file of somebody else.
fn open_lock(path: &Path) -> Result<File> {
    let io = |e| Error::io("open", path, e);
    // Exclusive creation follows no link, not even one to nothing.
    match File::options().write(true).create_new(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other.map_err(io),
    }
    let found = fs::symlink_metadata(path).map_err(io)?;
    let foreign = |kind| Err(Error::foreign(path, "a plain file for the lock", kind));
    if !found.is_file() {
        return foreign(if found.is_symlink() {
            "a symbolic link"
        } else if found.is_dir() {
            "a folder"
        } else {
            "a device or a pipe"
        });
    }
    let file = File::options().read(true).write(true).open(path).map_err(io)?;
    #[cfg(unix)]
    {
        // What was opened is what was looked at.
        use std::os::unix::fs::MetadataExt;
        let opened = file.metadata().map_err(io)?;
        if (opened.dev(), opened.ino()) != (found.dev(), found.ino()) {
            return foreign("one that changes while it is opened");
        }
    }
    Ok(file)
}

/// A folder's name that every file system takes: control characters and separators become `-`, and the end of what is
/// longer than 150 bytes is replaced by the first digits of its digest, so that different names stay different.
///
/// ```
/// use gumbel_run::folder::fitting_name;
///
/// assert_eq!(fitting_name("mnist-categorical:10-direct-s0"), "mnist-categorical:10-direct-s0");
/// assert!(fitting_name(&"tree:".repeat(100)).len() <= 150);
/// ```
pub fn fitting_name(name: &str) -> String {
    const LONGEST: usize = 150;
    let plain: String = name.chars().map(|c| if c.is_control() || matches!(c, '/' | '\\') { '-' } else { c }).collect();
    if plain.len() <= LONGEST {
        return plain;
    }
    let end = format!("-{:.12}", Digest::of(name));
    let mut cut = LONGEST - end.len();
    while !plain.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{end}", &plain[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Checkpoint, write_checkpoint, write_model};
    use gumbel::network::Parameters;

    fn run() -> Digest {
        Digest::of("seed = 0")
    }

    /// A folder with all files of a finished run.
    fn finished(files: &Files, run: &Digest) {
        fs::create_dir_all(files.checkpoints()).unwrap();
        write_checkpoint(&files.checkpoint(), &Checkpoint::default(), run).unwrap();
        write_model(&files.best(), &Parameters::default(), "", run).unwrap();
        let texts = [files.config(), files.metrics(), files.summary()];
        let shown = Files::PICTURES.into_iter().chain(Files::BESIDE).map(|name| files.other(name));
        for path in texts.into_iter().chain(shown) {
            fs::write(path, "old").unwrap();
        }
        fs::write(files.other("notes.txt"), "mine").unwrap();
    }

    /// Found by a hostile tester: without config.toml, the old checkpoint stayed and the next run went on with it.
    #[test]
    fn overwriting_removes_every_file_of_the_old_run_with_or_without_a_configuration() {
        for configured in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let files = Files::new(folder.path());
            finished(&files, &Digest::of("seed = 1"));
            if !configured {
                fs::remove_file(files.config()).unwrap();
            }
            let lock = prepare(&files, Start::Overwrite).unwrap();
            let shown = Files::PICTURES.into_iter().chain(Files::BESIDE).map(|name| files.other(name));
            for old in files.tracks().into_iter().chain(shown) {
                assert!(!old.exists(), "{}", old.display());
            }
            assert_eq!(fs::read(files.other("notes.txt")).unwrap(), b"mine");
            lock.claim(&run(), "seed = 0\n").unwrap();
            assert_eq!(fs::read(files.config()).unwrap(), b"seed = 0\n");
        }
    }

    #[test]
    fn a_fresh_run_is_refused_where_any_file_of_a_run_stands() {
        for kept in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let files = Files::new(folder.path());
            finished(&files, &run());
            for (i, track) in files.tracks().iter().enumerate() {
                if i != kept {
                    fs::remove_file(track).unwrap();
                }
            }
            let error = prepare(&files, Start::Fresh).unwrap_err();
            assert!(matches!(error, Error::Occupied { .. }) && !error.to_string().contains("--"), "{error}");
            assert!(files.tracks()[kept].exists());
        }
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(&folder.path().join("a").join("b"));
        prepare(&files, Start::Fresh).unwrap();
        // Killed before it had stored anything: any start is a new run.
        for start in [Start::Fresh, Start::Resume, Start::Overwrite] {
            prepare(&files, start).unwrap();
        }
    }

    /// Found by a hostile tester: another run's checkpoint and best.safetensors were accepted.
    #[test]
    fn a_run_does_not_go_on_with_files_of_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let other = Digest::of("seed = 1");
        finished(&files, &run());
        let claim = || prepare(&files, Start::Resume).unwrap().claim(&run(), "new");
        claim().unwrap();
        write_checkpoint(&files.checkpoint(), &Checkpoint::default(), &other).unwrap();
        fs::write(files.config(), "old").unwrap();
        for _ in 0..2 {
            let error = claim().unwrap_err();
            assert!(matches!(&error, Error::OtherRun { path, .. } if *path == files.checkpoint()), "{error}");
        }
        write_checkpoint(&files.checkpoint(), &Checkpoint::default(), &run()).unwrap();
        write_model(&files.best(), &Parameters::default(), "", &other).unwrap();
        let error = claim().unwrap_err();
        assert!(matches!(&error, Error::OtherRun { path, .. } if *path == files.best()), "{error}");
        fs::write(files.best(), "something else").unwrap();
        assert!(matches!(claim(), Err(Error::Foreign { .. })));
        assert_eq!(fs::read(files.config()).unwrap(), b"old", "nothing is written before all is checked");
        fs::remove_file(files.best()).unwrap();
        claim().unwrap();
        assert_eq!(fs::read(files.config()).unwrap(), b"new");
    }

    #[test]
    fn one_process_at_a_time_and_half_written_files_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let lock = prepare(&files, Start::Fresh).unwrap();
        let left = [files.other(".gumbel-0123456789ab.tmp"), files.checkpoints().join(".gumbel-ABCDEFGHIJKL.tmp")];
        left.iter().for_each(|path| fs::write(path, "half").unwrap());
        for start in [Start::Fresh, Start::Overwrite, Start::Resume] {
            assert!(matches!(prepare(&files, start), Err(Error::Busy { .. })));
        }
        assert!(left.iter().all(|path| path.exists()), "only who holds the lock sweeps");
        assert!(is_busy(&files));
        drop(lock);
        assert!(!is_busy(&files) && !is_busy(&Files::new(&folder.path().join("none"))));
        prepare(&files, Start::Resume).unwrap();
        assert!(!left.iter().any(|path| path.exists()));
    }

    /// Found by a hostile tester: opening the lock truncated what a link of that name pointed to.
    #[cfg(unix)]
    #[test]
    fn the_lock_is_never_truncated_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let lock = files.other(".lock");
        fs::write(&lock, "content").unwrap();
        prepare(&files, Start::Fresh).unwrap();
        assert_eq!(fs::read(&lock).unwrap(), b"content");

        fs::remove_file(&lock).unwrap();
        fs::write(files.other("precious"), "kept").unwrap();
        for target in ["precious", "nothing"] {
            std::os::unix::fs::symlink(target, &lock).unwrap();
            let message = prepare(&files, Start::Fresh).unwrap_err().to_string();
            assert!(message.ends_with(".lock: expected a plain file for the lock, found a symbolic link"), "{message}");
            fs::remove_file(&lock).unwrap();
        }
        assert_eq!(fs::read(files.other("precious")).unwrap(), b"kept");
        assert!(!files.other("nothing").exists());
        fs::create_dir(&lock).unwrap();
        assert!(prepare(&files, Start::Fresh).unwrap_err().to_string().ends_with("found a folder"));
        fs::remove_dir(&lock).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success());
        assert!(prepare(&files, Start::Fresh).unwrap_err().to_string().ends_with("found a device or a pipe"));
    }

    #[test]
    fn names_of_folders_fit_and_stay_different() {
        let name = |end: &str| fitting_name(&format!("glyphs-{}-{end}", "pairwise:15+ä".repeat(30)));
        assert_ne!(name("s0"), name("s1"));
        assert!(name("s0").len() <= 150 && name("s0").starts_with("glyphs-pairwise:15"));
        assert_eq!(fitting_name("a/b\\c\u{1b}d"), "a-b-c-d");
    }
}

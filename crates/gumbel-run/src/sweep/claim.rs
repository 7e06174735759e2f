//! Claims: several processes, also on several machines, share the cells of a folder.
//!
//! A claim is a file that is created exclusively, `NAME.claim`, and says whose it is: a host, a process, and a nonce
//! that no other claim has. Its owner writes it again every few seconds; one that is older than a limit belongs to
//! nobody any more, and may be taken over. Files are dated by the clock of their file system, read from a file that is
//! written just then, so that the clocks of machines may differ.
//!
//! Whoever takes a claim over creates a second file exclusively, whose name holds the nonce of the claim:
//! `NAME.claim-NONCE`. So one only may replace a claim, and it does so by renaming its own file over it. An owner that
//! ends needs the same file before it removes its claim: a claim that is being replaced is not removed, and one that is
//! removed is not replaced. A second file that its maker left behind is taken over as a claim is. In the end an owner
//! is who finds its own nonce in the claim, and every owner looks again when it writes.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Who has a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// The name of the machine, for people.
    pub host: String,
    /// What tells its processes from all others', where the system says it: only then may the process be looked up.
    pub machine: String,
    pub pid: u32,
    pub nonce: String,
}

impl Owner {
    /// This process, with a new nonce.
    fn new() -> Self {
        let pid = std::process::id();
        let nonce = format!("{:016x}", RandomState::new().hash_one((pid, SystemTime::now())));
        Owner { host: host(), machine: machine(), pid, nonce }
    }

    /// Whether the process is known to be gone.
    fn is_gone(&self) -> bool {
        #[cfg(unix)]
        {
            let pid = i32::try_from(self.pid).ok().filter(|pid| *pid > 0).and_then(rustix::process::Pid::from_raw);
            let here = !self.machine.is_empty() && self.machine == machine();
            here && pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
        }
        #[cfg(not(unix))]
        false
    }
}

fn host() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    name
}

/// This start of this machine, and the space of its process numbers, as Linux tells them.
fn machine() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    if boot.is_empty() || space.as_os_str().is_empty() {
        return String::new();
    }
    format!("{} {}", boot.trim(), space.display())
}

/// The clock of the file system that a folder lies on.
#[derive(Debug)]
pub(crate) struct Clock {
    path: PathBuf,
    read: Option<(SystemTime, Instant)>,
}

impl Clock {
    pub(crate) fn new(folder: &Path) -> Self {
        Clock { path: folder.join("clock"), read: None }
    }

    /// The time there; the file is written every ten seconds at most.
    pub(crate) fn now(&mut self) -> io::Result<SystemTime> {
        if let Some((time, at)) = self.read
            && at.elapsed() < Duration::from_secs(10)
        {
            return Ok(time + at.elapsed());
        }
        let at = Instant::now();
        let mut file = File::create(&self.path)?;
        file.write_all(b"now")?;
        let time = file.metadata()?.modified()?;
        self.read = Some((time, at));
        Ok(time)
    }
}

/// A claim that this process has.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    owner: Owner,
    /// What is written into this cannot reach the claim of another that has taken its name.
    file: File,
}

/// Claims the name for this process; nothing if another one has it, whose claim is younger than `limit`.
pub(crate) fn take(path: &Path, limit: Duration, clock: &mut Clock) -> Result<Option<Claim>> {
    let owner = Owner::new();
    let taken = match create(path, &owner) {
        Ok(file) => Some(file),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            replace(path, &owner, limit, clock, 0).map_err(|e| Error::io("take over", path, e))?
        }
        Err(e) => return Err(Error::io("create", path, e)),
    };
    let claim = taken.map(|file| Claim { path: path.to_path_buf(), owner, file });
    Ok(claim.filter(Claim::stands))
}

/// Creates a claim's file exclusively.
fn create(path: &Path, owner: &Owner) -> io::Result<File> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(&text(owner))?;
    Ok(file)
}

fn text(owner: &Owner) -> Vec<u8> {
    serde_json::to_vec(owner).expect("an owner is plain text")
}

/// Whose a claim is: nothing where there is no claim, and an empty nonce where its owner was killed before it had
/// written its name.
fn read(path: &Path) -> io::Result<Option<Owner>> {
    let nobody = || Owner { host: String::new(), machine: String::new(), pid: 0, nonce: String::new() };
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| nobody()))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The file that whoever ends this claim must have.
fn end_of(path: &Path, nonce: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("-{nonce}"));
    PathBuf::from(name)
}

/// Puts a claim of this process in the place of one whose owner is gone.
fn replace(path: &Path, owner: &Owner, limit: Duration, clock: &mut Clock, depth: usize) -> io::Result<Option<File>> {
    // As many takers in a row that were all killed between two system calls: a name would become too long.
    if depth > 3 {
        return Ok(None);
    }
    let Some(old) = read(path)? else { return Ok(None) };
    if !is_stale(path, &old, limit, clock)? {
        return Ok(None);
    }
    let end = end_of(path, &old.nonce);
    let file = match create(&end, owner) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => match replace(&end, owner, limit, clock, depth + 1)? {
            Some(file) => file,
            None => return Ok(None),
        },
        Err(e) => return Err(e),
    };
    // It may have been replaced or removed since it was looked at: then that was its end.
    if read(path)?.is_none_or(|now| now.nonce != old.nonce) {
        fs::remove_file(&end).ok();
        return Ok(None);
    }
    match fs::rename(&end, path) {
        // Another one has taken this very file over: who it is stands in the claim.
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    Ok(read(path)?.filter(|now| now.nonce == owner.nonce).map(|_| file))
}

fn is_stale(path: &Path, owner: &Owner, limit: Duration, clock: &mut Clock) -> io::Result<bool> {
    if owner.is_gone() {
        return Ok(true);
    }
    let written = match fs::metadata(path) {
        Ok(found) => found.modified()?,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    Ok(clock.now()?.duration_since(written).is_ok_and(|age| age > limit))
}

impl Claim {
    /// Whether it is still that of this process.
    fn stands(&self) -> bool {
        matches!(read(&self.path), Ok(Some(now)) if now.nonce == self.owner.nonce)
    }

    /// Writes it again, so that it stays young; false if another process has taken it over.
    pub(crate) fn refresh(&mut self) -> bool {
        // Where it cannot be written it grows old, and in the end another one takes it.
        self.file.rewind().and_then(|()| self.file.write_all(&text(&self.owner))).ok();
        self.stands()
    }

    /// Ends it.
    pub(crate) fn release(self) {
        let end = end_of(&self.path, &self.owner.nonce);
        if create(&end, &self.owner).is_err() {
            return; // it is being taken over, or nothing can be written here any more
        }
        if self.stands() {
            fs::remove_file(&self.path).ok();
        }
        fs::remove_file(&end).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const LONG: Duration = Duration::from_secs(120);

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "clock").collect();
        names.sort();
        names
    }

    /// A claim of a process of another machine.
    fn foreign(nonce: &str) -> Owner {
        Owner { host: "elsewhere".into(), machine: "another".into(), pid: 1, nonce: nonce.into() }
    }

    fn age(path: &Path, seconds: u64) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn a_claim_is_one_process_own_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut clock) = (folder.path().join("a.claim"), Clock::new(folder.path()));
        let mut mine = take(&path, LONG, &mut clock).unwrap().unwrap();
        assert!(take(&path, LONG, &mut clock).unwrap().is_none());
        assert!(mine.refresh());
        mine.release();
        assert_eq!(names(folder.path()), [""; 0]);
        take(&path, LONG, &mut clock).unwrap().unwrap().release();
        assert!(
            take(&folder.path().join("no").join("b"), LONG, &mut clock).unwrap_err().to_string().contains("create")
        );
    }

    #[test]
    fn an_old_claim_is_taken_over_and_its_owner_notices() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut clock) = (folder.path().join("a.claim"), Clock::new(folder.path()));
        let mut old = take(&path, LONG, &mut clock).unwrap().unwrap();
        age(&path, 60);
        assert!(take(&path, LONG, &mut clock).unwrap().is_none());
        assert!(old.refresh());
        assert!(take(&path, Duration::from_secs(30), &mut clock).unwrap().is_none(), "it is young again");
        age(&path, 200);
        let mut new = take(&path, LONG, &mut clock).unwrap().unwrap();
        assert!(!old.refresh() && new.refresh());
        old.release();
        assert!(new.stands());
        new.release();
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn the_claim_of_a_process_that_is_gone_is_taken_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut clock) = (folder.path().join("a.claim"), Clock::new(folder.path()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let gone = Owner { pid: child.id(), ..Owner::new() };
        create(&path, &gone).unwrap();
        assert_eq!(take(&path, LONG, &mut clock).unwrap().is_some(), !machine().is_empty());
        // On another machine the number says nothing.
        let path = folder.path().join("b.claim");
        create(&path, &Owner { machine: "another".into(), ..gone }).unwrap();
        assert!(take(&path, LONG, &mut clock).unwrap().is_none());
    }

    #[test]
    fn what_a_killed_taker_left_is_taken_over_too_and_unwritten_claims_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut clock) = (folder.path().join("a.claim"), Clock::new(folder.path()));
        create(&path, &foreign("1")).unwrap();
        age(&path, 500);
        // Its taker is at work: nobody else is.
        create(&end_of(&path, "1"), &foreign("2")).unwrap();
        assert!(take(&path, LONG, &mut clock).unwrap().is_none());
        age(&end_of(&path, "1"), 500);
        let mut mine = take(&path, LONG, &mut clock).unwrap().unwrap();
        assert!(mine.refresh());
        mine.release();
        assert_eq!(names(folder.path()), [""; 0]);

        fs::write(&path, "").unwrap();
        assert!(take(&path, LONG, &mut clock).unwrap().is_none());
        age(&path, 500);
        take(&path, LONG, &mut clock).unwrap().unwrap().release();
        assert_eq!(names(folder.path()), [""; 0]);
    }

    /// A taker is slow: between its look at the claim and its own file, the claim has ended and begun anew.
    #[test]
    fn a_claim_that_has_ended_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut clock) = (folder.path().join("a.claim"), Clock::new(folder.path()));
        create(&path, &foreign("1")).unwrap();
        age(&path, 500);
        // The taker that is gone by now had seen the claim 1; the one in its place is young.
        create(&end_of(&path, "1"), &foreign("2")).unwrap();
        fs::remove_file(&path).unwrap();
        let mut mine = take(&path, LONG, &mut clock).unwrap().unwrap();
        assert!(mine.refresh());
        assert!(take(&path, LONG, &mut clock).unwrap().is_none());
    }

    #[test]
    fn of_many_takers_one_wins_every_time() {
        const TAKERS: usize = 8;
        let folder = tempfile::tempdir().unwrap();
        let (barrier, winners) = (Barrier::new(TAKERS), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for taker in 0..TAKERS {
                let (folder, barrier, winners) = (folder.path(), &barrier, &winners);
                scope.spawn(move || {
                    let mut clock = Clock::new(folder);
                    for round in 0..200 {
                        let path = folder.join(format!("{round}.claim"));
                        // New ones, old ones, and old ones with a taker that was killed.
                        if taker == 0 && round % 3 > 0 {
                            create(&path, &foreign("1")).unwrap();
                            age(&path, 500);
                            if round % 3 == 2 {
                                create(&end_of(&path, "1"), &foreign("2")).unwrap();
                                age(&end_of(&path, "1"), 500);
                            }
                        }
                        barrier.wait();
                        let mine = take(&path, LONG, &mut clock).unwrap();
                        barrier.wait();
                        if let Some(mut mine) = mine {
                            assert!(mine.refresh());
                            winners.fetch_add(1, Ordering::SeqCst);
                            mine.release();
                        }
                        barrier.wait();
                        assert_eq!(winners.load(Ordering::SeqCst), round + 1, "round {round}");
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), [""; 0]);
    }
}

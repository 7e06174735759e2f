//! Files that are whole or absent.
//!
//! A file is written under a temporary name in its folder, synchronised, and renamed. Whoever reads sees the old file
//! or the new one, never a part, also after kill -9 or a full disk. The temporary name is random and opened
//! exclusively: two writers never share one, and nobody can lay a link in its way.

use crate::{Error, Result};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes a whole file atomically.
///
/// - A symbolic link stays, and the file that it points to is replaced. A link that points to nothing is written
///   through: the file is created where it points, if the folder is there.
/// - A device or a pipe, which has no old content to lose, is written to.
/// - A new file gets the permissions that any new file gets; one that is replaced keeps its own.
/// - Several writers at a time all succeed; the last one's content stays.
///
/// # Errors
///
/// [`Error::Io`] if the system refuses or the path is a folder. Then an old file is what it was, and no temporary
/// file is left (unless the process is killed: [`folder::prepare`](crate::folder::prepare) sweeps those of a run).
///
/// ```
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("figures.json");
/// gumbel_run::store::write_atomic(&path, b"{}").unwrap();
/// assert_eq!(std::fs::read(&path).unwrap(), b"{}");
/// ```
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// Whether [`write_atomic`] could write here, for who would have to work long before that. Nothing is left behind, and
/// a file stays what it is; whether the disk has room for it is not known.
///
/// # Errors
///
/// [`Error::Io`] if the folder does not take a new file, or the path is a folder.
pub fn check_writable(path: &Path) -> Result<()> {
    let tried = match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        // A pipe would wait for its reader.
        Ok(found) if !found.is_file() => Ok(()),
        _ => target(path).and_then(|target| temporaries().tempfile_in(folder_of(&target)).map(drop)),
    };
    tried.map_err(|e| Error::io("write", path, e))
}

/// [`write_atomic`] for content that `write` makes bit by bit, at every call the same.
pub(crate) fn write_atomic_with(path: &Path, mut write: impl FnMut(&mut File) -> io::Result<()>) -> Result<()> {
    let written = match fs::metadata(path) {
        Ok(found) if !found.is_file() => File::options().write(true).open(path).and_then(|mut file| write(&mut file)),
        _ => target(path).and_then(|target| replace(&target, write)),
    };
    written.map_err(|e| Error::io("write", path, e))
}

/// Where a path leads if its last part is a link, also one to nothing.
fn target(path: &Path) -> io::Result<PathBuf> {
    // As many as Linux follows.
    const LINKS: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..=LINKS {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => path = folder_of(&path).join(fs::read_link(&path)?),
            Ok(_) => return Ok(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(path),
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

const PREFIX: &str = ".gumbel-";
const SUFFIX: &str = ".tmp";
const RANDOM: usize = 12;

fn temporaries() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    // The name does not hold that of the file: together they might be longer than a name may be.
    builder.prefix(PREFIX).suffix(SUFFIX).rand_bytes(RANDOM);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the mask of the process
    builder
}

/// Replaces a file, or creates it, with what `write` writes.
fn replace(path: &Path, mut write: impl FnMut(&mut File) -> io::Result<()>) -> io::Result<()> {
    // Rarely more than one: only a sweep of the folder at this very moment takes the temporary file away.
    const ATTEMPTS: usize = 8;
    let folder = folder_of(path);
    for attempt in 1.. {
        let mut temporary = temporaries().tempfile_in(folder).map_err(|e| e.kind())?; // it names a file of nobody's
        write(temporary.as_file_mut())?;
        if let Ok(old) = fs::metadata(path) {
            temporary.as_file().set_permissions(plain(old.permissions()))?;
        }
        temporary.as_file().sync_all()?;
        match temporary.persist(path) {
            Ok(_) => break,
            Err(e) if e.error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
            Err(e) => return Err(e.error),
        }
    }
    // The new name itself reaches the disk with its folder; not every file system can do that.
    File::open(folder).and_then(|f| f.sync_all()).ok();
    Ok(())
}

/// Permissions without those that lend a user's or a group's rights.
fn plain(permissions: Permissions) -> Permissions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        Permissions::from_mode(permissions.mode() & 0o777)
    }
    #[cfg(not(unix))]
    permissions
}

/// Removes what killed processes have left of [`write_atomic`] in a folder. A process that is writing there just now
/// starts again.
pub(crate) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if is_temporary(&entry.file_name()) {
            fs::remove_file(entry.path()).ok(); // it disturbs nobody
        }
    }
}

pub(crate) fn is_temporary(name: &OsStr) -> bool {
    let random = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.strip_suffix(SUFFIX));
    random.is_some_and(|n| n.len() == RANDOM && n.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_pipes_are_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "old").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        write_atomic(&at("link"), b"new").unwrap();
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert_eq!(fs::read(at("file")).unwrap(), b"new");

        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = at("pipe");
            move || fs::read(pipe).unwrap()
        });
        write_atomic(&at("pipe"), b"through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        write_atomic(Path::new("/dev/null"), b"away").unwrap();
        assert!(write_atomic(folder.path(), b"").unwrap_err().to_string().contains("cannot write"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_is_written_through() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        symlink("sub/middle", at("link")).unwrap();
        symlink("file", at("sub/middle")).unwrap();
        write_atomic(&at("link"), b"new").unwrap();
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(at("sub/middle")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(at("sub/file")).unwrap().is_file());
        assert_eq!(fs::read(at("sub/file")).unwrap(), b"new");

        symlink("nowhere/file", at("far")).unwrap();
        symlink("circle", at("circle")).unwrap();
        for wrong in ["far", "circle"] {
            assert!(matches!(write_atomic(&at(wrong), b"new"), Err(Error::Io { .. })), "{wrong}");
            assert!(fs::symlink_metadata(at(wrong)).unwrap().is_symlink());
        }
        assert_eq!(names(folder.path()), ["circle", "far", "link", "sub"]);
    }

    /// Found by a hostile tester: the temporary name was `.NAME.tmp`, and a link of that name was written through.
    #[cfg(unix)]
    #[test]
    fn a_planted_temporary_name_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("precious"), "kept").unwrap();
        std::os::unix::fs::symlink("precious", at(".out.png.tmp")).unwrap();
        write_atomic(&at("out.png"), b"new").unwrap();
        assert_eq!(fs::read(at("precious")).unwrap(), b"kept");
        assert_eq!(fs::read(at("out.png")).unwrap(), b"new");
        assert!(fs::symlink_metadata(at("out.png")).unwrap().is_file());
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_any_new_file_or_of_the_old_one() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
        fs::write(at("plain"), "").unwrap();
        write_atomic(&at("new"), b"").unwrap();
        assert_eq!(mode("new"), mode("plain"));
        for old in [0o640, 0o600, 0o777, 0o604] {
            fs::set_permissions(at("plain"), Permissions::from_mode(old)).unwrap();
            write_atomic(&at("plain"), b"new").unwrap();
            assert_eq!(mode("plain"), old);
        }
    }

    /// Found by a hostile tester: three writers side by side failed in 89 of 399 cases, and a reader saw 74 parts of
    /// files.
    #[test]
    fn many_writers_all_succeed_and_a_reader_sees_whole_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let content = |writer: usize| vec![b'a' + writer as u8; 50_000 + 10_000 * writer];
        write_atomic(&path, &content(0)).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..6)
                .map(|writer| {
                    let (path, content) = (&path, content(writer));
                    scope.spawn(move || (0..25).try_for_each(|_| write_atomic(path, &content)))
                })
                .collect();
            let reader = scope.spawn(|| {
                let mut reads = 0;
                while !done.load(Ordering::Relaxed) {
                    let bytes = fs::read(&path).unwrap();
                    assert_eq!(bytes, content((bytes[0] - b'a') as usize));
                    reads += 1;
                }
                reads
            });
            let written: Vec<_> = writers.into_iter().map(|w| w.join().unwrap()).collect();
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 0);
            written.into_iter().for_each(|result| result.unwrap());
        });
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("old"), "kept").unwrap();
        for good in ["new", "old"] {
            check_writable(&at(good)).unwrap();
        }
        assert_eq!(fs::read(at("old")).unwrap(), b"kept");
        assert_eq!(names(folder.path()), ["old"]);
        for wrong in [at("none").join("c"), at("old").join("c"), folder.path().to_path_buf()] {
            let error = check_writable(&wrong).unwrap_err();
            assert!(error.to_string().contains("cannot write"), "{error}");
        }
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomic(&path, b"old").unwrap();
        let full = replace(&path, |file| file.write_all(b"half of").and(Err(io::ErrorKind::StorageFull.into())));
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        // The renaming fails: a folder is in its way.
        fs::create_dir(folder.path().join("b")).unwrap();
        assert!(replace(&folder.path().join("b"), |file| file.write_all(b"new")).is_err());
        assert!(write_atomic(&folder.path().join("none").join("c"), b"new").is_err());
        assert_eq!(names(folder.path()), ["a", "b"]);
    }

    #[test]
    fn a_sweep_takes_our_temporary_files_only_and_a_writer_starts_again() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let kept = [".gumbel-.tmp", ".gumbel-0123456789ab", ".lock", ".out.png.tmp", "gumbel-0123456789ab.tmp"];
        for name in kept.iter().chain(&[".gumbel-0123456789aB.tmp"]) {
            fs::write(at(name), "x").unwrap();
        }
        sweep(folder.path());
        assert_eq!(names(folder.path()), kept);
        let mut calls = 0;
        let written = replace(&at("out"), |file| {
            calls += 1;
            if calls < 3 {
                sweep(folder.path());
            }
            file.write_all(b"new")
        });
        written.unwrap();
        assert_eq!((calls, fs::read(at("out")).unwrap()), (3, b"new".to_vec()));
        // A name as long as a name may be.
        write_atomic(&at(&"n".repeat(255)), b"new").unwrap();
    }
}

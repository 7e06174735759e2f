//! Files of data sets: how they are described, found, hashed and read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use md5::Md5;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::DataError;
use crate::error::At;

/// No file without a published size is larger.
const MAX_PROVIDED: u64 = 1 << 28;

/// A published digest of a file, in lower-case hexadecimal. Serialised and displayed as `sha256:...` or `md5:...`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Digest {
    /// SHA-256, 64 digits.
    Sha256(String),
    /// MD5, 32 digits: for files that were published with nothing better. It still detects damage.
    Md5(String),
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Digest::Sha256(hex) => write!(f, "sha256:{hex}"),
            Digest::Md5(hex) => write!(f, "md5:{hex}"),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// One file of a data set: what it is called, how it is recognised and where it can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Name in the data set's folder. One that ends with `/` is a folder.
    pub name: String,
    /// Digests of which a good file has one; if there are none, the file cannot be verified and is not fetched.
    pub digests: Vec<Digest>,
    /// No good file is larger than this many bytes.
    pub max_bytes: u64,
    /// Full addresses, tried in order.
    pub urls: Vec<String>,
    /// The name and digest of the same file uncompressed, accepted in its place.
    pub raw: Option<(String, Digest)>,
}

impl FileSpec {
    /// A file without known digests: it can be read where somebody has put it, but not verified or fetched.
    #[must_use]
    pub fn provided(name: impl Into<String>) -> FileSpec {
        FileSpec { name: name.into(), digests: vec![], max_bytes: MAX_PROVIDED, urls: vec![], raw: None }
    }

    /// Can it be had from somewhere, and recognised?
    #[must_use]
    pub fn is_public(&self) -> bool {
        !self.digests.is_empty() && !self.urls.is_empty()
    }

    /// Where the file is in `folder`, under either name.
    #[must_use]
    pub fn locate(&self, folder: &Path) -> Option<PathBuf> {
        let raw = self.raw.as_ref().map(|(name, _)| name);
        [Some(&self.name), raw].into_iter().flatten().find_map(|name| {
            let path = folder.join(name);
            let there = if name.ends_with('/') { path.is_dir() } else { path.is_file() };
            there.then_some(path)
        })
    }

    /// The digests that the file at `path` may have: those of the name it was found under.
    fn digests_at(&self, path: &Path) -> Vec<Digest> {
        match &self.raw {
            Some((name, digest)) if path.file_name().is_some_and(|n| n == name.as_str()) => vec![digest.clone()],
            _ => self.digests.clone(),
        }
    }

    /// Compares the file at `path` with the known digests.
    ///
    /// # Errors
    /// [`DataError::Io`] if it cannot be read.
    pub fn check(&self, path: &Path) -> Result<Check, DataError> {
        let expected = self.digests_at(path);
        let found = if path.is_dir() { Vec::new() } else { hash(path)? };
        let matches = if expected.is_empty() { None } else { Some(expected.iter().any(|d| found.contains(d))) };
        Ok(Check { expected, found, matches })
    }
}

/// A file's digests against the known ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Any of these is right.
    pub expected: Vec<Digest>,
    /// The file's own, one of each kind.
    pub found: Vec<Digest>,
    /// Is one of the expected among the found? `None` if no digest of this file is known.
    pub matches: Option<bool>,
}

impl Check {
    /// As a result, where an unknown digest is no error.
    ///
    /// # Errors
    /// [`DataError::Checksum`] if the digest is none of the known ones.
    pub fn into_result(self, path: &Path) -> Result<(), DataError> {
        let join = |digests: &[Digest]| digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        match self.matches {
            Some(false) => Err(DataError::Checksum {
                path: path.to_path_buf(),
                expected: join(&self.expected),
                found: join(&self.found),
            }),
            _ => Ok(()),
        }
    }
}

/// SHA-256 and MD5 of a file, in one pass.
fn hash(path: &Path) -> Result<Vec<Digest>, DataError> {
    let mut file = File::open(path).map_err(DataError::io("open", path))?;
    let (mut sha256, mut md5) = (Sha256::new(), Md5::new());
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                sha256.update(&buffer[..n]);
                md5.update(&buffer[..n]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DataError::io("read", path)(error)),
        }
    }
    Ok(vec![Digest::Sha256(hex(&sha256.finalize())), Digest::Md5(hex(&md5.finalize()))])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 and MD5 of bytes in memory.
pub(crate) fn digests_of(bytes: &[u8]) -> Vec<Digest> {
    vec![Digest::Sha256(hex(&Sha256::digest(bytes))), Digest::Md5(hex(&Md5::digest(bytes)))]
}

/// SHA-256 of bytes in memory, in hexadecimal.
#[cfg(test)]
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Serialises a path as text, whatever its bytes.
pub(crate) fn path_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// The same for a path that may be absent.
pub(crate) fn optional_path_text<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|p| p.to_string_lossy()).serialize(serializer)
}

/// Reads a whole file of at most `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, DataError> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(DataError::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(At { path, format: "file" }.bad("size", format!("at most {limit} bytes"), "more"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn known_digests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, b"abc").unwrap();
        let digests = hash(&path).unwrap();
        assert_eq!(
            digests.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "md5:900150983cd24fb0d6963f7d28e17f72"
            ]
        );
        let mut spec = FileSpec { digests: vec![digests[1].clone()], ..FileSpec::provided("abc") };
        assert_eq!(spec.check(&path).unwrap().matches, Some(true));
        spec.digests = vec![Digest::Md5("0".repeat(32))];
        let error = spec.check(&path).unwrap().into_result(&path).unwrap_err();
        assert!(matches!(error, DataError::Checksum { .. }) && !error.to_string().contains('\n'));
        spec.digests.clear();
        assert_eq!(spec.check(&path).unwrap().matches, None);
    }

    #[test]
    fn limits_and_absent_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("three");
        fs::write(&path, b"two").unwrap();
        assert!(read_limited(&path, 2).is_err());
        assert_eq!(read_limited(&path, 3).unwrap(), b"two");
        assert!(hash(&folder.path().join("absent")).unwrap_err().to_string().contains("absent"));
    }
}

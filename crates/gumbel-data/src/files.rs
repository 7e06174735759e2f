//! The public files of each data set: names, digests, mirrors; and how files are found and hashed.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use md5::Md5;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::error::At;
use crate::omniglot::{CHARDATA, ZIPS};
use crate::{DataError, DatasetName};

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
    /// Name in the data set's folder.
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
    /// Where the file is in `folder`, under either name.
    #[must_use]
    pub fn locate(&self, folder: &Path) -> Option<PathBuf> {
        let raw = self.raw.as_ref().map(|(name, _)| name);
        [Some(&self.name), raw].into_iter().flatten().map(|name| folder.join(name)).find(|path| path.is_file())
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
        let found = hash(path)?;
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

/// The files that `name` is read from; for Omniglot the original archives. Glyphs has none.
#[must_use]
pub fn files_of(name: DatasetName) -> Vec<FileSpec> {
    match name {
        DatasetName::Glyphs => Vec::new(),
        DatasetName::Mnist => idx_files(&MNIST, &MNIST_MIRRORS),
        DatasetName::FashionMnist => idx_files(&FASHION_MNIST, &FASHION_MNIST_MIRRORS),
        DatasetName::Omniglot => OMNIGLOT
            .iter()
            .zip(ZIPS)
            .map(|((md5, sha256), name)| FileSpec {
                name: name.into(),
                digests: vec![Digest::Md5((*md5).into()), Digest::Sha256((*sha256).into())],
                max_bytes: 64 << 20,
                urls: OMNIGLOT_MIRRORS.iter().map(|base| format!("{base}{name}")).collect(),
                raw: None,
            })
            .collect(),
    }
}

/// The file of Burda et al.'s Omniglot split. No digest of it is published, so it is not fetched.
#[must_use]
pub fn chardata_file() -> FileSpec {
    FileSpec { name: CHARDATA.into(), digests: Vec::new(), max_bytes: 1 << 28, urls: Vec::new(), raw: None }
}

/// (bytes, SHA-256 of the .gz file, SHA-256 of the content)
type IdxDigests = [(u64, &'static str, &'static str); 4];

const IDX_NAMES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

const MNIST_MIRRORS: [&str; 2] =
    ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"];
const MNIST: IdxDigests = [
    (
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    (
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    (
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    (
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
];

const FASHION_MNIST_MIRRORS: [&str; 2] = [
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
];
const FASHION_MNIST: IdxDigests = [
    (
        26_421_880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    (
        29_515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    (
        4_422_102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    (
        5_148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
];

const OMNIGLOT_MIRRORS: [&str; 2] = [
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
    "https://github.com/brendenlake/omniglot/raw/master/python/",
];
/// (MD5 of the original archive, SHA-256 of a rebuilt archive with the same images)
const OMNIGLOT: [(&str, &str); 2] = [
    ("68d2efa1b9178cc56df9314c21c6e718", "661554b0641a713ba65b2ec661ef0accf8ff7f08e449035e33e5fcddf440bbfe"),
    ("6b91aef0f799c5bb55b94e3f2daec811", "6b4aef2b7aedfed06371dae64252339d829ef614444b41bbd9622e7317bb7d75"),
];

fn idx_files(digests: &IdxDigests, mirrors: &[&str]) -> Vec<FileSpec> {
    let spec = |((bytes, packed, raw), name): (&(u64, &str, &str), &str)| FileSpec {
        name: format!("{name}.gz"),
        digests: vec![Digest::Sha256((*packed).into())],
        max_bytes: *bytes,
        urls: mirrors.iter().map(|base| format!("{base}{name}.gz")).collect(),
        raw: Some((name.into(), Digest::Sha256((*raw).into()))),
    };
    digests.iter().zip(IDX_NAMES).map(spec).collect()
}

/// The paths of all files of `name` in `folder`, in the order of [`files_of`].
pub(crate) fn locate_all(name: DatasetName, folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let files = files_of(name);
    let paths: Vec<PathBuf> = files.iter().filter_map(|file| file.locate(folder)).collect();
    if paths.len() == files.len() { Ok(paths) } else { Err(missing(name, folder, "")) }
}

/// The error for a folder in which files of `name` are missing.
pub(crate) fn missing(name: DatasetName, folder: &Path, hint: &'static str) -> DataError {
    let absent: Vec<String> =
        files_of(name).into_iter().filter(|file| file.locate(folder).is_none()).map(|file| file.name).collect();
    let mut expected = absent.join(", ");
    match name {
        DatasetName::Omniglot => expected += &format!(" (or {CHARDATA})"),
        _ => expected += " (each with or without .gz)",
    }
    DataError::Missing { dataset: name.to_string(), folder: folder.to_path_buf(), expected, hint }
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

/// SHA-256 of bytes in memory, in hexadecimal.
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
    fn digests_are_well_formed() {
        for name in DatasetName::ALL {
            for file in files_of(name) {
                assert!(!file.digests.is_empty() && !file.urls.is_empty());
                for digest in file.digests.iter().chain(file.raw.iter().map(|(_, digest)| digest)) {
                    let (hex, digits) = match digest {
                        Digest::Sha256(hex) => (hex, 64),
                        Digest::Md5(hex) => (hex, 32),
                    };
                    assert!(hex.len() == digits && hex.chars().all(|c| c.is_ascii_hexdigit()), "{digest}");
                }
            }
        }
    }

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
        let mut spec = FileSpec { digests: vec![digests[1].clone()], ..chardata_file() };
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

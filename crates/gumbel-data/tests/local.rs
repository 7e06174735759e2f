//! Reading from a folder: small hand-made files under the public names, good and broken.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use gumbel_data::{DataError, DatasetName, FileStatus, Source, Split};
use tempfile::TempDir;

const TRAIN: usize = 10_020;
const TEST: usize = 30;

fn idx(dims: &[usize], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|d| bytes.extend((*d as u32).to_be_bytes()));
    bytes.extend(values);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn images(count: usize) -> Vec<u8> {
    idx(&[count, 28, 28], &(0..count * 784).map(|i| (i / 784 % 251) as u8).collect::<Vec<_>>())
}

fn labels(count: usize) -> Vec<u8> {
    idx(&[count], &(0..count).map(|i| (i % 10) as u8).collect::<Vec<_>>())
}

/// A folder like MNIST's, with few images: two files packed, two not.
fn folder() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("mnist");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("train-images-idx3-ubyte.gz"), gzip(&images(TRAIN))).unwrap();
    fs::write(folder.join("train-labels-idx1-ubyte"), labels(TRAIN)).unwrap();
    // The content decides, not the name.
    fs::write(folder.join("t10k-images-idx3-ubyte.gz"), images(TEST)).unwrap();
    fs::write(folder.join("t10k-labels-idx1-ubyte"), gzip(&labels(TEST))).unwrap();
    root
}

fn load(root: &Path) -> Result<gumbel_data::Dataset, DataError> {
    gumbel_data::load(DatasetName::Mnist, &Source::local(root), &mut |_| {})
}

#[test]
fn split_of_the_training_file() {
    let root = folder();
    let data = load(root.path()).unwrap();
    assert_eq!(Split::ALL.map(|s| data.split(s).count()), [20, 10_000, TEST]);
    assert_eq!(data.valid.image(0).unwrap(), [20; 784]);
    assert_eq!(data.valid.label(5), Some(5));
    let limited = data.limit(Some(3), Some(7));
    assert_eq!(Split::ALL.map(|s| limited.split(s).count()), [3, 7, 7]);
}

#[test]
fn broken_files_are_one_line_errors_with_the_file() {
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("t10k-images-idx3-ubyte.gz", vec![], "magic number"),
        ("t10k-images-idx3-ubyte.gz", gzip(&images(TEST))[..200].to_vec(), "values"),
        ("t10k-images-idx3-ubyte.gz", idx(&[TEST, 28, 27], &vec![0; TEST * 28 * 27]), "[30, 28, 27]"),
        ("t10k-images-idx3-ubyte.gz", idx(&[TEST], &[0; TEST]), "expected [count, 28, 28]"),
        ("t10k-images-idx3-ubyte.gz", idx(&[0, 28, 28], &[]), "expected at least 1 image, found 0"),
        ("t10k-labels-idx1-ubyte", labels(TEST - 1), "one label for each image"),
        ("t10k-labels-idx1-ubyte", idx(&[TEST], &[10; TEST]), "expected 0 to 9, found 10"),
        ("train-images-idx3-ubyte.gz", images(9), "one label for each image"),
    ];
    for (name, bytes, expected) in cases {
        let root = folder();
        fs::write(root.path().join("mnist").join(name), bytes).unwrap();
        let message = load(root.path()).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        assert!(message.contains("-ubyte"), "{message}");
    }
}

#[test]
fn missing_files_and_folders() {
    let root = folder();
    fs::remove_file(root.path().join("mnist/train-labels-idx1-ubyte")).unwrap();
    let error = load(root.path()).unwrap_err();
    assert!(error.is_missing());
    let message = error.to_string();
    assert!(message.contains("train-labels-idx1-ubyte.gz") && !message.contains("t10k"), "{message}");
    for name in [DatasetName::FashionMnist, DatasetName::Omniglot] {
        let error = gumbel_data::load(name, &Source::local("/does/not/exist"), &mut |_| {}).unwrap_err();
        assert!(error.is_missing() && error.to_string().contains("exist/"), "{error}");
    }
}

#[test]
fn list_and_verify_tell_what_is_there() {
    let root = folder();
    let source = Source::local(root.path());
    let list = gumbel_data::list(&source).unwrap();
    assert_eq!(list.iter().map(|l| l.available).collect::<Vec<_>>(), [true, true, false, false]);
    assert_eq!((list[1].files.len(), list[2].missing.len()), (4, 4));
    let json = serde_json::to_value(&list).unwrap();
    assert_eq!(json[1]["name"], "mnist");
    assert!(json[1]["files"][0]["bytes"].as_u64().unwrap() > 0);

    // Readable, but not the published files.
    let verification = gumbel_data::verify(DatasetName::Mnist, &source).unwrap();
    assert!(!verification.ok);
    assert!(verification.files.iter().all(|f| f.status == FileStatus::Bad && !f.found.is_empty()));
    let json = serde_json::to_value(&verification).unwrap();
    assert!(json["files"][0]["expected"][0].as_str().unwrap().starts_with("sha256:440fcabf"));
    // Nothing is fetched into a folder of the user's: what is there is checked.
    let error = gumbel_data::fetch(DatasetName::Mnist, &source, &mut |_| {}).unwrap_err();
    assert!(matches!(error, DataError::Checksum { .. }), "{error}");
    let error = gumbel_data::fetch(DatasetName::FashionMnist, &source, &mut |_| {}).unwrap_err();
    assert!(error.is_missing(), "{error}");
    let verification = gumbel_data::verify(DatasetName::Omniglot, &source).unwrap();
    assert!(verification.files.iter().all(|f| f.status == FileStatus::Missing));

    let info = gumbel_data::info(DatasetName::Mnist, &source, &mut |_| {}).unwrap();
    let json = serde_json::to_value(&info).unwrap();
    assert_eq!((json["images"]["train"].as_u64(), json["height"].as_u64()), (Some(20), Some(28)));
}

#[cfg(unix)]
#[test]
fn paths_that_are_no_text_are_still_reported() {
    use std::os::unix::ffi::OsStrExt;
    let source = Source::local(std::ffi::OsStr::from_bytes(b"/no/\xff"));
    for json in [
        serde_json::to_string(&gumbel_data::list(&source).unwrap()).unwrap(),
        serde_json::to_string(&gumbel_data::verify(DatasetName::Mnist, &source).unwrap()).unwrap(),
    ] {
        assert!(json.contains("/no/\u{fffd}/mnist"), "{json}");
    }
}

#[test]
fn generated_data_need_no_folder() {
    let source = Source { offline: true, ..Source::local("/does/not/exist") };
    let verification = gumbel_data::verify(DatasetName::Glyphs, &source).unwrap();
    assert!(verification.ok, "{verification:?}");
}

//! Reading from a folder: small hand-made files under the public names, good and broken.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use gumbel_data::{DataError, Dataset, DatasetEntry, FileStatus, Images, Limits, NotFetched, Source, Split};
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

fn entry(name: &str) -> DatasetEntry {
    gumbel_data::dataset(name).unwrap()
}

fn load(root: &Path) -> Result<gumbel_data::Dataset, DataError> {
    gumbel_data::load(&entry("mnist"), &Source::local(root), &mut |_| {})
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
    for name in ["fashion-mnist", "omniglot"] {
        let error = gumbel_data::load(&entry(name), &Source::local("/does/not/exist"), &mut |_| {}).unwrap_err();
        assert!(error.is_missing() && error.to_string().contains("exist/"), "{error}");
    }
}

#[test]
fn list_and_verify_tell_what_is_there() {
    let root = folder();
    let source = Source::local(root.path());
    let list = gumbel_data::list(&gumbel_data::datasets(), &source).unwrap();
    assert_eq!(list.iter().map(|l| l.available).collect::<Vec<_>>(), [true, true, false, false, false]);
    assert_eq!((list[1].files.len(), list[2].missing.len()), (4, 4));
    let json = serde_json::to_value(&list).unwrap();
    assert_eq!(json[1]["name"], "mnist");
    assert!(json[1]["files"][0]["bytes"].as_u64().unwrap() > 0);

    // Readable, but not the published files.
    let verification = gumbel_data::verify(&entry("mnist"), &source).unwrap();
    assert!(!verification.ok);
    assert!(verification.files.iter().all(|f| f.status == FileStatus::Bad && !f.found.is_empty()));
    let json = serde_json::to_value(&verification).unwrap();
    assert!(json["files"][0]["expected"][0].as_str().unwrap().starts_with("sha256:440fcabf"));
    // Nothing is fetched into a folder of the user's: what is there is checked.
    let error = gumbel_data::fetch(&entry("mnist"), &source, &mut |_| {}).unwrap_err();
    assert!(matches!(error, DataError::Checksum { .. }), "{error}");
    let error = gumbel_data::fetch(&entry("fashion-mnist"), &source, &mut |_| {}).unwrap_err();
    assert!(error.is_missing(), "{error}");
    let verification = gumbel_data::verify(&entry("omniglot"), &source).unwrap();
    assert!(verification.files.iter().all(|f| f.status == FileStatus::Missing));

    let info = gumbel_data::info(&entry("mnist"), &source).unwrap();
    let json = serde_json::to_value(&info).unwrap();
    assert_eq!((json["images"]["train"].as_u64(), json["height"].as_u64()), (Some(20), Some(28)));
    assert_eq!((json["name"].as_str(), json["channels"].as_u64()), (Some("mnist"), Some(1)));
}

#[cfg(unix)]
#[test]
fn paths_that_are_no_text_are_still_reported() {
    use std::os::unix::ffi::OsStrExt;
    let source = Source::local(std::ffi::OsStr::from_bytes(b"/no/\xff"));
    for json in [
        serde_json::to_string(&gumbel_data::list(&gumbel_data::datasets(), &source).unwrap()).unwrap(),
        serde_json::to_string(&gumbel_data::verify(&entry("mnist"), &source).unwrap()).unwrap(),
    ] {
        assert!(json.contains("/no/\u{fffd}/mnist"), "{json}");
    }
}

#[test]
fn generated_data_need_no_folder() {
    let source = Source { offline: true, ..Source::local("/does/not/exist") };
    let verification = gumbel_data::verify(&entry("glyphs"), &source).unwrap();
    assert!(verification.ok, "{verification:?}");
}

#[test]
fn missing_data_tell_the_program_what_it_needs() {
    let mnist = entry("mnist");
    let root = folder();
    fs::remove_file(root.path().join("mnist/train-labels-idx1-ubyte")).unwrap();
    let place = root.path().join("mnist");
    let says = |error: DataError, reason: NotFetched| {
        let DataError::Missing { dataset, folder, missing, why, .. } = &error else { panic!("{error}") };
        assert_eq!((dataset.as_str(), folder, *why), ("mnist", &place, reason));
        assert_eq!(*missing, ["train-labels-idx1-ubyte.gz"]);
        error.to_string()
    };
    let local = Source::local(root.path());
    let message = says(gumbel_data::load(&mnist, &local, &mut |_| {}).unwrap_err(), NotFetched::DataFolder);
    assert_eq!(
        message,
        format!(
            "mnist is not in {} (missing: train-labels-idx1-ubyte.gz; each with or without .gz); \
             nothing is fetched into a folder that was given",
            place.display()
        )
    );
    let offline = Source { cache_dir: Some(root.path().into()), offline: true, ..Source::default() };
    says(gumbel_data::load(&mnist, &offline, &mut |_| {}).unwrap_err(), NotFetched::Offline);
    // Questions do not fetch, whatever they might.
    for source in [&local, &offline, &Source { offline: false, ..offline.clone() }] {
        let message = says(gumbel_data::info(&mnist, source).unwrap_err(), NotFetched::NotAsked);
        assert!(message.ends_with(".gz)") && !message.contains("--"), "{message}");
    }
    says(gumbel_data::read_mnist(&place).unwrap_err(), NotFetched::NotAsked);
    let error = gumbel_data::info(&entry("omniglot"), &Source::local("/does/not/exist")).unwrap_err().to_string();
    assert_eq!(
        error,
        "omniglot is not in /does/not/exist/omniglot \
         (missing: images_background.zip, images_evaluation.zip; or chardata.mat)"
    );
    let chardata = entry("omniglot").with_form("chardata").unwrap();
    let error = gumbel_data::load(&chardata, &Source { data_dir: None, ..offline }, &mut |_| {}).unwrap_err();
    assert!(matches!(error, DataError::Missing { why: NotFetched::NoPublicCopy, .. }), "{error}");
    assert!(error.to_string().contains("chardata.mat); it cannot be fetched"), "{error}");
}

/// A user's own data set stands beside the others: in the registry, in lists, and under its own folder.
#[test]
fn own_data_sets_are_registered() {
    let dots = |count: usize, labels| Images::new(1, 2, [255, 0].repeat(count), labels);
    let made = DatasetEntry::custom("dots", "two pixels", move |_, _| {
        Dataset::new("x", "made", vec![], [dots(9, None)?, dots(5, None)?, dots(5, None)?])
    });
    let from_folder = DatasetEntry::custom("raw", "bytes in a file", move |source, _| {
        let path = source.folder("raw")?.join("pixels");
        let pixels = fs::read(&path).map_err(|source| DataError::Io { action: "read", path, source })?;
        let train = Images::with_channels(1, 1, 3, pixels, None)?;
        let (valid, test) = (train.clone().take(1), train.clone().take(1));
        Dataset::new("raw", "pixels", vec![], [train, valid, test])
    });
    let unsound = DatasetEntry::custom("unsound", "labels without classes", move |_, _| {
        let split = || dots(1, Some(vec![3]));
        Ok(Dataset {
            name: "unsound".into(),
            origin: "made".into(),
            classes: vec![],
            train: split()?,
            valid: split()?,
            test: split()?,
        })
    });
    let mut registry = gumbel_data::datasets();
    [made, from_folder, unsound].into_iter().for_each(|entry| registry.add(entry));
    assert!(registry.get("dotz").unwrap_err().to_string().contains("did you mean dots?"));

    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("raw")).unwrap();
    fs::write(root.path().join("raw/pixels"), [1, 2, 3, 4, 5, 6]).unwrap();
    let source = Source::local(root.path());
    let list = gumbel_data::list(&registry, &source).unwrap();
    assert_eq!((list.len(), list[5].name.as_str(), list[5].help.as_str()), (8, "dots", "two pixels"));
    let get = |name| registry.get(name).unwrap();
    let limits = Limits { train: Some(4), eval: Some(9) };
    let data = gumbel_data::load_first(get("dots"), &source, limits, &mut |_| {}).unwrap();
    // The entry's name, not the maker's; the limits hold although the maker ignores them.
    assert_eq!((data.name.as_str(), data.train.count(), data.test.count()), ("dots", 4, 5));
    assert!(gumbel_data::verify(get("dots"), &source).unwrap().ok);
    assert!(gumbel_data::fetch(get("dots"), &source, &mut |_| {}).unwrap().is_empty());
    let info = gumbel_data::info(get("raw"), &source).unwrap();
    assert_eq!((info.channels, info.images.train), (3, 2));
    let error = gumbel_data::load(get("unsound"), &source, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("label"), "{error}");
}

/// What a file or a folder is called never reaches a terminal as it is.
#[test]
fn escape_bytes_of_names_are_escaped() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a\u{1b}[31mred\u{9b}\n");
    fs::create_dir_all(folder.join("mnist")).unwrap();
    let printable = |error: DataError| {
        let message = error.to_string();
        assert!(!message.contains(char::is_control) && message.contains("a\\u{1b}[31mred\\u{9b}\\n"), "{message:?}");
    };
    printable(load(&folder).unwrap_err());
    for file in
        ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
    {
        fs::write(folder.join("mnist").join(file), b"no IDX").unwrap();
    }
    printable(load(&folder).unwrap_err());
    printable(gumbel_data::fetch(&entry("mnist"), &Source::local(&folder), &mut |_| {}).unwrap_err());
}

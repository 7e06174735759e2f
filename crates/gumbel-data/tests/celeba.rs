//! Reading CelebA from small hand-made files under the published names, good and broken.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use gumbel_data::{DataError, Dataset, FileStatus, Limits, NotFetched, PixelKind, Source, Split, dataset};
use image::codecs::jpeg::JpegEncoder;
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

const ATTRIBUTES: &str = "list_attr_celeba.txt";
const PARTITION: &str = "list_eval_partition.txt";
const ARCHIVE: &str = "img_align_celeba.zip";
const ROWS: &str =
    "4\nBald Male Smiling \n000001.jpg -1  1  1\n000002.jpg  1 -1 -1\n000005.jpg -1 -1  0\n000007.jpg -1  1 -1\n";
const PARTS: &str = "000001.jpg 0\n000002.jpg 2\n000005.jpg 1\n000007.jpg 0\n";
const FILES: [&str; 4] = ["000001.jpg", "000002.jpg", "000005.jpg", "000007.jpg"];

/// An image with a frame of red around the square, and one colour in it.
fn jpeg([width, height]: [u32; 2], colour: [u8; 3]) -> Vec<u8> {
    let inside = |x: u32, y: u32| {
        let scale = 178 / width;
        (8..172).contains(&(x * scale)) && (32..196).contains(&(y * scale))
    };
    let image =
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb(if inside(x, y) { colour } else { [255, 0, 0] }));
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(&image).unwrap();
    bytes
}

fn grey(level: u8) -> Vec<u8> {
    jpeg([178, 218], [level; 3])
}

fn images() -> Vec<(String, Vec<u8>)> {
    let levels = [10, 20, 50, 70];
    FILES.iter().zip(levels).map(|(file, level)| (format!("img_align_celeba/{file}"), grey(level))).collect()
}

fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        writer.start_file(name.as_str(), stored).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A data folder with the archive and both lists.
fn folder() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("celeba");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(ARCHIVE), zip(&images())).unwrap();
    fs::write(folder.join(ATTRIBUTES), ROWS).unwrap();
    fs::write(folder.join(PARTITION), PARTS).unwrap();
    root
}

fn unpack(root: &Path) {
    fs::remove_file(root.join("celeba").join(ARCHIVE)).unwrap();
    fs::create_dir(root.join("celeba/img_align_celeba")).unwrap();
    images().iter().for_each(|(name, bytes)| fs::write(root.join("celeba").join(name), bytes).unwrap());
}

fn read(root: &Path) -> Result<Dataset, DataError> {
    gumbel_data::read_celeba(&root.join("celeba"))
}

fn near(image: &[u8], colour: [u8; 3]) -> bool {
    image.len() == 64 * 64 * 3 && image.chunks(3).flatten().zip(colour.iter().cycle()).all(|(a, b)| a.abs_diff(*b) <= 3)
}

#[test]
fn images_go_to_their_splits_with_their_attributes() {
    let root = folder();
    let data = read(root.path()).unwrap();
    assert_eq!((data.name.as_str(), data.origin.as_str()), ("celeba", "img_align_celeba.zip + lists"));
    assert_eq!(Split::ALL.map(|s| data.split(s).count()), [2, 1, 1]);
    assert_eq!(data.attributes(), ["Bald", "Male", "Smiling"]);
    for (images, levels, values) in [
        (&data.train, &[10, 70][..], &[-1, 1, 1, -1, 1, -1][..]),
        (&data.valid, &[50], &[-1, -1, 0]),
        (&data.test, &[20], &[1, -1, -1]),
    ] {
        assert!(levels.iter().enumerate().all(|(i, level)| near(images.image(i).unwrap(), [*level; 3])));
        assert_eq!((images.attributes().unwrap().values(), images.labels()), (values, None));
    }
    assert_eq!(dataset("celeba").unwrap().pixels(), PixelKind::Colour);
    assert_eq!(dataset("mnist").unwrap().pixels(), PixelKind::Ink);
    assert_eq!(data.with_attribute_classes(&["Male"]).unwrap().test.label(0), Some(0));

    // The same from a folder, with the line ends of Windows, and with images and archive folders that nobody asks for.
    let data = read(root.path()).unwrap();
    let same = |root: &Path| Split::ALL.iter().all(|s| read(root).unwrap().split(*s) == data.split(*s));
    let mut more = images();
    more.push(("__MACOSX/img_align_celeba/000001.jpg".into(), b"no image".to_vec()));
    more.push(("img_align_celeba/000003.jpg".into(), b"no image".to_vec()));
    fs::write(root.path().join("celeba").join(ARCHIVE), zip(&more)).unwrap();
    fs::write(root.path().join("celeba").join(ATTRIBUTES), ROWS.replace('\n', "\r\n")).unwrap();
    assert!(same(root.path()));
    unpack(root.path());
    assert!(same(root.path()));
    let source = Source { cache_dir: Some(root.path().join("cache")), ..Source::local(root.path()) };
    let list = gumbel_data::list(&gumbel_data::datasets(), &source).unwrap();
    assert!(list.iter().any(|l| l.name == "celeba" && l.available && l.files.len() == 3));
    let verification = gumbel_data::verify(&dataset("celeba").unwrap(), &source).unwrap();
    assert!(verification.ok && verification.files.iter().all(|f| f.status == FileStatus::Unknown));
    let info = gumbel_data::info(&dataset("celeba").unwrap(), &source).unwrap();
    assert_eq!((info.pixels, info.channels, info.attributes.len()), (PixelKind::Colour, 3, 3));
}

#[test]
fn images_of_half_the_size_are_the_same() {
    let root = folder();
    let colour = [200, 90, 30];
    let entries: Vec<_> = FILES.iter().map(|file| (format!("half/{file}"), jpeg([89, 109], colour))).collect();
    fs::write(root.path().join("celeba").join(ARCHIVE), zip(&entries)).unwrap();
    assert!(near(read(root.path()).unwrap().valid.image(0).unwrap(), colour));
}

#[test]
fn broken_lists_are_one_line_errors_with_the_line() {
    let rows = |from: &str, to: &str| (ATTRIBUTES, ROWS.replacen(from, to, 1));
    let parts = |from: &str, to: &str| (PARTITION, PARTS.replacen(from, to, 1));
    for ((name, text), expected) in [
        (rows("4\n", "5\n"), "line 1): expected 4, the number of rows that follow, found 5"),
        (rows("4\n", "many\n"), "line 1): expected the number of images, found \"many\""),
        ((ATTRIBUTES, String::new()), "line 1): expected the number of images, found \"\""),
        ((ATTRIBUTES, "0\nBald\n".into()), "line 1): expected at least 1 image, found 0"),
        (rows("Smiling", "Smiling Young"), "line 3): expected 4 values, one for each name, found 3"),
        (rows("Smiling", "Bald"), "line 2): expected names of attributes, found names of attributes: expected each"),
        (rows("-1  1  1", "-1  2  1"), "line 3, Male): expected -1, 0 or 1, found 2"),
        (rows("-1  1  1", "-1  1  1.0"), "line 3, Smiling): expected -1, 0 or 1, found 1.0"),
        (rows("000005.jpg", "../005.jpg"), "line 5): expected the name of an image's file, found ../005.jpg"),
        (rows("000005.jpg", "000002.jpg"), "line 5): expected each image once, found 000002.jpg again"),
        (
            rows("000005.jpg", "000009.jpg"),
            "line 3): expected an image with a row in list_attr_celeba.txt, found 000005.jpg",
        ),
        (parts("5.jpg 1", "5.jpg 3"), "line 3): expected 0 (train), 1 (valid) or 2 (test), found 3"),
        (parts("5.jpg 1", "5.jpg -1"), "line 3): expected 0 (train), 1 (valid) or 2 (test), found -1"),
        (parts("5.jpg 1", "5.jpg"), "line 3): expected an image and its part, 0, 1 or 2, found 000005.jpg"),
        (parts("000005", "000009"), "line 3): expected an image with a row in list_attr_celeba.txt, found 000009.jpg"),
        (parts("000005", "000002"), "line 3): expected each image once, found 000002.jpg again"),
        (parts("000005.jpg 1\n", ""), "lines): expected all images of list_attr_celeba.txt, found no 000005.jpg"),
    ] {
        let root = folder();
        let path = root.path().join("celeba").join(name);
        fs::write(&path, text).unwrap();
        let message = read(root.path()).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{message}\nnot: {expected}");
        let other = root.path().join("celeba").join(PARTITION);
        let named = [path, other].iter().any(|path| message.starts_with(&path.display().to_string()));
        assert!(named, "{message}");
    }
    let root = folder();
    fs::write(root.path().join("celeba").join(PARTITION), b"\xff\xfe").unwrap();
    assert!(read(root.path()).unwrap_err().to_string().contains("expected a text"));
}

#[test]
fn broken_images_are_named() {
    let whole = grey(20);
    let mut garbled = whole.clone();
    garbled[2] = 0;
    let cases: [(Vec<u8>, &str); 6] = [
        (vec![], "expected a JPEG image"),
        (b"no image".to_vec(), "expected a JPEG image"),
        (garbled, "expected a JPEG image"),
        (whole[..whole.len() / 2].to_vec(), "expected a JPEG image"),
        (jpeg([178, 217], [9; 3]), "expected 178x218 or 89x109 pixels, found 178x217"),
        (vec![0; (1 << 20) + 1], "expected at most 1048576 bytes, found more"),
    ];
    for (bytes, expected) in cases {
        let root = folder();
        let mut entries = images();
        entries[1].1 = bytes.clone();
        fs::write(root.path().join("celeba").join(ARCHIVE), zip(&entries)).unwrap();
        let message = read(root.path()).unwrap_err().to_string();
        assert!(message.contains("celeba.zip (zip, entry 000002.jpg)") && message.contains(expected), "{message}");
        unpack(root.path());
        fs::write(root.path().join("celeba/img_align_celeba/000002.jpg"), bytes).unwrap();
        let message = read(root.path()).unwrap_err().to_string();
        assert!(message.contains("img_align_celeba/000002.jpg (") && message.contains(expected), "{message}");
        fs::remove_file(root.path().join("celeba/img_align_celeba/000002.jpg")).unwrap();
        let message = read(root.path()).unwrap_err().to_string();
        assert!(message.contains("list_attr_celeba.txt (attributes, line 4): expected an image in"), "{message}");
        assert!(message.ends_with("found no 000002.jpg"), "{message}");
    }
    // A list that is missing beside the folder, which nobody publishes.
    let root = folder();
    unpack(root.path());
    fs::remove_file(root.path().join("celeba").join(PARTITION)).unwrap();
    let error = read(root.path()).unwrap_err();
    let DataError::Missing { missing, why, .. } = &error else { panic!("{error}") };
    assert_eq!((&missing[..], *why), (&[PARTITION.to_string()][..], NotFetched::NoPublicCopy));
    // The archive itself: no archive, an image damaged inside, a file twice.
    let root = folder();
    let path = root.path().join("celeba").join(ARCHIVE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[600] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let message = read(root.path()).unwrap_err().to_string();
    assert!(message.contains("entry 000001.jpg") && message.contains("expected a readable entry"), "{message}");
    fs::write(&path, b"no archive").unwrap();
    assert!(read(root.path()).unwrap_err().to_string().contains("expected a zip archive"));
    let twice: Vec<_> = images().into_iter().chain([("other/000001.jpg".into(), vec![])]).collect();
    fs::write(&path, zip(&twice)).unwrap();
    let message = read(root.path()).unwrap_err().to_string();
    assert!(message.contains("entry other/000001.jpg): expected each file once"), "{message}");
}

/// No damage to an image leads to anything but an error or an image.
#[test]
fn damaged_images_never_panic() {
    let root = folder();
    unpack(root.path());
    let path = root.path().join("celeba/img_align_celeba/000002.jpg");
    let whole = grey(20);
    for i in 0..400 {
        let mut bytes = whole.clone();
        let at = |n: usize| (i * 7919 + n * 104_729) % whole.len();
        (0..1 + i % 3).for_each(|n| bytes[at(n)] ^= (1 + i * 31 + n) as u8);
        fs::write(&path, bytes).unwrap();
        if let Err(error) = read(root.path()) {
            let message = error.to_string();
            assert!(message.contains("000002.jpg") && !message.contains('\n'), "{message}");
        }
    }
}

#[test]
fn missing_files_are_listed() {
    let error = gumbel_data::load(&dataset("celeba").unwrap(), &Source::local("/nowhere"), &mut |_| {}).unwrap_err();
    assert!(error.is_missing());
    assert_eq!(
        error.to_string(),
        "celeba is not in /nowhere/celeba (missing: img_align_celeba.zip, list_attr_celeba.txt, \
         list_eval_partition.txt; or img_align_celeba/ + list_attr_celeba.txt + list_eval_partition.txt); \
         it cannot be fetched, only provided"
    );
}

/// What was decoded once is read from the cache, until its sources change or it is damaged; nothing goes into the data
/// folder.
#[test]
fn the_cache_follows_its_sources() {
    let (root, cache) = (folder(), tempfile::tempdir().unwrap());
    let source = Source { cache_dir: Some(cache.path().into()), ..Source::local(root.path()) };
    let load = |limits| gumbel_data::load_first(&dataset("celeba").unwrap(), &source, limits, &mut |_| {});
    let data = load(Limits::default()).unwrap();
    let kept = cache.path().join("celeba/images-64.bin");
    let written = fs::read(&kept).unwrap();
    let limited = load(Limits { train: Some(1), eval: Some(0) }).unwrap();
    assert_eq!(Split::ALL.map(|s| limited.split(s).count()), [1, 0, 0]);
    assert_eq!(load(Limits::default()).unwrap(), data);
    // Damaged, hence made again.
    let mut damaged = written.clone();
    damaged[written.len() / 2] ^= 1;
    fs::write(&kept, damaged).unwrap();
    assert_eq!(load(Limits::default()).unwrap(), data);
    assert!(fs::read(&kept).unwrap() == written);
    // Another list: read again, and its errors are seen.
    fs::write(root.path().join("celeba").join(ATTRIBUTES), ROWS.replace("  0\n", "  1 \n")).unwrap();
    assert_eq!(load(Limits::default()).unwrap().valid.attributes().unwrap().values(), [-1, -1, 1]);
    fs::write(root.path().join("celeba").join(PARTITION), "").unwrap();
    assert!(load(Limits::default()).unwrap_err().to_string().contains(PARTITION));
    assert_eq!(root.path().join("celeba").read_dir().unwrap().count(), 3);
}

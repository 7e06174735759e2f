//! The real data sets, in the folder that `GUMBEL_DATA` names; where it is set, they must be there.

use std::fs;
use std::io::Write;
use std::time::Instant;

use gumbel_data::{Binarization, DataError, FileStatus, Source, Split, dataset};
use sha2::{Digest, Sha256};

/// The source, unless the variable is not set: then a note instead of a test.
fn source(name: &str) -> Option<Source> {
    let root = std::env::var_os("GUMBEL_DATA").filter(|root| !root.is_empty());
    if root.is_none() {
        // Not `eprintln`, which the test harness hides where a test passes.
        writeln!(std::io::stderr(), "SKIPPED: GUMBEL_DATA is not set, real {name} not tested").ok();
    }
    root.map(Source::local)
}

/// Counts, size, and mean ink of the training images to 0.001.
fn check(name: &str, classes: usize, counts: [usize; 3], ink: f64) -> Result<(), DataError> {
    let Some(source) = source(name) else { return Ok(()) };
    let entry = dataset(name)?;
    let verification = gumbel_data::verify(&entry, &source)?;
    assert!(verification.ok, "{verification:?}");
    assert!(verification.files.iter().all(|f| f.status != FileStatus::Missing));
    let data = gumbel_data::load(&entry, &source, &mut |_| {})?;
    assert_eq!(Split::ALL.map(|s| data.split(s).count()), counts);
    assert_eq!(data.classes.len(), classes);
    for split in Split::ALL {
        let images = data.split(split);
        assert_eq!((images.height(), images.width(), images.channels()), (28, 28, 1));
        assert!(images.labels().unwrap().iter().all(|l| usize::from(*l) < classes));
    }
    let info = gumbel_data::info(&entry, &source)?;
    assert_eq!(info.images.train, counts[0]);
    println!("{name}: mean ink {:?}", info.mean_ink);
    assert!((info.mean_ink.train - ink).abs() < 0.001, "{:?}", info.mean_ink);
    Ok(())
}

#[test]
fn mnist() -> Result<(), DataError> {
    check("mnist", 10, [50_000, 10_000, 10_000], 0.1326)?;
    let Some(source) = source("mnist") else { return Ok(()) };
    let data = gumbel_data::load(&dataset("mnist")?, &source, &mut |_| {})?;
    // The known beginnings of the files and of their last 10,000.
    assert_eq!(data.train.labels().unwrap()[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(data.valid.labels().unwrap()[..10], [3, 8, 6, 9, 6, 4, 5, 3, 8, 4]);
    assert_eq!(data.test.labels().unwrap()[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    Ok(())
}

#[test]
fn fashion_mnist() -> Result<(), DataError> {
    check("fashion-mnist", 10, [50_000, 10_000, 10_000], 0.3139)
}

#[test]
fn omniglot() -> Result<(), DataError> {
    check("omniglot", 50, [23_000, 1_345, 8_115], 0.08)?;
    let Some(source) = source("omniglot") else { return Ok(()) };
    let data = gumbel_data::load(&dataset("omniglot")?, &source, &mut |_| {})?;
    assert_eq!(data.classes[0], "Alphabet_of_the_Magi");
    // The beginning of each split is a fair sample of the alphabets.
    for split in Split::ALL {
        let labels = &data.split(split).labels().unwrap()[..1000];
        assert!((0..50).filter(|l| labels.contains(l)).count() > 45, "{split}");
    }
    Ok(())
}

/// Pixels, labels and bits of each data set, found before any change to how they are read: stored runs rely on them.
#[test]
fn bytes_are_pinned() -> Result<(), DataError> {
    for (name, expected) in [
        ("glyphs", "ba7a1d2805c079a27058bb2058cda978eb3bf166e60672d4e2dbec9742660d66"),
        ("mnist", "a3336c63723a6ab33603dfc8d05351c135541354f884d733ef89c52698b02ab1"),
        ("fashion-mnist", "0d5bdc074a8152fcbb5868a6e9fd75d94522af884739647c57db76bc8f34ef0f"),
        ("omniglot", "3d9b37eb97451fed60d899bc403c7f94ba4d5d4675ddb1d5e014b830e8c041d8"),
    ] {
        let Some(source) = source(name) else { continue };
        let data = gumbel_data::load(&dataset(name)?, &source, &mut |_| {})?;
        let mut all = Sha256::new();
        for split in Split::ALL {
            let images = data.split(split);
            all.update(images.pixels());
            images.labels().unwrap().iter().for_each(|label| all.update(label.to_le_bytes()));
            let first = images.clone().take(1000);
            all.update(Binarization::Static { seed: 3 }.binarize(&first, split, 0)?);
            all.update(Binarization::Stochastic { seed: 3 }.binarize(&first, split, 2)?);
        }
        let found: String = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected, "{name}");
    }
    Ok(())
}

/// The part of CelebA that is at hand, or all of it: read, and read again from the cache.
#[test]
fn celeba() -> Result<(), DataError> {
    let Some(source) = source("celeba") else { return Ok(()) };
    let cache = tempfile::tempdir().unwrap();
    let source = Source { cache_dir: Some(cache.path().into()), ..source };
    let entry = dataset("celeba")?;
    let load = || {
        let start = Instant::now();
        let data = gumbel_data::load(&entry, &source, &mut |_| {});
        println!("celeba: {:.2} s", start.elapsed().as_secs_f64());
        data
    };
    let data = load()?;
    assert_eq!(load()?, data);
    let counts = Split::ALL.map(|split| data.split(split).count());
    println!("celeba: {counts:?}");
    assert!([[4_560, 780, 659], [162_770, 19_867, 19_962]].contains(&counts), "{counts:?}");
    assert_eq!((data.train.height(), data.train.width(), data.train.channels()), (64, 64, 3));
    assert_eq!(data.attributes().len(), 40);
    for (name, share) in [("Male", 0.417), ("Smiling", 0.482), ("Young", 0.774), ("Bald", 0.022)] {
        let attributes = data.train.attributes().unwrap();
        let found = attributes.share(attributes.position(name)?).unwrap();
        assert!((found - share).abs() < 0.15, "{name}: {found}");
    }
    if counts[0] == 4_560 {
        // Images, attributes and splits, found when they were first read: stored runs rely on them.
        let mut all = Sha256::new();
        for split in Split::ALL {
            all.update(data.split(split).pixels());
            data.split(split).attributes().unwrap().values().iter().for_each(|value| all.update(value.to_le_bytes()));
        }
        let found: String = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, "4e0874e6e01e3e7c6f6494138db5275015a9e9e24b5db5b39578767a27ff1d36");
    }
    Ok(())
}

/// Images of half the size show the same square.
#[test]
fn celeba_at_half_size() -> Result<(), DataError> {
    let Some(root) = source("celeba at half the size").and_then(|source| source.data_dir) else { return Ok(()) };
    let files = root.join("celeba");
    if !files.join("img_align_celeba_half.zip").is_file() {
        return Ok(());
    }
    let text = |name: &str| fs::read_to_string(files.join(name)).unwrap();
    let (full, half) = (text("list_attr_celeba.txt"), text("list_attr_celeba_half.txt"));
    let both: Vec<&str> = half.lines().skip(2).filter(|row| full.contains(*row)).collect();
    let names = half.lines().nth(1).unwrap();
    let rows = format!("{}\n{names}\n{}\n", both.len(), both.join("\n"));
    let partition: String = both.iter().map(|row| format!("{} 0\n", &row[..10])).collect();
    let read = |archive: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(files.join(archive), folder.path().join("img_align_celeba.zip")).unwrap();
        fs::write(folder.path().join("list_attr_celeba.txt"), &rows).unwrap();
        fs::write(folder.path().join("list_eval_partition.txt"), &partition).unwrap();
        gumbel_data::read_celeba(folder.path())
    };
    let (full, half) = (read("img_align_celeba.zip")?, read("img_align_celeba_half.zip")?);
    assert!(full.train.count() > 100 && full.train.attributes() == half.train.attributes());
    // Mean over the inner pixels of |full - half|, where half is moved by some pixels of 64.
    let distance = |[dx, dy]: [isize; 2]| {
        let mut sum = 0u64;
        for (a, b) in full.train.pixels().chunks(64 * 64 * 3).zip(half.train.pixels().chunks(64 * 64 * 3)) {
            for i in 0..62 * 62 * 3 {
                let at: usize = (1 + i / (62 * 3)) * 64 * 3 + 3 + i % (62 * 3);
                sum += u64::from(a[at].abs_diff(b[at.strict_add_signed((dy * 64 + dx) * 3)]));
            }
        }
        sum as f64 / (full.train.count() * 62 * 62 * 3) as f64
    };
    let here = distance([0, 0]);
    let beside = [[-1, 0], [1, 0], [0, -1], [0, 1]].map(distance);
    println!("celeba at half size: {} images, mean distance {here:.2} levels, moved {beside:.2?}", full.train.count());
    // They differ by what the second encoding has lost; a pixel to any side they would differ by much more, and alike.
    assert!(here < 4.5 && beside.iter().all(|moved| *moved > 1.5 * here), "{here} {beside:?}");
    Ok(())
}

//! The real data sets, in the folder that `GUMBEL_DATA` names; where it is set, they must be there.

use std::io::Write;

use gumbel_data::{DataError, DatasetName, FileStatus, Source, Split};

/// The source, unless the variable is not set: then a note instead of a test.
fn source(name: DatasetName) -> Option<Source> {
    let root = std::env::var_os("GUMBEL_DATA").filter(|root| !root.is_empty());
    if root.is_none() {
        // Not `eprintln`, which the test harness hides where a test passes.
        writeln!(std::io::stderr(), "SKIPPED: GUMBEL_DATA is not set, real {name} not tested").ok();
    }
    root.map(Source::local)
}

/// Counts, size, and mean ink of the training images to 0.001.
fn check(name: DatasetName, classes: usize, counts: [usize; 3], ink: f64) -> Result<(), DataError> {
    let Some(source) = source(name) else { return Ok(()) };
    let verification = gumbel_data::verify(name, &source)?;
    assert!(verification.ok, "{verification:?}");
    assert!(verification.files.iter().all(|f| f.status != FileStatus::Missing));
    let data = gumbel_data::load(name, &source, &mut |_| {})?;
    assert_eq!(Split::ALL.map(|s| data.split(s).count()), counts);
    assert_eq!(data.classes.len(), classes);
    for split in Split::ALL {
        let images = data.split(split);
        assert_eq!((images.height(), images.width()), (28, 28));
        assert!(images.labels().unwrap().iter().all(|l| usize::from(*l) < classes));
    }
    let info = gumbel_data::info(name, &source, &mut |_| {})?;
    assert_eq!(info.images.train, counts[0]);
    println!("{name}: mean ink {:?}", info.mean_ink);
    assert!((info.mean_ink.train - ink).abs() < 0.001, "{:?}", info.mean_ink);
    Ok(())
}

#[test]
fn mnist() -> Result<(), DataError> {
    check(DatasetName::Mnist, 10, [50_000, 10_000, 10_000], 0.1326)?;
    let Some(source) = source(DatasetName::Mnist) else { return Ok(()) };
    let data = gumbel_data::load(DatasetName::Mnist, &source, &mut |_| {})?;
    // The known beginnings of the files and of their last 10,000.
    assert_eq!(data.train.labels().unwrap()[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(data.valid.labels().unwrap()[..10], [3, 8, 6, 9, 6, 4, 5, 3, 8, 4]);
    assert_eq!(data.test.labels().unwrap()[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    Ok(())
}

#[test]
fn fashion_mnist() -> Result<(), DataError> {
    check(DatasetName::FashionMnist, 10, [50_000, 10_000, 10_000], 0.3139)
}

#[test]
fn omniglot() -> Result<(), DataError> {
    check(DatasetName::Omniglot, 50, [23_000, 1_345, 8_115], 0.08)?;
    let Some(source) = source(DatasetName::Omniglot) else { return Ok(()) };
    let data = gumbel_data::load(DatasetName::Omniglot, &source, &mut |_| {})?;
    assert_eq!(data.classes[0], "Alphabet_of_the_Magi");
    // The beginning of each split is a fair sample of the alphabets.
    for split in Split::ALL {
        let labels = &data.split(split).labels().unwrap()[..1000];
        assert!((0..50).filter(|l| labels.contains(l)).count() > 45, "{split}");
    }
    Ok(())
}

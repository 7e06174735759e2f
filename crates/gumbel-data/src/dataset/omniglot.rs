//! Omniglot: handwritten characters of 50 alphabets, as 28x28 grey images, in either of two forms.
//!
//! Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program induction", 2015.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{At, printable};
use crate::files::read_limited;
use crate::mat::{Matrix, parse_mat};
use crate::random::Key;
use crate::{DataError, Dataset, DatasetEntry, Digest, FileSpec, Form, Images};

const SIDE: usize = 28;
const DIM: usize = SIDE * SIDE;
/// Side of the original drawings.
const DRAWN: usize = 105;
const ALPHABETS: usize = 50;
/// Images chosen from the training pool for validation.
const VALID: usize = 1345;
/// The order of images is a part of the split's definition, hence a fixed seed.
const ORDER_SEED: u64 = 0;
/// The largest drawing has less than 1 kB, the largest archive less than 10 MB.
const MAX_DRAWING: u64 = 1 << 16;
const MAX_FILE: u64 = 1 << 28;
const MAX_ENTRIES: usize = 100_000;

/// Burda et al.'s split, in the format of MATLAB 5. No digest of it is published.
const CHARDATA: &str = "chardata.mat";
/// The original archives.
const ZIPS: [&str; 2] = ["images_background.zip", "images_evaluation.zip"];
const MIRRORS: [&str; 2] = [
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
    "https://github.com/brendenlake/omniglot/raw/master/python/",
];
/// (MD5 of the original archive, SHA-256 of a rebuilt archive with the same images)
const DIGESTS: [(&str, &str); 2] = [
    ("68d2efa1b9178cc56df9314c21c6e718", "661554b0641a713ba65b2ec661ef0accf8ff7f08e449035e33e5fcddf440bbfe"),
    ("6b91aef0f799c5bb55b94e3f2daec811", "6b4aef2b7aedfed06371dae64252339d829ef614444b41bbd9622e7317bb7d75"),
];
/// Training and test images in `chardata.mat`.
const COUNTS: [usize; 2] = [24_345, 8_070];

pub(super) fn entry() -> DatasetEntry {
    let archive = |((md5, sha256), name): ((&str, &str), &str)| FileSpec {
        name: name.into(),
        digests: vec![Digest::Md5(md5.into()), Digest::Sha256(sha256.into())],
        max_bytes: 64 << 20,
        urls: MIRRORS.iter().map(|base| format!("{base}{name}")).collect(),
        raw: None,
    };
    let archives = DIGESTS.into_iter().zip(ZIPS).map(archive).collect();
    let chardata = Form::new("chardata", vec![FileSpec::provided(CHARDATA)], |paths| read_chardata(&paths[0]));
    let zips = Form::new("zips", archives, |paths| read_zips([paths[0].clone(), paths[1].clone()], ORIGINAL));
    let help = "32,000 handwritten characters of 50 alphabets, 28x28 grey";
    DatasetEntry::of_files("omniglot", help, vec![chardata, zips])
}

/// The shape of the data set as drawn, so that tests can use small ones.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Characters in each of the two archives.
    characters: [usize; 2],
    /// Drawings of each character.
    drawers: usize,
    /// The first drawers' drawings form the training pool.
    train_drawers: usize,
    valid: usize,
}

const ORIGINAL: Layout = Layout { characters: [964, 659], drawers: 20, train_drawers: 15, valid: VALID };

/// Reads the original archives `images_background.zip` and `images_evaluation.zip` in `folder`.
///
/// The drawings (105x105, one bit, 0 = ink) become 28x28 grey images by exact area averaging: each pixel is the mean
/// of the 3.75 x 3.75 source pixels it covers, with ink = 255. There is no standard split of the archives into
/// training and test images at this size; this one has no image in two splits. The drawings of each character are
/// ordered by file name (20 drawers): those of drawers 1 to 15 are the training pool (24,345 images), those of drawers
/// 16 to 20 the test split (8,115). A fixed permutation of the pool gives the validation split (its first 1,345
/// images) and the training split (the other 23,000); the test split is permuted, too, so that the beginning of each
/// split is a fair sample. Labels are alphabets (50, sorted by name).
///
/// # Errors
/// [`DataError::Io`] if an archive cannot be read; [`DataError::Format`], naming the entry, for damaged archives or
/// images, wrong image sizes, unexpected entries, or wrong counts.
pub fn read_omniglot_zips(folder: &Path) -> Result<Dataset, DataError> {
    read_zips(ZIPS.map(|name| folder.join(name)), ORIGINAL)
}

/// Reads Burda et al.'s `chardata.mat` (from the code of importance weighted autoencoders) in `folder`.
///
/// Variables: `data` `[784, 24345]` and `testdata` `[784, 8070]`, grey levels of any numeric type from 0 to 1 (or to
/// 255), each column one image *in column-major order*: it is transposed here to be upright. `target` and `testtarget`
/// `[50, count]`, if present, are one-hot alphabets. A fixed permutation of `data` gives 1,345 validation and 23,000
/// training images; the 8,070 test images are permuted, too.
///
/// # Errors
/// [`DataError::Io`] if the file cannot be read; [`DataError::Format`] if it is damaged or a variable is missing or
/// has the wrong shape or values.
pub fn read_omniglot_chardata(folder: &Path) -> Result<Dataset, DataError> {
    read_chardata(&folder.join(CHARDATA))
}

fn read_chardata(path: &Path) -> Result<Dataset, DataError> {
    chardata(&read_limited(path, MAX_FILE)?, path, COUNTS, VALID)
}

/// The split into (validation, training) images and the order of the test images.
fn arrange(pool: &Images, test: &Images, valid: usize) -> [Images; 3] {
    let shuffled = |purpose, images: &Images| {
        images.select(&Key::new(purpose, ORDER_SEED, 0, 0).stream(0).permutation(images.count()))
    };
    let (valid, train) = shuffled(b"omnipool", pool).split_off(valid);
    [train, valid, shuffled(b"omnitest", test)]
}

// ---- the original archives

/// One drawing in an archive.
#[derive(Debug)]
struct Drawing {
    index: usize,
    file: String,
}

/// Alphabet, then character: its drawings.
type Characters = BTreeMap<(String, String), Vec<Drawing>>;

fn read_zips([background, evaluation]: [PathBuf; 2], layout: Layout) -> Result<Dataset, DataError> {
    let (first, second) = rayon::join(
        || read_zip(&background, layout.characters[0], layout.drawers),
        || read_zip(&evaluation, layout.characters[1], layout.drawers),
    );
    let mut characters = first?;
    for (name, drawings) in second? {
        if characters.insert(name.clone(), drawings).is_some() {
            let at = At { path: &evaluation, format: "zip" };
            return Err(at.bad(
                format!("{}/{}", name.0, name.1),
                "other characters than in the first archive",
                "the same",
            ));
        }
    }
    let mut classes: Vec<String> = characters.keys().map(|(alphabet, _)| alphabet.clone()).collect();
    classes.dedup();

    let (mut pool, mut test) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for ((alphabet, _), drawings) in &characters {
        let label = classes.binary_search(alphabet).unwrap_or_default() as u16;
        for (drawer, image) in drawings.iter().enumerate() {
            let (pixels, labels) = if drawer < layout.train_drawers { &mut pool } else { &mut test };
            pixels.extend_from_slice(image);
            labels.push(label);
        }
    }
    let pool = Images::new(SIDE, SIDE, pool.0, Some(pool.1))?;
    let test = Images::new(SIDE, SIDE, test.0, Some(test.1))?;
    Dataset::new("omniglot", ZIPS.join(" + "), classes, arrange(&pool, &test, layout.valid))
}

/// All drawings of an archive at 28x28, those of a character ordered by file name.
fn read_zip(path: &Path, characters: usize, drawers: usize) -> Result<Decoded, DataError> {
    let at = At { path, format: "zip" };
    let bytes = read_limited(path, MAX_FILE)?;
    let archive = zip::ZipArchive::new(Cursor::new(bytes.as_slice()))
        .map_err(|e| at.caused("central directory", "a zip archive", e))?;
    if archive.len() > MAX_ENTRIES {
        return Err(at.bad("central directory", format!("at most {MAX_ENTRIES} entries"), archive.len()));
    }
    let index = index_entries(&archive, at)?;
    if index.len() != characters {
        return Err(at.bad("central directory", format!("{characters} characters"), index.len()));
    }
    if let Some((name, drawings)) = index.iter().find(|(_, drawings)| drawings.len() != drawers) {
        return Err(at.bad(format!("{}/{}", name.0, name.1), format!("{drawers} drawings"), drawings.len()));
    }
    let characters: Vec<_> = index.into_iter().collect();
    // Collected in order, whatever the order of work; the first error in that order is reported.
    let decoded: Vec<Result<_, DataError>> = characters
        .into_par_iter()
        .map_init(
            || archive.clone(),
            |archive, (name, drawings)| {
                let images =
                    drawings.iter().map(|entry| read_entry(archive, entry, at)).collect::<Result<Vec<_>, _>>()?;
                Ok((name, images))
            },
        )
        .collect();
    decoded.into_iter().collect()
}

/// The images of each character, by (alphabet, character), ordered by file name.
type Decoded = BTreeMap<(String, String), Vec<[u8; DIM]>>;

/// Sorts the entries by alphabet, character and file name.
fn index_entries<R: Read + std::io::Seek>(archive: &zip::ZipArchive<R>, at: At<'_>) -> Result<Characters, DataError> {
    let mut characters = Characters::new();
    for index in 0..archive.len() {
        let name = archive.name_for_index(index).transpose();
        let name = name.map_err(|e| at.caused(format!("entry {index}"), "a readable name", e))?.unwrap_or_default();
        let parts: Vec<&str> = name.split('/').collect();
        // Folders, and what macOS adds to archives.
        if name.ends_with('/') || parts[0] == "__MACOSX" || parts.last() == Some(&".DS_Store") {
            continue;
        }
        let [_root, alphabet, character, file] = parts[..] else {
            return Err(at.bad(format!("entry {name}"), "ROOT/ALPHABET/CHARACTER/DRAWING.png", name));
        };
        // They become names of classes, which many programs print and draw.
        if printable(alphabet) != alphabet {
            return Err(at.bad(format!("entry {name}"), "a printable name of an alphabet", alphabet));
        }
        if !file.ends_with(".png") {
            return Err(at.bad(format!("entry {name}"), "a .png file", file));
        }
        let drawings = characters.entry((alphabet.to_string(), character.to_string())).or_default();
        drawings.push(Drawing { index, file: name.to_string() });
    }
    for drawings in characters.values_mut() {
        drawings.sort_by(|a, b| a.file.cmp(&b.file));
    }
    Ok(characters)
}

fn read_entry<R: Read + std::io::Seek>(
    archive: &mut zip::ZipArchive<R>,
    entry: &Drawing,
    at: At<'_>,
) -> Result<[u8; DIM], DataError> {
    let mut file =
        archive.by_index(entry.index).map_err(|e| at.caused(format!("entry {}", entry.file), "a readable entry", e))?;
    let place = format!("entry {}", entry.file);
    let mut bytes = Vec::new();
    (&mut file).take(MAX_DRAWING + 1).read_to_end(&mut bytes).map_err(|e| at.caused(&place, "a readable entry", e))?;
    if bytes.len() as u64 > MAX_DRAWING {
        return Err(at.bad(&place, format!("at most {MAX_DRAWING} bytes"), "more"));
    }
    decode_drawing(&bytes, &place, at)
}

/// Decodes a drawing and averages it down.
fn decode_drawing(bytes: &[u8], place: &str, at: At<'_>) -> Result<[u8; DIM], DataError> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: 1 << 20 });
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(|e| at.caused(place, "a PNG image", e))?;
    let info = reader.info();
    if (info.width, info.height) != (DRAWN as u32, DRAWN as u32) {
        return Err(at.bad(place, format!("{DRAWN}x{DRAWN} pixels"), format!("{}x{}", info.width, info.height)));
    }
    let output = reader.output_color_type();
    if output != (png::ColorType::Grayscale, png::BitDepth::Eight) {
        return Err(at.bad(place, "grey pixels of 1 to 8 bits", format!("{output:?}")));
    }
    let mut drawing = vec![0; DRAWN * DRAWN];
    if reader.output_buffer_size() != Some(drawing.len()) {
        return Err(at.bad(place, format!("{} bytes of pixels", drawing.len()), "another number"));
    }
    reader.next_frame(&mut drawing).map_err(|e| at.caused(place, "a PNG image", e))?;
    drawing.iter_mut().for_each(|level| *level = 255 - *level);
    Ok(shrink(&drawing))
}

/// Area average from 105x105 to 28x28, rounded to the nearest level.
///
/// In quarters of a source pixel all lengths are whole: an output pixel is 15 wide, a source pixel 4.
fn shrink(drawing: &[u8]) -> [u8; DIM] {
    let overlap = |out: usize, source: usize| (15 * out + 15).min(4 * source + 4) - (15 * out).max(4 * source);
    let sources = |out: usize| 15 * out / 4..(15 * out + 15).div_ceil(4);
    let mut image = [0; DIM];
    for (i, pixel) in image.iter_mut().enumerate() {
        let (row, column) = (i / SIDE, i % SIDE);
        let mut sum = 0;
        for y in sources(row) {
            let line: usize = sources(column).map(|x| overlap(column, x) * usize::from(drawing[y * DRAWN + x])).sum();
            sum += overlap(row, y) * line;
        }
        *pixel = ((sum + 225 / 2) / 225) as u8;
    }
    image
}

// ---- chardata.mat

fn chardata(bytes: &[u8], path: &Path, counts: [usize; 2], valid: usize) -> Result<Dataset, DataError> {
    let at = At { path, format: "MATLAB 5" };
    let mut variables: BTreeMap<String, Matrix> =
        parse_mat(bytes, path, &["data", "testdata", "target", "testtarget"])?
            .into_iter()
            .map(|matrix| (matrix.name.clone(), matrix))
            .collect();
    let mut take = |name: &str, count: usize| {
        let matrix = variables.remove(name).ok_or_else(|| {
            at.bad(format!("variable {name}"), format!("a matrix [{DIM}, {count}]"), "no such variable")
        })?;
        check_shape(&matrix, DIM, count, at).map(|()| matrix)
    };
    let matrices = [take("data", counts[0])?, take("testdata", counts[1])?];
    let scale = scale_of(&matrices, at)?;
    let mut images = |matrix: &Matrix, target: &str| {
        let labels = variables.remove(target).map(|labels| alphabets(&labels, matrix.columns, at)).transpose()?;
        Images::new(SIDE, SIDE, upright(matrix, scale, at)?, labels)
    };
    let (pool, test) = (images(&matrices[0], "target")?, images(&matrices[1], "testtarget")?);
    // The file has no names.
    let classes = (1..=ALPHABETS).map(|i| format!("alphabet {i}")).collect();
    Dataset::new("omniglot", CHARDATA, classes, arrange(&pool, &test, valid))
}

fn check_shape(matrix: &Matrix, rows: usize, columns: usize, at: At<'_>) -> Result<(), DataError> {
    if (matrix.rows, matrix.columns) == (rows, columns) {
        return Ok(());
    }
    let found = format!("[{}, {}]", matrix.rows, matrix.columns);
    Err(at.bad(format!("variable {}", matrix.name), format!("a matrix [{rows}, {columns}]"), found))
}

/// What the levels of all matrices are multiplied with to be bytes: 255 if they go from 0 to 1, 1 if they go to 255.
///
/// Decided once for all, by all of their levels, so that one of them can neither turn a whole variable black nor set
/// one variable apart from another.
fn scale_of(matrices: &[Matrix], at: At<'_>) -> Result<f64, DataError> {
    let (mut ink, mut above, mut first_above) = (0usize, 0usize, None);
    for matrix in matrices {
        for (i, value) in matrix.values().enumerate() {
            if byte(value, 1.0).is_none() {
                return Err(at.bad(position(matrix, i), "a grey level from 0 to 1 or from 0 to 255", value));
            }
            ink += usize::from(value > 0.0);
            // Beyond 1 by more than what rounding explains.
            if byte(value, 255.0).is_none() {
                above += 1;
                first_above = first_above.or(Some((matrix, i, value)));
            }
        }
    }
    match first_above {
        None => Ok(255.0),
        // Of the inked pixels of images with levels to 255, hardly any has a level of at most 1; of images with levels
        // to 1, all have.
        Some(_) if 2 * above >= ink => Ok(1.0),
        Some((matrix, i, value)) => {
            Err(at.bad(position(matrix, i), "a grey level from 0 to 1, as most others in the file", value))
        }
    }
}

/// A level as a byte, if it is in range; what rounds to the greatest byte is not too large.
fn byte(value: f64, scale: f64) -> Option<u8> {
    let level = (value * scale).round();
    (value >= 0.0 && level <= 255.0).then_some(level as u8)
}

fn position(matrix: &Matrix, index: usize) -> String {
    format!("variable {}, row {}, column {}", matrix.name, index % DIM, index / DIM)
}

/// Columns in column-major order to row-major images of bytes.
fn upright(matrix: &Matrix, scale: f64, at: At<'_>) -> Result<Vec<u8>, DataError> {
    let mut pixels = vec![0; DIM * matrix.columns];
    for (i, value) in matrix.values().enumerate() {
        let (image, place) = (i / DIM, i % DIM);
        let (column, row) = (place / SIDE, place % SIDE);
        pixels[image * DIM + row * SIDE + column] = byte(value, scale)
            .ok_or_else(|| at.bad(position(matrix, i), "a grey level from 0 to 1 or from 0 to 255", value))?;
    }
    Ok(pixels)
}

/// One-hot columns to indices.
fn alphabets(matrix: &Matrix, count: usize, at: At<'_>) -> Result<Vec<u16>, DataError> {
    check_shape(matrix, ALPHABETS, count, at)?;
    let values: Vec<f64> = matrix.values().collect();
    let label = |(image, column): (usize, &[f64])| {
        let ones: Vec<usize> = (0..ALPHABETS).filter(|i| column[*i] != 0.0).collect();
        match ones[..] {
            [alphabet] if column[alphabet] == 1.0 => Ok(alphabet as u16),
            _ => Err(at.bad(
                format!("variable {}, column {image}", matrix.name),
                "a single 1, else 0",
                format!("{} non-zero values", ones.len()),
            )),
        }
    };
    values.chunks_exact(ALPHABETS).enumerate().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mat::make;
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    const TINY: Layout = Layout { characters: [2, 1], drawers: 3, train_drawers: 2, valid: 2 };

    /// A one-bit PNG with ink where `ink` says so.
    fn drawing(side: usize, ink: impl Fn(usize, usize) -> bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side as u32, side as u32);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::One);
        let mut packed = vec![0u8; side * side.div_ceil(8)];
        for row in 0..side {
            for column in (0..side).filter(|column| !ink(row, *column)) {
                packed[row * side.div_ceil(8) + column / 8] |= 0x80 >> (column % 8);
            }
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&packed).unwrap();
        writer.finish().unwrap();
        bytes
    }

    /// A drawing that is recognised by its first `n` rows of ink.
    fn rows(n: usize) -> Vec<u8> {
        drawing(DRAWN, |row, _| row < n)
    }

    fn write_zip(path: &Path, entries: &[(String, Vec<u8>)]) {
        let mut writer = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        for (name, bytes) in entries {
            writer.start_file(name.as_str(), options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
    }

    fn character(alphabet: &str, name: &str, first: usize) -> Vec<(String, Vec<u8>)> {
        // Written in reverse: the order must come from the names.
        let entry = |i| (format!("root/{alphabet}/{name}/00_{i:02}.png"), rows(first + i));
        (0..TINY.drawers).rev().map(entry).collect()
    }

    /// A good pair of archives; `edit` may spoil the first.
    fn read(edit: impl Fn(&mut Vec<(String, Vec<u8>)>)) -> Result<Dataset, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let mut first = [character("Beta", "character01", 10), character("Alpha", "character01", 20)].concat();
        edit(&mut first);
        write_zip(&folder.path().join(ZIPS[0]), &first);
        write_zip(&folder.path().join(ZIPS[1]), &character("Gamma", "character01", 30));
        read_zips(ZIPS.map(|name| folder.path().join(name)), TINY)
    }

    fn message(edit: impl Fn(&mut Vec<(String, Vec<u8>)>)) -> String {
        read(edit).unwrap_err().to_string()
    }

    #[test]
    fn splits_are_by_drawer_without_overlap() {
        let data = read(|_| {}).unwrap();
        assert_eq!(data.classes, ["Alpha", "Beta", "Gamma"]);
        assert_eq!([data.train.count(), data.valid.count(), data.test.count()], [4, 2, 3]);
        // Which drawing: its ink rows, by its label's base.
        let which = |images: &Images| -> Vec<usize> {
            let ink = |i: usize| images.image(i).unwrap().iter().map(|p| usize::from(*p)).sum::<usize>();
            let base = |i: usize| [20, 10, 30][usize::from(images.label(i).unwrap())];
            (0..images.count())
                .map(|i| (ink(i) as f64 * 105.0 / (255.0 * DIM as f64)).round() as usize - base(i))
                .collect()
        };
        assert!(which(&data.train).iter().chain(&which(&data.valid)).all(|drawer| *drawer < 2));
        assert_eq!(which(&data.test), [2, 2, 2]);
        assert_eq!(read(|_| {}).unwrap(), data);
    }

    #[test]
    fn broken_archives_name_the_entry() {
        assert!(message(|e| drop(e.pop())).contains("expected 3 drawings, found 2"));
        assert!(message(|e| e.truncate(3)).contains("expected 2 characters, found 1"));
        assert!(message(|e| e[1].1 = b"no image".to_vec()).contains("Beta/character01/00_01.png"));
        assert!(message(|e| e[1].1.truncate(60)).contains("Beta/character01/00_01.png"));
        assert!(message(|e| e[1].1 = drawing(104, |_, _| true)).contains("expected 105x105 pixels, found 104x104"));
        assert!(message(|e| e[1].1 = vec![0; 70_000]).contains("at most 65536 bytes"));
        assert!(message(|e| e[0].0 = "root/stray.png".into()).contains("entry root/stray.png"));
        assert!(message(|e| e[0].0 = "root/Beta/character01/x.gif".into()).contains("a .png file"));
        let clash = |e: &mut Vec<(String, Vec<u8>)>| e.iter_mut().for_each(|(n, _)| *n = n.replace("Beta", "Gamma"));
        assert!(message(clash).contains("Gamma/character01"));
        assert!(read(|e| e.push(("__MACOSX/x".into(), vec![]))).is_ok());
    }

    /// Issue 11, 10: escape bytes of names neither reach a message nor, as names of classes, anybody else.
    #[test]
    fn escape_bytes_of_entries_go_nowhere() {
        let evil = "B\u{1b}]0;gone\u{7}eta";
        let rename = |e: &mut Vec<(String, Vec<u8>)>| e.iter_mut().for_each(|(n, _)| *n = n.replace("Beta", evil));
        let spoil = |n: usize| {
            move |e: &mut Vec<(String, Vec<u8>)>| {
                e[n].1.truncate(60);
                e[n].0 = e[n].0.replace("character01", "character\u{1b}[31m");
                for i in 0..3 {
                    e[i].0 = e[n].0.replace(".png", &format!("{i}.png"));
                }
            }
        };
        let errors = [
            read(rename).expect_err("a class that moves the cursor"),
            read(spoil(1)).unwrap_err(),
            read(|e| e[0].0 = format!("root/{evil}.png")).unwrap_err(),
            read(|e| e[0].0 = format!("root/Beta/character01/{evil}")).unwrap_err(),
            read(|e| drop(e.splice(..3, [(format!("root/Beta/{evil}/1.png"), rows(1))]))).unwrap_err(),
        ];
        for error in errors {
            let message = error.to_string();
            assert!(!message.contains(char::is_control) && message.contains("\\u{1b}"), "{message:?}");
        }
    }

    #[test]
    fn no_archive_at_all() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read_omniglot_zips(folder.path()), Err(DataError::Io { .. })));
        for zip in ZIPS {
            std::fs::write(folder.path().join(zip), b"PK, not really").unwrap();
        }
        assert!(read_omniglot_zips(folder.path()).unwrap_err().to_string().contains("a zip archive"));
    }

    #[test]
    fn averaging_is_exact() {
        assert_eq!(shrink(&[255; DRAWN * DRAWN]), [255; DIM]);
        assert_eq!(shrink(&[0; DRAWN * DRAWN]), [0; DIM]);
        // One source pixel: column 3 belongs to output column 0 for 3/4 of its width, to column 1 for 1/4.
        let mut dot = [0; DRAWN * DRAWN];
        dot[3] = 255;
        let image = shrink(&dot);
        let share = 255.0 / (3.75 * 3.75);
        assert_eq!(image[0], (share * 0.75_f64).round() as u8);
        assert_eq!(image[1], (share * 0.25_f64).round() as u8);
        assert!(image[2..].iter().all(|p| *p == 0));
        // Against the definition in real numbers.
        let noise: Vec<u8> = (0..DRAWN * DRAWN).map(|i| ((i * 7919) % 256) as u8).collect();
        for (i, pixel) in shrink(&noise).iter().enumerate() {
            let part = |out: usize, source: usize| {
                let (low, high) = (3.75 * out as f64, 3.75 * (out + 1) as f64);
                (high.min(source as f64 + 1.0) - low.max(source as f64)).max(0.0)
            };
            let mut mean = 0.0;
            for y in 0..DRAWN {
                for x in 0..DRAWN {
                    mean += part(i / SIDE, y) * part(i % SIDE, x) * f64::from(noise[y * DRAWN + x]) / (3.75 * 3.75);
                }
            }
            assert!((mean - f64::from(*pixel)).abs() <= 0.5 + 1e-9, "{i}");
        }
    }

    /// Five training and two test images; image `i` has level `i / 10` in the second pixel of its first row.
    fn tiny_chardata(scale: f64, edit: impl Fn(&mut Vec<Vec<u8>>)) -> Result<Dataset, DataError> {
        let columns = |first: usize, count: usize| -> Vec<f64> {
            let mut values = vec![0.0; DIM * count];
            for i in 0..count {
                // Column-major: row 0, column 1 is at 28.
                values[i * DIM + SIDE] = (first + i) as f64 / 10.0 * scale;
                values[i * DIM + DIM - 1] = scale;
            }
            values
        };
        let hot = |first: usize, count: usize| -> Vec<f64> {
            (0..count * ALPHABETS).map(|v| f64::from(v % ALPHABETS == first + v / ALPHABETS)).collect()
        };
        let mut elements = vec![
            make::compressed(&make::doubles("data", 784, 5, &columns(0, 5))),
            make::doubles("testdata", 784, 2, &columns(5, 2)),
            make::compressed(&make::doubles("target", 50, 5, &hot(0, 5))),
            make::doubles("testtarget", 50, 2, &hot(5, 2)),
        ];
        edit(&mut elements);
        chardata(&make::file(&elements), Path::new(CHARDATA), [5, 2], 1)
    }

    #[test]
    fn chardata_is_turned_upright() {
        for scale in [1.0, 255.0] {
            let data = tiny_chardata(scale, |_| {}).unwrap();
            assert_eq!([data.train.count(), data.valid.count(), data.test.count()], [4, 1, 2]);
            let mut labels = Vec::new();
            for images in [&data.train, &data.valid, &data.test] {
                for i in 0..images.count() {
                    let (image, label) = (images.image(i).unwrap(), images.label(i).unwrap());
                    assert_eq!(image[1], (f64::from(label) * 25.5).round() as u8);
                    assert_eq!((image[DIM - 1], image[SIDE]), (255, 0));
                    labels.push(label);
                }
            }
            labels.sort_unstable();
            assert_eq!(labels, [0, 1, 2, 3, 4, 5, 6]);
        }
        assert_eq!(tiny_chardata(1.0, |e| drop(e.drain(2..))).unwrap().train.labels(), None);
    }

    /// Issue 11, 8: one level beyond 1 by a rounding decided for the whole variable, and each variable for itself.
    #[test]
    fn one_level_does_not_choose_the_scale() {
        let whole = tiny_chardata(1.0, |_| {}).unwrap();
        // Test images as they are, but for the level of one pixel.
        let with = |level: f64, scale: f64| {
            tiny_chardata(scale, |elements| {
                let mut values = vec![0.0; 2 * DIM];
                for i in 0..2 {
                    values[i * DIM + SIDE] = (5 + i) as f64 / 10.0 * scale;
                    values[i * DIM + DIM - 1] = scale;
                }
                values[DIM - 1] = level;
                elements[1] = make::doubles("testdata", 784, 2, &values);
            })
        };
        assert_eq!(with(1.0000001, 1.0).unwrap(), whole);
        assert_eq!(with(f64::from(1.0f32 + f32::EPSILON), 1.0).unwrap(), whole);
        assert_eq!(with(255.00001, 255.0).unwrap(), whole);
        // What no rounding explains is an error, and says where.
        for level in [1.1, 2.0, 200.0] {
            let message = with(level, 1.0).unwrap_err().to_string();
            assert!(message.contains("variable testdata, row 783, column 0"), "{message}");
            assert!(message.contains("from 0 to 1") && message.ends_with(&format!("found {level}")), "{message}");
        }
    }

    /// Issue 11, 8: dark test images among levels to 255 are dark, not stretched to white.
    #[test]
    fn variables_share_their_scale() {
        let dark = |elements: &mut Vec<Vec<u8>>| {
            elements[1] = make::doubles("testdata", 784, 2, &[vec![1.0; DIM], vec![0.0; DIM]].concat());
        };
        // Enough ink beyond 1 in the training images to tell.
        let bright = |elements: &mut Vec<Vec<u8>>| {
            dark(elements);
            elements[0] = make::doubles("data", 784, 5, &[200.0; 5 * DIM]);
        };
        let data = tiny_chardata(255.0, bright).unwrap();
        assert!(data.train.pixels().iter().all(|p| *p == 200));
        assert!(data.test.pixels().iter().all(|p| *p <= 1) && data.test.pixels().contains(&1));
        // The same levels among levels to 1 are white.
        assert!(tiny_chardata(1.0, dark).unwrap().test.pixels().contains(&255));
    }

    #[test]
    fn broken_chardata() {
        let message = |edit: &dyn Fn(&mut Vec<Vec<u8>>)| tiny_chardata(1.0, edit).unwrap_err().to_string();
        assert!(message(&|e| drop(e.remove(1))).contains("variable testdata"));
        assert!(message(&|e| e[1] = make::doubles("testdata", 784, 1, &[0.0; 784])).contains("found [784, 1]"));
        assert!(message(&|e| e[1] = make::doubles("testdata", 784, 2, &[f64::NAN; 1568])).contains("grey level"));
        assert!(message(&|e| e[1] = make::doubles("testdata", 784, 2, &[-0.1; 1568])).contains("grey level"));
        assert!(message(&|e| e[3] = make::doubles("testtarget", 50, 2, &[1.0; 100])).contains("50 non-zero values"));
    }
}

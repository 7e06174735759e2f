//! CelebA: faces of celebrities with forty attributes, as 64x64 images in red, green and blue.
//!
//! Liu, Luo, Wang and Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015. Its licence forbids others to pass
//! the files on: they are read where somebody has put them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use zip::ZipArchive;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

use crate::cache::kept;
use crate::error::At;
use crate::files::read_limited;
use crate::{Attributes, DataError, Dataset, DatasetEntry, FileSpec, Form, Images, PixelKind, Split};

const SIDE: usize = 64;
const CHANNELS: usize = 3;
const DIM: usize = SIDE * SIDE * CHANNELS;
/// Of the aligned image, [width, height].
const FULL: [usize; 2] = [178, 218];
/// The square that is kept: its side, and the first [column, row].
const CROP: usize = 148;
const CORNER: [usize; 2] = [15, 40];

const ARCHIVE: &str = "img_align_celeba.zip";
const FOLDER: &str = "img_align_celeba/";
const ATTRIBUTES: &str = "list_attr_celeba.txt";
const PARTITION: &str = "list_eval_partition.txt";

/// The original images have about 7 kB, 202,599 of them; the list of their attributes has 27 MB.
const MAX_IMAGE: u64 = 1 << 20;
const MAX_LIST: u64 = 1 << 26;
const MAX_ENTRIES: usize = 1 << 19;
/// So many files are in memory at a time.
const CHUNK: usize = 512;

/// What is kept in the cache, and in which file. Another way of making it needs another text.
const KEPT: &str = "images-64.bin";
const MADE: &str = "celeba: square of 148 at (15, 40), area average to 64, zune-jpeg 0.5";

pub(super) fn entry() -> DatasetEntry {
    let form = |name, images| Form::cached(name, [images, ATTRIBUTES, PARTITION].map(FileSpec::provided).into(), read);
    let forms = vec![form("zip", ARCHIVE), form("folder", FOLDER)];
    let help = "200,000 faces with 40 attributes, or a part of them, 64x64 colour";
    DatasetEntry::of_files("celeba", help, forms).with_pixels(PixelKind::Colour)
}

/// Reads CelebA from `folder`: the aligned images, `img_align_celeba.zip` or the files in `img_align_celeba/`, and the
/// lists `list_attr_celeba.txt` and `list_eval_partition.txt`, all as they were published.
///
/// Of each image (178x218, JPEG) the square of side 148 whose first pixel is in column 15 and row 40 is averaged down
/// to 64x64 in red, green and blue: each value is the mean over the 2.3125 x 2.3125 source pixels that it covers,
/// rounded. Images of half the size (89x109) are accepted too, and half that square is taken of them.
///
/// The second list says which images are for training (0), validation (1) and testing (2); each split is in the order
/// of the first list. Its values become [`Attributes`]; there are no classes (see [`Dataset::with_attribute_classes`]).
///
/// The lists may name fewer images than were published, the same in both, and the archive may hold more of them; each
/// image that they name must be there.
///
/// This decodes all images. [`load`](crate::load) keeps the result in the cache (12,288 bytes for each image) and reads
/// that as long as the files are the same: by where they lie, their sizes and their times.
///
/// # Errors
/// [`DataError::Missing`] if files are missing; [`DataError::Io`] if one cannot be read; [`DataError::Format`], with
/// the line or the image, for lists that are malformed or do not name the same images, for values of attributes that
/// are not -1, 0 (unknown) or 1, and for images that are missing, damaged or of another size. What the decoder cannot
/// see is not refused: in a file of its own, bytes that are missing in the middle of an image whose end is there. In
/// an archive every image has a checksum.
pub fn read_celeba(folder: &Path) -> Result<Dataset, DataError> {
    entry().read(folder)
}

fn read(paths: &[PathBuf], cache: Option<&Path>) -> Result<Dataset, DataError> {
    let [images, attributes, partition] = paths else {
        return Err(DataError::argument("files of the data set", 3, paths.len()));
    };
    let splits = kept(cache, KEPT, MADE, paths, || read_all(images, attributes, partition))?;
    let name = images.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Dataset::new("celeba", format!("{name} + lists"), vec![], splits)
}

fn read_all(images: &Path, attributes: &Path, partition: &Path) -> Result<[Images; 3], DataError> {
    let (list, splits) = (read_text(attributes)?, read_text(partition)?);
    let at = At { path: attributes, format: "attributes" };
    let table = Table::parse(&list, at)?;
    let splits = table.splits(&splits, at, At { path: partition, format: "partition" })?;
    let mut store = Store::open(images)?;
    if let Some((line, file)) = table.lines.iter().zip(&table.files).find(|(_, file)| !store.has(file)) {
        return Err(at.bad(format!("line {line}"), format!("an image in {}", images.display()), format!("no {file}")));
    }
    let mut part = |split: Split| {
        let rows: Vec<usize> = (0..splits.len()).filter(|row| splits[*row] == split).collect();
        let mut pixels = Vec::with_capacity(rows.len() * DIM);
        for rows in rows.chunks(CHUNK) {
            let files: Vec<_> = rows.iter().map(|row| store.read(table.files[*row])).collect::<Result<_, _>>()?;
            // Collected in order, whatever the order of work; the first error in that order is reported.
            let decoded: Vec<Result<_, DataError>> =
                files.par_iter().map(|(bytes, place)| decode(bytes, place.at())).collect();
            for image in decoded {
                pixels.extend_from_slice(&image?);
            }
        }
        let attributes = table.attributes.select(&rows);
        Images::with_channels(SIDE, SIDE, CHANNELS, pixels, None)?.with_attributes(Some(attributes))
    };
    Ok([part(Split::Train)?, part(Split::Valid)?, part(Split::Test)?])
}

// ---- the lists

fn read_text(path: &Path) -> Result<String, DataError> {
    let bytes = read_limited(path, MAX_LIST)?;
    String::from_utf8(bytes).map_err(|e| At { path, format: "list" }.caused("characters", "a text", e))
}

/// The lines that are not blank, from 1, by their words.
fn lines(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.split_whitespace().collect::<Vec<_>>()));
    lines.filter(|(_, words)| !words.is_empty())
}

/// The list of attributes: row by row the line in which it stands, the image's file, and the values.
struct Table<'a> {
    lines: Vec<usize>,
    files: Vec<&'a str>,
    attributes: Attributes,
}

impl<'a> Table<'a> {
    /// First line: the number of rows. Second: the names of the attributes. Then, for each image, its file and -1 or 1
    /// (or 0: unknown) for each name.
    fn parse(text: &'a str, at: At<'_>) -> Result<Table<'a>, DataError> {
        let mut lines = lines(text);
        let head = lines.next().unwrap_or_default().1.join(" ");
        let count: usize = head.parse().map_err(|_| at.bad("line 1", "the number of images", format!("{head:?}")))?;
        let (line, names) = lines.next().unwrap_or_default();
        let names: Vec<String> = names.into_iter().map(String::from).collect();
        let named = |e| at.caused(format!("line {line}"), "names of attributes", e);
        Attributes::new(names.clone(), vec![]).map_err(named)?;

        let (mut numbers, mut files, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (line, words) in lines {
            let place = format!("line {line}");
            let (file, row) = (words[0], &words[1..]);
            // It becomes a part of a path.
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if file.starts_with('.') || !file.chars().all(plain) {
                return Err(at.bad(place, "the name of an image's file", file));
            }
            if row.len() != names.len() {
                let expected = format!("{} values, one for each name", names.len());
                return Err(at.bad(place, expected, row.len()));
            }
            for (value, name) in row.iter().zip(&names) {
                values.push(match *value {
                    "-1" => -1,
                    "0" => 0,
                    "1" => 1,
                    other => return Err(at.bad(format!("{place}, {name}"), "-1, 0 or 1", other)),
                });
            }
            numbers.push(line);
            files.push(file);
        }
        if count != files.len() {
            return Err(at.bad("line 1", format!("{}, the number of rows that follow", files.len()), count));
        }
        if count == 0 {
            return Err(at.bad("line 1", "at least 1 image", 0));
        }
        Ok(Table { lines: numbers, files, attributes: Attributes::new(names, values)? })
    }

    /// The split of each row, by the other list, which has an image's file and 0, 1 or 2 in each line.
    fn splits(&self, text: &str, own: At<'_>, at: At<'_>) -> Result<Vec<Split>, DataError> {
        let mut rows = HashMap::with_capacity(self.files.len());
        for (row, (file, line)) in self.files.iter().zip(&self.lines).enumerate() {
            if rows.insert(*file, row).is_some() {
                return Err(own.bad(format!("line {line}"), "each image once", format!("{file} again")));
            }
        }
        let list = |at: At<'_>| at.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut splits = vec![None; self.files.len()];
        for (line, words) in lines(text) {
            let place = format!("line {line}");
            let [file, number] = words[..] else {
                return Err(at.bad(place, "an image and its part, 0, 1 or 2", words.join(" ")));
            };
            let split = number.parse().ok().and_then(|number: usize| Split::ALL.get(number));
            let split = split.ok_or_else(|| at.bad(&place, "0 (train), 1 (valid) or 2 (test)", number))?;
            let row = rows.get(file);
            let row = row.ok_or_else(|| at.bad(&place, format!("an image with a row in {}", list(own)), file))?;
            if splits[*row].replace(*split).is_some() {
                return Err(at.bad(place, "each image once", format!("{file} again")));
            }
        }
        let found = splits.iter().zip(&self.files);
        let all = found.map(|(split, file)| {
            split.ok_or_else(|| at.bad("lines", format!("all images of {}", list(own)), format!("no {file}")))
        });
        all.collect()
    }
}

// ---- the images

/// Where the images are.
enum Store {
    /// An archive, and the entry of each file, in whatever folder it is there.
    Zip {
        path: PathBuf,
        archive: ZipArchive<BufReader<File>>,
        entries: HashMap<String, usize>,
    },
    Folder(PathBuf),
}

/// An image, for errors.
struct Place {
    path: PathBuf,
    format: &'static str,
    location: String,
}

impl Place {
    fn at(&self) -> (At<'_>, &str) {
        (At { path: &self.path, format: self.format }, &self.location)
    }
}

impl Store {
    fn open(path: &Path) -> Result<Store, DataError> {
        if path.is_dir() {
            return Ok(Store::Folder(path.to_path_buf()));
        }
        let at = At { path, format: "zip" };
        let file = File::open(path).map_err(DataError::io("open", path))?;
        let archive = ZipArchive::new(BufReader::new(file));
        let archive = archive.map_err(|e| at.caused("central directory", "a zip archive", e))?;
        if archive.len() > MAX_ENTRIES {
            return Err(at.bad("central directory", format!("at most {MAX_ENTRIES} entries"), archive.len()));
        }
        let mut entries = HashMap::with_capacity(archive.len());
        for index in 0..archive.len() {
            let name = archive.name_for_index(index).transpose();
            let name = name.map_err(|e| at.caused(format!("entry {index}"), "a readable name", e))?.unwrap_or_default();
            let file = name.rsplit('/').next().unwrap_or_default();
            // Folders, and what macOS adds to archives.
            if file.is_empty() || name.starts_with("__MACOSX/") {
                continue;
            }
            if entries.insert(file.to_string(), index).is_some() {
                return Err(at.bad(format!("entry {name}"), "each file once", format!("{file} again")));
            }
        }
        Ok(Store::Zip { path: path.to_path_buf(), archive, entries })
    }

    fn has(&self, file: &str) -> bool {
        match self {
            Store::Zip { entries, .. } => entries.contains_key(file),
            Store::Folder(path) => path.join(file).is_file(),
        }
    }

    /// The bytes of a file that is there.
    fn read(&mut self, file: &str) -> Result<(Vec<u8>, Place), DataError> {
        match self {
            Store::Zip { path, archive, entries } => {
                let place = Place { path: path.clone(), format: "zip", location: format!("entry {file}") };
                let (at, location) = place.at();
                let index = entries.get(file).copied().unwrap_or(usize::MAX);
                let entry = archive.by_index(index).map_err(|e| at.caused(location, "a readable entry", e))?;
                let mut bytes = Vec::new();
                let read = entry.take(MAX_IMAGE + 1).read_to_end(&mut bytes);
                read.map_err(|e| at.caused(location, "a readable entry", e))?;
                if bytes.len() as u64 > MAX_IMAGE {
                    return Err(at.bad(location, format!("at most {MAX_IMAGE} bytes"), "more"));
                }
                Ok((bytes, place))
            }
            Store::Folder(path) => {
                let path = path.join(file);
                let bytes = read_limited(&path, MAX_IMAGE)?;
                Ok((bytes, Place { path, format: "JPEG", location: "image".into() }))
            }
        }
    }
}

/// Decodes an image, and averages its square down.
fn decode(bytes: &[u8], (at, location): (At<'_>, &str)) -> Result<[u8; DIM], DataError> {
    // What is damaged is refused.
    let options = DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| at.caused(location, "a JPEG image", e))?;
    let size = decoder.info().map_or([0, 0], |info| [info.width, info.height].map(usize::from));
    let half = FULL.map(|side| side / 2);
    let Some(scale) = [(FULL, 1), (half, 2)].into_iter().find_map(|(s, scale)| (s == size).then_some(scale)) else {
        let show = |[width, height]: [usize; 2]| format!("{width}x{height}");
        return Err(at.bad(location, format!("{} or {} pixels", show(FULL), show(half)), show(size)));
    };
    let pixels = decoder.decode().map_err(|e| at.caused(location, "a JPEG image", e))?;
    let expected = size[0] * size[1] * CHANNELS;
    if pixels.len() != expected {
        return Err(at.bad(location, format!("{expected} values, red, green and blue"), pixels.len()));
    }
    Ok(shrink(&pixels, size[0], scale))
}

/// Area average of the square, rounded to the nearest level. A pixel of `image` `[rows, width, channels]` is `scale`
/// pixels of the full size wide.
///
/// In sixteenths of a full-size pixel all lengths are whole: an output pixel is 37 wide, a source pixel 16 or 32.
fn shrink(image: &[u8], width: usize, scale: usize) -> [u8; DIM] {
    const UNITS: usize = 16;
    const OUT: usize = CROP * UNITS / SIDE;
    const { assert!(OUT * SIDE == CROP * UNITS) };
    let unit = UNITS * scale;
    // The source pixels under an output pixel, in columns or rows, and how much of it each covers.
    let covers = |corner: usize, out: usize| {
        let start = corner * UNITS + out * OUT;
        let end = start + OUT;
        (start / unit..end.div_ceil(unit)).map(move |source| {
            let overlap = end.min((source + 1) * unit) - start.max(source * unit);
            (source, overlap as u32)
        })
    };
    let mut result = [0; DIM];
    for (i, pixel) in result.chunks_exact_mut(CHANNELS).enumerate() {
        let mut sums = [0; CHANNELS];
        for (y, high) in covers(CORNER[1], i / SIDE) {
            for (x, wide) in covers(CORNER[0], i % SIDE) {
                let source = &image[(y * width + x) * CHANNELS..][..CHANNELS];
                sums.iter_mut().zip(source).for_each(|(sum, level)| *sum += high * wide * u32::from(*level));
            }
        }
        const AREA: u32 = (OUT * OUT) as u32;
        pixel.iter_mut().zip(sums).for_each(|(level, sum)| *level = ((sum + AREA / 2) / AREA) as u8);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by the definition, in real numbers, one source pixel after the other.
    fn slow(image: &[u8], [width, height]: [usize; 2], scale: f64) -> Vec<f64> {
        let side = CROP as f64 / SIDE as f64;
        let overlap = |corner: usize, out: usize, source: usize| {
            let start = corner as f64 + out as f64 * side;
            let source = source as f64 * scale;
            ((start + side).min(source + scale) - start.max(source)).max(0.0) / side
        };
        let mut result = Vec::new();
        for i in 0..DIM {
            let (row, column, channel) = (i / CHANNELS / SIDE, i / CHANNELS % SIDE, i % CHANNELS);
            let mut mean = 0.0;
            for y in 0..height {
                let high = overlap(CORNER[1], row, y);
                if high > 0.0 {
                    for x in 0..width {
                        let level = f64::from(image[(y * width + x) * CHANNELS + channel]);
                        mean += high * overlap(CORNER[0], column, x) * level;
                    }
                }
            }
            result.push(mean);
        }
        result
    }

    #[test]
    fn the_square_is_averaged_exactly() {
        for ([width, height], scale) in [(FULL, 1), (FULL.map(|n| n / 2), 2)] {
            let noise = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
            let image: Vec<u8> = (0..width * height * CHANNELS).map(noise).collect();
            let found = shrink(&image, width, scale);
            for (i, mean) in slow(&image, [width, height], scale as f64).into_iter().enumerate() {
                assert!((f64::from(found[i]) - mean).abs() <= 0.5 + 1e-9, "value {i}: {} is not {mean}", found[i]);
            }
            assert_eq!(shrink(&vec![255; image.len()], width, scale), [255; DIM]);
        }
    }

    #[test]
    fn nothing_outside_the_square_matters() {
        let [width, height] = FULL;
        let inside = |x: usize, y: usize| (15..163).contains(&x) && (40..188).contains(&y);
        let marked = |hidden: u8, seen: u8| -> Vec<u8> {
            let pixel = |i: usize| if inside(i % width, i / width) { seen } else { hidden };
            (0..width * height).flat_map(|i| [pixel(i); CHANNELS]).collect()
        };
        assert_eq!(shrink(&marked(255, 0), width, 1), [0; DIM]);
        assert_eq!(shrink(&marked(0, 255), width, 1), [255; DIM]);
    }
}

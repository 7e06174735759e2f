//! What is slow to read, kept: the images of a data set in one file of the user's cache, which is checked whenever it
//! is read, and made again where it is damaged or no longer that of its sources.
//!
//! The file, all numbers little-endian: [`MAGIC`]; the key of the sources, 32 bytes; height, width, channels, bytes of
//! the names of attributes, images of train, valid and test, each u64; the names, each followed by a line feed; the
//! attributes `[images, names]` and the pixels `[images, height, width, channels]` of each split; the SHA-256 of all
//! this.

use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest as _, Sha256};

use crate::{Attributes, DataError, Images};

/// It ends with the version of the format.
const MAGIC: &[u8; 16] = b"gumbel images\n\0\x01";
const SUM: usize = 32;

type Key = [u8; SUM];

/// The images of train, valid and test that `make` makes of the files and folders `sources`: from the file `name` in
/// `folder` if it was written for them, else made, and written for the next time.
///
/// `made` says what is made of the sources: if it changes, what was kept before is stale. Labels are not kept. A file
/// that cannot be read or written is no error: then the images are made each time.
pub(crate) fn kept(
    folder: Option<&Path>,
    name: &str,
    made: &str,
    sources: &[PathBuf],
    make: impl FnOnce() -> Result<[Images; 3], DataError>,
) -> Result<[Images; 3], DataError> {
    let (Some(folder), Ok(key)) = (folder, key(made, sources)) else { return make() };
    if let Some(images) = read(&folder.join(name), &key) {
        return Ok(images);
    }
    let images = make()?;
    // If a source has changed meanwhile, nobody knows what was read.
    if self::key(made, sources).is_ok_and(|now| now == key) {
        write(folder, name, &key, &images).ok();
    }
    Ok(images)
}

/// The digest of where the sources lie, their sizes and times, and those of the files in folders.
fn key(made: &str, sources: &[PathBuf]) -> io::Result<Key> {
    let mut key = Sha256::new();
    let mut add = |name: &[u8], metadata: Option<&Metadata>| -> io::Result<()> {
        key.update((name.len() as u64).to_le_bytes());
        key.update(name);
        if let Some(metadata) = metadata {
            let time = metadata.modified()?;
            let sign = [u8::from(time < UNIX_EPOCH)];
            let distance = time.duration_since(UNIX_EPOCH).unwrap_or_else(|before| before.duration());
            key.update(metadata.len().to_le_bytes());
            key.update(sign);
            key.update(distance.as_nanos().to_le_bytes());
        }
        Ok(())
    };
    add(made.as_bytes(), None)?;
    for source in sources {
        let source = source.canonicalize()?;
        let metadata = source.metadata()?;
        add(source.as_os_str().as_encoded_bytes(), Some(&metadata))?;
        if metadata.is_dir() {
            let mut files = source.read_dir()?.collect::<io::Result<Vec<_>>>()?;
            files.sort_by_key(|file| file.file_name());
            // Not the metadata of the entry, which would be those of a link.
            files
                .iter()
                .try_for_each(|file| add(file.file_name().as_encoded_bytes(), Some(&file.path().metadata()?)))?;
        }
    }
    Ok(key.finalize().into())
}

/// A reader or writer with the digest of what went through it.
struct Summed<T> {
    inner: T,
    sum: Sha256,
}

impl<T> Summed<T> {
    fn new(inner: T) -> Self {
        Summed { inner, sum: Sha256::new() }
    }
}

impl<R: Read> Summed<R> {
    /// The next `count` bytes, which must be there: the caller knows the size of the file.
    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.inner.read_exact(&mut bytes).ok()?;
        self.sum.update(&bytes);
        Some(bytes)
    }
}

impl<W: Write> Summed<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.inner.write_all(bytes)
    }
}

/// What the file at `path` holds, if it is whole and was written for `key`.
fn read(path: &Path, key: &Key) -> Option<[Images; 3]> {
    let file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    let mut file = Summed::new(BufReader::new(file));
    if file.take(MAGIC.len())? != MAGIC || file.take(SUM)? != key {
        return None;
    }
    let mut number = || Some(u64::from_le_bytes(file.take(8)?.try_into().ok()?));
    let [height, width, channels, text] = [number()?, number()?, number()?, number()?];
    let counts = [number()?, number()?, number()?];
    let head = (MAGIC.len() + SUM + 7 * 8) as u64;
    // Nothing is believed, hence no memory is reserved, before the size of the file agrees.
    let mut rest = size.checked_sub(head)?.checked_sub(text)?.checked_sub(SUM as u64)?;
    let names = String::from_utf8(file.take(text.try_into().ok()?)?).ok()?;
    let names: Vec<String> = names.lines().map(String::from).collect();
    let dim = height.checked_mul(width)?.checked_mul(channels)?;
    for count in counts {
        rest = rest.checked_sub(count.checked_mul(dim.checked_add(names.len() as u64)?)?)?;
    }
    if rest > 0 {
        return None;
    }
    let mut parts = Vec::new();
    for count in counts {
        let values = file.take(count as usize * names.len())?;
        parts.push((values, file.take((count * dim) as usize)?));
    }
    let mut sum = [0; SUM];
    file.inner.read_exact(&mut sum).ok()?;
    if file.sum.finalize()[..] != sum {
        return None;
    }
    let images = parts.into_iter().map(|(values, pixels)| {
        let images = Images::with_channels(height as usize, width as usize, channels as usize, pixels, None).ok()?;
        let values = values.into_iter().map(|value| value as i8).collect();
        let attributes = (!names.is_empty()).then(|| Attributes::new(names.clone(), values)).transpose().ok()?;
        images.with_attributes(attributes).ok()
    });
    images.collect::<Option<Vec<_>>>()?.try_into().ok()
}

/// Writes `images` for `key`: the file is there whole, or not at all.
fn write(folder: &Path, name: &str, key: &Key, images: &[Images; 3]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let temporary = tempfile::Builder::new().prefix(".gumbel-").suffix(".tmp").tempfile_in(folder)?;
    let mut file = Summed::new(BufWriter::new(temporary.as_file()));
    let first = &images[0];
    let names = first.attributes().map_or(&[][..], Attributes::names);
    let names: String = names.iter().flat_map(|name| [name, "\n"]).collect();
    file.put(MAGIC)?;
    file.put(key)?;
    let sizes = [first.height(), first.width(), first.channels(), names.len()];
    for number in sizes.into_iter().chain(images.iter().map(Images::count)) {
        file.put(&(number as u64).to_le_bytes())?;
    }
    file.put(names.as_bytes())?;
    for images in images {
        let values = images.attributes().map_or(&[][..], Attributes::values);
        file.put(&values.iter().map(|value| *value as u8).collect::<Vec<_>>())?;
        file.put(images.pixels())?;
    }
    let sum = file.sum.clone().finalize();
    file.put(&sum)?;
    file.inner.flush()?;
    drop(file);
    temporary.as_file().sync_all()?;
    temporary.persist(folder.join(name))?;
    // The renaming itself lives in the folder; not every system can sync one.
    File::open(folder).and_then(|folder| folder.sync_all()).ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn images(first: u8) -> [Images; 3] {
        [4, 0, 1].map(|count| {
            let pixels = (0..count * 6).map(|i| first + i).collect();
            let values = (0..count * 2).map(|i| [1, 0, -1][usize::from(i) % 3]).collect();
            let attributes = Attributes::new(vec!["a".into(), "b".into()], values).unwrap();
            Images::with_channels(1, 2, 3, pixels, None).unwrap().with_attributes(Some(attributes)).unwrap()
        })
    }

    #[test]
    fn what_is_kept_is_read_until_anything_changes() {
        let root = tempfile::tempdir().unwrap();
        let (source, folder) = (root.path().join("source"), root.path().join("folder"));
        fs::write(&source, "1").unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("part"), "1").unwrap();
        let sources = [source.clone(), folder.clone()];
        let cache = root.path().join("new/cache");
        let made = Cell::new(0);
        // Whether it was made, and what came.
        let get = |what: &str, first: u8| {
            let before = made.get();
            let images = kept(Some(&cache), "images", what, &sources, || {
                made.set(before + 1);
                Ok(images(first))
            });
            (made.get() > before, images.unwrap())
        };
        assert_eq!(get("x", 1), (true, images(1)));
        assert_eq!(get("x", 2), (false, images(1)));
        assert_eq!(get("y", 3), (true, images(3)));
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(&source, "12").unwrap(),
            &|| fs::write(folder.join("part"), "12").unwrap(),
            &|| fs::write(folder.join("other"), "").unwrap(),
            &|| {
                let part = File::options().write(true).open(folder.join("part")).unwrap();
                part.set_modified(UNIX_EPOCH - std::time::Duration::from_secs(1)).unwrap();
            },
        ];
        for (i, change) in changes.into_iter().enumerate() {
            assert!(!get("y", 9).0);
            change();
            let first = 20 + i as u8;
            assert_eq!(get("y", first), (true, images(first)), "change {i}");
        }
        assert_eq!(cache.read_dir().unwrap().count(), 1, "temporary files are left");
        // A source that is changed while it is read leaves nothing to be believed.
        let path = cache.join("images");
        fs::remove_file(&path).unwrap();
        let change = || fs::write(&source, "123").map(|()| images(0)).map_err(DataError::io("write", &source));
        kept(Some(&cache), "images", "y", &sources, change).unwrap();
        assert!(!path.exists());
        // Errors come through, and are not kept.
        let failed = kept(Some(&cache), "images", "y", &sources, || Err(DataError::argument("x", "y", "z")));
        assert!(failed.is_err() && !path.exists());
        // No folder, or one that cannot be one: made each time.
        for folder in [None, Some(&*source)] {
            assert_eq!(kept(folder, "images", "y", &sources, || Ok(images(7))).unwrap(), images(7));
        }
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("images");
        let key = [3; SUM];
        write(root.path(), "images", &key, &images(5)).unwrap();
        let whole = fs::read(&path).unwrap();
        assert_eq!(read(&path, &key), Some(images(5)));
        assert_eq!(read(&path, &[4; SUM]), None);
        for at in 0..whole.len() {
            for flip in [1, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                fs::write(&path, &bytes).unwrap();
                assert_eq!(read(&path, &key), None, "byte {at}");
            }
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(read(&path, &key), None, "{at} bytes");
        }
        fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
        assert_eq!(read(&path, &key), None);
    }
}

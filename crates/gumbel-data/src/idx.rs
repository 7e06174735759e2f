//! The IDX format of MNIST: a big-endian header, then bytes.
//!
//! Layout: two zero bytes, a type byte (8 = unsigned byte), the number of dimensions, each dimension as a big-endian
//! `u32`, then the values in row-major order. Files may be gzip-compressed; the content decides, not the name.

use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::DataError;
use crate::error::At;
use crate::files::read_limited;

/// Five times what the largest file of this crate's data sets holds; stops decompression bombs.
const MAX_VALUES: usize = 1 << 28;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// An array of unsigned bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    /// Size of each dimension.
    pub dims: Vec<usize>,
    /// Values, row-major; as many as the product of `dims`.
    pub values: Vec<u8>,
}

/// Reads an IDX file of unsigned bytes, gzip-compressed or not.
///
/// # Errors
/// [`DataError::Io`] if the file cannot be read, [`DataError::Format`] for anything that [`parse_idx`] refuses.
pub fn read_idx(path: &Path) -> Result<Idx, DataError> {
    parse_idx(&read_limited(path, MAX_VALUES as u64)?, path)
}

/// Parses the bytes of an IDX file, gzip-compressed or not; `path` is for messages only.
///
/// # Errors
/// [`DataError::Format`] for a wrong magic number or type, no or more than four dimensions, missing or surplus bytes,
/// or a damaged gzip stream. No more memory is used than the bytes at hand justify, whatever the header claims.
pub fn parse_idx(bytes: &[u8], path: &Path) -> Result<Idx, DataError> {
    let at = At { path, format: "IDX" };
    if bytes.starts_with(&GZIP_MAGIC) {
        // Multi: bytes after the end of the first stream are then read, and refused if they are garbage.
        parse(MultiGzDecoder::new(bytes), at)
    } else {
        parse(bytes, at)
    }
}

fn parse(mut reader: impl Read, at: At<'_>) -> Result<Idx, DataError> {
    let mut offset = 0;
    let mut word = |field: &str| -> Result<[u8; 4], DataError> {
        let mut buffer = Vec::with_capacity(4);
        (&mut reader)
            .take(4)
            .read_to_end(&mut buffer)
            .map_err(|e| at.caused(place(offset, field), "readable data", e))?;
        let word = <[u8; 4]>::try_from(buffer.as_slice())
            .map_err(|_| at.bad(place(offset, field), "4 bytes", format!("{} (end of data)", buffer.len())))?;
        offset += 4;
        Ok(word)
    };
    let magic = word("magic number")?;
    let [0, 0, kind, rank] = magic else {
        return Err(at.bad(place(0, "magic number"), "two zero bytes", format!("{magic:02x?}")));
    };
    if kind != 8 {
        return Err(at.bad(place(2, "type"), "8 (unsigned byte)", kind));
    }
    if !(1..=4).contains(&rank) {
        return Err(at.bad(place(3, "number of dimensions"), "1 to 4", rank));
    }
    let mut dims = Vec::with_capacity(rank.into());
    for i in 0..rank {
        dims.push(u32::from_be_bytes(word(&format!("dimension {i}"))?) as usize);
    }
    let total = dims.iter().try_fold(1, |n: usize, d| n.checked_mul(*d)).filter(|n| *n <= MAX_VALUES);
    let total = total
        .ok_or_else(|| at.bad(place(4, "dimensions"), format!("at most {MAX_VALUES} values"), format!("{dims:?}")))?;

    // `read_to_end` grows with what arrives, so a false claim costs no memory.
    let mut values = Vec::new();
    let end = |read: usize| format!("offset {}, values", offset + read);
    if let Err(error) = (&mut reader).take(total as u64).read_to_end(&mut values) {
        return Err(at.caused(end(values.len()), format!("{total} values"), error));
    }
    if values.len() < total {
        return Err(at.bad(end(values.len()), format!("{total} values"), format!("{} (end of data)", values.len())));
    }
    match reader.read(&mut [0]) {
        Ok(0) => Ok(Idx { dims, values }),
        Ok(_) => Err(at.bad(end(total), "the end of the data", "more bytes")),
        Err(error) => Err(at.caused(end(total), "the end of the data", error)),
    }
}

fn place(offset: usize, field: &str) -> String {
    format!("offset {offset}, {field}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn file(dims: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn parse(bytes: &[u8]) -> Result<Idx, DataError> {
        parse_idx(bytes, Path::new("x.idx"))
    }

    fn message(bytes: &[u8]) -> String {
        parse(bytes).unwrap_err().to_string()
    }

    #[test]
    fn good_files() {
        let good = file(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        let expected = Idx { dims: vec![2, 3], values: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(parse(&good).unwrap(), expected);
        assert_eq!(parse(&gzip(&good)).unwrap(), expected);
        assert!(parse(&file(&[0, 28, 28], &[])).unwrap().values.is_empty());
    }

    #[test]
    fn broken_files_say_where() {
        let good = file(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(message(&[]), "x.idx (IDX, offset 0, magic number): expected 4 bytes, found 0 (end of data)");
        assert_eq!(message(&good[..6]), "x.idx (IDX, offset 4, dimension 0): expected 4 bytes, found 2 (end of data)");
        assert_eq!(message(&good[..15]), "x.idx (IDX, offset 15, values): expected 6 values, found 3 (end of data)");
        assert!(message(b"PK\x03\x04").contains("magic number"));
        assert!(message(&[0, 0, 13, 1, 0, 0, 0, 0]).contains("expected 8 (unsigned byte), found 13"));
        assert!(message(&[0, 0, 8, 0]).contains("number of dimensions"));
        assert!(message(&[0, 0, 8, 200]).contains("number of dimensions"));
        let mut long = good.clone();
        long.push(0);
        assert!(message(&long).contains("expected the end of the data, found more bytes"));
        assert!(message(&gzip(&long)).contains("more bytes"));
    }

    #[test]
    fn huge_claims_are_refused_cheaply() {
        assert!(message(&file(&[u32::MAX; 4], &[])).contains("at most"));
        assert!(message(&file(&[1 << 29], &[])).contains("at most"));
        assert!(message(&file(&[1 << 28], &[1, 2])).contains("found 2 (end of data)"));
        assert!(message(&gzip(&file(&[1 << 28], &[1, 2]))).contains("found 2 (end of data)"));
    }

    #[test]
    fn damaged_gzip() {
        let packed = gzip(&file(&[2, 500], &[7; 1000]));
        for cut in [2, 9, 15, packed.len() - 9, packed.len() - 1] {
            assert!(matches!(parse(&packed[..cut]), Err(DataError::Format { .. })), "cut at {cut}");
        }
        let mut flipped = packed.clone();
        let crc = packed.len() - 6;
        flipped[crc] ^= 1;
        assert!(parse(&flipped).is_err());
        let mut trailing = packed;
        trailing.extend(b"garbage");
        assert!(parse(&trailing).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..64),
            header in any::<bool>(),
        ) {
            if header && bytes.len() > 3 {
                bytes[..3].copy_from_slice(&[0, 0, 8]);
            }
            let _ = parse(&bytes);
            let _ = parse(&gzip(&bytes));
            bytes.splice(0..0, [0x1f, 0x8b, 8, 0]);
            let _ = parse(&bytes);
        }
    }
}

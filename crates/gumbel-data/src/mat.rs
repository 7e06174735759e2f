//! As much of MATLAB's version 5 format as `chardata.mat` needs: real, full, numeric matrices.
//!
//! Layout: a 128-byte header whose last four bytes are the version and the byte order, then elements. An element is a
//! tag (type and length; lengths up to four bytes may share one word with the type) and its data, padded to eight
//! bytes. A matrix element holds sub-elements: flags, dimensions, name, values. A compressed element holds one zlib
//! stream with one element. Values may be stored in a smaller type than the matrix has.

use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use crate::DataError;
use crate::error::At;

const HEADER: usize = 128;
/// Twice the largest variable of `chardata.mat`; stops decompression bombs.
const MAX_INFLATED: u64 = 1 << 28;
const MI_INT8: u32 = 1;
const MI_INT32: u32 = 5;
const MI_UINT32: u32 = 6;
const MI_MATRIX: u32 = 14;
const MI_COMPRESSED: u32 = 15;

/// A real matrix, column-major as in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Its variable's name.
    pub name: String,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    kind: Number,
    big_endian: bool,
    bytes: Vec<u8>,
}

impl Matrix {
    /// The values, column after column.
    pub fn values(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.bytes.chunks_exact(self.kind.size()).map(|bytes| self.kind.value(bytes, self.big_endian))
    }
}

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Int8,
    Uint8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Single,
    Double,
    Int64,
    Uint64,
}

impl Number {
    fn from_tag(tag: u32) -> Option<Number> {
        Some(match tag {
            1 => Number::Int8,
            2 => Number::Uint8,
            3 => Number::Int16,
            4 => Number::Uint16,
            5 => Number::Int32,
            6 => Number::Uint32,
            7 => Number::Single,
            9 => Number::Double,
            12 => Number::Int64,
            13 => Number::Uint64,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Number::Int8 | Number::Uint8 => 1,
            Number::Int16 | Number::Uint16 => 2,
            Number::Int32 | Number::Uint32 | Number::Single => 4,
            Number::Double | Number::Int64 | Number::Uint64 => 8,
        }
    }

    /// The number in `bytes`, of which there are `self.size()`.
    fn value(self, bytes: &[u8], big_endian: bool) -> f64 {
        // The bits as an unsigned integer, most significant byte first.
        let join = |bits: u64, byte: &u8| bits << 8 | u64::from(*byte);
        let bits = if big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) };
        match self {
            Number::Int8 => f64::from(bits as i8),
            Number::Int16 => f64::from(bits as i16),
            Number::Int32 => f64::from(bits as i32),
            Number::Int64 => bits as i64 as f64,
            Number::Uint8 | Number::Uint16 | Number::Uint32 | Number::Uint64 => bits as f64,
            Number::Single => f64::from(f32::from_bits(bits as u32)),
            Number::Double => f64::from_bits(bits),
        }
    }
}

/// Parses the matrices called `wanted` (each, if present) from the bytes of a file; `path` is for messages only.
///
/// Other variables are skipped, of whatever class.
///
/// # Errors
/// [`DataError::Format`] if the file is not a MATLAB 5 file (newer, HDF5-based ones included), is truncated or
/// damaged, or a wanted variable is there twice or is not a real full numeric matrix with two dimensions.
pub fn parse_mat(bytes: &[u8], path: &Path, wanted: &[&str]) -> Result<Vec<Matrix>, DataError> {
    let at = At { path, format: "MATLAB 5" };
    let big_endian = match bytes.get(HEADER - 4..HEADER) {
        Some([0, 1, b'I', b'M']) => false,
        Some([1, 0, b'M', b'I']) => true,
        Some(other) => {
            return Err(at.bad("offset 124, version", "version 0x0100 and byte order", format!("{other:02x?}")));
        }
        None => return Err(at.bad("header", format!("{HEADER} bytes"), bytes.len())),
    };
    let mut found: Vec<Matrix> = Vec::new();
    let mut cursor = Cursor { bytes, offset: HEADER, base: String::new(), big_endian, at };
    while cursor.offset < bytes.len() {
        let base = cursor.place("element");
        let (tag, data) = cursor.element("element")?;
        let matrix = if tag == MI_COMPRESSED {
            let inflated = inflate(data, &base, at)?;
            let base = format!("{base}, decompressed ");
            let mut inner = Cursor { bytes: &inflated, offset: 0, base, big_endian, at };
            match inner.element("element")? {
                (MI_MATRIX, data) => inner.within(data).matrix(wanted)?,
                _ => None,
            }
        } else if tag == MI_MATRIX {
            cursor.within(data).matrix(wanted)?
        } else {
            None
        };
        // Also a bound of the memory: each matrix may be as large as `MAX_INFLATED`.
        if let Some(again) = matrix.iter().find(|m| found.iter().any(|f| f.name == m.name)) {
            return Err(at.bad(base, format!("one variable {}", again.name), "a second one"));
        }
        found.extend(matrix);
    }
    Ok(found)
}

fn inflate(data: &[u8], place: &str, at: At<'_>) -> Result<Vec<u8>, DataError> {
    let mut inflated = Vec::new();
    ZlibDecoder::new(data)
        .take(MAX_INFLATED + 1)
        .read_to_end(&mut inflated)
        .map_err(|e| at.caused(place, "a zlib stream", e))?;
    if inflated.len() as u64 > MAX_INFLATED {
        return Err(at.bad(place, format!("at most {MAX_INFLATED} decompressed bytes"), "more"));
    }
    Ok(inflated)
}

/// A position in a sequence of elements.
struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
    /// Where these bytes are in the file, for messages.
    base: String,
    big_endian: bool,
    at: At<'a>,
}

impl<'a> Cursor<'a> {
    fn place(&self, field: &str) -> String {
        format!("{}offset {}, {field}", self.base, self.offset)
    }

    /// The sub-elements in `data`, which is a part of these bytes just before the present offset.
    fn within(&self, data: &'a [u8]) -> Cursor<'a> {
        let base = format!("{}matrix before offset {}, ", self.base, self.offset);
        Cursor { bytes: data, offset: 0, base, big_endian: self.big_endian, at: self.at }
    }

    fn word(&mut self, field: &str) -> Result<u32, DataError> {
        let word = self.bytes.get(self.offset..).and_then(|rest| rest.first_chunk::<4>());
        let word = word.ok_or_else(|| self.at.bad(self.place(field), "4 bytes", "the end of the data"))?;
        self.offset += 4;
        Ok(if self.big_endian { u32::from_be_bytes(*word) } else { u32::from_le_bytes(*word) })
    }

    /// The next element's type and data.
    fn element(&mut self, field: &str) -> Result<(u32, &'a [u8]), DataError> {
        let place = self.place(field);
        let tag = self.word(field)?;
        let small = (tag >> 16) as usize;
        let (kind, length, stored) = if small > 0 {
            if small > 4 {
                return Err(self.at.bad(place, "a small element of at most 4 bytes", small));
            }
            (tag & 0xffff, small, 4)
        } else {
            let length = self.word(field)? as usize;
            // Compressed elements are not padded.
            (tag, length, if tag == MI_COMPRESSED { length } else { length.next_multiple_of(8) })
        };
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let data =
            rest.get(..length).ok_or_else(|| self.at.bad(place, format!("{length} bytes of data"), rest.len()))?;
        // Some writers leave out the last padding.
        self.offset += stored.min(rest.len());
        Ok((kind, data))
    }

    fn expect(&mut self, field: &'static str, kind: u32) -> Result<&'a [u8], DataError> {
        let place = self.place(field);
        match self.element(field)? {
            (found, data) if found == kind => Ok(data),
            (found, _) => Err(self.at.bad(place, format!("an element of type {kind}"), format!("type {found}"))),
        }
    }

    /// The matrix whose sub-elements start here, if it is wanted.
    fn matrix(mut self, wanted: &[&str]) -> Result<Option<Matrix>, DataError> {
        let flags = self.expect("array flags", MI_UINT32)?;
        let dims = self.expect("dimensions", MI_INT32)?;
        let name = String::from_utf8_lossy(self.expect("name", MI_INT8)?).into_owned();
        if !wanted.contains(&name.as_str()) {
            return Ok(None);
        }
        let integer = |bytes: &[u8]| Number::Uint32.value(bytes, self.big_endian) as u32;
        let flags = flags.get(..4).map(integer).unwrap_or_default();
        let (class, complex) = (flags & 0xff, flags & 0x800 != 0);
        if !(6..=15).contains(&class) || complex {
            let found = format!("class {class}{}", if complex { ", complex" } else { "" });
            return Err(self.at.bad(format!("variable {name}"), "a real full numeric matrix (class 6 to 15)", found));
        }
        let dims: Vec<usize> = dims.chunks_exact(4).map(|d| integer(d) as usize).collect();
        let [rows, columns] = dims[..] else {
            return Err(self.at.bad(format!("variable {name}"), "two dimensions", format!("{dims:?}")));
        };
        let (tag, data) = self.element("values")?;
        let kind = Number::from_tag(tag).ok_or_else(|| {
            self.at.bad(format!("variable {name}"), "values of a numeric type", format!("type {tag}"))
        })?;
        let expected = rows.checked_mul(columns).and_then(|n| n.checked_mul(kind.size()));
        if expected != Some(data.len()) {
            let expected = format!("{rows} x {columns} values of {} bytes", kind.size());
            return Err(self.at.bad(format!("variable {name}"), expected, format!("{} bytes", data.len())));
        }
        Ok(Some(Matrix { name, rows, columns, kind, big_endian: self.big_endian, bytes: data.to_vec() }))
    }
}

/// Files made byte by byte, for the tests of this crate.
#[cfg(test)]
pub(crate) mod make {
    use std::io::Write;

    use super::*;

    /// Header and elements, little-endian.
    pub fn file(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![b' '; HEADER - 4];
        bytes.extend([0, 1, b'I', b'M']);
        bytes.extend(elements.concat());
        bytes
    }

    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A matrix element of the class, its values stored as type `kind`.
    pub fn matrix(name: &str, rows: u32, columns: u32, class: u32, kind: u32, values: &[u8]) -> Vec<u8> {
        let flags = [class.to_le_bytes(), [0; 4]].concat();
        let dims = [rows.to_le_bytes(), columns.to_le_bytes()].concat();
        // Short names are small elements, as MATLAB writes them.
        let name = if (1..=4).contains(&name.len()) {
            let mut small = (MI_INT8 | (name.len() as u32) << 16).to_le_bytes().to_vec();
            small.extend(name.as_bytes());
            small.resize(8, 0);
            small
        } else {
            element(MI_INT8, name.as_bytes())
        };
        let parts = [element(MI_UINT32, &flags), element(MI_INT32, &dims), name, element(kind, values)];
        element(MI_MATRIX, &parts.concat())
    }

    pub fn doubles(name: &str, rows: u32, columns: u32, values: &[f64]) -> Vec<u8> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        matrix(name, rows, columns, 6, 9, &bytes)
    }

    pub fn compressed(inner: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(inner).unwrap();
        let data = encoder.finish().unwrap();
        let mut bytes = [MI_COMPRESSED.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::make::{compressed, doubles, file, matrix};
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<Vec<Matrix>, DataError> {
        parse_mat(bytes, Path::new("x.mat"), &["data", "target"])
    }

    fn message(bytes: &[u8]) -> String {
        parse(bytes).unwrap_err().to_string()
    }

    fn values(matrix: &Matrix) -> Vec<f64> {
        matrix.values().collect()
    }

    #[test]
    fn good_files() {
        let target = matrix("target", 1, 3, 9, 2, &[1, 0, 7]);
        let bytes = file(&[
            compressed(&doubles("data", 2, 2, &[0.0, 0.25, -1.5, 1e300])),
            doubles("other", 1, 1, &[9.0]),
            target.clone(),
        ]);
        let found = parse(&bytes).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].rows, found[0].columns), ("data", 2, 2));
        assert_eq!(values(&found[0]), [0.0, 0.25, -1.5, 1e300]);
        assert_eq!(values(&found[1]), [1.0, 0.0, 7.0]);
        assert_eq!(parse(&file(&[])).unwrap(), []);
        // Singles; and doubles that are stored in a smaller type, as MATLAB does with whole numbers.
        let single = matrix("data", 1, 2, 7, 7, &[0.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
        assert_eq!(values(&parse(&file(&[single])).unwrap()[0]), [0.5, -2.0]);
        let packed = matrix("data", 1, 2, 6, 3, &[(-3i16).to_le_bytes(), 300i16.to_le_bytes()].concat());
        assert_eq!(values(&parse(&file(&[packed])).unwrap()[0]), [-3.0, 300.0]);
    }

    #[test]
    fn big_endian() {
        let element = |kind: u32, data: &[u8]| {
            let mut bytes = [kind.to_be_bytes(), (data.len() as u32).to_be_bytes()].concat();
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes
        };
        let parts = [
            element(MI_UINT32, &[0, 0, 0, 6, 0, 0, 0, 0]),
            element(MI_INT32, &[0, 0, 0, 1, 0, 0, 0, 1]),
            element(MI_INT8, b"data"),
            element(9, &0.75f64.to_be_bytes()),
        ];
        let mut bytes = vec![0; HEADER - 4];
        bytes.extend([1, 0, b'M', b'I']);
        bytes.extend(element(MI_MATRIX, &parts.concat()));
        assert_eq!(values(&parse(&bytes).unwrap()[0]), [0.75]);
    }

    #[test]
    fn broken_files_say_where() {
        let good = file(&[doubles("data", 2, 2, &[0.0; 4])]);
        assert!(message(&[]).contains("header"));
        assert!(message(&good[..127]).contains("expected 128 bytes, found 127"));
        assert!(message(&[b'x'; 200]).contains("offset 124, version"));
        for cut in 129..good.len() {
            assert!(matches!(parse(&good[..cut]), Err(DataError::Format { .. })), "cut at {cut}");
        }
        assert!(message(&file(&[doubles("data", 3, 2, &[0.0; 4])])).contains("expected 3 x 2 values of 8 bytes"));
        let huge = doubles("data", u32::MAX, u32::MAX, &[0.0; 4]);
        assert!(message(&file(&[huge])).contains("4294967295 x 4294967295 values"));
        assert!(message(&file(&[matrix("data", 1, 1, 4, 4, &[0, 0])])).contains("class 4"));
        assert!(message(&file(&[matrix("data", 1, 1, 0x806, 9, &[0; 8])])).contains("complex"));
        assert!(message(&file(&[matrix("data", 1, 1, 6, 8, &[0; 8])])).contains("numeric type"));
        let twice = doubles("data", 1, 1, &[0.0]);
        assert!(message(&file(&[twice.clone(), twice])).contains("expected one variable data, found a second one"));
        let mut packed = compressed(&doubles("data", 2, 2, &[0.0; 4]));
        packed[10] ^= 0xff;
        assert!(parse(&file(&[packed])).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse(&file(std::slice::from_ref(&bytes)));
            let _ = parse(&file(&[compressed(&bytes)]));
        }

        #[test]
        fn damaged_files_never_panic(position in 0usize..240, byte in any::<u8>()) {
            let mut bytes = file(&[doubles("data", 2, 2, &[0.5; 4]), doubles("target", 1, 1, &[1.0])]);
            let position = position % bytes.len();
            bytes[position] = byte;
            let _ = parse(&bytes);
        }
    }
}

//! Decoder means in rows and columns: in memory for a picture, or as numbers in a file for other programs.
//!
//! Cells are decoded in pieces of bounded memory, so that a file may hold more of them than memory would.

use super::means;
use crate::atomic::write_atomic_with;
use crate::{Error, Result};
use gumbel::engine::{Engine, Images, Shape};
use gumbel::structure::Structure;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

/// Numbers that are decoded at a time (16 MB).
const NUMBERS: usize = 1 << 22;
/// Cells that are decoded at a time.
const CELLS: usize = 4096;

/// The codes of a sheet of cells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sheet {
    pub rows: usize,
    pub columns: usize,
    /// Assignments: one for all cells `[n]`, for each column `[columns, n]`, or for each cell `[rows, columns, n]`.
    pub z: Vec<u32>,
    /// Gaussian codes of each row, or of each cell: `[D]` where all states share one, else `[blocks, D]`. Empty of
    /// models without any.
    pub codes: Vec<f32>,
    /// Whether all states share one.
    pub shared: bool,
}

impl Sheet {
    pub fn cells(&self) -> usize {
        self.rows * self.columns
    }

    /// Decoder means of some cells `[cells, height, width, channels]`.
    fn piece(&self, engine: &mut dyn Engine, shape: Shape, cells: Range<usize>) -> Result<Vec<f32>> {
        let (n, dim) = (engine.structure().variables(), engine.inputs().kind().dim());
        let (blocks, own) = (engine.inputs().blocks(), engine.inputs().samples());
        let width = if self.shared { dim } else { own };
        let (mut z, mut codes) = (Vec::with_capacity(cells.len() * n), Vec::with_capacity(cells.len() * own));
        for cell in cells {
            let place = match self.z.len() / n {
                1 => 0,
                count if count == self.columns => cell % self.columns,
                _ => cell,
            };
            z.extend_from_slice(&self.z[place * n..][..n]);
            if own > 0 {
                let place = if self.codes.len() == self.rows * width { cell / self.columns } else { cell };
                let code = &self.codes[place * width..][..width];
                (0..if self.shared { blocks } else { 1 }).for_each(|_| codes.extend_from_slice(code));
            }
        }
        means(engine, &z, &codes, shape.len())
    }

    /// Calls `each` with the means of all cells, piece by piece.
    pub fn for_each_piece(
        &self,
        engine: &mut dyn Engine,
        shape: Shape,
        mut each: impl FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let numbers = shape.len() + engine.inputs().width() + engine.inputs().samples();
        let most = (NUMBERS / numbers.max(1)).clamp(1, CELLS);
        for from in (0..self.cells()).step_by(most) {
            each(&self.piece(engine, shape, from..self.cells().min(from + most))?)?;
        }
        Ok(())
    }

    /// The means of all cells `[rows, columns, height, width, channels]`.
    pub fn means(&self, engine: &mut dyn Engine, shape: Shape) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(self.cells() * shape.len());
        self.for_each_piece(engine, shape, |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(all)
    }
}

/// What a tensor of a file holds.
pub(super) enum Content<'a> {
    /// Means `[rows, columns, height, width, channels]`.
    Sheet(&'a Sheet),
    /// Images `[indices, height, width, channels]`.
    Images(&'a dyn Images, &'a [u32]),
    /// Numbers.
    F32(Vec<f32>),
    /// Numbers from 0.
    U32(Vec<u32>),
    /// Whole numbers.
    I32(Vec<i32>),
}

/// A tensor of a file: its name, its shape where the content does not say it, its content.
pub(super) type Tensor<'a> = (&'static str, Vec<usize>, Content<'a>);

/// Writes a file of safetensors whose one metadata key, `gumbel`, has a text. It is whole or absent, and the same
/// content is always the same bytes.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written; what the engine or the images refuse.
pub(super) fn write(
    path: &Path,
    engine: &mut dyn Engine,
    shape: Shape,
    text: &str,
    mut tensors: Vec<Tensor<'_>>,
) -> Result<()> {
    tensors.sort_by_key(|(name, ..)| *name);
    let image = [shape.height, shape.width, shape.channels];
    for (_, dims, content) in &mut tensors {
        match content {
            Content::Sheet(sheet) => *dims = [&[sheet.rows, sheet.columns], &image[..]].concat(),
            Content::Images(_, indices) => *dims = [&[indices.len()], &image[..]].concat(),
            _ => {}
        }
    }
    let header = header(text, &tensors).map_err(|e| Error::io("write", path, io::Error::other(e.to_string())))?;
    let mut failed = None;
    let written = write_atomic_with(path, |file| {
        let mut out = BufWriter::new(file);
        out.write_all(&header)?;
        for (_, _, content) in &tensors {
            if let Err(e) = put(&mut out, engine, shape, content) {
                return Err(match e {
                    Error::Io { source, .. } => source,
                    other => {
                        failed = Some(other);
                        io::Error::other("its content cannot be made")
                    }
                });
            }
        }
        out.flush()
    });
    failed.map_or(written, Err)
}

/// The length of the description, and the description: names, types, shapes and places.
fn header(text: &str, tensors: &[Tensor<'_>]) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut from = 0usize;
    let mut infos = vec![];
    for (name, shape, content) in tensors {
        let dtype = match content {
            Content::U32(_) => Dtype::U32,
            Content::I32(_) => Dtype::I32,
            _ => Dtype::F32,
        };
        let numbers = shape.iter().try_fold(4usize, |all, n| all.checked_mul(*n));
        let to = numbers.and_then(|n| n.checked_add(from)).ok_or("it would have more bytes than can be counted")?;
        infos.push((name.to_string(), TensorInfo { dtype, shape: shape.clone(), data_offsets: (from, to) }));
        from = to;
    }
    let metadata = Metadata::new(Some(HashMap::from([("gumbel".to_string(), text.to_string())])), infos)?;
    let mut description = serde_json::to_string(&metadata)?.into_bytes();
    description.resize(description.len().next_multiple_of(8), b' ');
    Ok([&(description.len() as u64).to_le_bytes()[..], &description].concat())
}

/// Writes the bytes of a tensor.
fn put(out: &mut impl Write, engine: &mut dyn Engine, shape: Shape, content: &Content<'_>) -> Result<()> {
    // Where the file is, the caller says.
    let mut all = |bytes: Vec<u8>| out.write_all(&bytes).map_err(|e| Error::io("write", Path::new(""), e));
    let of = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    match content {
        Content::Sheet(sheet) => sheet.for_each_piece(engine, shape, |piece| all(of(piece))),
        Content::Images(images, indices) => {
            let most = (NUMBERS / shape.len().max(1)).max(1);
            indices.chunks(most).try_for_each(|indices| {
                let mut pixels = vec![0.0; indices.len() * shape.len()];
                images.fill(indices, &mut pixels)?;
                all(of(&pixels))
            })
        }
        Content::F32(values) => all(of(values)),
        Content::U32(values) => all(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Content::I32(values) => all(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
    }
}

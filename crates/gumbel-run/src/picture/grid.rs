//! Grids of images.

use super::pixels::Pixels;
use super::{Anchor, GRID_FORMATS, LETTER, Surface, checked_scale, format, title_of, width_of};
use crate::{Error, Result};
use std::path::Path;

/// Units between tiles.
const GAP: usize = 2;
/// The background.
const GREY: u8 = 128;

/// A grid of images, row by row; [`Grid::new`] has the defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid<'a> {
    /// Values in [0, 1] (others are clamped), `[tiles, height, width, channels]`.
    pub tiles: &'a [f32],
    /// Height of a tile in pixels.
    pub height: usize,
    /// Width of a tile in pixels.
    pub width: usize,
    /// 1: grey, 3: red, green, blue.
    pub channels: usize,
    /// Tiles to a row.
    pub columns: usize,
    /// Which tiles are drawn, in this order; all of them as they come if there is none.
    pub order: Option<&'a [usize]>,
    /// Pixels of the picture to a pixel of a tile, in each direction.
    pub scale: usize,
    /// A line of text above the tiles.
    pub title: Option<&'a str>,
}

impl<'a> Grid<'a> {
    /// Grey tiles, ten to a row, magnified twice.
    pub fn new(tiles: &'a [f32], height: usize, width: usize) -> Self {
        Grid { tiles, height, width, channels: 1, columns: 10, order: None, scale: 2, title: None }
    }
}

/// Writes a grid as PNG.
///
/// # Errors
///
/// [`Error::Ending`] if the file's name says another format; a setting error for a scale outside 1 to 64;
/// [`Error::Picture`] if the tiles are not as many numbers as their size says, or the picture would be too large;
/// [`Error::Io`].
///
/// ```
/// use gumbel_run::picture::{Grid, grid};
///
/// let tiles = [0.0, 1.0, 1.0, 0.0, 0.5, 0.5, 0.5, 0.5]; // two tiles of 2x2 pixels
/// let folder = tempfile::tempdir().unwrap();
/// let picture = Grid { order: Some(&[1, 0]), title: Some("by use"), ..Grid::new(&tiles, 2, 2) };
/// grid(&folder.path().join("tiles.png"), &picture).unwrap();
/// ```
pub fn grid(path: &Path, grid: &Grid<'_>) -> Result<()> {
    let &Grid { tiles, height, width, channels, columns, order, scale, title } = grid;
    format(path, GRID_FORMATS)?;
    let scale = checked_scale(scale)?;
    let size = height.saturating_mul(width).saturating_mul(channels);
    if !matches!(channels, 1 | 3) || size == 0 || !tiles.len().is_multiple_of(size) {
        let found = format!(
            "expected tiles of {height}x{width} pixels in 1 or 3 channels, found {} values in {channels}",
            tiles.len()
        );
        return Err(Error::picture(path, found));
    }
    let count = tiles.len() / size;
    let drawn = order.map_or(count, <[usize]>::len);
    if let Some(wrong) = order.and_then(|order| order.iter().find(|i| **i >= count)) {
        return Err(Error::picture(path, format!("expected an order of {count} tiles, found tile {wrong}")));
    }
    let columns = columns.max(1);
    let rows = drawn.div_ceil(columns).max(1);
    let along = |tiles: usize, size: usize| tiles.saturating_mul(size + GAP).saturating_add(GAP);
    let title = title.map(title_of);
    let top = if title.is_some() { LETTER.1 + 2 * GAP } else { 0 };
    let least = title.as_deref().map_or(0, |t| width_of(t) + 2 * GAP);
    let canvas = (along(columns, width).max(least), along(rows, height).saturating_add(top));

    let mut pixels = Pixels::new(path, canvas, scale, channels, [GREY; 3])?;
    if let Some(title) = &title {
        pixels.text((GAP, 2 * GAP), Anchor::Start, false, title);
    }
    for place in 0..drawn {
        let tile = &tiles[order.map_or(place, |order| order[place]) * size..][..size];
        let (left, upper) = (GAP + place % columns * (width + GAP), top + GAP + place / columns * (height + GAP));
        for (p, values) in tile.chunks_exact(channels).enumerate() {
            let level = |v: &f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
            let colour = [level(&values[0]), level(&values[1 % channels]), level(&values[2 % channels])];
            pixels.rectangle((left + p % width, upper + p / width), (1, 1), colour);
        }
    }
    pixels.write(path)
}

#[cfg(test)]
mod tests {
    use super::super::pixels::read;
    use super::*;

    #[test]
    fn tiles_stand_in_rows_in_the_order_of_the_caller() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.png");
        let tiles = [0.0, 0.25, 1.0, 2.0, -1.0, f32::NAN];
        let two = Grid { columns: 2, scale: 1, ..Grid::new(&tiles, 1, 2) };
        grid(&path, &two).unwrap();
        let (width, height, channels, bytes) = read(&path);
        assert_eq!((width, height, channels), (10, 8, 1));
        let g = GREY;
        assert_eq!(bytes[20..30], [g, g, 0, 64, g, g, 255, 255, g, g]);
        assert_eq!(bytes[50..60], [g, g, 0, 0, g, g, g, g, g, g]);

        grid(&path, &Grid { order: Some(&[1, 0]), ..two }).unwrap();
        let (width, height, _, bytes) = read(&path);
        assert_eq!((width, height), (10, 5));
        assert_eq!(bytes[20..30], [g, g, 255, 255, g, g, 0, 64, g, g]);

        // Magnified, each pixel is a square.
        grid(&path, &Grid { scale: 3, ..two }).unwrap();
        let (width, height, _, large) = read(&path);
        assert_eq!((width, height), (30, 24));
        grid(&path, &two).unwrap();
        let small = read(&path).3;
        assert!((0..30 * 24).all(|p| large[p] == small[p / 30 / 3 * 10 + p % 30 / 3]));
    }

    #[test]
    fn colours_and_titles() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.png");
        let tiles = [1.0, 0.0, 0.5];
        let one = Grid { channels: 3, columns: 1, scale: 1, ..Grid::new(&tiles, 1, 1) };
        grid(&path, &one).unwrap();
        let (width, height, channels, bytes) = read(&path);
        assert_eq!((width, height, channels), (5, 5, 3));
        assert_eq!(bytes[3 * 12..][..3], [255, 0, 128]);
        grid(&path, &Grid { title: Some("seed 0\u{1b}"), ..one }).unwrap();
        let (width, height, _, bytes) = read(&path);
        assert_eq!((width, height), (width_of(r"seed 0\u{1b}") + 4, 17));
        assert!(bytes.chunks(3).filter(|p| *p == [0, 0, 0]).count() > 50, "no letters");
    }

    #[test]
    fn what_cannot_be_drawn_is_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.png");
        let fits = Grid::new(&[0.0; 8], 2, 2);
        let wrong = [
            (Grid { channels: 2, ..fits }, "found 8 values in 2"),
            (Grid { height: 3, ..fits }, "tiles of 3x2 pixels"),
            (Grid { width: 0, ..fits }, "tiles of 2x0 pixels"),
            (Grid { height: usize::MAX, ..fits }, "expected tiles of"),
            (Grid { order: Some(&[0, 2]), ..fits }, "expected an order of 2 tiles, found tile 2"),
            (Grid { columns: usize::MAX, ..fits }, "at most 100000000 pixels"),
            (Grid { scale: 0, ..fits }, "scale = 0: expected a whole number from 1 to 64"),
        ];
        for (wrong, expected) in wrong {
            let message = grid(&path, &wrong).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        }
        let error = grid(&folder.path().join("g.jpg"), &fits).unwrap_err();
        assert!(error.is_usage() && error.to_string().ends_with("g.jpg: expected a file name that ends in .png"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // No tiles at all are an empty row; a name without an ending is a PNG.
        grid(&folder.path().join("g"), &Grid::new(&[], 2, 2)).unwrap();
    }
}

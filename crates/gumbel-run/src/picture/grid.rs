//! Grids of images.

use super::pixels::{Pixels, check_size};
use super::{Anchor, GRID_FORMATS, LETTER, Surface, checked_scale, format, shortened, title_of, width_of};
use crate::error::escaped;
use crate::{Error, Result};
use std::path::Path;

/// Units between tiles.
const GAP: usize = 2;
/// The background.
const GREY: u8 = 128;
/// A tile of this level is not to be seen.
pub(crate) const BLANK: f32 = 0.5;
/// Least units between the texts of neighbours.
const APART: usize = 5;
/// Letters of a line above a column or beside a row.
const LONGEST: usize = 40;

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
    /// Pixels of the picture to a pixel of a tile, in each direction.
    pub scale: usize,
    /// A line of text above the tiles.
    pub title: Option<&'a str>,
    /// Texts above the columns, of some lines each; there may be none. They are written upwards where a column would
    /// have to be half as wide again as its tiles to hold them.
    pub heads: &'a [String],
    /// Texts at the left of the rows, of some lines each; there may be none.
    pub sides: &'a [String],
}

impl<'a> Grid<'a> {
    /// Grey tiles, ten to a row, magnified twice.
    pub fn new(tiles: &'a [f32], height: usize, width: usize) -> Self {
        Grid { tiles, height, width, channels: 1, columns: 10, scale: 2, title: None, heads: &[], sides: &[] }
    }

    /// Refuses what [`grid`] would refuse of so many tiles, before there are any.
    pub(crate) fn check(&self, path: &Path, count: usize) -> Result<()> {
        let scale = checked_scale(self.scale)?;
        check_size(path, Layout::new(self, count).size, scale)
    }
}

/// The lines of a text that can be drawn.
fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(|line| shortened(&escaped(line), LONGEST)).collect()
}

/// Units that a line covers.
fn visible(line: &str) -> usize {
    width_of(line).saturating_sub(1)
}

/// Units from one line to the next.
const LINE: usize = LETTER.1 + 1;

/// Where the parts are, in units.
struct Layout {
    size: (usize, usize),
    title: Option<String>,
    heads: Vec<Vec<String>>,
    /// Whether these are written upwards.
    upwards: bool,
    sides: Vec<Vec<String>>,
    /// Upper edge of the heads, and upper left corner of the first cell.
    head: usize,
    corner: (usize, usize),
    /// From one column to the next, and from one row to the next.
    pitch: (usize, usize),
}

impl Layout {
    fn new(grid: &Grid<'_>, count: usize) -> Self {
        let columns = grid.columns.max(1);
        let rows = count.div_ceil(columns).max(1);
        let texts = |texts: &[String], most| texts.iter().take(most).map(|t| lines_of(t)).collect::<Vec<_>>();
        let (heads, sides) = (texts(grid.heads, columns), texts(grid.sides, rows));
        let widest = |texts: &[Vec<String>]| texts.iter().flatten().map(|line| visible(line)).max().unwrap_or(0);
        let most = |texts: &[Vec<String>]| LINE * texts.iter().map(Vec::len).max().unwrap_or(0);
        let title = grid.title.map(title_of);
        let head = if title.is_some() { LETTER.1 + 2 * GAP } else { 0 };

        let pitch = grid.width.saturating_add(GAP);
        let needed = widest(&heads) + APART;
        let upwards = needed > pitch + grid.width / 2;
        let (along, high) = match (heads.is_empty(), upwards) {
            (true, _) => (0, 0),
            (_, false) => (needed, most(&heads) + GAP),
            (_, true) => (most(&heads) + GAP, needed),
        };
        let pitch = (pitch.max(along), grid.height.saturating_add(GAP).max(most(&sides)));
        let left = if sides.is_empty() { 0 } else { widest(&sides) + APART };
        let corner = (left, head + high);

        let all = |from: usize, count: usize, pitch: usize| count.saturating_mul(pitch).saturating_add(from + GAP);
        let least = title.as_deref().map_or(0, |t| width_of(t) + 2 * GAP);
        let size = (all(corner.0, columns, pitch.0).max(least), all(corner.1, rows, pitch.1));
        Layout { size, title, heads, upwards, sides, head, corner, pitch }
    }

    /// Writes all texts.
    fn write(&self, grid: &Grid<'_>, pixels: &mut Pixels) {
        if let Some(title) = &self.title {
            pixels.text((GAP, 2 * GAP), Anchor::Start, false, title);
        }
        for (c, lines) in self.heads.iter().enumerate() {
            let middle = self.corner.0 + GAP + c * self.pitch.0 + (self.pitch.0 - GAP) / 2;
            let left = (middle + 1).saturating_sub(LINE * lines.len() / 2);
            for (i, line) in lines.iter().enumerate() {
                match self.upwards {
                    // The last line stands at the tiles.
                    false => {
                        let upper = self.corner.1 - LINE * (lines.len() - i);
                        pixels.text((middle, upper), Anchor::Middle, false, line);
                    }
                    true => pixels.text((left + LINE * i, self.corner.1 - 2), Anchor::Start, true, line),
                }
            }
        }
        for (r, lines) in self.sides.iter().enumerate() {
            let middle = self.corner.1 + GAP + r * self.pitch.1 + grid.height / 2;
            let upper = (middle + 1).saturating_sub(LINE * lines.len() / 2).max(self.head);
            for (i, line) in lines.iter().enumerate() {
                pixels.text((self.corner.0, upper + LINE * i), Anchor::End, false, line);
            }
        }
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
/// let heads = ["first".into(), "second".into()];
/// let picture = Grid { title: Some("two tiles"), heads: &heads, ..Grid::new(&tiles, 2, 2) };
/// grid(&folder.path().join("tiles.png"), &picture).unwrap();
/// ```
pub fn grid(path: &Path, grid: &Grid<'_>) -> Result<()> {
    let &Grid { tiles, height, width, channels, columns, scale, .. } = grid;
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
    let columns = columns.max(1);
    let layout = Layout::new(grid, count);

    let mut pixels = Pixels::new(path, layout.size, scale, channels, [GREY; 3])?;
    layout.write(grid, &mut pixels);
    let (corner, pitch) = (layout.corner, layout.pitch);
    let aside = (pitch.0 - GAP - width) / 2;
    for place in 0..count {
        let tile = &tiles[place * size..][..size];
        let left = corner.0 + GAP + place % columns * pitch.0 + aside;
        let upper = corner.1 + GAP + place / columns * pitch.1;
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
    fn tiles_stand_in_rows() {
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

    /// Columns of black letters of a grid of white tiles, one to a row of `.` and `#`.
    fn drawn(grid_of: &Grid<'_>) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.png");
        grid(&path, grid_of).unwrap();
        let (width, _, _, bytes) = read(&path);
        let letter = |b: &u8| match *b {
            0 => '#',
            255 => 'o',
            _ => '.',
        };
        bytes.chunks(width).map(|row| row.iter().map(letter).collect()).collect()
    }

    #[test]
    fn columns_and_rows_have_their_names() {
        let tiles = [1.0; 4 * 30 * 30];
        let two = Grid { columns: 2, scale: 1, ..Grid::new(&tiles, 30, 30) };
        let plain = drawn(&two);
        let row = format!("..{0}..{0}..", "o".repeat(30));
        assert_eq!((plain.len(), &plain[2]), (66, &row));
        // Short names above the columns, each in its middle; the tiles stay as they are below them.
        let heads = ["I".to_string(), "+I\n-I".to_string()];
        let named = drawn(&Grid { heads: &heads, ..two });
        assert_eq!(named.len(), 66 + 2 * 9 + 2);
        assert_eq!(named[named.len() - 66..], plain);
        assert_eq!(named[11].find('#'), Some(2 + 15 - 2 + 1), "{}", named[11]);
        assert!(named[..9].iter().all(|row| !row[..34].contains('#')) && named[..9].iter().any(|r| r.contains('#')));
        // A little wider, and the tiles stand in the middle of their columns.
        let heads = ["123456".to_string()];
        let wide = drawn(&Grid { heads: &heads, ..two });
        assert_eq!((wide[0].len(), wide[20].matches('o').count()), (2 + 2 * 40, 60));
        assert_eq!(wide[20].find('o'), Some(2 + 4));
        // Much wider: upwards, with an I lying on its side.
        let heads = ["IIIIIIIIII".to_string(), "I\nI".to_string()];
        let upwards = drawn(&Grid { heads: &heads, ..two });
        assert_eq!((upwards[0].len(), upwards.len()), (66, 66 + 59 + 5));
        let lying = |from: usize| format!("{}#######", ".".repeat(from));
        assert_eq!(upwards.iter().filter(|row| row.starts_with(&lying(14))).count(), 10);
        assert!(upwards.iter().any(|row| row.ends_with("#######..#######.........")), "two lines beside each other");
        // Names of rows, at the left of the tiles.
        let sides = ["I".to_string(), "I\nI\nI\nI".to_string()];
        let beside = drawn(&Grid { sides: &sides, ..two });
        assert_eq!((beside[0].len(), beside.len()), (66 + 5 + 5, 2 + 2 * 36));
        assert!(beside.iter().all(|row| !row[10..].contains('#')) && beside[17].contains('#'));
        assert_eq!(beside[2].find('o'), Some(12));
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

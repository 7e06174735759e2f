//! Pictures: [grids of images](Grid), [heat maps](HeatMap), [curves](Figure).
//!
//! They take plain numbers and names and know nothing of runs. All are drawn by hand on two small surfaces, pixels
//! (PNG) and shapes (SVG): text in pixels needs no font of the system, and the same content is always the same bytes.

mod curves;
mod grid;
mod heat;
mod pixels;
mod svg;
pub(crate) mod ticks;

pub use curves::{Axis, Curve, Figure, Panel, curves};
pub(crate) use grid::BLANK;
pub use grid::{Grid, grid};
pub use heat::{HeatMap, heat_map};
pub(crate) use svg::character_data;

use crate::{Error, Result};
use std::path::Path;

/// A format of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Pixels.
    Png,
    /// Shapes.
    Svg,
    /// No picture, but the numbers of its images, for other programs.
    Safetensors,
    /// A page.
    Html,
}

/// Formats of a [`Grid`].
pub const GRID_FORMATS: &[Format] = &[Format::Png];
/// Formats of a [`Grid`] whose images are made by a model.
pub const SAMPLE_FORMATS: &[Format] = &[Format::Png, Format::Safetensors];
/// Formats of a [`HeatMap`].
pub const HEAT_MAP_FORMATS: &[Format] = &[Format::Png, Format::Svg];
/// Formats of a [`Figure`] of curves.
pub const CURVE_FORMATS: &[Format] = &[Format::Svg];
/// Formats of a [`report`](crate::report).
pub const REPORT_FORMATS: &[Format] = &[Format::Html];

/// The format that a file's name asks for; the first of `formats` for a name without an ending, such as that of a pipe.
///
/// # Errors
///
/// [`Error::Ending`] for any other ending.
///
/// ```
/// use gumbel_run::picture::{CURVE_FORMATS, Format, HEAT_MAP_FORMATS, format};
///
/// assert_eq!(format("couplings.SVG".as_ref(), HEAT_MAP_FORMATS).unwrap(), Format::Svg);
/// let error = format("curves.png".as_ref(), CURVE_FORMATS).unwrap_err();
/// assert_eq!(error.to_string(), "curves.png: expected a file name that ends in .svg");
/// ```
pub fn format(path: &Path, formats: &[Format]) -> Result<Format> {
    let Some(found) = path.extension() else { return Ok(formats[0]) };
    let ending = |format: &Format| match format {
        Format::Png => "png",
        Format::Svg => "svg",
        Format::Safetensors => "safetensors",
        Format::Html => "html",
    };
    formats.iter().copied().find(|f| found.eq_ignore_ascii_case(ending(f))).ok_or_else(|| Error::Ending {
        path: path.to_path_buf(),
        expected: match formats {
            [Format::Png] => ".png",
            [Format::Svg] => ".svg",
            [Format::Html] => ".html",
            [Format::Png, Format::Safetensors] => ".png or .safetensors",
            _ => ".png or .svg",
        },
    })
}

/// Red, green, blue.
type Colour = [u8; 3];

const WHITE: Colour = [255; 3];
const BLACK: Colour = [0; 3];

/// What of a text stands at the given place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// Width and height of a letter with the space after it, in units of a surface.
const LETTER: (usize, usize) = (6, 8);

/// Width of a text in units of a surface.
fn width_of(text: &str) -> usize {
    text.chars().count() * LETTER.0
}

/// What a heat map is drawn on, in whole units: those of the picture before it is magnified.
trait Surface {
    /// Fills a rectangle.
    fn rectangle(&mut self, at: (usize, usize), size: (usize, usize), colour: Colour);
    /// Writes black text whose upper edge is at `at.1`; or upwards, with its left edge at `at.0`.
    fn text(&mut self, at: (usize, usize), anchor: Anchor, upwards: bool, text: &str);
}

/// A magnification in its range.
fn checked_scale(scale: usize) -> Result<usize> {
    match scale {
        1..=64 => Ok(scale),
        _ => Err(Error::setting("scale", scale, "a whole number from 1 to 64")),
    }
}

/// A title that can be drawn: on one line and of a length that a picture can hold.
fn title_of(text: &str) -> String {
    shortened(&crate::error::escaped(text), 200)
}

/// A text of at most so many characters; what is longer ends in dots.
fn shortened(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_string();
    }
    text.chars().take(longest.saturating_sub(3)).chain("...".chars()).collect()
}

//! Heat maps of matrices.

use super::pixels::Pixels;
use super::svg::Svg;
use super::ticks::number;
use super::{Anchor, BLACK, Colour, Format, HEAT_MAP_FORMATS, LETTER, Surface, WHITE};
use super::{checked_scale, format, title_of, width_of};
use crate::{Error, Result};
use std::path::Path;

/// A matrix in colours: red is positive, blue negative, white zero, the strongest colour the largest magnitude; grey
/// stands for NaN, "no value". Rows and columns are numbered from 0. [`HeatMap::new`] has the defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeatMap<'a> {
    /// Values, `[rows, columns]`.
    pub matrix: &'a [f64],
    /// Number of columns.
    pub columns: usize,
    /// What the rows are.
    pub row_name: &'a str,
    /// What the columns are.
    pub column_name: &'a str,
    /// What the values are, beside the colour bar.
    pub value_name: &'a str,
    /// A line of text above the matrix.
    pub title: Option<&'a str>,
    /// Magnification: pixels of a PNG to a unit, of which a cell has about twelve.
    pub scale: usize,
}

impl<'a> HeatMap<'a> {
    /// A square matrix over variables, magnified twice.
    pub fn new(matrix: &'a [f64], variables: usize) -> Self {
        HeatMap {
            matrix,
            columns: variables,
            row_name: "variable",
            column_name: "variable",
            value_name: "",
            title: None,
            scale: 2,
        }
    }
}

/// Units around everything, and between its parts.
const MARGIN: usize = 8;
/// Units between a tick and its number.
const NEAR: usize = 3;
/// Units of the colour bar.
const BAR: (usize, usize) = (12, 100);
/// More shapes than that are no picture to look at.
const MOST_SHAPES: usize = 300_000;

/// Writes a heat map with numbered axes and a colour bar, as PNG or SVG.
///
/// # Errors
///
/// [`Error::Ending`] if the file's name says another format; a setting error for a scale outside 1 to 64;
/// [`Error::Picture`] if the matrix is not as many numbers as its columns say, or the picture would be too large;
/// [`Error::Io`].
///
/// ```
/// use gumbel_run::picture::{HeatMap, heat_map};
///
/// let couplings = [f64::NAN, 1.5, 1.5, f64::NAN];
/// let folder = tempfile::tempdir().unwrap();
/// let picture = HeatMap { value_name: "mean coupling", ..HeatMap::new(&couplings, 2) };
/// heat_map(&folder.path().join("couplings.svg"), &picture).unwrap();
/// ```
pub fn heat_map(path: &Path, map: &HeatMap<'_>) -> Result<()> {
    let wanted = format(path, HEAT_MAP_FORMATS)?;
    let scale = checked_scale(map.scale)?;
    if map.columns == 0 || map.matrix.is_empty() || !map.matrix.len().is_multiple_of(map.columns) {
        let found = format!("expected a matrix of {} columns, found {} values", map.columns, map.matrix.len());
        return Err(Error::picture(path, found));
    }
    let layout = Layout::new(map);
    match wanted {
        Format::Svg if map.matrix.len() > MOST_SHAPES => {
            let found = format!("expected at most {MOST_SHAPES} cells in an SVG, found {}", map.matrix.len());
            Err(Error::picture(path, found))
        }
        Format::Svg => {
            let mut svg = Svg::new(layout.size, scale);
            draw(&mut svg, map, &layout);
            svg.write(path)
        }
        _ => {
            let mut pixels = Pixels::new(path, layout.size, scale, 3, WHITE)?;
            draw(&mut pixels, map, &layout);
            pixels.write(path)
        }
    }
}

/// Where the parts are.
struct Layout {
    size: (usize, usize),
    title: Option<String>,
    names: [String; 3],
    /// Upper left corner of the cells.
    corner: (usize, usize),
    rows: usize,
    /// Units of a cell.
    cell: usize,
    /// A number stands at every so many rows and columns.
    every: usize,
    bar: usize,
    bar_height: usize,
    /// Numbers of the colour bar with their places from its top, 0 to 4 quarters.
    numbers: Vec<(usize, String)>,
    largest: f64,
}

impl Layout {
    fn new(map: &HeatMap<'_>) -> Self {
        let (rows, columns) = (map.matrix.len() / map.columns, map.columns);
        let most = rows.max(columns);
        // Few cells are large, many small, so that the numbers have room and the whole fits a page.
        let cell = (480 / most).clamp(1, if most <= 8 { 24 } else { 12 });
        let digits = width_of(&(most - 1).to_string());
        let room = digits.max(LETTER.1) + NEAR;
        let every = [1, 2, 5].into_iter().cycle().zip(0..).map(|(m, i)| m * 10usize.pow(i / 3));
        let every = every.into_iter().find(|every| every * cell >= room).expect("numbers have room at last");
        let finite = map.matrix.iter().filter(|v| v.is_finite());
        let largest = finite.fold(0.0f64, |m, v| m.max(v.abs()));
        let shares = if largest == 0.0 { vec![(2, 0.0)] } else { (0..5).map(|q| (q, 1.0 - q as f64 / 2.0)).collect() };
        let numbers: Vec<_> = shares.into_iter().map(|(q, share)| (q, number(share * largest))).collect();
        let title = map.title.map(title_of);
        let names = [map.row_name, map.column_name, map.value_name].map(title_of);

        let line = LETTER.1 + MARGIN / 2;
        let corner = (MARGIN + line + digits + NEAR, MARGIN + if title.is_some() { line } else { 0 });
        let bar = corner.0 + columns * cell + 2 * MARGIN;
        let bar_height = (rows * cell).max(BAR.1);
        let widest = numbers.iter().map(|(_, n)| width_of(n)).max().unwrap_or(0);
        let right = bar + BAR.0 + NEAR + widest + if names[2].is_empty() { 0 } else { line };
        let bottom = corner.1 + (rows * cell + NEAR + LETTER.1 + line).max(bar_height);
        // Names longer than their axes make the picture larger.
        let right = right.max(corner.0 + width_of(&names[1])).max(title.as_deref().map_or(0, |t| MARGIN + width_of(t)));
        let bottom = bottom.max(corner.1 + width_of(&names[0]).max(width_of(&names[2])));
        let size = (right + MARGIN, bottom + MARGIN);
        Layout { size, title, names, corner, rows, cell, every, bar, bar_height, numbers, largest }
    }
}

fn draw(surface: &mut impl Surface, map: &HeatMap<'_>, layout: &Layout) {
    let &Layout { corner: (left, top), rows, cell, every, bar, bar_height, .. } = layout;
    let (width, height) = (map.columns * cell, rows * cell);
    if let Some(title) = &layout.title {
        surface.text((MARGIN, MARGIN), Anchor::Start, false, title);
    }
    // The frames are what the cells leave of black.
    surface.rectangle((left - 1, top - 1), (width + 2, height + 2), BLACK);
    for (i, value) in map.matrix.iter().enumerate() {
        let at = (left + i % map.columns * cell, top + i / map.columns * cell);
        surface.rectangle(at, (cell, cell), colour(*value, layout.largest));
    }
    let [row_name, column_name, value_name] = &layout.names;
    for column in (0..map.columns).step_by(every) {
        let at = (left + column * cell + cell / 2, top + height + NEAR);
        surface.text(at, Anchor::Middle, false, &column.to_string());
    }
    for row in (0..rows).step_by(every) {
        let at = (left - NEAR, (top + row * cell + cell / 2).saturating_sub(LETTER.1 / 2));
        surface.text(at, Anchor::End, false, &row.to_string());
    }
    let below = top + height + NEAR + LETTER.1 + MARGIN / 2;
    surface.text((left + width.max(width_of(column_name)) / 2, below), Anchor::Middle, false, column_name);
    surface.text((MARGIN, top + height.max(width_of(row_name)) / 2), Anchor::Middle, true, row_name);

    surface.rectangle((bar - 1, top - 1), (BAR.0 + 2, bar_height + 2), BLACK);
    for y in 0..bar_height {
        let share = 1.0 - 2.0 * y as f64 / (bar_height - 1) as f64;
        surface.rectangle((bar, top + y), (BAR.0, 1), colour(share, 1.0));
    }
    for (quarter, number) in &layout.numbers {
        let y = (top + quarter * (bar_height - 1) / 4).saturating_sub(LETTER.1 / 2);
        surface.text((bar + BAR.0 + NEAR, y), Anchor::Start, false, number);
    }
    let widest = layout.numbers.iter().map(|(_, n)| width_of(n)).max().unwrap_or(0);
    let beside = bar + BAR.0 + NEAR + widest + MARGIN / 2;
    surface.text((beside, top + bar_height.max(width_of(value_name)) / 2), Anchor::Middle, true, value_name);
}

/// The colour of a value.
fn colour(value: f64, largest: f64) -> Colour {
    let fade = |strength: f64| (255.0 * (1.0 - strength.clamp(0.0, 1.0))).round() as u8;
    match value / largest.max(f64::MIN_POSITIVE) {
        v if v.is_nan() => [160, 160, 160],
        v if v >= 0.0 => [255, fade(v), fade(v)],
        v => [fade(-v), fade(-v), 255],
    }
}

#[cfg(test)]
mod tests {
    use super::super::pixels::read;
    use super::super::svg::assert_xml;
    use super::*;
    use std::fs;

    fn matrix(n: usize) -> Vec<f64> {
        let value = |i: usize| if i.is_multiple_of(n + 1) { f64::NAN } else { (i as f64).sin() };
        (0..n * n).map(value).collect()
    }

    #[test]
    fn cells_have_the_colours_of_their_values_and_the_bar_its_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.png");
        let map = HeatMap { scale: 1, ..HeatMap::new(&[f64::NAN, 2.0, -1.0, 0.0], 2) };
        heat_map(&path, &map).unwrap();
        let (width, _, channels, bytes) = read(&path);
        let layout = Layout::new(&map);
        assert_eq!((layout.size.0, channels), (width, 3));
        let centre = |row: usize, column: usize| {
            let x = layout.corner.0 + column * layout.cell + layout.cell / 2;
            let y = layout.corner.1 + row * layout.cell + layout.cell / 2;
            bytes[3 * (y * width + x)..][..3].to_vec()
        };
        assert_eq!(centre(0, 0), [160, 160, 160]);
        assert_eq!(centre(0, 1), [255, 0, 0]);
        assert_eq!(centre(1, 0), [128, 128, 255]);
        assert_eq!(centre(1, 1), [255, 255, 255]);

        let path = folder.path().join("h.svg");
        heat_map(&path, &HeatMap { title: Some("<c>\u{1b}"), value_name: "mean coupling", ..map }).unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert_xml(&text);
        for expected in
            [">2</text>", ">1</text>", ">0</text>", ">-1</text>", ">-2</text>", ">variable<", "mean coupling"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(text.contains(r"&lt;c&gt;\u{1b}"), "{text}");
    }

    #[test]
    fn all_sizes_and_values_can_be_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.png");
        for n in [1, 2, 8, 9, 15, 100, 700] {
            heat_map(&path, &HeatMap { scale: 1, ..HeatMap::new(&matrix(n), n) }).unwrap();
            let (width, height, ..) = read(&path);
            assert!(width < 900 && height < 900, "{n}: {width}x{height}");
        }
        for value in [0.0, f64::NAN, f64::INFINITY, -1.7e308, 5e-324] {
            for name in ["h.png", "h.svg"] {
                heat_map(&folder.path().join(name), &HeatMap::new(&[value; 6], 3)).unwrap();
            }
        }
        heat_map(&path, &HeatMap::new(&[1.7e308, -1.7e308], 2)).unwrap();
        let wide = HeatMap { title: Some(&"t".repeat(999)), row_name: &"r".repeat(99), ..HeatMap::new(&[1.0], 1) };
        heat_map(&path, &wide).unwrap();
    }

    #[test]
    fn what_cannot_be_drawn_is_refused_in_one_line() {
        let refused = |name: &str, map: HeatMap<'_>, expected: &str| {
            let message = heat_map(Path::new(name), &map).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        };
        refused("h.pdf", HeatMap::new(&[0.0], 1), "h.pdf: expected a file name that ends in .png or .svg");
        refused("h.png", HeatMap::new(&[0.0; 3], 2), "expected a matrix of 2 columns, found 3 values");
        refused("h.png", HeatMap::new(&[], 0), "expected a matrix of 0 columns");
        refused("h.png", HeatMap { scale: 65, ..HeatMap::new(&[0.0], 1) }, "scale = 65");
        refused("h.svg", HeatMap::new(&vec![0.0; 600 * 600], 600), "expected at most 300000 cells");
        refused("h.png", HeatMap { scale: 64, ..HeatMap::new(&matrix(400), 400) }, "at most 100000000 pixels");
    }
}

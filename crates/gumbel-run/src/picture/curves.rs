//! Curves: panels with axes, and one legend for all of them.

use super::svg::Svg;
use super::ticks::{half, place, powers, span, ticks, widened};
use super::{Anchor, BLACK, CURVE_FORMATS, Colour, checked_scale, format, shortened, title_of};
use crate::{Error, Result};
use std::path::Path;

/// A line through points; it is broken where a value is not finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What the legend calls it. Curves of the same label, in whichever panels, have the same colour.
    pub label: String,
    /// Points in the order of the line.
    pub points: Vec<(f64, f64)>,
    /// How far a bar reaches from each point, up and down; none, or 0: no bar.
    pub errors: Vec<f64>,
}

impl Curve {
    /// A curve without bars.
    pub fn new(label: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Curve { label: label.into(), points: points.into_iter().collect(), errors: vec![] }
    }
}

/// An axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// Its name, with the unit.
    pub name: String,
    /// Whether only whole numbers mean something on it.
    pub whole: bool,
    /// Whether equal ratios are equal distances; what is not greater than 0 is not drawn then.
    pub log: bool,
}

impl Axis {
    /// An axis of numbers.
    pub fn new(name: impl Into<String>) -> Self {
        Axis { name: name.into(), whole: false, log: false }
    }

    /// An axis of whole numbers, such as epochs.
    pub fn whole(name: impl Into<String>) -> Self {
        Axis { name: name.into(), whole: true, log: false }
    }
}

impl Axis {
    /// The same with a logarithmic scale.
    pub fn log(self) -> Self {
        Axis { log: true, ..self }
    }

    /// Where a value stands, in the coordinate of the axis.
    fn at(&self, value: f64) -> f64 {
        match self.log {
            true if value > 0.0 => value.log10(),
            true => f64::NAN,
            false => value,
        }
    }

    fn ticks(&self, span: (f64, f64), most: usize) -> Vec<(f64, String)> {
        if self.log { powers(span, most) } else { ticks(span, most, self.whole) }
    }
}

/// One coordinate system.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// A line above it; may be empty.
    pub title: String,
    /// The axis to the right.
    pub x: Axis,
    /// The axis upwards.
    pub y: Axis,
    /// What is drawn in it.
    pub curves: Vec<Curve>,
}

/// Panels in rows, with one legend; [`Figure::new`] has the defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure<'a> {
    /// The panels, row by row.
    pub panels: &'a [Panel],
    /// Panels to a row.
    pub columns: usize,
    /// A line above all.
    pub title: Option<&'a str>,
    /// Magnification of the whole.
    pub scale: usize,
}

impl<'a> Figure<'a> {
    /// Panels side by side, two to a row if there are several.
    pub fn new(panels: &'a [Panel]) -> Self {
        Figure { panels, columns: panels.len().min(2), title: None, scale: 1 }
    }
}

/// Colours of curves, in turn; then again in dashes.
const COLOURS: [Colour; 8] = [
    [31, 119, 180],
    [214, 39, 40],
    [44, 160, 44],
    [255, 127, 14],
    [148, 103, 189],
    [140, 86, 75],
    [227, 119, 194],
    [23, 190, 207],
];
const DASHES: [&str; 4] = ["", "7 3", "2 2", "8 3 2 3"];

const FAMILY: &str = "sans-serif";
/// Sizes of letters: titles, names, numbers.
const SIZES: [f64; 3] = [16.0, 13.0, 11.0];
/// About the width of a letter, as a part of its size.
const WIDTH: f64 = 0.56;
const MARGIN: f64 = 14.0;
const TITLE: f64 = 28.0;
const LEGEND_LINE: f64 = 20.0;
/// The stroke before a label, with the room around it.
const SAMPLE: f64 = 40.0;

/// Writes curves as SVG.
///
/// # Errors
///
/// [`Error::Ending`] if the file's name says another format; a setting error for a scale outside 1 to 64;
/// [`Error::Picture`] if there is no panel; [`Error::Io`].
///
/// ```
/// use gumbel_run::picture::{Axis, Curve, Figure, Panel, curves};
///
/// let panel = Panel {
///     title: "bound".into(),
///     x: Axis::whole("epoch"),
///     y: Axis::new("nats per image"),
///     curves: vec![Curve::new("seed 0", [(1.0, 210.5), (2.0, 190.25), (3.0, 180.0)])],
/// };
/// let folder = tempfile::tempdir().unwrap();
/// curves(&folder.path().join("curves.svg"), &Figure::new(&[panel])).unwrap();
/// ```
pub fn curves(path: &Path, figure: &Figure<'_>) -> Result<()> {
    format(path, CURVE_FORMATS)?;
    let scale = checked_scale(figure.scale)?;
    if figure.panels.is_empty() {
        return Err(Error::picture(path, "expected at least one panel, found none"));
    }
    document(figure, scale).write(path)
}

/// The whole picture; there is at least one panel.
fn document(figure: &Figure<'_>, scale: usize) -> Svg {
    let columns = figure.columns.clamp(1, figure.panels.len());
    let rows = figure.panels.len().div_ceil(columns);
    let panel = if columns == 1 { (800.0, 460.0) } else { (600.0, 380.0) };
    let top = figure.title.map_or(MARGIN / 2.0, |_| TITLE + MARGIN / 2.0);
    let (width, below) = (panel.0 * columns as f64, top + panel.1 * rows as f64);

    let mut labels: Vec<&str> = vec![];
    for curve in figure.panels.iter().flat_map(|p| &p.curves) {
        if !labels.contains(&curve.label.as_str()) {
            labels.push(&curve.label);
        }
    }
    let legend = Legend::new(&labels, width);
    let mut svg = Svg::new((width as usize, (below + legend.height()) as usize), scale);
    if let Some(title) = figure.title {
        svg.write_text((width / 2.0, MARGIN + SIZES[0]), SIZES[0], Anchor::Middle, false, FAMILY, &title_of(title));
    }
    for (i, p) in figure.panels.iter().enumerate() {
        let corner = ((i % columns) as f64 * panel.0, top + (i / columns) as f64 * panel.1);
        draw(&mut svg, p, corner, panel, &labels);
    }
    legend.draw(&mut svg, below);
    svg
}

/// Colour and dashes of a label.
fn style(index: usize) -> (Colour, &'static str) {
    (COLOURS[index % COLOURS.len()], DASHES[index / COLOURS.len() % DASHES.len()])
}

/// The labels below all panels, where no curve is hidden by them.
struct Legend {
    labels: Vec<String>,
    columns: usize,
    column: f64,
}

impl Legend {
    fn new(labels: &[&str], width: f64) -> Self {
        let letter = SIZES[1] * WIDTH;
        let room = width - 2.0 * MARGIN;
        let longest = ((room - SAMPLE) / letter) as usize;
        let labels: Vec<String> = labels.iter().map(|l| shortened(&crate::error::escaped(l), longest)).collect();
        let widest = labels.iter().map(|l| l.chars().count()).max().unwrap_or(0) as f64;
        let column = SAMPLE + widest * letter + MARGIN;
        Legend { labels, columns: ((room / column) as usize).max(1), column }
    }

    fn height(&self) -> f64 {
        self.labels.len().div_ceil(self.columns) as f64 * LEGEND_LINE + MARGIN
    }

    fn draw(&self, svg: &mut Svg, top: f64) {
        for (i, label) in self.labels.iter().enumerate() {
            let x = MARGIN + (i % self.columns) as f64 * self.column;
            let y = top + (i / self.columns) as f64 * LEGEND_LINE + LEGEND_LINE / 2.0;
            let (colour, dash) = style(i);
            svg.line(&[(x, y), (x + SAMPLE - 8.0, y)], colour, 2.0, dash);
            svg.write_text((x + SAMPLE, y + SIZES[1] / 3.0), SIZES[1], Anchor::Start, false, FAMILY, label);
        }
    }
}

fn draw(svg: &mut Svg, panel: &Panel, corner: (f64, f64), size: (f64, f64), labels: &[&str]) {
    let point = |(x, y): &(f64, f64)| (panel.x.at(*x), panel.y.at(*y));
    let all: Vec<Vec<(f64, f64)>> = panel.curves.iter().map(|c| c.points.iter().map(point).collect()).collect();
    // Both ends of a bar; one that has none, such as below zero on a logarithmic axis, is at the frame.
    let bar = |((x, y), error): (&(f64, f64), &f64)| {
        let drawn = *error > 0.0 && error.is_finite() && point(&(*x, *y)).1.is_finite();
        drawn.then(|| [y - error, y + error].map(|end| (panel.x.at(*x), panel.y.at(end))))
    };
    let bars: Vec<Vec<[(f64, f64); 2]>> =
        panel.curves.iter().map(|c| c.points.iter().zip(&c.errors).filter_map(bar).collect()).collect();
    // A bar down to nearly nothing on a logarithmic axis would press all else together.
    let ends = || bars.iter().flatten().flat_map(|bar| &bar[panel.y.log as usize..]);
    let finite = || all.iter().flatten().chain(ends()).filter(|(x, y)| x.is_finite() && y.is_finite());
    let range = |of: fn(&(f64, f64)) -> f64| {
        finite().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)))
    };
    let empty = finite().next().is_none();
    let ((left, right), (low, high)) = if empty { ((0.0, 1.0), (0.0, 1.0)) } else { (range(|p| p.0), range(|p| p.1)) };
    let x = span(left, right);
    let y = span(low, high);
    // Lines do not touch the frame.
    let y = widened(y, half(y.0, y.1) * 0.1);

    let title = title_of(&panel.title);
    let upper = corner.1 + if title.is_empty() { MARGIN } else { TITLE };
    let lower = corner.1 + size.1 - 3.0 * MARGIN - SIZES[2];
    let y_ticks = panel.y.ticks(y, ((lower - upper) / 45.0) as usize);
    let widest = y_ticks.iter().map(|t| t.1.len()).max().unwrap_or(0) as f64 * SIZES[2] * WIDTH;
    let near = corner.0 + MARGIN + SIZES[1] + 10.0 + widest;
    let far = corner.0 + size.0 - 1.5 * MARGIN;
    let x_ticks = panel.x.ticks(x, ((far - near) / 80.0) as usize);
    let at = |(px, py): (f64, f64)| (near + (far - near) * place(px, x), lower - (lower - upper) * place(py, y));

    let mut write = |at, size, anchor, upwards, text: &str| svg.write_text(at, size, anchor, upwards, FAMILY, text);
    let middle = ((near + far) / 2.0, (upper + lower) / 2.0);
    if !title.is_empty() {
        write((middle.0, upper - 9.0), SIZES[1], Anchor::Middle, false, &title);
    }
    write((middle.0, lower + 2.5 * MARGIN + 3.0), SIZES[1], Anchor::Middle, false, &title_of(&panel.x.name));
    write((corner.0 + MARGIN + 4.0, middle.1), SIZES[1], Anchor::Middle, true, &title_of(&panel.y.name));
    if empty {
        write(middle, SIZES[1], Anchor::Middle, false, "no finite values");
    } else {
        for (value, text) in &x_ticks {
            write((at((*value, y.0)).0, lower + SIZES[2] + 6.0), SIZES[2], Anchor::Middle, false, text);
        }
        for (value, text) in &y_ticks {
            write((near - 8.0, at((x.0, *value)).1 + SIZES[2] / 3.0), SIZES[2], Anchor::End, false, text);
        }
        for (value, _) in &x_ticks {
            let x = at((*value, y.0)).0;
            svg.line(&[(x, lower), (x, lower + 5.0)], BLACK, 1.0, "");
        }
        for (value, _) in &y_ticks {
            let y = at((x.0, *value)).1;
            svg.line(&[(near - 5.0, y), (near, y)], BLACK, 1.0, "");
            svg.line(&[(near, y), (far, y)], [225; 3], 1.0, "");
        }
    }
    svg.line(&[(near, upper), (near, lower), (far, lower)], BLACK, 1.0, "");

    for ((curve, points), bars) in panel.curves.iter().zip(&all).zip(&bars) {
        let (colour, dash) = style(labels.iter().position(|l| *l == curve.label).unwrap_or(0));
        for [low, high] in bars.iter().filter(|[low, high]| low.0.is_finite() && high.1.is_finite()) {
            let ((x, low), (_, high)) = (at((low.0, if low.1 > y.0 { low.1 } else { y.0 })), at(*high));
            let (left, right) = (x - 3.0, x + 3.0);
            let bar = [(left, low), (right, low), (x, low), (x, high), (left, high), (right, high)];
            svg.line(&bar, colour, 1.0, "");
        }
        for part in points.split(|(x, y)| !x.is_finite() || !y.is_finite()) {
            match part.iter().map(|p| at(*p)).collect::<Vec<_>>()[..] {
                [] => {}
                [alone] => svg.disc(alone, 3.0, colour),
                ref points => svg.line(points, colour, 2.0, dash),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::svg::assert_xml;
    use super::*;
    use std::fs;

    fn panel(curves: Vec<Curve>) -> Panel {
        Panel { title: "bound, test".into(), x: Axis::whole("epoch"), y: Axis::new("nats per image"), curves }
    }

    fn drawn(figure: &Figure<'_>) -> String {
        let text = document(figure, figure.scale).finish();
        assert_xml(&text);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        text
    }

    fn texts(svg: &str) -> Vec<&str> {
        let texts = svg.lines().filter(|l| l.starts_with("<text"));
        texts.map(|l| l.split_once('>').unwrap().1.trim_end_matches("</text>")).collect()
    }

    #[test]
    fn a_figure_names_its_axes_its_epochs_and_its_curves() {
        let line = |label: &str| Curve::new(label, (1..=5).map(|e| (e as f64, 200.0 - e as f64)));
        let panels = [panel(vec![line("epsilon 1"), line("epsilon 0.1")]), panel(vec![line("epsilon 0.1")])];
        let figure = Figure { title: Some("mnist, <direct>"), ..Figure::new(&panels) };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.svg");
        curves(&path, &figure).unwrap();
        let svg = fs::read_to_string(path).unwrap();
        assert_eq!(svg, drawn(&figure));
        let found = texts(&svg);
        for expected in
            ["mnist, &lt;direct&gt;", "bound, test", "epoch", "nats per image", "1", "2", "3", "4", "5", "196"]
        {
            assert!(found.contains(&expected), "{expected}: {found:?}");
        }
        assert!(!found.iter().any(|t| t.starts_with("1.5") || t.starts_with("2.5")), "{found:?}");
        // One legend, and one colour for a label in both panels.
        assert_eq!(found.iter().filter(|t| t.starts_with("epsilon")).count(), 2);
        assert_eq!(svg.matches("#d62728").count(), 3);
    }

    /// Found by a hostile tester: this never came to an end.
    #[test]
    fn values_at_the_end_of_the_floats_are_drawn() {
        let all = [1.7e308, -1.7e308, f64::MAX, f64::MIN, 0.0, 1e-320, f64::INFINITY, f64::NAN, 1e17, 1e17 + 16.0];
        for &a in &all {
            for &b in &all {
                drawn(&Figure::new(&[panel(vec![Curve::new("x", [(1.0, a), (2.0, b)])])]));
                drawn(&Figure::new(&[panel(vec![Curve::new("x", [(a, 1.0), (b, 2.0)])])]));
            }
        }
    }

    #[test]
    fn lone_points_are_seen_and_broken_lines_are_broken() {
        let points = [1.0, f64::NAN, 2.0, 3.0, f64::INFINITY, 4.0].into_iter().zip(1..).map(|(v, e)| (e as f64, v));
        let svg = drawn(&Figure::new(&[panel(vec![Curve::new("x", points)])]));
        assert_eq!(svg.matches("<circle").count(), 2);
        assert_eq!(svg.matches(r##"stroke="#1f77b4" stroke-width="2""##).count(), 2, "a part and the legend's sample");
        for empty in [vec![], vec![Curve::new("x", [])], vec![Curve::new("x", [(1.0, f64::NAN)])]] {
            assert!(texts(&drawn(&Figure::new(&[panel(empty)]))).contains(&"no finite values"));
        }
    }

    #[test]
    fn a_logarithmic_axis_has_round_numbers_and_no_zero() {
        let points = [(0.01, 1.0), (0.1, 0.0), (1.0, 1000.0), (10.0, -3.0)];
        let log =
            Panel { x: Axis::new("epsilon").log(), y: Axis::new("bias").log(), ..panel(vec![Curve::new("a", points)]) };
        let svg = drawn(&Figure::new(&[log]));
        let found = texts(&svg);
        for expected in ["0.01", "0.1", "1", "10", "100", "1000"] {
            assert!(found.contains(&expected), "{expected}: {found:?}");
        }
        assert_eq!(svg.matches("<circle").count(), 2, "zero and less break the line");
        let narrow = Panel { x: Axis::new("x").log(), ..panel(vec![Curve::new("a", [(0.2, 1.0), (0.9, 2.0)])]) };
        let svg = drawn(&Figure::new(&[narrow]));
        assert!(["0.2", "0.5"].iter().all(|t| texts(&svg).contains(t)), "{:?}", texts(&svg));
    }

    #[test]
    fn errors_are_bars_that_stay_in_the_frame() {
        let bars = |errors: Vec<f64>, log: bool| {
            let curve = Curve { errors, ..Curve::new("a", [(1.0, 0.5), (2.0, 1.0), (3.0, 2.0)]) };
            let y = Axis { log, ..Axis::new("y") };
            let svg = drawn(&Figure::new(&[Panel { y, ..panel(vec![curve]) }]));
            let own = svg.lines().filter(|l| l.contains(r##"stroke="#1f77b4" stroke-width="1""##));
            let ends = own.map(|l| {
                let points = l.split_once("points=\"").unwrap().1.trim_end_matches("\"/>");
                let ys: Vec<f64> = points.split([' ', ',']).skip(1).step_by(2).map(|y| y.parse().unwrap()).collect();
                (ys[0], ys[5])
            });
            ends.collect::<Vec<(f64, f64)>>()
        };
        assert_eq!(bars(vec![], false), []);
        assert_eq!(bars(vec![0.0, f64::NAN, f64::INFINITY], false), []);
        for log in [false, true] {
            let found = bars(vec![0.4, 0.0, 1.0], log);
            assert_eq!(found.len(), 2);
            assert!(found.iter().all(|(low, high)| low > high && *high > 0.0 && *low < 460.0), "{found:?}");
        }
        // Nothing is below the lowest point on a logarithmic axis but the frame.
        let (narrow, wide) = (bars(vec![0.499, 0.0, 0.0], true), bars(vec![5.0, 0.0, 0.0], true));
        assert!(narrow[0].0 <= wide[0].0, "{narrow:?} {wide:?}");
    }

    #[test]
    fn labels_may_hold_anything_and_be_many() {
        let label = |i: usize| format!("run\u{1b}[{i}m\n<&>{}", "long ".repeat(60));
        let many = (0..40).map(|i| Curve::new(label(i), [(1.0, i as f64), (2.0, 0.0)])).collect();
        let svg = drawn(&Figure::new(&[panel(many)]));
        assert_eq!(texts(&svg).iter().filter(|t| t.starts_with(r"run\u{1b}[")).count(), 40);
        assert!(svg.contains("stroke-dasharray"));
    }

    #[test]
    fn what_cannot_be_drawn_is_refused_in_one_line() {
        let panels = [panel(vec![])];
        let refused = |name: &str, figure: &Figure<'_>, expected: &str| {
            let error = curves(Path::new(name), figure).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        refused("c.png", &Figure::new(&panels), "c.png: expected a file name that ends in .svg");
        refused("c.pdf", &Figure::new(&panels), "c.pdf: expected a file name that ends in .svg");
        refused("c.svg", &Figure::new(&[]), "expected at least one panel, found none");
        refused("c.svg", &Figure { scale: 0, ..Figure::new(&panels) }, "scale = 0");
    }
}

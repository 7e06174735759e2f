//! Curves of runs as shapes of the page: one panel for each measure over epochs, over time, and over decoder passes.
//!
//! Unlike a picture, the shapes carry their values, and take their colours from the page.

use super::Run;
use super::figures::{Better, MEASURES, Measure, lines};
use crate::metrics::Metrics;
use crate::picture::character_data as escape;
use crate::picture::ticks::{place, span, ticks, widened};
use std::fmt::Write;

/// Colours of the style, and shapes of marks: 30 runs can be told apart, also by who sees no colours.
const COLOURS: usize = 6;
const MARKS: usize = 5;
/// Splits that are drawn; the first one in full strokes.
pub(super) const SPLITS: [&str; 2] = ["test", "valid"];
/// Size of a panel, and its margins: left, top, right, below.
const SIZE: (f64, f64) = (420.0, 270.0);
const MARGINS: (f64, f64, f64, f64) = (56.0, 8.0, 16.0, 38.0);
/// About the number of marks on a line.
const MARKED: usize = 12;

/// What a panel is drawn over.
pub(crate) struct Over {
    name: &'static str,
    pub(crate) key: &'static str,
    /// Behind a value that the page tells; nothing where it is told anyway.
    unit: &'static str,
    whole: bool,
    of: fn(&Metrics) -> Option<f64>,
}

pub(crate) const OVER: [Over; 3] = [
    Over { name: "epoch", key: "epoch", unit: "", whole: true, of: |m| Some(m.epoch as f64) },
    Over {
        name: "seconds of training steps",
        key: "train_seconds",
        unit: "s",
        whole: false,
        of: |m| Some(m.train_seconds),
    },
    // Of the records of reproduce; metrics.jsonl has none.
    Over {
        name: "decoder passes of each image",
        key: "decoder_passes",
        unit: "decoder passes",
        whole: false,
        of: |_| None,
    },
];

/// A point: the number of its line in metrics.jsonl, or in the lists of another file; its epoch, its values.
pub(crate) struct Point {
    pub(crate) number: usize,
    pub(crate) epoch: usize,
    pub(crate) x: f64,
    pub(crate) y: f64,
}

/// A line of a panel.
pub(crate) struct Curve<'a> {
    /// Which of the names is its own; it also says the colour and the mark.
    pub(crate) run: usize,
    pub(crate) split: &'static str,
    /// The file, where it is not the metrics of the run.
    pub(crate) file: Option<&'a str>,
    pub(crate) points: Vec<Point>,
}

/// All panels. What no run has is left out.
pub(super) fn panels(runs: &[Run]) -> String {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let mut text = String::new();
    for measure in MEASURES.iter().filter(|m| m.better != Better::Same) {
        for over in &OVER {
            let curve = |run: usize, split: &'static str| {
                let point = |(number, m): (usize, &Metrics)| {
                    Some(Point { number, epoch: m.epoch, x: (over.of)(m)?, y: (measure.of)(m)? })
                };
                let points = lines(&runs[run], split).filter_map(point);
                let points = points.filter(|p| (measure.scale() * p.y).is_finite()).collect();
                Curve { run, split, file: None, points }
            };
            // The test split last, above the others.
            let all = SPLITS.iter().rev().flat_map(|split| (0..runs.len()).map(move |run| curve(run, split)));
            let drawn: Vec<Curve<'_>> = all.filter(|curve| !curve.points.is_empty()).collect();
            if !drawn.is_empty() {
                text += &panel(&names, measure, over, &drawn);
            }
        }
    }
    text
}

/// One panel, of at least one curve with a point.
pub(crate) fn panel(names: &[&str], measure: &Measure, over: &Over, drawn: &[Curve<'_>]) -> String {
    let scale = measure.scale();
    let all = || drawn.iter().flat_map(|curve| &curve.points);
    let ends = |of: fn(&Point) -> f64| {
        let low = all().map(of).fold(f64::INFINITY, f64::min);
        (low, all().map(of).fold(f64::NEG_INFINITY, f64::max))
    };
    let (xs, ys) = (ends(|p| p.x), ends(|p| p.y));
    let cut = shown(drawn, ys, measure.better);
    let (xs, ys) = (span(xs.0, xs.1), span(cut.0 * scale, cut.1 * scale));
    let ys = widened(ys, (ys.1 / 2.0 - ys.0 / 2.0) * 0.08);
    let (left, top, right, below) = (MARGINS.0, MARGINS.1, SIZE.0 - MARGINS.2, SIZE.1 - MARGINS.3);
    let at_x = |x: f64| left + (right - left) * place(x, xs);
    // What is not shown to scale stands at the edge.
    let at_y = |y: f64| below - (below - top) * place((y * scale).clamp(ys.0, ys.1), ys);

    let mut svg = String::new();
    let mut add = |line: std::fmt::Arguments<'_>| writeln!(svg, "{line}").expect("a string takes all text");
    let (name, unit) = match measure.look.percent {
        true => ("accuracy", "%"),
        false => (measure.title, "nats per image"),
    };
    let label = format!("{name} over {}, {} lines", over.name, drawn.len());
    let edge = match ends(|p| p.y) {
        (_, high) if high > cut.1 => "; higher values at the edge",
        (low, _) if low < cut.0 => "; lower values at the edge",
        _ => "",
    };
    add(format_args!("<figure class=\"panel\">\n<figcaption>{name}, {unit}{edge}</figcaption>"));
    let (width, height, over_unit) = (SIZE.0, SIZE.1, over.unit);
    let data = format!(r#"data-name="{name}" data-scale="{scale}" data-unit="{over_unit}""#);
    add(format_args!(r#"<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}" {data}>"#));
    for (y, text) in ticks(ys, 5, false) {
        let y = below - (below - top) * place(y, ys);
        add(format_args!(r#"<path class="grid" d="M{left:.1} {y:.1}H{right:.1}"/>"#));
        add(format_args!(r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"#, left - 6.0, y + 4.0));
    }
    for (x, text) in ticks(xs, 6, over.whole) {
        let x = at_x(x);
        add(format_args!(r#"<path class="grid" d="M{x:.1} {top:.1}V{below:.1}"/>"#));
        add(format_args!(r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{text}</text>"#, below + 15.0));
    }
    let middle = (left + right) / 2.0;
    add(format_args!(r#"<text x="{middle}" y="{}" text-anchor="middle">{}</text>"#, below + 32.0, over.name));
    for Curve { run, split, file, points } in drawn {
        let list = |of: &dyn Fn(&Point) -> String| points.iter().map(of).collect::<Vec<_>>().join(" ");
        add(format_args!(
            r#"<g class="curve {split} c{}" data-run="run-{}" data-name="{}" data-split="{split}" data-field="{}""#,
            run % COLOURS,
            run + 1,
            escape(names[*run]),
            measure.field,
        ));
        if let Some(file) = file {
            add(format_args!(r#"data-file="{}""#, escape(file)));
        }
        add(format_args!(r#"data-over="{}" data-x="{}""#, over.key, list(&|p| format!("{:?}", p.x))));
        add(format_args!(
            r#"data-epoch="{}" data-line="{}""#,
            list(&|p| p.epoch.to_string()),
            list(&|p| p.number.to_string())
        ));
        let places = list(&|p| format!("{:.1},{:.1}", at_x(p.x), at_y(p.y)));
        add(format_args!(r#"data-y="{}"><polyline points="{places}"/>"#, list(&|p| format!("{:?}", p.y))));
        // The last point of all, and others at about the same distance.
        let every = points.len().div_ceil(MARKED);
        let marked = points.iter().rev().step_by(every).map(|p| mark(run % MARKS, at_x(p.x), at_y(p.y)));
        add(format_args!(r#"<path class="mark" d="{}"/></g>"#, marked.collect::<String>()));
    }
    add(format_args!("</svg>\n</figure>"));
    svg
}

/// The values that are shown to scale, of a span of all: a long run is better for most of its time than in its first
/// epochs, which would press the others into a line.
fn shown(drawn: &[Curve<'_>], (low, high): (f64, f64), better: Better) -> (f64, f64) {
    const LONG: usize = 20;
    let later = drawn.iter().flat_map(|curve| match curve.points.len() {
        0..LONG => &curve.points[..],
        long => &curve.points[long / LONG..],
    });
    let later = later.map(|p| p.y);
    let cut = match better {
        Better::More => (later.fold(f64::INFINITY, f64::min), high),
        _ => (low, later.fold(f64::NEG_INFINITY, f64::max)),
    };
    if cut.1 / 2.0 - cut.0 / 2.0 < (high / 2.0 - low / 2.0) * 0.6 { cut } else { (low, high) }
}

/// A mark at a place, one shape for each kind.
fn mark(kind: usize, x: f64, y: f64) -> String {
    let (left, up) = (x - 3.0, y - 3.0);
    match kind {
        0 => format!("M{left:.1} {y:.1}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z"),
        1 => format!("M{left:.1} {up:.1}h6v6h-6z"),
        2 => format!("M{x:.1} {:.1}l4 7h-8z", y - 4.5),
        3 => format!("M{x:.1} {:.1}l4 4l-4 4l-4 -4z", y - 4.0),
        _ => format!("M{x:.1} {:.1}l4 -7h-8z", y + 4.5),
    }
}

/// What a line of a run looks like, for a legend; of a split, if no run is named.
fn sample(run: Option<usize>, split: &str) -> String {
    let colour = run.map_or("ink".to_string(), |run| format!("c{}", run % COLOURS));
    let mark = mark(run.unwrap_or(0) % MARKS, 17.0, 7.0);
    let line = format!(r#"<polyline points="1,7 33,7"/><path class="mark" d="{mark}"/>"#);
    let size = r#"viewBox="0 0 34 14" width="34" height="14""#;
    format!(r#"<svg class="sample" {size} aria-hidden="true"><g class="curve {split} {colour}">{line}</g></svg>"#)
}

/// The legend of some panels: the numbers and names of their runs, and their splits.
pub(crate) fn legend<'a>(runs: impl Iterator<Item = (usize, &'a str)>, splits: &[&str]) -> String {
    let mut text = String::from("<ul class=\"legend\">\n");
    for (i, name) in runs {
        let name = format!("<bdi>{}</bdi>", escape(name));
        text += &format!("<li data-key=\"run-{}\">{}{name}</li>\n", i + 1, sample(Some(i), "test"));
    }
    for split in splits {
        text += &format!("<li data-key=\"{split}\">{}{split}</li>\n", sample(None, split));
    }
    text + "</ul>\n"
}

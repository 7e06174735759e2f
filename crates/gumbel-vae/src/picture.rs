//! Pictures of runs: grids of images and heat maps (PNG), learning curves (SVG).

use crate::evaluate::BoundKind;
use crate::store::write_atomic;
use crate::train::Metrics;
use crate::{Error, Result};
use plotters::prelude::*;
use std::path::Path;

/// Pixels between tiles.
const GAP: usize = 2;
/// Magnification of a pixel.
const ZOOM: usize = 2;

/// Writes a grid of grey images with values in [0, 1], `[tiles, height * width]`, `columns` to a row.
pub fn grid(path: &Path, tiles: &[f32], height: usize, width: usize, columns: usize) -> Result<()> {
    let columns = columns.max(1);
    let rows = (tiles.len() / (height * width)).div_ceil(columns).max(1);
    let (canvas_width, canvas_height) = (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP);
    let line = canvas_width * ZOOM;
    let mut canvas = vec![128u8; line * canvas_height * ZOOM];
    for (i, tile) in tiles.chunks_exact(height * width).enumerate() {
        let (x0, y0) = (GAP + i % columns * (width + GAP), GAP + i / columns * (height + GAP));
        for (p, v) in tile.iter().enumerate() {
            let level = (v.clamp(0.0, 1.0) * 255.0).round() as u8;
            let (x, y) = ((x0 + p % width) * ZOOM, (y0 + p / width) * ZOOM);
            for row in y..y + ZOOM {
                canvas[row * line + x..][..ZOOM].fill(level);
            }
        }
    }
    write_png(path, &canvas, line, canvas_height * ZOOM, png::ColorType::Grayscale)
}

fn write_png(path: &Path, canvas: &[u8], width: usize, height: usize, color: png::ColorType) -> Result<()> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let drawn = encoder.write_header().and_then(|mut w| {
        w.write_image_data(canvas)?;
        w.finish()
    });
    drawn.map_err(|e| Error::Picture { path: path.to_path_buf(), detail: e.to_string() })?;
    write_atomic(path, &bytes)
}

/// Pixels of a cell of a heat map.
const CELL: usize = 24;

/// Writes a square matrix `[n, n]` as a heat map: red is positive, blue negative, white zero, the strongest colour the
/// largest magnitude; grey stands for NaN, "no value".
pub fn heat_map(path: &Path, matrix: &[f64], n: usize) -> Result<()> {
    let largest = matrix.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs())).max(f64::MIN_POSITIVE);
    let side = n * CELL;
    let mut canvas = vec![0u8; 3 * side * side];
    for (p, pixel) in canvas.chunks_exact_mut(3).enumerate() {
        let value = matrix[p / side / CELL * n + p % side / CELL] / largest;
        let fade = |strength: f64| (255.0 * (1.0 - strength.clamp(0.0, 1.0))).round() as u8;
        pixel.copy_from_slice(&match value {
            v if v.is_nan() => [160, 160, 160],
            v if v >= 0.0 => [255, fade(v), fade(v)],
            v => [fade(-v), fade(-v), 255],
        });
    }
    write_png(path, &canvas, side, side, png::ColorType::Rgb)
}

/// Name, colour and points of a line.
type Series = (String, RGBColor, Vec<(f64, f64)>);

/// Writes the bound of the three splits, and -ln p(x) of the test split where it is known, over the epochs.
pub fn curves(path: &Path, title: &str, metrics: &[Metrics]) -> Result<()> {
    let mut series: Vec<Series> = vec![];
    let colours =
        [("train", RGBColor(130, 130, 130)), ("valid", RGBColor(31, 119, 180)), ("test", RGBColor(214, 39, 40))];
    for (split, colour) in colours {
        let points = metrics.iter().filter(|m| m.split == split).map(|m| (m.epoch as f64, m.bound));
        series.push((format!("bound, {split}"), colour, points.collect()));
    }
    let nll = metrics.iter().filter(|m| m.split == "test").filter_map(|m| Some((m.epoch as f64, m.nll?)));
    series.push(("-ln p(x), test".into(), RGBColor(44, 160, 44), nll.collect()));
    series.retain(|s| !s.2.is_empty());

    let mut svg = String::new();
    let draw = |svg: &mut String| -> Drawn {
        let root = SVGBackend::with_string(svg, (800, 500)).into_drawing_area();
        root.fill(&WHITE)?;
        chart(&root, title, ["epoch", "nats per image"], &series)?;
        root.present()?;
        Ok(())
    };
    draw(&mut svg).map_err(|e| Error::Picture { path: path.to_path_buf(), detail: e.to_string() })?;
    write_atomic(path, svg.as_bytes())
}

/// Colours of runs, in turn.
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(23, 190, 207),
];

/// Writes the curves of several runs, each with its name and metrics: `paper_loss`, `bound` and -ln p(x) of one split, one
/// below the other, over epochs on the left and over the time of the training steps, without evaluation, on the right.
/// Runs whose bounds are estimates are named so.
/// What no run has is left out.
pub fn comparison(path: &Path, split: &str, runs: &[(String, Vec<Metrics>)]) -> Result<()> {
    type Field = fn(&Metrics) -> Option<f64>;
    let fields: [(&str, Field); 3] =
        [("paper_loss", |m| m.paper_loss), ("bound", |m| Some(m.bound)), ("-ln p(x)", |m| m.nll)];
    type Axis = fn(&Metrics) -> f64;
    let axes: [(&str, Axis); 2] = [("epoch", |m| m.epoch as f64), ("seconds of training steps", |m| m.train_seconds)];
    let panel = |field: Field, axis: Axis| -> Vec<Series> {
        let lines = runs.iter().zip(COLOURS.iter().cycle()).map(|((name, metrics), colour)| {
            let points = metrics.iter().filter(|m| m.split == split).filter_map(|m| Some((axis(m), field(m)?)));
            let estimate = metrics.iter().any(|m| m.split == split && m.bound_kind != BoundKind::Exact);
            let name = if estimate { format!("{name} (estimates)") } else { name.clone() };
            (name, *colour, points.collect::<Vec<_>>())
        });
        lines.filter(|s| !s.2.is_empty()).collect()
    };
    let rows: Vec<_> = fields.into_iter().filter(|(_, field)| !panel(*field, axes[0].1).is_empty()).collect();
    if rows.is_empty() {
        let detail = format!("the runs have no metrics of the split {split}");
        return Err(Error::Picture { path: path.to_path_buf(), detail });
    }
    let mut svg = String::new();
    let draw = |svg: &mut String| -> Drawn {
        let root = SVGBackend::with_string(svg, (1200, 400 * rows.len() as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        for ((name, field), areas) in rows.iter().zip(root.split_evenly((rows.len(), 2)).chunks(2)) {
            for ((axis_name, axis), area) in axes.iter().zip(areas) {
                let title = format!("{name}, {split}");
                chart(area, &title, [axis_name, "nats per image"], &panel(*field, *axis))?;
            }
        }
        root.present()?;
        Ok(())
    };
    draw(&mut svg).map_err(|e| Error::Picture { path: path.to_path_buf(), detail: e.to_string() })?;
    write_atomic(path, svg.as_bytes())
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Draws lines with axes and names; nothing if there are no points.
fn chart(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    [x_name, y_name]: [&str; 2],
    series: &[Series],
) -> Drawn {
    let range = |of: fn(&(f64, f64)) -> f64| {
        let values = series.iter().flat_map(|s| s.2.iter().map(of)).filter(|v| v.is_finite());
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)))
    };
    let ((left, right), (low, high)) = (range(|p| p.0), range(|p| p.1));
    if low > high {
        return Ok(()); // nothing to draw yet
    }
    let margin = ((high - low) * 0.05).max(0.5);
    let right = if right > left { right } else { left + 1.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(left..right, low - margin..high + margin)?;
    // 5, not 5.0, and no digits of rounding.
    let number = |v: &f64| format!("{}", (v * 1e6).round() / 1e6);
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(x_name).y_desc(y_name).x_label_formatter(&number).y_label_formatter(&number);
    mesh.light_line_style(WHITE).draw()?;
    for (name, colour, points) in series {
        let line = chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        let colour = *colour;
        line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    let mut names = chart.configure_series_labels();
    names.position(SeriesLabelPosition::UpperRight); // curves fall
    names.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    Ok(())
}

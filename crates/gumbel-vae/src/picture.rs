//! Pictures of a run: grids of images (PNG) and learning curves (SVG).

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
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, line as u32, (canvas_height * ZOOM) as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let drawn = encoder.write_header().and_then(|mut w| {
        w.write_image_data(&canvas)?;
        w.finish()
    });
    drawn.map_err(|e| Error::Picture { path: path.to_path_buf(), detail: e.to_string() })?;
    write_atomic(path, &bytes)
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

    let values = || series.iter().flat_map(|s| s.2.iter().map(|p| p.1)).filter(|v| v.is_finite());
    let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return Ok(()); // nothing to draw yet
    }
    let margin = ((high - low) * 0.05).max(0.5);
    let last = metrics.iter().map(|m| m.epoch).max().unwrap_or(1).max(2) as f64;

    let mut svg = String::new();
    let draw = |svg: &mut String| -> std::result::Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::with_string(svg, (800, 500)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(1.0..last, low - margin..high + margin)?;
        chart.configure_mesh().x_desc("epoch").y_desc("nats per image").light_line_style(WHITE).draw()?;
        for (name, colour, points) in &series {
            let line = chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
            let colour = *colour;
            line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
        root.present()?;
        Ok(())
    };
    draw(&mut svg).map_err(|e| Error::Picture { path: path.to_path_buf(), detail: e.to_string() })?;
    write_atomic(path, svg.as_bytes())
}

//! Pictures of a run: grids of images (PNG) and learning curves (SVG).

use crate::store::write_atomic;
use crate::train::Metrics;
use crate::{Error, Result};
use image::{GrayImage, ImageFormat, Luma, imageops::FilterType};
use plotters::prelude::*;
use std::io::Cursor;
use std::path::Path;

/// Pixels between tiles.
const GAP: u32 = 2;
/// Magnification of a pixel.
const ZOOM: u32 = 2;

/// Writes a grid of grey images with values in [0, 1], `[tiles, height * width]`, `columns` to a row.
pub fn grid(path: &Path, tiles: &[f32], height: usize, width: usize, columns: usize) -> Result<()> {
    let columns = columns.max(1) as u32;
    let (h, w) = (height as u32, width as u32);
    let count = (tiles.len() / (height * width)) as u32;
    let rows = count.div_ceil(columns).max(1);
    let mut canvas = GrayImage::from_pixel(columns * (w + GAP) + GAP, rows * (h + GAP) + GAP, Luma([128]));
    for (i, tile) in tiles.chunks_exact(height * width).enumerate() {
        let (x0, y0) = (GAP + i as u32 % columns * (w + GAP), GAP + i as u32 / columns * (h + GAP));
        for (p, v) in tile.iter().enumerate() {
            let level = (v.clamp(0.0, 1.0) * 255.0).round() as u8;
            canvas.put_pixel(x0 + p as u32 % w, y0 + p as u32 / w, Luma([level]));
        }
    }
    let large = image::imageops::resize(&canvas, canvas.width() * ZOOM, canvas.height() * ZOOM, FilterType::Nearest);
    let mut bytes = Cursor::new(vec![]);
    let drawn = large.write_to(&mut bytes, ImageFormat::Png);
    drawn.map_err(|e| Error::Picture { path: path.to_path_buf(), detail: e.to_string() })?;
    write_atomic(path, &bytes.into_inner())
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

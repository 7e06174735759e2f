//! `glyphs`: ten classes of pen-drawn figures, generated.
//!
//! Each image is one figure under a random pose (rotation, scale, shear, translation), a smooth random deformation and
//! a random pen width, drawn with anti-aliasing. Nothing is stored: image `i` of a split is a function of (seed, split,
//! i) alone, made of exactly rounded IEEE operations and the portable `libm`, so that it is the same on every machine
//! and for any number of threads.

use std::f32::consts::TAU;

use rayon::prelude::*;

use crate::random::{Draws, Key};
use crate::{DataError, Dataset, DatasetEntry, Digest, Images, Limits, Split};

const SIDE: usize = 28;
/// Training, validation and test images of the whole set, as in MNIST.
const WHOLE: [usize; 3] = [50_000, 10_000, 10_000];

/// SHA-256 of the first 1000 training images with seed 0.
const FIRST_1000: &str = "e95401f483213c5ab0913f8ab390a3a3a507c0b9e68ad9fbcddb97c14da019e1";

pub(super) fn entry() -> DatasetEntry {
    let first = |all: usize, limit: Option<usize>| limit.map_or(all, |limit| limit.min(all));
    let make = move |limits: Limits| {
        let [train, valid, test] = WHOLE;
        glyphs(0, [first(train, limits.train), first(valid, limits.eval), first(test, limits.eval)])
    };
    DatasetEntry::custom("glyphs", "70,000 generated pen drawings of ten figures, 28x28 grey", move |_, limits| {
        make(limits)
    })
    // A first look is short.
    .with_suited(&[("epochs", "6"), ("lr", "0.003")])
    .with_check("first 1000 generated images", Digest::Sha256(FIRST_1000.into()), || {
        Ok(glyphs(0, [1000, 0, 0])?.train.pixels().to_vec())
    })
}

/// Names of the figures; a label is an index into this list.
pub const GLYPH_CLASSES: [&str; 10] =
    ["ring", "cross", "triangle", "star", "house", "heart", "spiral", "arrow", "zigzag", "wave"];

/// Generates the data set `glyphs`: 28x28 grey images of ten figures.
///
/// The whole set has 50,000 training, 10,000 validation and 10,000 test images; `counts` says how many of each are
/// made, always the first ones. Every ten consecutive images of a split (starting at a multiple of ten) show each
/// figure once, in random order.
///
/// # Errors
/// [`DataError::Argument`] for more images than the whole set has.
///
/// ```
/// let data = gumbel_data::glyphs(0, [100, 20, 10])?;
/// assert_eq!((data.train.count(), data.valid.count(), data.test.count()), (100, 20, 10));
/// assert_eq!(data.train.dim(), 28 * 28);
/// # Ok::<(), gumbel_data::DataError>(())
/// ```
pub fn glyphs(seed: u64, counts: [usize; 3]) -> Result<Dataset, DataError> {
    let names = ["number of training images", "number of validation images", "number of test images"];
    for ((count, most), name) in counts.into_iter().zip(WHOLE).zip(names) {
        if count > most {
            return Err(DataError::argument(name, format!("at most {most}"), count));
        }
    }
    let figures = figures();
    let generate = |split, count| generate(&figures, seed, split, count);
    let splits =
        [generate(Split::Train, counts[0])?, generate(Split::Valid, counts[1])?, generate(Split::Test, counts[2])?];
    Dataset::new("glyphs", format!("generated, seed {seed}"), GLYPH_CLASSES.map(String::from).to_vec(), splits)
}

fn generate(figures: &[Figure], seed: u64, split: Split, count: usize) -> Result<Images, DataError> {
    let dim = SIDE * SIDE;
    let mut pixels = vec![0; count * dim];
    let labels: Vec<u16> = (0..count).map(|i| label(seed, split, i)).collect();
    let key = Key::new(b"glyphpen", seed, split.number(), 0);
    pixels.par_chunks_mut(dim).with_min_len(64).zip(&labels).enumerate().for_each(|(i, (image, label))| {
        draw(&figures[usize::from(*label)], &mut key.stream(i as u64), image);
    });
    Images::new(SIDE, SIDE, pixels, Some(labels))
}

fn label(seed: u64, split: Split, index: usize) -> u16 {
    let n = GLYPH_CLASSES.len();
    let mut block = Key::new(b"glyphcls", seed, split.number(), 0).stream((index / n) as u64);
    block.permutation(n)[index % n] as u16
}

/// Pen strokes in a square from -1 to 1, y pointing down.
type Figure = Vec<Vec<[f32; 2]>>;

fn sin(x: f32) -> f32 {
    libm::sin(f64::from(x)) as f32
}

fn cos(x: f32) -> f32 {
    libm::cos(f64::from(x)) as f32
}

/// The figures, in the order of [`GLYPH_CLASSES`].
fn figures() -> Vec<Figure> {
    let corner = |turn: f32, radius: f32| [radius * sin(turn * TAU), -radius * cos(turn * TAU)];
    let curve = |n: usize, at: &dyn Fn(f32) -> [f32; 2]| (0..=n).map(|i| at(i as f32 / n as f32)).collect::<Vec<_>>();
    let line = |corners: &[[f32; 2]]| refine(corners);
    vec![
        vec![curve(32, &|t| corner(t, 0.85))],
        vec![line(&[[0.0, -0.95], [0.0, 0.95]]), line(&[[-0.7, -0.3], [0.7, -0.3]])],
        vec![line(&[[0.0, -0.85], [0.9, 0.75], [-0.9, 0.75], [0.0, -0.85]])],
        // Every second corner of a pentagon: the pentagram.
        vec![line(&[0.0, 0.4, 0.8, 0.2, 0.6, 0.0].map(|turn| corner(turn, 0.95)))],
        vec![
            line(&[[-0.7, 0.9], [-0.7, -0.1], [0.0, -0.9], [0.7, -0.1], [0.7, 0.9], [-0.7, 0.9]]),
            line(&[[-0.7, -0.1], [0.7, -0.1]]),
        ],
        vec![curve(36, &|t| {
            let (s, a) = (sin(t * TAU), t * TAU);
            let y = 13.0 * cos(a) - 5.0 * cos(2.0 * a) - 2.0 * cos(3.0 * a) - cos(4.0 * a);
            [0.92 * s * s * s, -(y + 2.5) / 15.0]
        })],
        vec![curve(40, &|t| corner(1.8 * t, 0.08 + 0.87 * t))],
        vec![line(&[[-0.95, 0.0], [0.95, 0.0]]), line(&[[0.3, -0.65], [0.95, 0.0], [0.3, 0.65]])],
        vec![line(&[[-0.75, -0.8], [0.75, -0.8], [-0.75, 0.8], [0.75, 0.8]])],
        vec![curve(32, &|t| [1.9 * t - 0.95, -0.75 * sin(1.5 * t * TAU)])],
    ]
}

/// A line through the corners in short pieces, so that it can bend.
fn refine(corners: &[[f32; 2]]) -> Vec<[f32; 2]> {
    const PIECES: usize = 5;
    let mut points: Vec<[f32; 2]> = corners.first().copied().into_iter().collect();
    for ends in corners.windows(2) {
        for piece in 1..=PIECES {
            let t = piece as f32 / PIECES as f32;
            points.push([0, 1].map(|axis| ends[0][axis] + t * (ends[1][axis] - ends[0][axis])));
        }
    }
    points
}

/// A random pose with a random smooth deformation.
struct Pose {
    /// Matrix and translation to pixels.
    x: [f32; 3],
    y: [f32; 3],
    /// Displacement in pixels along an axis: amplitude * sin(phase + frequency . point).
    waves: [[f32; 4]; 4],
}

impl Pose {
    fn draw(draws: &mut Draws) -> Pose {
        let turn = draws.between(-0.35, 0.35);
        let shear = draws.between(-0.25, 0.25);
        let size = draws.between(7.0, 10.5);
        let (wide, high) = (size * draws.between(0.85, 1.15), size * draws.between(0.85, 1.15));
        let (s, c) = (sin(turn), cos(turn));
        let centre = SIDE as f32 / 2.0;
        let (dx, dy) = (draws.between(-1.8, 1.8), draws.between(-1.8, 1.8));
        let mut wave = || {
            let amplitude = draws.between(-1.2, 1.2);
            [amplitude, draws.between(0.0, TAU), draws.between(-3.0, 3.0), draws.between(-3.0, 3.0)]
        };
        Pose {
            x: [c * wide, (shear * c - s) * high, centre + dx],
            y: [s * wide, (shear * s + c) * high, centre + dy],
            waves: [wave(), wave(), wave(), wave()],
        }
    }

    /// To pixels; kept inside the image by a margin for the pen.
    fn place(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let wave = |[amplitude, phase, fx, fy]: [f32; 4]| amplitude * sin(phase + fx * x + fy * y);
        let moved = [
            self.x[0] * x + self.x[1] * y + self.x[2] + wave(self.waves[0]) + wave(self.waves[1]),
            self.y[0] * x + self.y[1] * y + self.y[2] + wave(self.waves[2]) + wave(self.waves[3]),
        ];
        moved.map(|v| v.clamp(2.0, SIDE as f32 - 2.0))
    }
}

/// Draws a figure: each pixel's level follows from its centre's distance to the nearest stroke.
fn draw(figure: &Figure, draws: &mut Draws, image: &mut [u8]) {
    let pose = Pose::draw(draws);
    // Pen radius in pixels.
    let radius = draws.between(0.8, 1.45);
    let reach = radius + 0.5;
    let mut nearest = [reach * reach; SIDE * SIDE];
    for stroke in figure {
        let points: Vec<[f32; 2]> = stroke.iter().map(|point| pose.place(*point)).collect();
        for ends in points.windows(2) {
            stamp(ends[0], ends[1], reach, &mut nearest);
        }
    }
    for (pixel, squared) in image.iter_mut().zip(nearest) {
        // The edge is one pixel wide, with half coverage at the radius.
        let coverage = (reach - squared.sqrt()).clamp(0.0, 1.0);
        *pixel = (255.0 * coverage + 0.5) as u8;
    }
}

/// Lowers the squared distances of the pixels near the segment from `a` to `b`.
fn stamp(a: [f32; 2], b: [f32; 2], reach: f32, nearest: &mut [f32; SIDE * SIDE]) {
    // Pixels whose centres (at .5) may be in reach; casts saturate at 0.
    let range = |axis: usize| {
        let (low, high) = (a[axis].min(b[axis]), a[axis].max(b[axis]));
        (low - reach) as usize..((high + reach) as usize + 1).min(SIDE)
    };
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let inverse = 1.0 / (dx * dx + dy * dy).max(1e-6);
    for row in range(1) {
        let y = row as f32 + 0.5 - a[1];
        for column in range(0) {
            let x = column as f32 + 0.5 - a[0];
            let t = ((x * dx + y * dy) * inverse).clamp(0.0, 1.0);
            let (ex, ey) = (x - t * dx, y - t * dy);
            let best = &mut nearest[row * SIDE + column];
            *best = best.min(ex * ex + ey * ey);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::sha256_hex;

    /// The data set is defined by these bits: a change here is a new data set.
    #[test]
    fn bits_are_pinned() {
        let data = glyphs(0, [100, 20, 20]).unwrap();
        let found =
            (sha256_hex(data.train.pixels()), sha256_hex(data.test.pixels()), &data.train.labels().unwrap()[..10]);
        let train = "890f9d6d4e67d5eb292b7ecfa52f1c57d49434d7c04025bf35fbe31f2141db33";
        let test = "83d5a99c910939b8479f831ca45c009d7394a454bc8e122425b0af1037fee81b";
        assert_eq!(found, (train.to_string(), test.to_string(), &[2u16, 3, 1, 5, 7, 4, 0, 9, 6, 8][..]));
    }

    #[test]
    fn any_number_of_threads_and_any_prefix() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let large = pool(3).install(|| glyphs(7, [500, 100, 30])).unwrap();
        assert_eq!(pool(1).install(|| glyphs(7, [500, 100, 30])).unwrap(), large);
        let small = glyphs(7, [60, 12, 10]).unwrap();
        assert_eq!(small.train, large.train.clone().take(60));
        assert_eq!(small.valid, large.valid.clone().take(12));
        assert_eq!(small.test, large.test.clone().take(10));
        assert_ne!(glyphs(8, [60, 12, 10]).unwrap().train, small.train);
        assert_ne!(small.train.image(0), small.valid.image(0));
    }

    #[test]
    fn classes_are_balanced_and_ink_is_like_that_of_digits() {
        let data = glyphs(0, [2000, 0, 0]).unwrap();
        for block in data.train.labels().unwrap().chunks(10) {
            let mut block = block.to_vec();
            block.sort_unstable();
            assert_eq!(block, (0..10).collect::<Vec<_>>());
        }
        let ink = data.train.mean_ink();
        assert!((0.10..0.20).contains(&ink), "{ink}");
        let edge = |i: usize| i < SIDE || i.is_multiple_of(SIDE) || i % SIDE == SIDE - 1 || i >= SIDE * (SIDE - 1);
        let edge_ink: Vec<u8> =
            data.train.pixels().iter().enumerate().filter(|(i, _)| edge(i % (SIDE * SIDE))).map(|(_, p)| *p).collect();
        let share = edge_ink.iter().filter(|p| **p >= 128).count() as f64 / edge_ink.len() as f64;
        assert!(share < 0.01, "figures are cut at the edge: {share}");
    }

    #[test]
    fn counts_are_limited() {
        assert!(glyphs(0, [WHOLE[0] + 1, 0, 0]).is_err());
        assert!(glyphs(0, [0, 0, WHOLE[2] + 1]).is_err());
        assert_eq!(glyphs(0, [0, 0, 0]).unwrap().train.count(), 0);
    }
}

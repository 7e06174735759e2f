//! What gradient estimators are like at the frozen parameters of a run: bias, standard deviation, cost.
//!
//! An engine answers their questions about some images; [`gumbel::diagnose`] has the statistics. By layer, a draw is a
//! whole training step from the same parameters, whose gradient is read off the optimiser: its first moment was zero.

use crate::picture::{Axis, Curve, Figure, Panel, curves};
use crate::{Config, Error, Registry, Result};
use gumbel::continuous::Draw;
use gumbel::diagnose::{APART, Average, Comparison, Diagnosis, Figures, Plan, Reference, Unbiased, diagnose, unbiased};
use gumbel::engine::{Asked, Engine, Images, StepOptions};
use gumbel::estimator::{Estimator, EstimatorEntry, Exact, KlTerm, Moment, enumerable};
use gumbel::network::{BETA1, Snapshot};
use gumbel::noise::{Noise, Purpose};
use gumbel::registry::{Entry, Settings, Value};
use gumbel::structure::AnyStructure;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Estimators with settings of theirs: `NAME`, `NAME:KEY=VALUE:KEY` and so on; none: all that the latent can have.
    /// Beside an estimator's settings, `kl` puts the KL into its objective, and `samples=M` has M samples of an image.
    pub estimators: Vec<String>,
    /// Values of epsilon, of those that have one.
    pub epsilon: Vec<f64>,
    /// Values of the temperature, of those that have one.
    pub temperature: Vec<f64>,
    /// Draws of each.
    pub draws: usize,
    /// Draws that those with something to learn learn from beforehand.
    pub learn: usize,
    /// Draws of the reference where states cannot be enumerated; by layer, training steps.
    pub reference_draws: usize,
    /// Images: the first of them.
    pub batch: usize,
    /// Whether the gradients of all layers are looked at too.
    pub layers: bool,
    /// Seed of the draws.
    pub seed: u64,
}

/// One estimator with its settings.
struct Cell {
    name: String,
    /// As it was asked for: the name in a legend.
    spec: String,
    /// The name and the value of what is swept.
    swept: Option<(&'static str, f64)>,
    settings: Settings,
    samples: usize,
    /// Whether the KL is in the objective.
    kl: bool,
    estimator: Box<dyn Estimator>,
    /// The epsilon that it was measured at, where it moves that itself.
    held: Option<f64>,
}

/// A long average that stands for an exact gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Averaging {
    /// Whether whole training steps are averaged, for the gradients by layer.
    pub layers: bool,
    /// The estimator without bias.
    pub estimator: &'static str,
    /// Draws of it.
    pub draws: usize,
    /// Samples of each image in a draw.
    pub samples: usize,
    /// Images.
    pub images: usize,
}

/// Who waits for the lines; a closure that takes them is one.
pub trait Watcher {
    /// So many draws of an average are done; told before each draw.
    fn averaged(&mut self, _of: &Averaging, _done: usize) {}

    /// A line has come. A break ends the whole.
    fn line(&mut self, line: &Line) -> ControlFlow<()>;
}

impl<F: FnMut(&Line) -> ControlFlow<()>> Watcher for F {
    fn line(&mut self, line: &Line) -> ControlFlow<()> {
        self(line)
    }
}

/// What was found of one estimator with one set of settings: a line of `gumbel diagnose --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Its name.
    pub estimator: String,
    /// As it was asked for, with its settings.
    pub spec: String,
    /// epsilon, of those that have one; of one that moves it, the mean that it was measured at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// The temperature, of those that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Whose gradient it is to be: `loss`, `E_q[loss]`, or `bound`, with the KL.
    pub objective: &'static str,
    /// `potentials`, or the name of a layer's parameter.
    pub at: String,
    /// Norm of the exact gradient.
    pub norm: f64,
    /// Its standard error, 0 where it is exact.
    pub norm_error: f64,
    /// What the exact gradient is: of `exact`, or of another estimator without bias.
    pub reference: &'static str,
    /// Distance of the mean of all draws from the exact gradient, what the number of draws adds to it taken out.
    pub bias: f64,
    /// Its standard error; of all that follow too.
    pub bias_error: f64,
    /// bias / norm.
    pub relative_bias: f64,
    /// Standard deviation of a draw.
    pub std: f64,
    #[expect(missing_docs, reason = "of the value before")]
    pub std_error: f64,
    /// Mean squared distance of a draw from the exact gradient.
    pub mse: f64,
    #[expect(missing_docs, reason = "of the value before")]
    pub mse_error: f64,
    /// Mean cosine of a draw to the exact gradient.
    pub cosine: f64,
    #[expect(missing_docs, reason = "of the value before")]
    pub cosine_error: f64,
    /// Cosine of the mean of all draws to the exact gradient.
    pub mean_cosine: f64,
    /// Rows of the decoder without gradient, for an image and draw; null by layer.
    pub rows_without_gradient: Option<f64>,
    /// The same with gradient, among them what the decoder follows; null by layer.
    pub rows_with_gradient: Option<f64>,
    /// Median time of a draw for all images, in milliseconds; by layer of a whole step.
    pub ms: f64,
    /// Draws.
    pub draws: usize,
    /// Samples of each image in a draw.
    pub samples: usize,
    /// Images.
    pub images: usize,
    /// What it measures, by name, means over the draws.
    #[serde(flatten)]
    pub measures: BTreeMap<String, f64>,
}

/// Looks at estimators at the frozen parameters of an engine, and tells each line as it comes to who watches, which
/// may break off: then the lines so far come back.
///
/// # Errors
/// Names, settings and values that cannot be; a latent with too many states and without sums; no images; numbers that
/// are not finite.
pub fn run(
    config: &Config,
    engine: &mut dyn Engine,
    images: &dyn Images,
    request: &Request,
    watcher: &mut dyn Watcher,
) -> Result<Vec<Line>> {
    let structure = &engine.structure().clone();
    let cells = cells(config.registry(), structure, &config.latent().text, request)?;
    let images_used = request.batch.min(images.count());
    if images_used == 0 {
        return Err(Error::setting("batch", request.batch, "at least one image"));
    }
    let batch: Vec<u32> = (0..images_used as u32).collect();
    let snapshot = Snapshot { moments: vec![], ..engine.snapshot() };
    let codes = Noise::new(request.seed, Purpose::Gaussian, 0);
    let Asked { potentials, mut oracle, .. } = engine.ask(images, &batch, Draw::Sample(&codes))?;
    let drawn = request.reference_draws.max(2);
    let averaging = |layers: bool| {
        let by = unbiased(structure).ok()?;
        Some(Averaging { layers, estimator: by.name, draws: drawn, samples: by.samples, images: images_used })
    };
    let average = averaging(false).filter(|_| enumerable(structure).is_err());
    let mut wait = |done| average.iter().for_each(|of| watcher.averaged(of, done));
    let reference = Reference::watched(structure, &potentials, &mut *oracle, drawn, request.seed, &mut wait).map_err(
        |e| match e {
            gumbel::Error::NoSums { .. } | gumbel::Error::TooManyStates { .. } => {
                let expected = format!("a latent of at most 32768 states, or with sums: {e}");
                Error::setting("latent", &config.latent().text, expected)
            }
            e => e.into(),
        },
    )?;
    let with_kl = match cells.iter().any(|c| c.kl) {
        true => Some(reference.clone().with_kl(structure, &potentials)?),
        false => None,
    };
    let mut lines = vec![];
    let mut cells: Vec<Cell> = cells;
    for cell in &mut cells {
        let reference = with_kl.as_ref().filter(|_| cell.kl).unwrap_or(&reference);
        let plan = Plan {
            draws: request.draws,
            samples: cell.samples,
            learn: request.learn,
            kl_weight: cell.kl as u8 as f32,
            seed: request.seed,
        };
        let found = diagnose(&mut *cell.estimator, structure, &potentials, reference, &mut *oracle, &plan);
        let found = found.map_err(|e| refused(config.registry(), structure, &config.latent().text, &cell.name, e))?;
        let Diagnosis { figures, rows, ms, tallies, draws } = found;
        let measured = cell.estimator.measures().iter().zip(&tallies).filter(|(_, t)| t.count > 0.0);
        let measures: BTreeMap<String, f64> = measured.map(|(m, t)| (m.name.to_string(), t.mean())).collect();
        cell.held = measures.get("adaptive_epsilon").copied();
        let line = Line {
            rows_without_gradient: Some(rows[0]),
            rows_with_gradient: Some(rows[1]),
            measures,
            ..cell.line("potentials", reference, &figures, (ms, draws, images_used))
        };
        let goes_on = watcher.line(&line).is_continue();
        lines.push(line);
        if !goes_on {
            return Ok(lines);
        }
    }
    drop(oracle);
    if request.layers {
        let mut steps = Steps { config, images, batch: &batch, snapshot: &snapshot, seed: request.seed };
        // Also where the engine has no step over all states.
        let average = averaging(true).filter(|_| enumerable(structure).is_err() || steps.engine(&Exact).is_err());
        // Of the loss and of the bound, as they are needed: each may be a long average.
        let mut references: [Option<Vec<Reference>>; 2] = [None, None];
        for cell in &mut cells {
            let exact = match &mut references[cell.kl as usize] {
                Some(known) => &*known,
                unknown => unknown.insert(steps.references(structure, cell.kl, average.as_ref(), watcher)?),
            };
            for line in steps.layers(cell, exact, request)? {
                let goes_on = watcher.line(&line).is_continue();
                lines.push(line);
                if !goes_on {
                    return Ok(lines);
                }
            }
        }
    }
    Ok(lines)
}

impl Cell {
    fn line(
        &self,
        at: &str,
        reference: &Reference,
        figures: &Figures,
        (ms, draws, images): (f64, usize, usize),
    ) -> Line {
        let value = |name: &str| match self.swept {
            _ if name == "epsilon" && self.held.is_some() => self.held,
            Some((swept, value)) if swept == name => Some(value),
            _ => match self.settings.get(name) {
                Some(Value::Real(value)) => Some(*value),
                _ => None,
            },
        };
        let norm = reference.norm();
        Line {
            estimator: self.name.clone(),
            spec: self.spec.clone(),
            epsilon: value("epsilon"),
            temperature: value("temperature"),
            objective: if self.kl { "bound" } else { "loss" },
            at: at.into(),
            norm,
            norm_error: reference.error,
            reference: reference.estimator,
            bias: figures.bias.value,
            bias_error: figures.bias.error,
            relative_bias: figures.bias.value / norm.max(f64::MIN_POSITIVE),
            std: figures.std.value,
            std_error: figures.std.error,
            mse: figures.mse.value,
            mse_error: figures.mse.error,
            cosine: figures.cosine.value,
            cosine_error: figures.cosine.error,
            mean_cosine: figures.mean_cosine,
            rows_without_gradient: None,
            rows_with_gradient: None,
            ms,
            draws,
            samples: self.samples,
            images,
            measures: BTreeMap::new(),
        }
    }
}

/// Training steps that all begin at the same parameters.
struct Steps<'a> {
    config: &'a Config,
    images: &'a dyn Images,
    batch: &'a [u32],
    snapshot: &'a Snapshot,
    seed: u64,
}

impl Steps<'_> {
    /// An engine for an estimator, at the parameters.
    fn engine(&self, estimator: &dyn Estimator) -> Result<Box<dyn Engine>> {
        let mut engine = self.config.engine(estimator, self.images.shape())?;
        engine.restore(self.snapshot)?;
        engine.prepare(self.images, self.batch)?;
        Ok(engine)
    }

    /// The gradients of all parameters that others are compared with: of the loss, or with the exact gradient of the
    /// KL of the bound; from one step with all states, or the average of many steps.
    fn references(
        &self,
        structure: &AnyStructure,
        kl: bool,
        average: Option<&Averaging>,
        watcher: &mut dyn Watcher,
    ) -> Result<Vec<Reference>> {
        let kl = (0.0, kl as u8 as f32);
        let Some(average) = average else {
            let mut engine = self.engine(&Exact)?;
            let found = self.step(&mut *engine, &mut Exact, 1, kl, 0)?.1;
            let exact = |gradient| Reference { gradient, error: 0.0, estimator: "exact", draws: 1 };
            return Ok(found.into_iter().map(exact).collect());
        };
        let Unbiased { mut estimator, name, samples } = unbiased(structure)?;
        let mut engine = self.engine(&*estimator)?;
        let mut sums: Vec<Average> = vec![];
        for draw in 0..average.draws {
            watcher.averaged(average, draw);
            let (_, found) = self.step(&mut *engine, &mut *estimator, samples, kl, APART + draw as u64)?;
            if sums.is_empty() {
                sums = found.iter().map(|g| Average::new(g.len())).collect();
            }
            sums.iter_mut().zip(found).for_each(|(sum, g)| sum.add(g));
        }
        Ok(sums.into_iter().map(|sum| sum.reference(name)).collect())
    }

    /// Time and gradients of all parameters in the step with the noise of a draw; weights of the KL inside and beside
    /// the estimator. The engine comes back at the parameters where it began.
    fn step(
        &self,
        engine: &mut dyn Engine,
        estimator: &mut dyn Estimator,
        samples: usize,
        (inside, added): (f32, f32),
        draw: u64,
    ) -> Result<(f64, Vec<Vec<f64>>)> {
        estimator.begin(&Moment { step: 0, kl_weight: inside })?;
        let stream = |purpose| Noise::new(self.seed, purpose, draw);
        // Codes and dropout stand still, as the potentials' oracle has them: what varies is the estimate.
        let still = |purpose| Noise::new(self.seed, purpose, 0);
        let options = StepOptions {
            kl_weight: added,
            continuous_kl: self.config.continuous_kl(self.snapshot.steps),
            noise: &stream(Purpose::Diagnosis),
            samples,
            gaussian: &still(Purpose::Gaussian),
            dropout: &still(Purpose::Dropout),
            rate: 1.0,
        };
        let began = Instant::now();
        engine.step(self.images, self.batch, estimator, &options)?;
        let ms = began.elapsed().as_secs_f64() * 1e3;
        let after = engine.snapshot();
        engine.restore(self.snapshot)?;
        // From a first moment of zero one step leads to (1 - beta1) times the gradient.
        let gradient = |first: &[f32]| first.iter().map(|g| *g as f64 / (1.0 - BETA1 as f64)).collect();
        let gradients = after.moments.iter().map(|m| gradient(&m.first));
        Ok((ms, gradients.collect()))
    }

    /// The lines of all parameters.
    fn layers(&mut self, cell: &mut Cell, exact: &[Reference], request: &Request) -> Result<Vec<Line>> {
        let draws = if cell.estimator.is_random() { request.draws.max(2) } else { 1 };
        let mut comparisons: Vec<Comparison<'_>> = exact.iter().map(|g| Comparison::new(g, draws)).collect();
        let mut times = vec![];
        let kl = (cell.kl as u8 as f32, 0.0);
        let mut engine = self.engine(&*cell.estimator)?;
        let state = cell.estimator.state();
        for draw in 0..draws {
            let (ms, found) = self.step(&mut *engine, &mut *cell.estimator, cell.samples, kl, draw as u64)?;
            // A step lets it learn; here it stands still.
            cell.estimator.restore(&state)?;
            times.push(ms);
            for (comparison, found) in comparisons.iter_mut().zip(&found) {
                comparison.add(found.iter().copied());
            }
        }
        times.sort_by(f64::total_cmp);
        let ms = times[(times.len() - 1) / 2];
        let parts = [("encoder", &self.snapshot.parameters.encoder), ("decoder", &self.snapshot.parameters.decoder)];
        let names = parts.iter().flat_map(|(part, all)| all.iter().map(move |p| format!("{part}.{}", p.name)));
        let lines = names
            .zip(exact.iter().zip(&comparisons))
            .map(|(name, (g, comparison))| cell.line(&name, g, &comparison.figures(), (ms, draws, self.batch.len())));
        Ok(lines.collect())
    }
}

/// An estimator that a latent cannot have: with those that it can.
fn refused(registry: &Registry, structure: &AnyStructure, latent: &str, name: &str, error: gumbel::Error) -> Error {
    use gumbel::Error::*;
    match error {
        TooManyStates { .. } | Coupled { .. } | NoSums { .. } | NotBinary { .. } => {
            let can = possible(registry, structure);
            let expected = match can.iter().any(|known| known == name) {
                true => format!("other settings of it: {latent} cannot have these ({error})"),
                false => format!("one that {latent} can have: {} ({error})", can.join(", ")),
            };
            Error::setting("estimator", name, expected)
        }
        other => other.into(),
    }
}

/// The names of the estimators that a latent can have.
fn possible(registry: &Registry, structure: &AnyStructure) -> Vec<String> {
    let fits = |e: &&EstimatorEntry| {
        let built = e.build(&Settings::defaults(e.settings()), structure);
        built.and_then(|b| b.noise(structure)).is_ok()
    };
    registry.estimators.iter().filter(fits).map(|e| e.name().to_string()).collect()
}

/// All estimators that are asked for, at all values.
fn cells(registry: &Registry, structure: &AnyStructure, latent: &str, request: &Request) -> Result<Vec<Cell>> {
    let specs = match request.estimators.is_empty() {
        true => possible(registry, structure),
        false => request.estimators.clone(),
    };
    let mut cells = vec![];
    for spec in specs {
        let mut parts = spec.split(':');
        let name = parts.next().unwrap_or_default();
        let entry = registry.estimators.get(name)?;
        let mut settings = Settings::defaults(entry.settings());
        let (mut kl, mut samples, mut given) = (false, None, vec![]);
        for part in parts {
            let (key, text) = part.split_once('=').unwrap_or((part, "true"));
            match (key, entry.settings().iter().find(|s| s.name == key)) {
                (_, Some(setting)) => {
                    settings.set(setting.name, setting.parse(text)?);
                    given.push(setting.name);
                }
                ("kl", None) => {
                    kl = text.parse().map_err(|_| Error::setting("kl", text, "true or false"))?;
                }
                ("samples", None) => {
                    let fits = text.parse().ok().filter(|m| (1..=10_000).contains(m));
                    let expected = "a whole number from 1 to 10000";
                    samples = Some(fits.ok_or_else(|| Error::setting("samples", text, expected))?);
                }
                _ => {
                    let names = entry.settings().iter().map(|s| s.name).chain(["kl", "samples"]);
                    let names: Vec<&str> = names.collect();
                    let expected = gumbel::registry::one_of(key, &names);
                    return Err(Error::setting(format!("the setting of {name}"), format!("{key:?}"), expected));
                }
            }
        }
        let schedule = entry.schedules().iter().find(|s| !given.contains(&s.name));
        let values = match schedule.map(|s| s.name) {
            Some("epsilon") => &request.epsilon[..],
            Some("temperature") => &request.temperature[..],
            _ => &[],
        };
        let swept: Vec<Option<(_, f64)>> = match schedule {
            Some(schedule) if !values.is_empty() => values.iter().map(|v| Some((schedule, *v))).collect(),
            _ => vec![None],
        };
        for swept in swept {
            let mut settings = settings.clone();
            if let Some((schedule, value)) = swept {
                // A constant: the start and the least value are the same.
                for setting in &schedule.settings[..2] {
                    settings.set(setting.name, setting.parse(&value.to_string())?);
                }
            } else if let Some(schedule) = entry.schedules().first() {
                // What was given as a start is meant.
                let start = settings.get(schedule.settings[0].name).cloned();
                start.into_iter().for_each(|value| settings.set(schedule.settings[1].name, value));
            }
            let built = entry.build(&settings, structure);
            let estimator = built.and_then(|e| e.noise(structure).map(|_| e));
            let estimator = estimator.map_err(|e| refused(registry, structure, latent, name, e))?;
            let term = estimator.kl(structure);
            if kl && term == KlTerm::Apart {
                let expected = format!("nothing for {name}: the exact gradient of the KL is added to its estimate");
                return Err(Error::setting("kl", "true", expected));
            }
            let least = estimator.least_samples();
            let samples = samples.unwrap_or(least);
            if samples < least {
                return Err(Error::setting("samples", samples, format!("at least {least} for {name}")));
            }
            let swept = swept.map(|(schedule, value)| (schedule.name, value));
            let (name, spec, kl) = (name.to_string(), spec.clone(), kl || term == KlTerm::Within);
            cells.push(Cell { name, spec, swept, settings, samples, kl, estimator, held: None });
        }
    }
    Ok(cells)
}

/// A value, where it is more than rounding.
fn seen(line: &Line, value: f64) -> f64 {
    if value > 1e-4 * line.norm { value } else { f64::NAN }
}

/// Draws bias, standard deviation, root of the mean squared error and cosine over epsilon and temperature, with bars of
/// their standard errors; what has neither is a line across. Lines of layers are not drawn.
///
/// # Errors
/// A picture that cannot be written.
pub fn draw(path: &Path, title: &str, lines: &[Line]) -> Result<()> {
    let lines = || lines.iter().filter(|l| l.at == "potentials");
    let place = |l: &Line| l.epsilon.or(l.temperature);
    let (low, high) = lines().filter_map(place).fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(x), h.max(x)));
    let (low, high) = if low < high { (low, high) } else { (0.1, 1.0) };
    let mut specs: Vec<&str> = vec![];
    for line in lines() {
        if !specs.contains(&line.spec.as_str()) {
            specs.push(&line.spec);
        }
    }
    // What is not told from zero stands at its standard error: there is no zero on such an axis. Rounding is not drawn.
    type Of = fn(&Line) -> (f64, f64);
    let all: [(&str, Of, bool); 4] = [
        ("bias (at least its standard error)", |l| (seen(l, l.bias.max(l.bias_error)), l.bias_error), true),
        ("standard deviation", |l| (seen(l, l.std), l.std_error), true),
        ("root of the mean squared error", |l| (seen(l, l.mse.sqrt()), l.mse_error / (2.0 * l.mse.sqrt())), true),
        ("cosine of a draw to the exact gradient", |l| (l.cosine, l.cosine_error), false),
    ];
    let panels = all.map(|(title, of, log)| {
        let curve = |spec: &&str| {
            let own = lines().filter(|l| l.spec == *spec);
            // What has no place is the same everywhere.
            let points = own.flat_map(|l| {
                let places = place(l).map_or(vec![low, high], |x| vec![x]);
                places.into_iter().map(move |x| (x, of(l)))
            });
            let points: Vec<_> = points.collect();
            Curve {
                errors: points.iter().map(|(_, (_, error))| *error).collect(),
                ..Curve::new(*spec, points.iter().map(|(x, (y, _))| (*x, *y)))
            }
        };
        let (x, y) = (Axis::new("epsilon, temperature").log(), Axis::new("nats"));
        let y = match log {
            true => y.log(),
            false => Axis::new("cosine"),
        };
        Panel { title: title.into(), x, y, curves: specs.iter().map(curve).collect() }
    });
    curves(path, &Figure { title: Some(title), ..Figure::new(&panels) })
}

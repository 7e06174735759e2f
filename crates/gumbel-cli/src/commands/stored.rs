//! Commands on stored runs that tell figures: `evaluate`, `inspect`, `curves`.

use super::{load, open};
use crate::args::{Common, Curves, Diagnose, Evaluate, Inspect};
use crate::output::{self, Failure};
use crate::registry;
use gumbel::structure::Structure;
use gumbel_data::{Dataset, Split, printable};
use gumbel_run::diagnose::Averaging;
use gumbel_run::evaluate::{self, BoundKind, Protocol};
use gumbel_run::images::SplitImages;
use gumbel_run::metrics::Metrics;
use gumbel_run::picture::{CURVE_FORMATS, Format, HEAT_MAP_FORMATS, HeatMap, format, heat_map};
use gumbel_run::plot::{self, Comparison};
use gumbel_run::store::check_writable;
use gumbel_run::stored::{self, ModelCard, Stored};
use gumbel_run::{Config, diagnose, inspect, labels};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Evaluates the best model of a run.
pub fn evaluate(common: &Common, command: &Evaluate) -> Result<(), Failure> {
    let Stored { mut config, mut engine, card } = open(&command.run)?;
    let data = matching(common, &mut config, &card, &command.run)?;
    let mut protocol = Protocol::new(&config);
    protocol.paper_samples = command.samples.or(protocol.paper_samples);
    protocol.importance = command.importance;
    let key = |key| usize::try_from(config.whole(key)).unwrap_or(usize::MAX);
    // The training split as far as it was trained on.
    let limit = match (command.split, key("train-limit"), key("eval-limit")) {
        (Split::Train, 0, limit) | (Split::Train, limit, 0) => limit,
        (Split::Train, trained, limit) => trained.min(limit),
        (_, _, limit) => limit,
    };
    let began = Instant::now();
    let images = SplitImages::new(&data, command.split, config.binarization(), 0);
    let known = labels::known(&config, data.split(command.split)).filter(|_| config.labels() != labels::Count::Some(0));
    let e = evaluate::evaluate(&mut *engine, &images, command.split, limit, known.as_deref(), &protocol)?;
    let scheduled = config.scheduled(card.step.saturating_sub(1))?.into_iter().map(|(name, value)| (name, Some(value)));
    let unmeasured = config.registry().measured_always().into_iter().map(|name| (name.to_string(), None));
    let mut line = Metrics::new(&e, card.epoch, card.step, command.split, scheduled.chain(unmeasured));
    line.seconds = began.elapsed().as_secs_f64();
    if common.json {
        // The times of a training line are not those of an evaluation.
        let mut line = serde_json::to_value(&line).expect("our records are plain data");
        let fields = line.as_object_mut().expect("a line of metrics");
        fields.retain(|name, _| !["train_seconds", "step_ms"].contains(&name.as_str()));
        return output::json(&line);
    }
    let samples =
        |samples: Option<usize>| samples.map_or("exact expectation".into(), |m| format!("{m} samples of z per image"));
    let kind = match e.bound_kind {
        BoundKind::Exact => "exact".to_string(),
        BoundKind::Sampled => format!("estimate, {}", samples(e.bound_samples)),
        BoundKind::Codes => format!("exact over z, {} Gaussian codes per image", e.bound_samples.unwrap_or(1)),
        BoundKind::PerturbAndMap => {
            format!("estimate for the perturbed arg max, KL from below, {}", samples(e.bound_samples))
        }
    };
    let kind = if config.likelihood().is_density() { format!("{kind}; of a density") } else { kind };
    let mut more = String::new();
    if let Some(bits) = e.bits_per_dimension {
        more += &format!("\nbits/dimension {bits:10.4}");
    }
    if let Some(agreed) = &e.agreement {
        let percent = |share: &Option<f64>| share.map_or("-".into(), |s| format!("{:.1}", 100.0 * s));
        more += &format!("\naccuracy       {:10.2} %", 100.0 * agreed.accuracy);
        // Of each class, or of each attribute.
        let attributes = config.attributes();
        let names: Vec<&str> = match config.latent().structure.variables() {
            1 => data.classes.iter().map(String::as_str).collect(),
            _ => attributes.clone(),
        };
        for (i, share) in agreed.each.iter().enumerate() {
            let name = names.get(i).map_or_else(|| i.to_string().into(), |name| printable(name));
            more += &format!("\n  {name:<14} {:>8} %", percent(share));
        }
        let attributes = attributes.into_iter().zip(&agreed.attributes);
        attributes.for_each(|(name, share)| more += &format!("\n  {:<14} {:8.1} %", printable(name), 100.0 * share));
    }
    let paper = match e.paper_loss {
        Some(loss) => format!("{loss:10.4}   ({})", samples(e.paper_samples)),
        None => "  none: this latent is not in the paper".into(),
    };
    let found = format!(
        "{} images of {}, {}, epoch {}, nats per image
bound          {:10.4}   ({})
reconstruction {:10.4}
KL             {:10.4}
-ln p(x)       {}
paper_loss     {}",
        e.images,
        config.text("dataset"),
        command.split,
        card.epoch,
        e.bound,
        kind,
        e.reconstruction,
        e.kl,
        match (e.nll, e.nll_samples) {
            (Some(n), None) => format!("{n:10.4}   (exact)"),
            (Some(n), Some(k)) => format!("{n:10.4}   (importance-weighted, {k} Gaussian codes per image)"),
            (None, _) if e.bound_kind == BoundKind::Codes => "  not asked for: --importance K".into(),
            (None, _) => "  too many states to enumerate".into(),
        },
        paper,
    );
    output::line(&(found + &more))
}

/// Shows what a model has learned.
pub fn inspect(common: &Common, command: &Inspect) -> Result<(), Failure> {
    command.out.as_deref().map_or(Ok(()), |out| expect_ending(out, HEAT_MAP_FORMATS))?;
    let Stored { mut config, mut engine, card } = open(&command.run)?;
    let data = matching(common, &mut config, &card, &command.run)?;
    let images = SplitImages::new(&data, Split::Test, config.binarization(), 0);
    let look = inspect::Look { limit: command.limit, epsilon: command.epsilon };
    let found = inspect::inspect(&mut *engine, &config, &images, card.step, look)?;
    if let Some(out) = &command.out {
        let Some(couplings) = &found.couplings else {
            return Err(Failure::Usage(format!(
                "--out: expected a run with a pairwise or supermodular latent, found {}, which has no couplings",
                config.latent().text
            )));
        };
        let matrix: Vec<f64> = couplings.iter().flatten().map(|w| w.unwrap_or(f64::NAN)).collect();
        let picture = HeatMap {
            value_name: "mean coupling",
            title: command.look.title.as_deref(),
            ..HeatMap::new(&matrix, couplings.len())
        };
        let scale = command.look.scale.unwrap_or(picture.scale);
        heat_map(out, &HeatMap { scale, ..picture })?;
    }
    if common.json {
        return output::json(&found);
    }
    let list = |values: &mut dyn Iterator<Item = f64>| values.map(|v| format!("{v:8.3}")).collect::<String>();
    let marginals = found.marginal_samples.map_or("exact posterior means".into(), |m| {
        format!("posterior means over {m} samples of the perturbed arg max")
    });
    let mut text = format!(
        "{}, {}, epoch {}, {} test images
mean unary potentials  {}
variance of units      {}
active units           {} of {} (variance over 0.01, {marginals})
z* = z(eps)            {:.1}% at epsilon {:.4}",
        config.text("dataset"),
        config.latent().text,
        card.epoch,
        found.images,
        list(&mut found.unary.iter().copied()),
        list(&mut found.variance.iter().copied()),
        found.active_units,
        found.units,
        100.0 * found.zero_gradient_rate,
        found.epsilon,
    );
    if let (Some(rate), Some(gap), Some(images)) = (found.separable_miss_rate, found.separable_gap, found.joint_images)
    {
        text += &format!(
            "\nseparable z(eps)       not that of the true loss for {:.1}% of {images} images, {gap:.2} nats worse \
             there",
            100.0 * rate
        );
    }
    for way in &found.arg_maxima {
        text += &format!(
            "\n{:<23}z(eps) of the true loss for {:.1}%, {:.3} nats worse on average",
            way.joint,
            100.0 * way.found,
            way.gap
        );
    }
    for (i, row) in found.couplings.iter().flatten().enumerate() {
        let name = if i == 0 { "mean couplings" } else { "" };
        text += &format!("\n{name:<23}{}", list(&mut row.iter().map(|w| w.unwrap_or(f64::NAN))).replace("NaN", "  -"));
    }
    output::line(&text)?;
    match &command.out {
        Some(out) => written(common, out),
        None => Ok(()),
    }
}

/// Measures what estimators are like at the frozen parameters of a run.
pub fn diagnose(common: &Common, command: &Diagnose) -> Result<(), Failure> {
    if let Some(out) = &command.out {
        expect_ending(out, CURVE_FORMATS)?;
        // Not after hours of measuring.
        check_writable(out)?;
    }
    let Stored { mut config, mut engine, card } = open(&command.run)?;
    let data = matching(common, &mut config, &card, &command.run)?;
    let images = SplitImages::new(&data, Split::Train, config.binarization(), 0);
    let request = diagnose::Request {
        estimators: command.estimators.clone(),
        epsilon: command.epsilon.clone(),
        temperature: command.temperature.clone(),
        draws: command.draws,
        learn: command.learn,
        reference_draws: command.reference_draws,
        batch: command.batch,
        layers: command.layers,
        seed: command.seed.unwrap_or(config.seed()),
    };
    let mut show = Show::new(common, &config, command);
    let lines = diagnose::run(&config, &mut *engine, &images, &request, &mut show)?;
    show.bar.finish_and_clear();
    show.printed?;
    match &command.out {
        Some(out) => {
            let plain = format!("{}, {}, epoch {}", config.text("dataset"), config.latent().text, card.epoch);
            diagnose::draw(out, command.title.as_ref().unwrap_or(&plain), &lines)?;
            match common.json {
                true => Ok(()),
                false => written(common, out),
            }
        }
        None => Ok(()),
    }
}

/// Prints what is found, and what is waited for.
struct Show<'a> {
    common: &'a Common,
    latent: String,
    /// Width of the first column.
    widest: usize,
    headed: bool,
    bar: ProgressBar,
    printed: Result<(), Failure>,
}

impl<'a> Show<'a> {
    fn new(common: &'a Common, config: &Config, command: &Diagnose) -> Self {
        let talk = !common.quiet && output::watched();
        let target = if talk { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left");
        bar.set_style(style.expect("the template is correct"));
        Show {
            common,
            latent: config.latent().text.clone(),
            widest: command.estimators.iter().map(|e| e.len()).max().unwrap_or(0).max(18),
            headed: false,
            bar,
            printed: Ok(()),
        }
    }

    fn print(&mut self, line: &diagnose::Line) -> Result<(), Failure> {
        if self.common.json {
            return output::json(line);
        }
        let widest = self.widest;
        if !self.headed {
            self.headed = true;
            let (images, norm, by) = (line.images, line.norm, line.reference);
            let named = match line.norm_error > 0.0 {
                true => format!("{images} images, long average by {by}, norm {norm:.4} ± {:.1e}", line.norm_error),
                false => format!("{images} images, exact gradient of norm {norm:.4} (by {by})"),
            };
            output::line(&format!(
                "{named}\n{:<widest$} {:>8} {:>10} {:>8} {:>10} {:>8} {:>7} {:>9} {:>9} {:>9}  of",
                "estimator", "at", "bias", "± ", "std", "± ", "cosine", "rows", "grad", "ms"
            ))?;
        }
        let number = |value: Option<f64>| value.map_or("-".to_string(), |v| format!("{v:.1}"));
        // An epsilon that is held is no round number.
        let place = |x: f64| match x.to_string() {
            short if short.len() <= 8 => short,
            _ if (1e-3..1e3).contains(&x) => format!("{x:.4}"),
            _ => format!("{x:.2e}"),
        };
        let at = line.epsilon.or(line.temperature).map_or("-".to_string(), place);
        output::line(&format!(
            "{:<widest$} {at:>8} {:>10.3e} {:>8.1e} {:>10.3e} {:>8.1e} {:>7.3} {:>9} {:>9} {:>9.3}  {}",
            line.spec,
            line.bias,
            line.bias_error,
            line.std,
            line.std_error,
            line.cosine,
            number(line.rows_without_gradient),
            number(line.rows_with_gradient),
            line.ms,
            line.at,
        ))
    }
}

impl diagnose::Watcher for Show<'_> {
    fn averaged(&mut self, of: &Averaging, done: usize) {
        let Averaging { layers, estimator, draws, samples, images } = *of;
        if done == 0 {
            let what = if layers { "training steps" } else { "draws" };
            self.bar.reset();
            self.bar.set_length(draws as u64);
            self.bar.set_message(format!("averaging {what} of {estimator}"));
            if !self.common.quiet && !output::watched() {
                let samples = if samples == 1 { "a sample".into() } else { format!("{samples} samples") };
                output::note(&format!(
                    "averaging {draws} {what} of {estimator}, {samples} of each of {images} images: the states of {} \
                     are too many to be enumerated",
                    self.latent
                ));
            }
        }
        self.bar.set_position(done as u64);
        if done + 1 == draws {
            self.bar.finish_and_clear();
        }
    }

    fn line(&mut self, line: &diagnose::Line) -> ControlFlow<()> {
        self.printed = self.print(line);
        if self.printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// Draws the curves of several runs.
pub fn curves(common: &Common, command: &Curves) -> Result<(), Failure> {
    expect_ending(&command.out, CURVE_FORMATS)?;
    let mut runs = vec![];
    for (run, name) in command.runs.iter().zip(legend(command)?) {
        let metrics = stored::read_metrics(run)?;
        if !metrics.iter().any(|m| m.split == command.split.to_string()) {
            return Err(Failure::Other(format!(
                "{}: expected metrics of the split {}, found {} lines without them",
                run.display(),
                command.split,
                metrics.len()
            )));
        }
        runs.push((name, metrics));
    }
    let (split, title) = (command.split.to_string(), command.look.title.as_deref());
    plot::comparison(&command.out, &Comparison { runs: &runs, split: &split, title, scale: command.look.scale })?;
    written(common, &command.out)
}

/// The names of runs in the legend.
fn legend(command: &Curves) -> Result<Vec<String>, Failure> {
    let folder = |run: &PathBuf| run.file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned();
    match &command.labels {
        None => Ok(command.runs.iter().map(folder).collect()),
        Some(names) if !names.is_empty() => match names.len() == command.runs.len() {
            true => Ok(names.clone()),
            false => Err(Failure::Usage(format!(
                "--labels: expected {} names, one for each run, found {}",
                command.runs.len(),
                names.len()
            ))),
        },
        Some(_) => {
            let configs = command.runs.iter().map(|run| stored::open_config(registry(), run));
            Ok(Config::differences(&configs.collect::<Result<Vec<_>, _>>()?))
        }
    }
}

/// The data set of a run, with images of the model's size.
pub(super) fn matching(common: &Common, config: &mut Config, card: &ModelCard, run: &Path) -> Result<Dataset, Failure> {
    let data = load(common, config)?;
    let found = gumbel_run::images::shape(&data);
    if found != card.shape() {
        let size = |s: gumbel::engine::Shape| match s.channels {
            1 => format!("{}x{}", s.height, s.width),
            _ => format!("{}x{}x{}", s.height, s.width, s.channels),
        };
        return Err(Failure::Other(format!(
            "{}: expected images of {} pixels as in training, found {} in {}",
            run.display(),
            size(card.shape()),
            size(found),
            data.origin
        )));
    }
    Ok(data)
}

/// A picture whose name promises another format would open nowhere: this is said before anything is opened.
pub(super) fn expect_ending(path: &Path, formats: &[Format]) -> Result<(), Failure> {
    match format(path, formats) {
        Ok(_) => Ok(()),
        Err(e) => Err(Failure::Usage(format!("--out {e}"))),
    }
}

pub(super) fn written(common: &Common, path: &Path) -> Result<(), Failure> {
    match (common.json, common.quiet) {
        (true, _) => output::json(&serde_json::json!({ "out": path.to_string_lossy() })),
        (_, false) => output::line(&path.display()),
        _ => Ok(()),
    }
}

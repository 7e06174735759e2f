//! Commands on stored runs: `evaluate`, `sample`, `reconstruct`, `inspect`, `curves`.

use super::load;
use crate::args::{Common, Curves, Evaluate, Inspect, Reconstruct, Sample};
use crate::output::{self, Failure};
use gumbel_data::{Dataset, Split};
use gumbel_vae::config::TrainConfig;
use gumbel_vae::evaluate::{BoundKind, Protocol};
use gumbel_vae::train::{self, ModelCard};
use gumbel_vae::{inspect, picture};
use std::path::Path;
use std::time::Instant;

/// Evaluates the best model of a run.
pub fn evaluate(common: &Common, command: &Evaluate) -> Result<(), Failure> {
    let (config, mut model, card) = train::open(&command.run)?;
    let data = matching(common, &config, &card, &command.run)?;
    let mut protocol = Protocol::new(&config);
    protocol.paper_samples = command.samples.or(protocol.paper_samples);
    let limit = if command.split == Split::Train { config.train_limit } else { config.eval_limit };
    let began = Instant::now();
    let e = model.evaluate(&data, command.split, limit, &protocol)?;
    let last = card.step.saturating_sub(1);
    let schedules = (config.epsilon_schedule()?.at(last), config.temperature_schedule()?.at(last));
    let seconds = began.elapsed().as_secs_f64();
    let line = train::line(&e, card.epoch, card.step, command.split, schedules, None, (seconds, 0.0));
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
        BoundKind::PerturbAndMap => {
            format!("estimate for the perturbed arg max, KL from below, {}", samples(e.bound_samples))
        }
    };
    let paper = match e.paper_loss {
        Some(loss) => format!("{loss:10.4}   ({})", samples(e.paper_samples)),
        None => "  none: this latent is not in the paper".into(),
    };
    output::line(&format!(
        "{} images of {}, {}, epoch {}, nats per image
bound          {:10.4}   ({})
reconstruction {:10.4}
KL             {:10.4}
-ln p(x)       {}
paper_loss     {}",
        e.images,
        config.dataset,
        command.split,
        card.epoch,
        e.bound,
        kind,
        e.reconstruction,
        e.kl,
        e.nll.map_or("  too many states to enumerate".into(), |n| format!("{n:10.4}   (exact)")),
        paper,
    ))
}

/// Draws the decoder's means.
pub fn sample(common: &Common, command: &Sample) -> Result<(), Failure> {
    expect_ending(&command.out, "png")?;
    let (config, mut model, card) = train::open(&command.run)?;
    train::samples(model.model(), config.seed, (card.height, card.width), &command.out, command.rows)?;
    written(common, &command.out)
}

/// Draws test images beside their reconstructions.
pub fn reconstruct(common: &Common, command: &Reconstruct) -> Result<(), Failure> {
    expect_ending(&command.out, "png")?;
    let (config, mut model, card) = train::open(&command.run)?;
    let data = matching(common, &config, &card, &command.run)?;
    train::reconstructions(model.model(), &config, &data, &command.out)?;
    written(common, &command.out)
}

/// Shows what a model has learned.
pub fn inspect(common: &Common, command: &Inspect) -> Result<(), Failure> {
    command.out.as_deref().map_or(Ok(()), |out| expect_ending(out, "png"))?;
    let (config, mut model, card) = train::open(&command.run)?;
    let data = matching(common, &config, &card, &command.run)?;
    let found = inspect::inspect(model.model(), &config, &data, card.step, command.limit)?;
    if let Some(out) = &command.out {
        let Some(couplings) = &found.couplings else {
            return Err(Failure::Usage(format!(
                "--out: expected a run with a pairwise or supermodular latent, found {}, which has no matrix of couplings",
                config.latent
            )));
        };
        let matrix: Vec<f64> = couplings.iter().flatten().map(|w| w.unwrap_or(f64::NAN)).collect();
        picture::heat_map(out, &matrix, couplings.len())?;
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
        config.dataset,
        config.latent,
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
            "\nseparable z(eps)       not that of the true loss for {:.1}% of {images} images, {gap:.2} nats worse there",
            100.0 * rate
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

/// Draws the curves of several runs.
pub fn curves(common: &Common, command: &Curves) -> Result<(), Failure> {
    expect_ending(&command.out, "svg")?;
    let mut runs = vec![];
    for run in &command.runs {
        let name = run.file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned();
        let metrics = train::read_metrics(run)?;
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
    picture::comparison(&command.out, &command.split.to_string(), &runs)?;
    written(common, &command.out)
}

/// The data set of a run, with images of the model's size.
fn matching(common: &Common, config: &TrainConfig, card: &ModelCard, run: &Path) -> Result<Dataset, Failure> {
    let data = load(common, config)?;
    let found = (data.test.height(), data.test.width());
    if found != (card.height, card.width) {
        return Err(Failure::Other(format!(
            "{}: expected images of {}x{} pixels as in training, found {}x{} in {}",
            run.display(),
            card.height,
            card.width,
            found.0,
            found.1,
            data.origin
        )));
    }
    Ok(data)
}

/// A picture whose name promises another format would open nowhere; a name without an ending promises nothing.
fn expect_ending(path: &Path, ending: &str) -> Result<(), Failure> {
    match path.extension() {
        Some(found) if !found.eq_ignore_ascii_case(ending) => {
            Err(Failure::Usage(format!("--out {}: expected a name that ends in .{ending}", path.display())))
        }
        _ => Ok(()),
    }
}

fn written(common: &Common, path: &Path) -> Result<(), Failure> {
    match (common.json, common.quiet) {
        (true, _) => output::json(&serde_json::json!({ "out": path.to_string_lossy() })),
        (_, false) => output::line(&path.display()),
        _ => Ok(()),
    }
}

//! Commands on a stored run: `evaluate`, `sample`, `reconstruct`.

use super::load;
use crate::args::{Common, Evaluate, Reconstruct, Sample};
use crate::output::{self, Failure};
use gumbel_data::{Dataset, Split};
use gumbel_vae::config::TrainConfig;
use gumbel_vae::evaluate::Protocol;
use gumbel_vae::train::{self, ModelCard};
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
        return output::json(&line);
    }
    let kind =
        |samples: Option<usize>| samples.map_or("exact".into(), |m| format!("estimate, {m} samples of z per image"));
    output::line(&format!(
        "{} images of {}, {}, epoch {}, nats per image
bound          {:10.4}   ({})
reconstruction {:10.4}
KL             {:10.4}
-ln p(x)       {}
paper_loss     {:10.4}   ({})",
        e.images,
        config.dataset,
        command.split,
        card.epoch,
        e.bound,
        kind(e.bound_samples),
        e.reconstruction,
        e.kl,
        e.nll.map_or("  too many states to enumerate".into(), |n| format!("{n:10.4}   (exact)")),
        e.paper_loss,
        kind(e.paper_samples),
    ))
}

/// Draws the decoder's means.
pub fn sample(common: &Common, command: &Sample) -> Result<(), Failure> {
    let (config, mut model, card) = train::open(&command.run)?;
    train::samples(model.model(), config.seed, (card.height, card.width), &command.out, command.rows)?;
    written(common, &command.out)
}

/// Draws test images beside their reconstructions.
pub fn reconstruct(common: &Common, command: &Reconstruct) -> Result<(), Failure> {
    let (config, mut model, card) = train::open(&command.run)?;
    let data = matching(common, &config, &card, &command.run)?;
    train::reconstructions(model.model(), &config, &data, &command.out)?;
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

fn written(common: &Common, path: &Path) -> Result<(), Failure> {
    match (common.json, common.quiet) {
        (true, _) => output::json(&serde_json::json!({ "out": path.to_string_lossy() })),
        (_, false) => output::line(&path.display()),
        _ => Ok(()),
    }
}

//! `gumbel bench`.

use super::load;
use super::train::configuration;
use crate::args::{Bench, BenchStep, Common};
use crate::output::{self, Failure};
use gumbel_data::Split;
use gumbel_run::Trainer;
use gumbel_run::images::{SplitImages, shape};
use serde::Serialize;
use std::time::Instant;

/// Measures speed.
pub fn run(common: &Common, command: &Bench) -> Result<(), Failure> {
    let Bench::Step(command) = command;
    step(common, command)
}

/// Milliseconds of a training step.
#[derive(Debug, Serialize)]
struct StepTime {
    step_ms: f64,
    p10: f64,
    p90: f64,
    images_per_s: f64,
    steps: usize,
    batch_size: usize,
    dataset: String,
    latent: String,
    estimator: String,
    engine: &'static str,
    arithmetic: String,
    device: String,
    threads: usize,
    seed: u64,
}

fn step(common: &Common, command: &BenchStep) -> Result<(), Failure> {
    let mut config = configuration(command.config.as_deref(), &command.settings)?;
    let labels = config.text("labels");
    if labels != "0" {
        let message = format!("labels = {labels}: expected 0: what is timed is a step on images without labels");
        return Err(Failure::Usage(message));
    }
    let data = load(common, &mut config)?;
    let mut trainer = Trainer::new(&config, shape(&data))?;
    let size = config.whole("batch-size") as usize;
    let batches = data.train.count() / size;
    if batches == 0 {
        return Err(Failure::Usage(format!("batch-size = {size}: expected at most {}", data.train.count())));
    }
    let images = SplitImages::new(&data, Split::Train, config.binarization(), 1);
    let order: Vec<u32> = (0..(batches * size) as u32).collect();
    let mut times = Vec::with_capacity(command.steps);
    for s in 0..command.warmup + command.steps {
        let batch = &order[s % batches * size..][..size];
        // Reading and binarising images stays outside the clock.
        trainer.prepare(&images, batch)?;
        let began = Instant::now();
        trainer.step(&images, batch, s as u64, batches as u64)?;
        if s >= command.warmup {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    let time = StepTime {
        step_ms: at(0.5),
        p10: at(0.1),
        p90: at(0.9),
        images_per_s: size as f64 * 1e3 / at(0.5),
        steps: command.steps,
        batch_size: size,
        dataset: config.text("dataset").into(),
        latent: config.latent().text.clone(),
        estimator: config.text("estimator").into(),
        engine: trainer.engine.name(),
        arithmetic: trainer.engine.arithmetic(),
        device: config.text("device").into(),
        threads: rayon::current_num_threads(),
        seed: config.seed(),
    };
    if common.json {
        output::json(&time)
    } else {
        output::line(&format!(
            "{}, {}, {}, {} threads: {:.3} ms per step (p10 {:.3}, p90 {:.3}), {:.0} images/s",
            time.dataset,
            time.latent,
            time.estimator,
            time.threads,
            time.step_ms,
            time.p10,
            time.p90,
            time.images_per_s
        ))
    }
}

//! `gumbel train`.

use super::load;
use crate::args::{Common, Train};
use crate::output::{self, Failure};
use gumbel_vae::config::TrainConfig;
use gumbel_vae::evaluate::BoundKind;
use gumbel_vae::train::{Files, Metrics, Observer, Start, Summary, train};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Trains a run.
pub fn run(common: &Common, command: &Train) -> Result<(), Failure> {
    let (config, folder, start) = resolve(command)?;
    config.check()?;
    let data = load(common, &config)?;
    let mut watch = Watch::new(common)?;
    watch.note(&format!("{} images of {}, run folder {}", data.train.count(), data.origin, folder.display()));
    let outcome = train(&config, &data, &folder, start, &mut watch)?;
    watch.bar.finish_and_clear();
    watch.printed?;
    match outcome.summary {
        Some(summary) if common.json => output::json(&summary)?,
        Some(summary) => output::line(&report(&summary, &folder.display().to_string()))?,
        None => {
            return Err(Failure::Stopped(format!(
                "stopped at step {}, checkpoint saved; continue with: gumbel train --resume --out {}",
                outcome.steps,
                folder.display()
            )));
        }
    }
    Ok(())
}

/// Configuration, folder and start from flags, file and folder.
fn resolve(command: &Train) -> Result<(TrainConfig, PathBuf, Start), Failure> {
    let mut config = match &command.config {
        Some(path) => TrainConfig::read(path)?,
        None => TrainConfig::default(),
    };
    let given = command.settings.apply(&mut config) || command.config.is_some();
    let folder = command.out.clone().unwrap_or_else(|| config.default_folder().into());
    let stored = Files::new(&folder).config();
    if command.resume && stored.exists() {
        // The run's own settings, with the given flags over them: what may not change is refused later.
        if command.config.is_none() {
            config = TrainConfig::read(&stored)?;
            command.settings.apply(&mut config);
        }
        return Ok((config, folder, Start::Resume));
    }
    if command.resume && !given {
        return Err(Failure::Other(format!(
            "{}: expected a run to resume, found no config.toml in it",
            folder.display()
        )));
    }
    let start = match (command.resume, command.overwrite) {
        (true, _) => Start::Resume,
        (_, true) => Start::Overwrite,
        _ => Start::Fresh,
    };
    Ok((config, folder, start))
}

/// Prints what happens, and hears Ctrl-C.
struct Watch {
    json: bool,
    talk: bool,
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    /// Training goes on when stdout takes no more: the run folder has every line. The failure is told at the end.
    printed: Result<(), Failure>,
}

impl Watch {
    fn new(common: &Common) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let heard = stop.clone();
        let handler = ctrlc::set_handler(move || {
            if heard.swap(true, Ordering::SeqCst) {
                std::process::exit(output::STOPPED.into()); // asked twice: at once, the last checkpoint stands
            }
        });
        handler.map_err(|e| Failure::Other(format!("cannot listen for Ctrl-C: {e}")))?;
        let talk = !common.quiet && output::watched();
        let target = if talk { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} steps, {per_sec}, {eta} left");
        bar.set_style(style.expect("the template is correct"));
        Ok(Watch { json: common.json, talk, bar, stop, printed: Ok(()) })
    }
}

impl Observer for Watch {
    fn step(&mut self, epoch: usize, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            self.bar.set_position(done);
            self.bar.reset_eta();
        }
        if self.talk {
            self.bar.set_message(format!("epoch {epoch}"));
        }
        self.bar.set_position(done);
    }

    fn metrics(&mut self, m: &Metrics) {
        if self.json && self.printed.is_ok() {
            self.printed = output::json(m);
        }
        if self.talk && m.split != "train" {
            let nll = m.nll.map_or(String::new(), |n| format!("  -ln p(x) {n:8.3}"));
            self.bar.println(format!(
                "epoch {:4}  {:5}  bound {:8.3} = {:8.3} + {:6.3}{nll}  {:.2} ms/step",
                m.epoch, m.split, m.bound, m.reconstruction, m.kl, m.step_ms
            ));
        }
    }

    fn note(&mut self, text: &str) {
        if self.talk {
            self.bar.println(text);
        }
    }

    fn stop(&mut self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// The result for people.
fn report(s: &Summary, folder: &str) -> String {
    let nll = s.test.nll.map_or(String::new(), |n| format!(", -ln p(x) {n:.3}"));
    let kind = match s.test.bound_kind {
        BoundKind::Exact => "",
        BoundKind::Sampled => " (estimate)",
        BoundKind::PerturbAndMap => " (estimate for the perturbed arg max)",
    };
    format!(
        "{}, {}, {}, KL {}, {} epochs, seed {}: test bound{kind} {:.3} nats{nll} at epoch {} ({:.3} at the last), {:.1} s
pictures: {folder}/samples.png, reconstructions.png, curves.svg",
        s.dataset,
        s.latent,
        s.estimator,
        s.kl,
        s.epochs,
        s.seed,
        s.test.bound,
        s.best_epoch,
        s.final_test.bound,
        s.seconds
    )
}

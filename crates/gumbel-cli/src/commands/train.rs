//! `gumbel train`.

use super::load;
use crate::args::{Common, Settings, Train};
use crate::output::{self, Failure};
use crate::registry;
use gumbel_run::config::ConfigFile;
use gumbel_run::evaluate::BoundKind;
use gumbel_run::folder::Files;
use gumbel_run::metrics::{Metrics, Summary};
use gumbel_run::report::quoted;
use gumbel_run::{Config, Observer, Start, stored, train};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Trains a run.
pub fn run(common: &Common, command: &Train) -> Result<(), Failure> {
    let (mut config, folder, start) = resolve(command)?;
    let data = load(common, &mut config)?;
    let mut watch = Watch::new(common, config.whole("epochs"))?;
    if watch.talk {
        watch.note(&format!("{} images of {}, run folder {}", data.train.count(), data.origin, folder.display()));
    }
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
                quoted(&folder.to_string_lossy())
            )));
        }
    }
    Ok(())
}

/// The configuration of a file, if there is one, with flags over it.
pub fn configuration(file: Option<&Path>, flags: &Settings) -> Result<Config, Failure> {
    let file = file.map(ConfigFile::read).transpose()?;
    Ok(Config::resolve(registry(), file.as_ref(), &flags.0)?)
}

/// Configuration, folder and start from flags, file and folder.
fn resolve(command: &Train) -> Result<(Config, PathBuf, Start), Failure> {
    let given = !command.settings.0.is_empty() || command.config.is_some();
    let (file, flags) = (command.config.as_deref(), &command.settings);
    // A named folder with a run to resume needs nothing else.
    let named = command.out.clone().filter(|_| command.resume && file.is_none());
    if let Some(folder) = named.filter(|folder| Files::new(folder).config().exists()) {
        return resumed(folder, None, flags);
    }
    let config = configuration(file, flags)?;
    config.check_given(&flags.0)?;
    let folder = command.out.clone().unwrap_or_else(|| config.default_folder());
    if command.resume && Files::new(&folder).config().exists() {
        return resumed(folder, file, flags);
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

/// The run's own settings, or those of a file, with the given flags over them: what may not change is refused later.
fn resumed(folder: PathBuf, file: Option<&Path>, flags: &Settings) -> Result<(Config, PathBuf, Start), Failure> {
    let own = Files::new(&folder).config();
    let mut config = configuration(Some(file.unwrap_or(&own)), flags)?;
    config.set_data_dir(stored::data_dir(&folder));
    Ok((config, folder, Start::Resume))
}

/// Prints what happens, and hears Ctrl-C.
struct Watch {
    json: bool,
    /// Whether a person watches.
    talk: bool,
    /// Whether nobody watches, but somebody may read later.
    plain: bool,
    epochs: u64,
    /// The bounds of an epoch so far.
    line: String,
    /// What is told before the next line about an epoch, so that a failure is one line.
    notes: Vec<String>,
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    /// Training goes on when stdout takes no more: the run folder has every line. The failure is told at the end.
    printed: Result<(), Failure>,
}

impl Watch {
    fn new(common: &Common, epochs: u64) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let heard = stop.clone();
        let mut first: Option<Instant> = None;
        let handler = ctrlc::set_handler(move || {
            heard.store(true, Ordering::SeqCst);
            // Asked twice: at once, the last checkpoint stands. Nobody asks twice so fast, but a scheduler and the
            // sweep that this run belongs to may both tell that the time is over.
            if first.get_or_insert_with(Instant::now).elapsed() > Duration::from_millis(200) {
                std::process::exit(output::STOPPED.into());
            }
        });
        handler.map_err(|e| Failure::Other(format!("cannot listen for Ctrl-C: {e}")))?;
        let talk = !common.quiet && output::watched();
        let target = if talk { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} steps, {per_sec}, {eta} left");
        bar.set_style(style.expect("the template is correct"));
        let plain = !common.quiet && !output::watched();
        Ok(Watch {
            json: common.json,
            talk,
            plain,
            epochs,
            line: String::new(),
            notes: vec![],
            bar,
            stop,
            printed: Ok(()),
        })
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
        if self.plain {
            self.line += &format!(" {} {:.3}", m.split, m.bound);
            if let Some(accuracy) = m.accuracy.filter(|_| m.split != "train") {
                self.line += &format!(" ({:.2} %)", 100.0 * accuracy);
            }
            if m.split == "test" {
                self.notes.drain(..).for_each(|note| output::note(&note));
                let bounds = std::mem::take(&mut self.line);
                output::note(&format!("epoch {}/{}: bound{bounds}, {:.2} ms/step", m.epoch, self.epochs, m.step_ms));
            }
        }
        if self.talk && m.split != "train" {
            let nll = m.nll.map_or(String::new(), |n| format!("  -ln p(x) {n:8.3}"));
            let accuracy = m.accuracy.map_or(String::new(), |a| format!("  accuracy {:5.2} %", 100.0 * a));
            self.bar.println(format!(
                "epoch {:4}  {:5}  bound {:8.3} = {:8.3} + {:6.3}{nll}{accuracy}  {:.2} ms/step",
                m.epoch, m.split, m.bound, m.reconstruction, m.kl, m.step_ms
            ));
        }
    }

    fn note(&mut self, text: &str) {
        if self.talk {
            self.bar.println(text);
        } else if self.plain {
            self.notes.push(text.into());
        }
    }

    fn stop(&mut self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// The result for people.
fn report(s: &Summary, folder: &str) -> String {
    let nll = s.test.nll.map_or(String::new(), |n| format!(", -ln p(x) {n:.3}"));
    let bits = s.test.bits_per_dimension.map_or(String::new(), |b| format!(", {b:.3} bits per dimension"));
    let accuracy = s.test.accuracy.map_or(String::new(), |a| format!(", accuracy {:.2} %", 100.0 * a));
    let kind = match s.test.bound_kind {
        BoundKind::Exact => "",
        BoundKind::Sampled | BoundKind::Codes => " (estimate)",
        BoundKind::PerturbAndMap => " (estimate for the perturbed arg max)",
    };
    format!(
        "{}, {}, {}, KL {}, {} epochs, seed {}: test bound{kind} {:.3} nats{nll}{bits}{accuracy} at epoch {} \
         ({:.3} at the last), {:.1} s
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

//! The paper's model: perceptrons, an encoder pixels-hidden-P and a decoder U-hidden-pixels.
//!
//! It is trained by the fused engine where that fits, and by automatic differentiation elsewhere, in builds with the
//! feature `burn`.

use gumbel::Error;
use gumbel::continuous::{Continuous, Inputs};
use gumbel::engine::{Engine, ModelEntry, ModelOptions};
use gumbel::estimator::Follows;
use gumbel::network::{MAX_WEIGHTS, MixedWidths, weights, widths};
use gumbel::registry::{Kind, Setting};
use gumbel::structure::Structure;

/// Widths of the hidden layers.
const HIDDEN: Setting = Setting {
    name: "hidden",
    kind: Kind::Text,
    default: "300",
    value: "WIDTHS",
    help: "widths of the hidden layers, such as 300 or 400,200; the decoder has them in reverse order. With Gaussian \
           codes those of the encoder alone, by default 400,200",
};

/// Settings of a model with Gaussian codes, those of the authors (paper, Section 4.2; their code): layers whose number
/// of inputs says what they are for.
pub(crate) const MIXED: [Setting; 7] = [
    text("head", "100", "WIDTHS", "with Gaussian codes: layers between the encoder's last and the potentials"),
    Setting {
        name: "part",
        kind: Kind::Whole(1, 1 << 16),
        default: "100",
        value: "WIDTH",
        help: "with Gaussian codes: numbers that the encoder has for each code",
    },
    text(
        "shared",
        "66",
        "WIDTHS",
        "with Gaussian codes: layers between these and means and variances, shared by the codes",
    ),
    text("decoder-hidden", "400", "WIDTHS", "with Gaussian codes: hidden layers of the decoder"),
    real("leak", "0.2", "slope of the encoder's activations where they are negative, with Gaussian codes"),
    real("shared-leak", "0.5", "the same in the shared layers"),
    Setting {
        name: "dropout",
        kind: Kind::Real(|v| (0.0..1.0).contains(&v), "a number from 0 to less than 1"),
        default: "0.5",
        value: "P",
        help: "probability with which a unit before the last shared layer is left out in training",
    },
];

const fn text(name: &'static str, default: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { name, kind: Kind::Text, default, value, help }
}

const fn real(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    let kind = Kind::Real(|v| (0.0..=1.0).contains(&v), "a number from 0 to 1");
    Setting { name, kind, default, value: "X", help }
}

/// Most numbers in one intermediate result of a step: two gigabytes.
const MAX_NUMBERS: usize = 1 << 29;

/// Perceptrons in the registry.
pub fn entry() -> ModelEntry {
    ModelEntry::new(
        "mlp",
        "perceptrons: encoder pixels-hidden-potentials, decoder code-hidden-pixels",
        &[&[HIDDEN][..], &MIXED].concat(),
        build,
    )
    .checked(check)
    .fitting(fits)
}

/// Refuses what [`build`] would refuse for the engine or the device.
fn fits(options: &ModelOptions<'_>) -> Result<(), Error> {
    match options.engine {
        "fused" => gumbel_fused::check(options),
        "autodiff" => autodiff_fits(options),
        _ if gumbel_fused::refusal(options).is_none() => Ok(()),
        _ => autodiff_fits(options),
    }
}

#[cfg(feature = "burn")]
fn autodiff_fits(options: &ModelOptions<'_>) -> Result<(), Error> {
    gumbel_vae::device(options.device).map(drop)
}

#[cfg(not(feature = "burn"))]
fn autodiff_fits(options: &ModelOptions<'_>) -> Result<(), Error> {
    autodiff(options).map(drop)
}

fn build(options: &ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> {
    match options.engine {
        "autodiff" => autodiff(options),
        "fused" => gumbel_fused::model(options),
        _ if gumbel_fused::refusal(options).is_none() => gumbel_fused::model(options),
        _ => autodiff(options),
    }
}

#[cfg(feature = "burn")]
fn autodiff(options: &ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> {
    match options.continuous {
        Continuous::None => gumbel_vae::perceptron(options),
        _ => gumbel_vae::mixed(options),
    }
}

#[cfg(not(feature = "burn"))]
fn autodiff(options: &ModelOptions<'_>) -> Result<Box<dyn Engine>, Error> {
    let without = "this build has no autodiff engine (feature `burn`)";
    Err(match gumbel_fused::refusal(options) {
        None => Error::setting("engine", options.engine, format!("fused: {without}")),
        Some(needs) => {
            Error::setting("engine", options.engine, format!("a model for fused, which needs {needs}: {without}"))
        }
    })
}

/// Refuses sizes that are no doubt a mistake, before memory runs out.
fn check(options: &ModelOptions<'_>) -> Result<(), Error> {
    let text = options.settings.text("hidden");
    let hidden = widths(text)?;
    if options.continuous != Continuous::None {
        let inputs = Inputs::new(options.continuous, &options.structure)?;
        return MixedWidths::new(options, &inputs).map(drop);
    }
    let (structure, estimator) = (&options.structure, options.estimator);
    let latent = || options.settings.get("latent").map_or("this latent".into(), |l| l.to_string());
    let (potentials, pixels) = (structure.potentials(), options.shape.len());

    let layers: Vec<usize> = [&[pixels], &hidden[..], &[potentials]].concat();
    let weights = weights(&layers);
    if weights > MAX_WEIGHTS {
        let expected = format!("at most {MAX_WEIGHTS} weights in a network, found {weights} with {}", latent());
        return Err(Error::setting("hidden", text, expected));
    }
    // The codes of the decoder's table are K one-hot rows.
    if structure.variables() == 1 && potentials.saturating_mul(potentials) > MAX_NUMBERS {
        let most = MAX_NUMBERS.isqrt();
        return Err(Error::setting("latent", latent(), format!("at most {most} values of a single variable")));
    }
    // An image is thought of as a kilopixel at least: its size may not be known yet.
    let widest = hidden.iter().copied().fold(pixels.max(1024), usize::max);
    let questions = estimator.questions(structure);
    let states = structure.states().unwrap_or(usize::MAX);
    let around = match questions.around && structure.variables() > 1 {
        true => structure.code().changes(structure.unary()),
        false => 1,
    };
    let all = match questions.states || estimator.follows() == Follows::States {
        true => states.div_ceil(widest),
        false => 1,
    };
    // The Gumbel variables of a sample, and the potentials that they perturb.
    let drawn = estimator.noise(structure)?.max(potentials).saturating_mul(options.samples);
    let numbers = options.batch.saturating_mul(around.max(all).saturating_mul(widest).max(drawn));
    if numbers > MAX_NUMBERS {
        let expected = format!(
            "a step of at most {MAX_NUMBERS} numbers at once, found {numbers} with {}, samples = {}, hidden = {text}",
            latent(),
            options.samples
        );
        return Err(Error::setting("batch-size", options.batch, expected));
    }
    Ok(())
}

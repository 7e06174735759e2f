//! The settings of a run itself; those of its estimator, model and data set stand with these.

use gumbel::registry::{Kind, Setting};
use gumbel_data::Binarization;

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    value: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, kind, default, value, help }
}

/// The keys of a run, in the order in which they are listed.
pub const KEYS: &[Setting] = &[
    setting("dataset", Kind::Text, "glyphs", "NAME", "data set; glyphs are generated"),
    setting("latent", Kind::Text, "categorical:10", "NAME:SIZES", "latent variable"),
    setting("estimator", Kind::Text, "direct", "NAME", "how the gradient at the potentials is estimated"),
    setting("model", Kind::Text, "mlp", "NAME", "encoder and decoder"),
    setting("likelihood", Kind::Text, "bernoulli", "NAME", "what the decoder's outputs say about a pixel"),
    setting(
        "kl",
        Kind::Text,
        "on",
        "WHEN",
        "the KL term in training: on, off or warmup:EPOCHS; it is always part of the reported bound, and marginal has \
         it in its objective whatever this says",
    ),
    setting("samples", Kind::Whole(1, 10_000), "1", "M", "Gumbel draws per example"),
    setting(
        "eval-samples",
        Kind::Whole(0, 100_000),
        "0",
        "M",
        "draws per image for paper_loss; 0: as the authors; exact and marginal always take the expectation",
    ),
    setting(
        "eval-every",
        Kind::Whole(1, 1_000_000),
        "1",
        "N",
        "epochs from one evaluation to the next; the last has one",
    ),
    setting("epochs", Kind::Whole(1, 1_000_000), "20", "N", "passes over the training images"),
    setting("batch-size", Kind::Whole(1, 1 << 16), "100", "N", "examples per step"),
    setting(
        "lr",
        Kind::Real(|v| v.is_finite() && v > 0.0, "a finite number greater than 0"),
        "0.001",
        "X",
        "learning rate of Adam",
    ),
    setting("binarization", Kind::Choice(&Binarization::NAMES), "round", "NAME", "how grey images become binary"),
    setting("train-limit", Kind::Whole(0, u64::MAX), "0", "N", "only the first N training images; 0: all"),
    setting(
        "eval-limit",
        Kind::Whole(0, u64::MAX),
        "0",
        "N",
        "evaluate on the first N images of each split; 0: all, of the training split 10000",
    ),
    setting("seed", Kind::Whole(0, u64::MAX), "0", "N", "seed of everything random"),
    setting(
        "engine",
        Kind::Choice(&["auto", "autodiff", "fused"]),
        "auto",
        "NAME",
        "how a step is executed: autodiff (any model, any device), fused (written out for perceptrons on the CPU), or \
         auto, fused where it fits",
    ),
    setting(
        "device",
        Kind::Choice(&["cpu", "wgpu"]),
        "cpu",
        "NAME",
        "where tensors live; wgpu in builds with that feature",
    ),
    setting("checkpoint-every", Kind::Whole(0, u64::MAX), "0", "STEPS", "steps between checkpoints; 0: one epoch"),
];

/// Keys that a resumed run may change: they do not alter what a step computes.
pub const FREE: &[&str] = &["epochs", "checkpoint-every", "engine", "device"];

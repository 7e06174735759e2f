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
    setting("preset", Kind::Choice(&crate::presets::NAMES), "none", "NAME", crate::presets::HELP),
    setting("dataset", Kind::Text, "glyphs", "NAME", "data set; glyphs are generated"),
    setting(
        "latent",
        Kind::Text,
        "pairwise:15",
        "NAME:SIZES",
        "latent variable; by default categorical:10 with another estimator than direct, with rows:D or labels (with \
         attributes, their combinations)",
    ),
    setting("estimator", Kind::Text, "direct", "NAME", "how the gradient at the potentials is estimated"),
    setting("model", Kind::Text, "mlp", "NAME", "encoder and decoder"),
    setting(
        "likelihood",
        Kind::Text,
        "bernoulli",
        "NAME",
        "what the decoder's outputs say about a pixel; by default of grey and colour images, logistic",
    ),
    setting(
        "continuous",
        Kind::Text,
        "none",
        "KIND:D",
        "Gaussian codes of D dimensions: rows:D, one for every state, of which the decoder reads the one of z; \
         joint:D, one beside z",
    ),
    setting(
        "continuous-kl",
        Kind::Switch,
        "true",
        "BOOL",
        "whether the losses of states that an estimator sees have the KL of their codes (not so in the authors' code \
         and with --preset paper); what the decoder follows has it always",
    ),
    setting(
        "continuous-kl-weight",
        Kind::Real(|v| v.is_finite() && v >= 0.0, "a finite number of at least 0"),
        "1",
        "X",
        "weight of the KL of the Gaussian codes in training: above 1 they say less, and z has to say the rest \
         (beta-VAE); the reported bound has it once. It falls as max(min, weight * exp(-decay * step)), steps on \
         labelled images before the first epoch included",
    ),
    setting(
        "continuous-kl-min",
        Kind::Real(|v| v.is_finite() && v > 0.0, "a finite number greater than 0"),
        "1",
        "X",
        "the least that it falls to",
    ),
    setting(
        "continuous-kl-decay",
        Kind::Real(|v| v.is_finite() && v >= 0.0, "a finite number of at least 0"),
        "0",
        "X",
        "decay of that weight per step",
    ),
    setting("labels", Kind::Text, "0", "N", "training images with a label, as many of each class: a number, or all"),
    setting("label-draw", Kind::Whole(0, u64::MAX), "0", "N", "which images these are: the seed of their draw"),
    setting(
        "labels-balanced",
        Kind::Switch,
        "false",
        "BOOL",
        "whether a pass over the labelled images, as long as it is, has as many of each class or combination of \
         attributes: rare ones come again",
    ),
    setting(
        "labels-binarization",
        Kind::Choice(&["same", "grey"]),
        "same",
        "NAME",
        "the pixels of steps on labelled images: as binarization says, or grey (as in the authors' code and with \
         --preset paper)",
    ),
    setting(
        "attributes",
        Kind::Text,
        "",
        "NAMES",
        "attributes of the data set: their combinations are the classes of one K-way variable, or each is a binary \
         variable of a latent with as many",
    ),
    setting(
        "supervision",
        Kind::Text,
        "joint",
        "WHEN",
        "when labels are looked at: joint, a step on labelled images after every other one; phases:A,B, in A passes \
         over the labelled images before B epochs without, which may be 0 (in a file, epochs may say another B)",
    ),
    setting(
        "supervised-loss",
        Kind::Choice(&["argmax", "cross-entropy", "fenchel-young"]),
        "argmax",
        "NAME",
        "what is learned from a label: argmax, the label in the place of the perturbed arg max; cross-entropy of q; \
         fenchel-young, the loss of the perturbed arg max by several draws, for any latent",
    ),
    setting(
        "supervised-draws",
        Kind::Whole(1, 1000),
        "1",
        "M",
        "draws of fenchel-young for each labelled image: its gradient is their mean",
    ),
    setting("supervised-epsilon", Kind::POSITIVE, "0.05", "X", "epsilon of argmax: the gradient is divided by it"),
    setting(
        "supervised-weight",
        Kind::Real(|v| v.is_finite() && v >= 0.0, "a finite number of at least 0"),
        "1",
        "X",
        "weight of what is learned from a label",
    ),
    setting(
        "kl",
        Kind::Text,
        "on",
        "WHEN",
        "the KL term in training: on, off, warmup:EPOCHS, or added. direct takes it into its perturbation, so that its \
         steps are those of the whole bound; with added its exact gradient stands beside them, as it does for other \
         estimators anyway. It is always part of the reported bound, and marginal has it in its objective whatever \
         this says",
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
        "eval-codes",
        Kind::Whole(1, 1000),
        "1",
        "M",
        "Gaussian codes per image in an evaluation, of models that have some",
    ),
    setting(
        "eval-every",
        Kind::Whole(1, 1_000_000),
        "2",
        "N",
        "epochs from one evaluation to the next; the last has one",
    ),
    setting(
        "epochs",
        Kind::Whole(0, 1_000_000),
        "8",
        "N",
        "passes over the training images; 0 only behind a phase with labels. Of glyphs 6 by default, with lr 0.003, \
         where neither is given",
    ),
    setting("batch-size", Kind::Whole(1, 1 << 16), "100", "N", "examples per step"),
    setting(
        "lr",
        Kind::Real(|v| v.is_finite() && v > 0.0, "a finite number greater than 0"),
        "0.001",
        "X",
        "learning rate of Adam",
    ),
    setting(
        "lr-decay",
        Kind::Choice(&["none", "cosine", "linear"]),
        "none",
        "NAME",
        "how the learning rate falls to zero over all epochs: not, along half a cosine, or along a line; such a run \
         cannot be given more epochs",
    ),
    setting("binarization", Kind::Choice(&Binarization::NAMES), "round", "NAME", "how grey images become binary"),
    setting(
        "train-on",
        Kind::Choice(&["train", "all"]),
        "train",
        "NAME",
        "images that are trained on: those of the training split, or all, with the validation images; then the last \
         epoch is the one that is reported",
    ),
    setting("train-limit", Kind::Whole(0, u64::MAX), "0", "N", "only the first N training images; 0: all"),
    setting(
        "eval-limit",
        Kind::Whole(0, u64::MAX),
        "0",
        "N",
        "evaluate on the first N images of each split; 0: all, of the training split 2000",
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

//! Supervision: what potentials learn from labels.
//!
//! A label says what is known of an assignment: the value of some of its variables, or of all, or of none
//! ([`UNKNOWN`]). `Z_y` is the set of assignments that agree with the label y. For one K-way variable the label is its
//! class.
//!
//! **The label as the perturbed arg max** ([`Loss::Argmax`]; paper Section 4.2):
//!
//! ```text
//! z*   = argmax_{z in Z}   { h(z) + gamma(z) }
//! z_y  = argmax_{z in Z_y} { h(z) + gamma(z) }            the same gamma
//! gradient at the potentials  =  (s(z*) - s(z_y)) / epsilon
//! ```
//!
//! Here z_y stands where direct optimisation has the arg max perturbed by the loss: it is the assignment whose loss is
//! zero, for the loss that is infinite where z disagrees with the label. A label that is known in full is z_y itself.
//! No sums are needed. Where z* agrees with the label it is z_y, and the gradient is zero. The gradient is that of
//!
//! ```text
//! (max_{z in Z} { h(z) + gamma(z) } - max_{z in Z_y} { h(z) + gamma(z) }) / epsilon  >=  0
//! ```
//!
//! so that epsilon is a weight and nothing else: z_y does not depend on it. With a Gumbel variable for every state the
//! mean of the difference of the maxima over gamma is `-ln q(Z_y)`: then this is cross-entropy, sampled, over epsilon.
//! So it is for independent variables, whose unary noise is as good. For one K-way variable the mean of the gradient
//! is `(softmax(h) - onehot(y)) / epsilon`. For coupled variables with noise on the unary potentials it is a loss of
//! its own: its distribution is that of the perturbed arg max, which is what direct optimisation trains.
//!
//! **Fenchel-Young** ([`Loss::FenchelYoung`]; Blondel, Martins, Niculae, "Learning with Fenchel-Young losses", JMLR 21,
//! 2020; Berthet et al., NeurIPS 2020), of the perturbed arg max:
//!
//! ```text
//! E_gamma[max_{z in Z} { h(z) + gamma(z) } - max_{z in Z_y} { h(z) + gamma(z) }]
//! gradient at the potentials  =  mean over M draws of gamma of  s(z*) - s(z_y)
//! ```
//!
//! so that its mean is `E[s(z*)] - s(y)` where y is known in full: the difference of expected statistics and those of
//! the label. It is the loss above at epsilon = 1 with M draws in place of one, whose mean is the same and whose
//! variance is 1 / M; epsilon is no part of it, and the weight stands where 1 / epsilon does. No sums are needed. Of
//! independent variables it is cross-entropy, sampled. The decoder of a [labelled step](Taught) follows z_y of the
//! first draw.
//!
//! **Cross-entropy of q** ([`Loss::CrossEntropy`]):
//!
//! ```text
//! -ln q(Z_y) = ln sum_{z in Z} exp h(z) - ln sum_{z in Z_y} exp h(z)
//! gradient at the potentials  =  E_q[s(z)] - E_q[s(z) | Z_y]
//! ```
//!
//! without noise, for structures whose [sums](Sums) are tractable; for others it is refused.
//!
//! Both restrict the potentials to Z_y by [`Structure::condition`]. What is a variable and what its value is what
//! assignments say: a class, a bit, the column of a row, the parent of a node, whether an element or an edge is in.
//!
//! # Example
//!
//! Three images with two attributes each; of the second image one is known, of the third none:
//!
//! ```
//! use gumbel::structure::{Categorical, UNKNOWN};
//! use gumbel::supervision::{Labelled, Loss, Memory, Supervision};
//!
//! let latent = Categorical::binary(2)?;
//! let potentials = [0.0; 3 * 4]; // [rows, n, 2]
//! let known = [1, 0, UNKNOWN, 1, UNKNOWN, UNKNOWN]; // [rows, n]
//! let labelled = Labelled { potentials: &potentials, noise: &[], known: &known, first: 0 };
//!
//! let supervision = Supervision::new(Loss::CrossEntropy, 1.0)?;
//! let mut gradient = [0.0; 3 * 4];
//! let found = supervision.add(&latent, labelled, 1.0, &mut gradient, &mut Memory::default())?;
//! assert_eq!(gradient, [0.5, -0.5, -0.5, 0.5, 0.0, 0.0, 0.5, -0.5, 0.0, 0.0, 0.0, 0.0]);
//! assert!((found.loss.mean() - 1.5 * 2f64.ln()).abs() < 1e-6); // of two rows: ln 4 and ln 2 nats
//! # Ok::<(), gumbel::Error>(())
//! ```
//!
//! References: the paper; Papandreou, Yuille, "Perturb-and-MAP random fields", ICCV 2011 (learning perturbed arg maxima
//! from labels); Berthet, Blondel, Teboul, Cuturi, Vert, Bach, "Learning with differentiable perturbed optimizers",
//! NeurIPS 2020 (the loss).

use crate::Error;
use crate::error::check_len;
use crate::estimator::{Estimator, Piece, Tally};
use crate::oracle::{Followed, Oracle, Questions};
use crate::structure::{Maximum, Structure, Sums, add, batch_size};

pub use crate::structure::UNKNOWN;

/// What is minimised where something is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// The label as the perturbed arg max, with gradient `(s(z*) - s(z_y)) / epsilon`.
    Argmax {
        /// A finite number greater than 0; the paper has 0.05.
        epsilon: f32,
    },
    /// `-ln q(Z_y)`, with gradient `E_q[s] - E_q[s | Z_y]`.
    CrossEntropy,
    /// The Fenchel-Young loss of the perturbed arg max, with gradient `s(z*) - s(z_y)`, the mean over draws.
    FenchelYoung {
        /// How many draws, M >= 1.
        draws: usize,
    },
}

/// A loss of potentials at labels, and its weight; see the [module](self).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Supervision {
    loss: Loss,
    weight: f32,
}

/// Some examples with what is known of them.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    /// `[rows, P]`.
    pub potentials: &'a [f32],
    /// Gumbel variables `[rows, draws, U]`, as many [draws](Supervision::draws) as the loss takes; where it takes none,
    /// nobody looks at them.
    pub noise: &'a [f32],
    /// `[rows, n]`: the value of each variable, or [`UNKNOWN`].
    pub known: &'a [u32],
    /// The place of the first row in its batch, for messages.
    pub first: usize,
}

/// What [`Supervision::add`] measured, over the rows of which something is known. Those of parts of a batch add up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// The loss in nats, without weight and epsilon: cross-entropy, or the difference of the two maxima, of several
    /// draws the mean.
    pub loss: Tally,
    /// Of the losses that draw: in how many of the draws z* agrees with all that is known, so that the gradient is
    /// zero. Cross-entropy draws nothing, and counts none.
    pub agreed: Tally,
}

impl Outcome {
    /// Counts those of another part of the batch.
    pub fn merge(&mut self, other: &Outcome) {
        self.loss.merge(&other.loss);
        self.agreed.merge(&other.agreed);
    }
}

/// Working memory for one structure, made once and reused from row to row and from step to step.
pub struct Memory<S: Structure> {
    solver: Option<S::Scratch>,
    /// Perturbed or conditioned potentials, `[P]`.
    potentials: Vec<f32>,
    /// Marginals, `[P]`: those of q, and given the label.
    free: Vec<f32>,
    given: Vec<f32>,
    /// z* and z_y, `[n]`.
    best: Vec<u32>,
    agreeing: Vec<u32>,
}

impl<S: Structure> Default for Memory<S> {
    fn default() -> Self {
        let (potentials, free, given, best, agreeing) = (vec![], vec![], vec![], vec![], vec![]);
        Memory { solver: None, potentials, free, given, best, agreeing }
    }
}

impl<S: Structure> Memory<S> {
    fn copy(&mut self, potentials: &[f32]) {
        self.potentials.clear();
        self.potentials.extend_from_slice(potentials);
    }
}

impl Supervision {
    /// A loss with a weight: `weight` times its gradient is added, `weight` >= 0.
    ///
    /// # Errors
    /// Another weight, an epsilon that is no finite number greater than 0, no draws.
    pub fn new(loss: Loss, weight: f32) -> Result<Self, Error> {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::range("weight", weight, "a finite number of at least 0"));
        }
        match loss {
            Loss::Argmax { epsilon } if !(epsilon.is_finite() && epsilon > 0.0) => {
                Err(Error::range("epsilon", epsilon, "a finite number greater than 0"))
            }
            Loss::FenchelYoung { draws: 0 } => Err(Error::range("draws", 0, "a whole number of at least 1")),
            _ => Ok(Supervision { loss, weight }),
        }
    }

    /// The loss.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// The weight.
    pub fn weight(&self) -> f32 {
        self.weight
    }

    /// Whether it needs Gumbel variables.
    pub fn needs_noise(&self) -> bool {
        self.draws() > 0
    }

    /// How many draws it takes: Gumbel variables for each unary potential of each row.
    pub fn draws(&self) -> usize {
        match self.loss {
            Loss::Argmax { .. } => 1,
            Loss::FenchelYoung { draws } => draws,
            Loss::CrossEntropy => 0,
        }
    }

    /// Whether the loss can be had for a structure.
    ///
    /// # Errors
    /// [`Error::NoSums`] for cross-entropy where sums are not tractable.
    pub fn check<S: Sums>(&self, structure: &S) -> Result<(), Error> {
        match self.loss {
            Loss::Argmax { .. } | Loss::FenchelYoung { .. } => Ok(()),
            Loss::CrossEntropy => structure.tractable(),
        }
    }

    /// Adds `scale * weight` times the gradient of each row's loss to `gradient` `[rows, P]`: nothing to rows of which
    /// nothing is known. For the mean over a batch `scale` is one over its size.
    ///
    /// A structure without sums, such as [`Permutation`](crate::structure::Permutation), comes as an
    /// [`AnyStructure`](crate::structure::AnyStructure). One row after the other: whoever has many threads cuts the
    /// batch into parts with a memory each.
    ///
    /// ```
    /// use gumbel::structure::Categorical;
    /// use gumbel::supervision::{Labelled, Loss, Memory, Supervision};
    /// let latent = Categorical::new(3)?;
    /// let supervision = Supervision::new(Loss::Argmax { epsilon: 0.5 }, 1.0)?;
    /// let (potentials, noise) = ([0.2, -0.1, 0.4], [0.7, 0.1, -0.3]); // z* = 0
    /// let labelled = Labelled { potentials: &potentials, noise: &noise, known: &[2], first: 0 };
    /// let mut gradient = [0.0; 3];
    /// let found = supervision.add(&latent, labelled, 1.0, &mut gradient, &mut Memory::default())?;
    /// assert_eq!(gradient, [2.0, 0.0, -2.0]); // downhill the label's potential rises, by 1 / epsilon
    /// assert!((found.loss.mean() - 0.8).abs() < 1e-6 && found.agreed.mean() == 0.0); // 0.9 - 0.1 nats
    /// # Ok::<(), gumbel::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Wrong lengths; cross-entropy of a structure without sums. In a row, as [`Error::Example`]: a potential that is
    /// NaN or `+inf`; [`Error::Label`] for a label out of range; [`Error::Infeasible`] for one that no assignment
    /// agrees with. Then `gradient` holds the rows before.
    pub fn add<S: Sums>(
        &self,
        structure: &S,
        labelled: Labelled<'_>,
        scale: f32,
        gradient: &mut [f32],
        memory: &mut Memory<S>,
    ) -> Result<Outcome, Error> {
        self.check(structure)?;
        let Labelled { potentials, noise, known, first } = labelled;
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let (rows, draws) = (batch_size(potentials.len(), p)?, self.draws());
        check_len("labels", known.len(), rows * n)?;
        check_len("gradient", gradient.len(), rows * p)?;
        if self.needs_noise() {
            check_len("noise", noise.len(), rows * draws * u)?;
        }
        let scale = scale * self.weight;
        let mut outcome = Outcome::default();
        for row in (0..rows).filter(|row| anything(&known[row * n..][..n])) {
            let (h, label) = (&potentials[row * p..][..p], &known[row * n..][..n]);
            let gradient = &mut gradient[row * p..][..p];
            let loss = match self.loss {
                Loss::Argmax { .. } | Loss::FenchelYoung { .. } => {
                    let step = match self.loss {
                        Loss::Argmax { epsilon } => scale / epsilon,
                        _ => scale / draws as f32,
                    };
                    (0..draws).try_fold(0.0, |loss, draw| {
                        let noise = &noise[(row * draws + draw) * u..][..u];
                        let found = argmax_row(structure, h, noise, label, memory)?;
                        outcome.agreed.add(found.is_none() as u32 as f64, 1.0);
                        if found.is_some() {
                            structure.add_statistics(&memory.best, step, gradient);
                            structure.add_statistics(&memory.agreeing, -step, gradient);
                        }
                        Ok(loss + found.unwrap_or(0.0) / draws as f64)
                    })
                }
                Loss::CrossEntropy => cross_entropy_row(structure, h, label, memory).inspect(|_| {
                    let marginals = memory.free.iter().zip(&memory.given);
                    gradient.iter_mut().zip(marginals).for_each(|(g, (free, given))| *g += scale * (free - given));
                }),
            };
            outcome.loss.add(loss.map_err(|e: Error| e.in_example(first + row))?, 1.0);
        }
        Ok(outcome)
    }
}

/// Whether a label says anything.
fn anything(known: &[u32]) -> bool {
    known.iter().any(|value| *value != UNKNOWN)
}

fn agrees(assignment: &[u32], known: &[u32]) -> bool {
    assignment.iter().zip(known).all(|(z, y)| *y == UNKNOWN || z == y)
}

/// Leaves z* and z_y in the memory; the difference of their scores, or nothing where z* agrees with the label.
fn argmax_row<S: Structure>(
    structure: &S,
    potentials: &[f32],
    noise: &[f32],
    known: &[u32],
    memory: &mut Memory<S>,
) -> Result<Option<f64>, Error> {
    memory.copy(potentials);
    add(&mut memory.potentials[..noise.len()], noise, 1.0);
    let Memory { solver, potentials, best, agreeing, .. } = memory;
    let solver = solver.get_or_insert_with(|| structure.scratch());
    best.resize(known.len(), 0);
    let maximum = structure.argmax(potentials, best, solver)?;
    if agrees(best, known) {
        return Ok(None);
    }
    let lost = structure.condition(known, potentials).map_err(explained)?;
    agreeing.clear();
    agreeing.extend_from_slice(best);
    // Unary potentials alone have changed: the solver goes on from z*.
    let found = structure.resolve(potentials, agreeing, solver);
    let found = held(found, agreeing, known)?;
    // Rounding, and a solver that was out of time, may turn the sign.
    Ok(Some((maximum.value - found.value - lost).max(0.0)))
}

/// Leaves both marginals in the memory; `-ln q(Z_y)`.
fn cross_entropy_row<S: Sums>(
    structure: &S,
    potentials: &[f32],
    known: &[u32],
    memory: &mut Memory<S>,
) -> Result<f64, Error> {
    memory.copy(potentials);
    let Memory { potentials: conditioned, free, given, .. } = memory;
    free.resize(potentials.len(), 0.0);
    given.resize(potentials.len(), 0.0);
    let all = structure.marginals(potentials, free)?;
    let lost = structure.condition(known, conditioned).map_err(explained)?;
    let agreeing = structure.marginals(conditioned, given).map_err(explained)? + lost;
    Ok((all - agreeing).max(0.0)) // it is a sum of rounded numbers
}

/// An answer, if it agrees with the label.
fn held(found: Result<Maximum, Error>, assignment: &[u32], known: &[u32]) -> Result<Maximum, Error> {
    let found = found.map_err(explained)?;
    match assignment.iter().zip(known).position(|(z, y)| *y != UNKNOWN && z != y) {
        None => Ok(found),
        Some(i) => Err(explained(Error::Infeasible { detail: format!("variable {i} can only be {}", assignment[i]) })),
    }
}

/// Says that the label is what leaves nothing.
fn explained(error: Error) -> Error {
    match error {
        Error::Infeasible { detail } => Error::Infeasible { detail: format!("none agrees with the label: {detail}") },
        other => other,
    }
}

/// Finds `argmax_{z in Z_y} h(z)`, the best assignment of those that agree with a label: it fills in what is unknown.
/// `potentials` has P values, `known` and `assignment` have n.
///
/// ```
/// use gumbel::structure::Chain;
/// use gumbel::supervision::{Memory, UNKNOWN, conditioned_argmax};
/// let chain = Chain::new(3, 2)?;
/// let equal = [1.0, 0.0, 0.0, 1.0]; // rewards z_t = z_t+1
/// let potentials = [[0.0; 6].as_slice(), &equal, &equal].concat();
/// let mut z = [0; 3];
/// conditioned_argmax(&chain, &potentials, &[UNKNOWN, UNKNOWN, 1], &mut z, &mut Memory::default())?;
/// assert_eq!(z, [1, 1, 1]);
/// # Ok::<(), gumbel::Error>(())
/// ```
///
/// # Errors
///
/// Wrong lengths; a potential that is NaN or `+inf`; [`Error::Label`]; [`Error::Infeasible`] if no allowed assignment
/// agrees.
pub fn conditioned_argmax<S: Structure>(
    structure: &S,
    potentials: &[f32],
    known: &[u32],
    assignment: &mut [u32],
    memory: &mut Memory<S>,
) -> Result<Maximum, Error> {
    check_len("potentials", potentials.len(), structure.potentials())?;
    check_len("assignment", assignment.len(), structure.variables())?;
    crate::structure::check_numbers("potential", potentials)?;
    memory.copy(potentials);
    let Memory { solver, potentials, .. } = memory;
    let solver = solver.get_or_insert_with(|| structure.scratch());
    let lost = structure.condition(known, potentials).map_err(explained)?;
    let found = structure.argmax(potentials, assignment, solver);
    let found = held(found, assignment, known)?;
    Ok(Maximum { value: found.value + lost, bound: found.bound + lost })
}

/// `ln q(Z_y)` in nats: what q says of a label. `potentials` has P values, `known` n.
///
/// ```
/// use gumbel::structure::Pairwise;
/// use gumbel::supervision::{Memory, UNKNOWN, ln_probability};
/// let model = Pairwise::new(3)?;
/// let found = ln_probability(&model, &[0.0; 9], &[1, UNKNOWN, 0], &mut Memory::default())?;
/// assert!((found - 0.25f64.ln()).abs() < 1e-6);
/// # Ok::<(), gumbel::Error>(())
/// ```
///
/// # Errors
///
/// Wrong lengths; a potential that is NaN or `+inf`; [`Error::NoSums`]; [`Error::Label`]; [`Error::Infeasible`] if no
/// allowed assignment agrees.
pub fn ln_probability<S: Sums>(
    structure: &S,
    potentials: &[f32],
    known: &[u32],
    memory: &mut Memory<S>,
) -> Result<f64, Error> {
    structure.tractable()?;
    check_len("potentials", potentials.len(), structure.potentials())?;
    Ok(-cross_entropy_row(structure, potentials, known, memory)?)
}

/// Looks whether labels `[rows, n]` are such that some assignment agrees with each, before anything is trained on them.
///
/// ```
/// use gumbel::structure::Categorical;
/// use gumbel::supervision::{UNKNOWN, check};
/// let digit = Categorical::new(10)?;
/// check(&digit, &[3, UNKNOWN, 9])?;
/// let message = check(&digit, &[3, 10]).unwrap_err().to_string();
/// assert_eq!(message, "example 1 of the batch: the label of variable 0 is 10: expected 0 to 9, or unknown");
/// # Ok::<(), gumbel::Error>(())
/// ```
///
/// # Errors
///
/// A wrong length. In a row, as [`Error::Example`]: [`Error::Label`] or [`Error::Infeasible`]; [`Error::NoLabels`] of a
/// structure that takes none.
pub fn check<S: Structure>(structure: &S, known: &[u32]) -> Result<(), Error> {
    let n = structure.variables();
    let rows = known.len() / n.max(1);
    check_len("labels", known.len(), rows * n)?;
    let (potentials, mut z, mut memory) = (vec![0.0; structure.potentials()], vec![0; n], Memory::default());
    for (row, label) in known.chunks_exact(n.max(1)).enumerate().filter(|(_, label)| anything(label)) {
        let found = conditioned_argmax(structure, &potentials, label, &mut z, &mut memory);
        found.map_err(|e| e.in_example(row))?;
    }
    Ok(())
}

/// How often assignments agree with what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Agreement {
    /// Known values of variables.
    pub asked: usize,
    /// Those of them that the assignments have.
    pub correct: usize,
    /// Rows of which something is known.
    pub rows_asked: usize,
    /// Those of them whose assignment has all that is known.
    pub rows_correct: usize,
}

impl Agreement {
    /// Share of the known values that are right, 0 to 1; NaN if nothing is known.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.asked as f64
    }

    /// Share of the rows in which all that is known is right, 0 to 1; NaN if nothing is known.
    pub fn row_accuracy(&self) -> f64 {
        self.rows_correct as f64 / self.rows_asked as f64
    }

    /// Counts those of other rows.
    pub fn merge(&mut self, other: &Agreement) {
        self.asked += other.asked;
        self.correct += other.correct;
        self.rows_asked += other.rows_asked;
        self.rows_correct += other.rows_correct;
    }
}

/// Compares assignments `[rows, n]` of n `variables` with labels of the same shape.
///
/// ```
/// use gumbel::supervision::{UNKNOWN, agreement};
/// let found = agreement(&[1, 0, 1, 1, 0, 0], &[1, 0, 0, 1, UNKNOWN, UNKNOWN], 2)?;
/// assert_eq!((found.correct, found.asked, found.rows_correct, found.rows_asked), (3, 4, 1, 2));
/// assert_eq!((found.accuracy(), found.row_accuracy()), (0.75, 0.5));
/// # Ok::<(), gumbel::Error>(())
/// ```
///
/// # Errors
/// Wrong lengths.
pub fn agreement(assignments: &[u32], known: &[u32], variables: usize) -> Result<Agreement, Error> {
    let n = variables.max(1);
    check_len("assignments", assignments.len(), known.len() / n * variables)?;
    check_len("labels", known.len(), assignments.len())?;
    let mut found = Agreement::default();
    for (z, label) in assignments.chunks_exact(n).zip(known.chunks_exact(n)).filter(|(_, label)| anything(label)) {
        let asked = label.iter().filter(|y| **y != UNKNOWN).count();
        let correct = z.iter().zip(label).filter(|(z, y)| **y != UNKNOWN && z == y).count();
        let whole = (correct == asked) as usize;
        found.merge(&Agreement { asked, correct, rows_asked: 1, rows_correct: whole });
    }
    Ok(found)
}

/// The estimator of a step on labelled images: potentials learn from the labels, and the decoder follows what completes
/// them, z_y, with the same noise, that of the first draw.
///
/// It asks nothing of the oracle. Labels belong to one batch: whoever takes a step makes one.
#[derive(Debug, Clone)]
pub struct Taught {
    supervision: Supervision,
    /// `[batch, n]`.
    known: Vec<u32>,
}

impl Taught {
    /// For a batch of which `known` `[batch, n]` is known.
    pub fn new(supervision: Supervision, known: Vec<u32>) -> Self {
        Taught { supervision, known }
    }
}

impl<S: Sums> Estimator<S> for Taught {
    fn questions(&self, _: &S) -> Questions {
        Questions::NONE
    }

    fn rows(&self, _: usize) -> usize {
        1
    }

    /// What completes a label needs a draw too, whatever the loss.
    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(self.supervision.draws().max(1) * structure.unary())
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, first) = (piece.structure, piece.first);
        let (p, n, u) = (structure.potentials(), structure.variables(), structure.unary());
        let (mut memory, mut perturbed) = (Memory::default(), vec![0.0; p]);
        let mut assignments = vec![0; piece.count() * n];
        for (b, z) in assignments.chunks_exact_mut(n).enumerate() {
            let (h, gradient) = (&piece.potentials[b * p..][..p], &mut piece.gradient[b * p..][..p]);
            let noise = piece.noise.of(0, b);
            let known = self.known.get((first + b) * n..(first + b + 1) * n).unwrap_or(&[]);
            check_len("labels", known.len(), n)?;
            let labelled = Labelled { potentials: h, noise, known, first: first + b };
            self.supervision.add(structure, labelled, piece.scale, gradient, &mut memory)?;
            perturbed.copy_from_slice(h);
            add(&mut perturbed[..u], &noise[..u], 1.0);
            let found = conditioned_argmax(structure, &perturbed, known, z, &mut memory);
            found.map_err(|e| e.in_example(first + b))?;
        }
        let weights = vec![piece.scale; piece.count()];
        oracle.follow(Followed::Assignments { row: 0, assignments: &assignments, weights: &weights })
    }
}

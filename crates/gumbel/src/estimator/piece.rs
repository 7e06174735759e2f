//! A piece of a batch at the seam between networks and discrete mathematics, and the memory that goes with it.

use super::{Estimator, Follows, MEASURES, Slopes, Tally, enumerable};
use crate::Error;
use crate::error::check_len;
use crate::oracle::{Followed, Oracle};
use crate::structure::{Maximum, Structure, add, batch_size, examples_per_piece};
use rayon::prelude::*;

/// Some examples of a batch: what an estimator is given, and where it leaves its answer.
pub struct Piece<'a, S: Structure> {
    /// The latent variable.
    pub structure: &'a S,
    /// Encoder potentials `[examples, P]`.
    pub potentials: &'a [f32],
    /// Gumbel variables, as many as the estimator [asks for](Estimator::noise); none where nothing is random.
    pub noise: Noises<'a>,
    /// Samples of each example.
    pub samples: usize,
    /// Weight of one sample of one example in the mean over batch and samples.
    pub scale: f32,
    /// The place of the first example in its batch, for messages.
    pub first: usize,
    /// The examples by their places in the piece, `0..examples`: whoever asks about all of them names this list.
    pub of: &'a [u32],
    /// The estimate is *added* here, `[examples, P]`.
    pub gradient: &'a mut [f32],
    /// What is measured, in the order of [`Estimator::measures`].
    pub tallies: &'a mut [Tally; MEASURES],
    /// Numbers to learn from, summed over all pieces for [`Estimator::learn`]; as many as [`Estimator::sums`] says.
    pub sums: &'a mut [f32],
    /// Working memory; it belongs to these places of a batch.
    pub memory: &'a mut Memory<S>,
    /// Whether loops over the examples may use the threads of the current rayon pool. An engine whose pieces are small
    /// and run side by side says no.
    pub parallel: bool,
}

/// Gumbel variables `[samples, examples, width]`, from one sample to the next `stride` examples.
#[derive(Debug, Clone, Copy)]
pub struct Noises<'a> {
    /// All of them.
    pub values: &'a [f32],
    /// Variables of one example and sample.
    pub width: usize,
    /// Examples from one sample to the next.
    pub stride: usize,
}

impl<'a> Noises<'a> {
    /// Those of one example in one sample.
    pub fn of(&self, sample: usize, example: usize) -> &'a [f32] {
        &self.values[(sample * self.stride + example) * self.width..][..self.width]
    }
}

/// Working memory of an estimator for the examples of a piece, made once and reused from step to step: it grows to what
/// is needed and never shrinks.
pub struct Memory<S: Structure> {
    /// z* of the last draw, `[examples, n]`.
    pub assignments: Vec<u32>,
    /// z(eps) of the last draw, of estimators that have one, `[examples, n]`.
    pub moved: Vec<u32>,
    /// Losses of the examples' samples `[examples]`.
    pub own: Vec<f32>,
    /// Losses `[examples, U]` or `[examples, |Z|]`.
    pub losses: Vec<f32>,
    /// Weights of what is followed.
    pub weights: Vec<f32>,
    /// Relaxed codes.
    pub codes: Vec<f32>,
    /// Of a search: the examples that still move, their assignments, losses and gains.
    pub(super) active: Vec<u32>,
    pub(super) compact: Vec<u32>,
    pub(super) near: Vec<f32>,
    pub(super) answers: Vec<f32>,
    pub(super) gains: Vec<f64>,
    pub(super) climbs: Vec<super::search::Climb>,
    /// Of controls.
    pub(super) control: super::control::Rooms,
    pub(super) solvers: Vec<Workspace<S>>,
}

impl<S: Structure> Default for Memory<S> {
    fn default() -> Self {
        Memory {
            assignments: vec![],
            moved: vec![],
            own: vec![],
            losses: vec![],
            weights: vec![],
            codes: vec![],
            active: vec![],
            compact: vec![],
            near: vec![],
            answers: vec![],
            gains: vec![],
            climbs: vec![],
            control: Default::default(),
            solvers: vec![],
        }
    }
}

/// Makes room for `len` values and gives them.
pub(super) fn room<T: Copy + Default>(of: &mut Vec<T>, len: usize) -> &mut [T] {
    if of.len() < len {
        of.resize(len, T::default());
    }
    &mut of[..len]
}

/// One example of a piece; empty slices stand for what is absent.
pub(super) struct Row<'a, S: Structure> {
    pub potentials: &'a [f32],
    pub noise: &'a [f32],
    /// z*.
    pub assignment: &'a mut [u32],
    pub losses: &'a [f32],
    pub gradient: &'a mut [f32],
    pub weights: &'a mut [f32],
    pub moved: &'a mut [u32],
    pub work: &'a mut Workspace<S>,
}

/// How many rows answered the question of coincidence, and how many with yes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub asked: usize,
    pub same: usize,
}

impl Count {
    fn add(&mut self, same: Option<bool>) {
        self.asked += same.is_some() as usize;
        self.same += (same == Some(true)) as usize;
    }
}

impl<S: Structure> Piece<'_, S> {
    /// Number of examples.
    pub fn count(&self) -> usize {
        self.of.len()
    }

    /// Draws z* of all examples, the arg max of their potentials with the noise of a sample on the unary ones, into
    /// `memory.assignments`.
    ///
    /// # Errors
    /// NaN, everything forbidden.
    pub fn draw(&mut self, sample: usize) -> Result<(), Error> {
        let structure = self.structure;
        self.each(sample, [0, 0], |row| {
            row.work.argmax(structure, row.potentials, row.noise, row.assignment).map(|_| None)
        })
        .map(drop)
    }

    /// Calls `f` for every example, with `losses` values of `memory.losses` and `weights` values of `memory.weights`
    /// each.
    pub(super) fn each(
        &mut self,
        sample: usize,
        [losses, weights]: [usize; 2],
        f: impl Fn(&mut Row<'_, S>) -> Result<Option<bool>, Error> + Sync,
    ) -> Result<Count, Error> {
        let (structure, count, first) = (self.structure, self.count(), self.first);
        let (p, n) = (structure.potentials(), structure.variables());
        let (potentials, noise) = (self.potentials, self.noise);
        let memory = &mut *self.memory;
        while memory.solvers.len() < count {
            memory.solvers.push(Workspace::new(structure, p.max(losses)));
        }
        let z = room(&mut memory.assignments, count * n);
        let moved = room(&mut memory.moved, count * n);
        let all_losses = &*room(&mut memory.losses, count * losses);
        let all_weights = room(&mut memory.weights, count * weights);
        let (solvers, gradient) = (&mut memory.solvers[..count], &mut self.gradient[..count * p]);
        let mut total = Count::default();
        if !self.parallel {
            for (b, work) in solvers.iter_mut().enumerate() {
                work.widen(p.max(losses));
                let mut row = Row {
                    potentials: &potentials[b * p..][..p],
                    noise: noise.of(sample, b),
                    assignment: &mut z[b * n..][..n],
                    losses: &all_losses[b * losses..][..losses],
                    gradient: &mut gradient[b * p..][..p],
                    weights: &mut all_weights[b * weights..][..weights],
                    moved: &mut moved[b * n..][..n],
                    work,
                };
                total.add(f(&mut row).map_err(|e| e.in_example(first + b))?);
            }
            return Ok(total);
        }
        let mut weights_left = all_weights;
        let rows = z.chunks_exact_mut(n.max(1)).zip(moved.chunks_exact_mut(n.max(1)));
        let rows = rows.zip(gradient.chunks_exact_mut(p.max(1))).zip(solvers).enumerate();
        let rows = rows.map(|(b, (((assignment, moved), gradient), work))| {
            let (weights, rest) = std::mem::take(&mut weights_left).split_at_mut(weights);
            weights_left = rest;
            work.widen(p.max(losses));
            let (potentials, losses) = (&potentials[b * p..][..p], &all_losses[b * losses..][..losses]);
            let noise = noise.of(sample, b);
            (None, Row { potentials, noise, assignment, losses, gradient, weights, moved, work })
        });
        let mut rows: Vec<(Option<bool>, Row<'_, S>)> = rows.collect();
        let cheap = match structure.is_independent() {
            true => (8192 / losses.max(p)).max(32),
            false => examples_per_piece(losses.max(p)),
        };
        rows.par_iter_mut().enumerate().with_min_len(cheap).try_for_each(|(b, (same, row))| -> Result<(), Error> {
            *same = f(row).map_err(|e| e.in_example(first + b))?;
            Ok(())
        })?;
        rows.iter().for_each(|(same, _)| total.add(*same));
        Ok(total)
    }

    /// Tells the oracle to follow z* of the last draw, which belongs to `sample`, with equal weights.
    ///
    /// # Errors
    /// Those of the oracle.
    pub fn follow_sample(&mut self, sample: usize, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (count, n) = (self.count(), self.structure.variables());
        let Memory { assignments, weights, .. } = &mut *self.memory;
        let weights = room(weights, count);
        weights.fill(self.scale);
        oracle.follow(Followed::Assignments { row: sample, assignments: &assignments[..count * n], weights })
    }

    /// Asks about the one-coordinate changes of z* of the last draw, into `memory.own` and `memory.losses`.
    ///
    /// # Errors
    /// Those of the oracle.
    pub fn ask_around(&mut self, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (count, n, u) = (self.count(), self.structure.variables(), self.structure.unary());
        let Memory { assignments, own, losses, .. } = &mut *self.memory;
        oracle.around(self.of, &assignments[..count * n], room(own, count), room(losses, count * u))
    }

    /// The same of one K-way variable, with `memory.weights` as the [slack](Oracle::least).
    ///
    /// # Errors
    /// Those of the oracle.
    pub(super) fn ask_least(&mut self, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (count, u) = (self.count(), self.structure.unary());
        let Memory { assignments, own, losses, weights, .. } = &mut *self.memory;
        let slack = &weights[..count * u];
        oracle.least(self.of, &assignments[..count], slack, room(own, count), room(losses, count * u))
    }

    /// Asks about all states, into `memory.losses`; returns their number.
    ///
    /// # Errors
    /// A space too large to enumerate, those of the oracle.
    pub fn ask_states(&mut self, oracle: &mut dyn Oracle) -> Result<usize, Error> {
        let states = enumerable(self.structure)?;
        let losses = room(&mut self.memory.losses, self.of.len() * states);
        oracle.states(self.of, losses)?;
        Ok(states)
    }
}

/// Working memory for one example: a solver that may go on from where it stood, and room for potentials or states.
pub struct Workspace<S: Structure> {
    /// Perturbed potentials, or probabilities of states: max(P, |Z|) values each.
    pub(super) first: Vec<f32>,
    pub(super) second: Vec<f32>,
    /// Assignments: z(eps) and z(-eps), or a state.
    pub(super) towards: Vec<u32>,
    pub(super) away: Vec<u32>,
    pub(super) solver: S::Scratch,
    /// Whether the solver's last answer was z* of the example to come.
    pub(super) warm: bool,
    /// Of a conditional expectation.
    pub(super) ways: super::coupled::Ways,
}

impl<S: Structure> Workspace<S> {
    pub(super) fn new(structure: &S, width: usize) -> Self {
        let (n, vector) = (structure.variables(), || vec![0.0; width]);
        let (first, second, towards, away) = (vector(), vector(), vec![0; n], vec![0; n]);
        Workspace { first, second, towards, away, solver: structure.scratch(), warm: false, ways: Default::default() }
    }

    fn widen(&mut self, width: usize) {
        room(&mut self.first, width);
        room(&mut self.second, width);
    }

    /// Finds z* = arg max of potentials + noise on the unary ones; further noise is not looked at. The solver remembers
    /// where it stood.
    ///
    /// # Errors
    /// NaN, everything forbidden.
    #[inline]
    pub fn argmax(
        &mut self,
        structure: &S,
        potentials: &[f32],
        noise: &[f32],
        assignment: &mut [u32],
    ) -> Result<Maximum, Error> {
        let perturbed = &mut self.first[..structure.potentials()];
        perturbed.copy_from_slice(potentials);
        add(&mut perturbed[..structure.unary()], noise, 1.0);
        self.warm = false;
        let maximum = structure.argmax(perturbed, assignment, &mut self.solver)?;
        self.warm = true;
        Ok(maximum)
    }
}

/// The answer of [`estimate`].
#[derive(Debug, Clone, PartialEq)]
pub struct Estimated {
    /// The estimate for every example `[batch, P]`: a mean over samples, a sum over nothing else.
    pub gradient: Vec<f32>,
    /// What was measured, in the order of [`Estimator::measures`].
    pub tallies: [Tally; MEASURES],
    /// What the estimator wants to learn from.
    pub sums: Vec<f32>,
}

/// Estimates the gradient at `potentials` `[batch, P]` with Gumbel `noise` `[samples, batch, width]`, outside of any
/// training: nothing is updated, what is followed is passed on to the oracle.
///
/// An estimator that [wants slopes](Estimator::wants_slopes) at what it follows gets them by a question. One in which
/// [nothing is random](Estimator::is_random) needs no noise and looks at none.
///
/// # Errors
/// Wrong lengths, those of the estimator and of the oracle.
pub fn estimate<S: Structure, E: Estimator<S> + ?Sized>(
    estimator: &E,
    structure: &S,
    potentials: &[f32],
    noise: &[f32],
    oracle: &mut dyn Oracle,
) -> Result<Estimated, Error> {
    estimate_with(estimator, structure, potentials, noise, oracle, &mut Memory::default())
}

/// The same with working memory that may be reused.
///
/// # Errors
/// As [`estimate`].
pub fn estimate_with<S: Structure, E: Estimator<S> + ?Sized>(
    estimator: &E,
    structure: &S,
    potentials: &[f32],
    noise: &[f32],
    oracle: &mut dyn Oracle,
    memory: &mut Memory<S>,
) -> Result<Estimated, Error> {
    let batch = batch_size(potentials.len(), structure.potentials())?;
    let width = if estimator.is_random() { estimator.noise(structure)? } else { 0 };
    let samples = match batch * width {
        0 => 1, // nothing is random, or there is no example
        each => (noise.len() / each).max(1),
    };
    if estimator.is_random() {
        check_len("noise", noise.len(), samples * batch * width)?;
    }
    let of: Vec<u32> = (0..batch as u32).collect();
    let mut found = Estimated {
        gradient: vec![0.0; potentials.len()],
        tallies: [Tally::default(); MEASURES],
        sums: vec![0.0; estimator.sums()],
    };
    let mut piece = Piece {
        structure,
        potentials,
        noise: Noises { values: noise, width, stride: batch },
        samples,
        scale: 1.0 / samples as f32,
        first: 0,
        of: &of,
        gradient: &mut found.gradient,
        tallies: &mut found.tallies,
        sums: &mut found.sums,
        memory,
        parallel: true,
    };
    if !estimator.wants_slopes() {
        estimator.estimate(&mut piece, oracle)?;
        return Ok(found);
    }
    let u = structure.unary();
    let rows = estimator.rows(samples);
    let mut recorder = Recorder::new(structure, oracle, rows, batch);
    estimator.estimate(&mut piece, &mut recorder)?;
    let Recorder { codes, weights, .. } = recorder;
    let (mut losses, mut slopes) = (vec![0.0; batch], vec![0.0; codes.len()]);
    for row in 0..rows {
        let at = row * batch;
        let slopes = &mut slopes[at * u..][..batch * u];
        oracle.slopes(&of, &codes[at * u..][..batch * u], &mut losses, slopes)?;
        let scaled = slopes.chunks_exact_mut(u).zip(&weights[at..]);
        scaled.for_each(|(slope, w)| slope.iter_mut().for_each(|s| *s *= w));
    }
    estimator.resume(&mut piece, Slopes { values: &slopes, stride: batch })?;
    Ok(found)
}

/// Passes questions on and keeps the codes of what is followed.
pub struct Recorder<'a, S> {
    structure: &'a S,
    oracle: &'a mut dyn Oracle,
    examples: usize,
    /// `[rows, examples, U]`.
    pub codes: Vec<f32>,
    /// `[rows, examples]`.
    pub weights: Vec<f32>,
}

impl<'a, S: Structure> Recorder<'a, S> {
    /// Room for `rows` assignments or codes of each of `examples`.
    pub fn new(structure: &'a S, oracle: &'a mut dyn Oracle, rows: usize, examples: usize) -> Self {
        let (codes, weights) = (vec![0.0; rows * examples * structure.unary()], vec![0.0; rows * examples]);
        Recorder { structure, oracle, examples, codes, weights }
    }
}

impl<S: Structure> Oracle for Recorder<'_, S> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.oracle.losses(of, assignments, losses)
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        self.oracle.around(of, assignments, own, losses)
    }

    fn leaves_out(&self) -> bool {
        self.oracle.leaves_out()
    }

    fn least(
        &mut self,
        of: &[u32],
        assignments: &[u32],
        slack: &[f32],
        own: &mut [f32],
        losses: &mut [f32],
    ) -> Result<(), Error> {
        self.oracle.least(of, assignments, slack, own, losses)
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.oracle.states(of, losses)
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        self.oracle.slopes(of, codes, losses, slopes)
    }

    fn tangents(&mut self, of: &[u32], codes: &[f32], directions: &[f32], tangents: &mut [f32]) -> Result<(), Error> {
        self.oracle.tangents(of, codes, directions, tangents)
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        let (u, n, count) = (self.structure.unary(), self.structure.variables(), self.examples);
        match followed {
            Followed::Assignments { row, assignments, weights } => {
                let codes = &mut self.codes[row * count * u..][..count * u];
                let rows = assignments.chunks_exact(n).zip(codes.chunks_exact_mut(u));
                rows.for_each(|(z, code)| self.structure.encode(z, code));
                self.weights[row * count..][..count].copy_from_slice(weights);
            }
            Followed::Codes { row, codes, weights } => {
                self.codes[row * count * u..][..count * u].copy_from_slice(codes);
                self.weights[row * count..][..count].copy_from_slice(weights);
            }
            Followed::States(_) => {}
        }
        self.oracle.follow(followed)
    }
}

/// Whether what an estimator follows and asks can be read off a table of the decoder's outputs for all states of one
/// variable: then the rows of the decoder are states, not images.
pub fn reads_table<S: Structure, E: Estimator<S> + ?Sized>(estimator: &E, structure: &S) -> bool {
    match estimator.follows() {
        Follows::States => true,
        Follows::Assignments => {
            structure.is_single() && !estimator.wants_slopes() && !estimator.questions(structure).slopes
        }
        Follows::Codes => false,
    }
}

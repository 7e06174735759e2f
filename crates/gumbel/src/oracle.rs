//! What an estimator asks: losses at codes, as often as it likes, for the examples that it names.
//!
//! A decoder with its likelihood is an [`Oracle`]: it answers questions about the loss `-ln p(x | z)` of an
//! example at codes, and takes one instruction, what to *follow*. It knows no estimator, and an estimator knows no
//! network.
//!
//! | question | asked by |
//! |---|---|
//! | [`losses`](Oracle::losses): at assignments | score-function estimators, proposals of a search |
//! | [`around`](Oracle::around): of all one-coordinate changes | direct optimisation, search, local expectation |
//! | [`least`](Oracle::least): of those that may be the best of them | direct optimisation, of one variable |
//! | [`states`](Oracle::states): of all states | joint losses, exact sums |
//! | [`slopes`](Oracle::slopes): and their derivatives, at any codes | relaxed estimators, search by slopes |
//! | [`tangents`](Oracle::tangents): how the slopes change along directions | controls that learn a temperature |
//!
//! Rows of an answer belong to the examples that `of` names, by their places in the piece of a batch that the oracle
//! answers for; an example may be named several times, or not at all.
//!
//! The decoder's own objective is what it is told to [follow](Oracle::follow): a weighted sum of losses at assignments,
//! at relaxed codes, or at all states. Where an estimator [wants them](crate::estimator::Estimator::wants_slopes), the
//! slopes at what is followed come back without a further pass.
//!
//! [`Closure`] makes an oracle of a function.

use crate::Error;
pub use crate::error::check_len;
use crate::structure::Structure;
use std::cell::Cell;

/// Answers questions about losses at codes, in nats; see the [module](self).
///
/// Rows that are out of the ordinary do not stop it: a loss that is not a number is the estimator's to refuse.
pub trait Oracle {
    /// Writes the losses at `assignments` `[rows, n]` of the examples `of` `[rows]` to `losses` `[rows]`.
    ///
    /// # Errors
    /// Slices of wrong lengths, examples that it does not have, those of the decoder.
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error>;

    /// Writes the losses at `assignments` `[rows, n]` to `own` `[rows]`, and those of all their one-coordinate changes
    /// to `losses` `[rows, U]`, in the form of [`Code::neighbour_losses`](crate::structure::Code::neighbour_losses).
    ///
    /// # Errors
    /// As [`losses`](Oracle::losses).
    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error>;

    /// Whether [`least`](Oracle::least) leaves anything out, so that it is worth while to find a slack.
    fn leaves_out(&self) -> bool {
        false
    }

    /// The same of one K-way variable for whoever only looks for the value k with the least `loss[k] - slack[k]`, of
    /// `slack` `[rows, K]`, which is 0 at the assignment: the loss of another value may be replaced by a lower bound
    /// that does not hide the least one. An oracle whose losses are sums of terms of at least 0 can leave out most.
    ///
    /// # Errors
    /// As [`losses`](Oracle::losses).
    fn least(
        &mut self,
        of: &[u32],
        assignments: &[u32],
        _slack: &[f32],
        own: &mut [f32],
        losses: &mut [f32],
    ) -> Result<(), Error> {
        self.around(of, assignments, own, losses)
    }

    /// Writes the losses of all states in the order of enumeration to `losses` `[rows, |Z|]`.
    ///
    /// # Errors
    /// As [`losses`](Oracle::losses), a space too large to enumerate.
    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error>;

    /// Writes the losses at `codes` `[rows, U]`, hard or relaxed, to `losses` `[rows]`, and their derivatives in the
    /// code to `slopes` `[rows, U]`.
    ///
    /// # Errors
    /// As [`losses`](Oracle::losses).
    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error>;

    /// Writes the derivatives of the slopes at `codes` `[rows, U]` along `directions` `[rows, U]` to `tangents`
    /// `[rows, U]`: the second derivative of the loss in the code times the direction.
    ///
    /// An oracle that has no answer of its own differences [`slopes`](Oracle::slopes), two further passes for each row.
    /// Whoever asks declares [`Questions::SLOPES`].
    ///
    /// # Errors
    /// As [`losses`](Oracle::losses).
    fn tangents(&mut self, of: &[u32], codes: &[f32], directions: &[f32], tangents: &mut [f32]) -> Result<(), Error> {
        differences(self, of, codes, directions, tangents)
    }

    /// Says what the decoder follows.
    ///
    /// # Errors
    /// As [`losses`](Oracle::losses).
    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error>;
}

/// Refuses a question about an example that a batch of `count` does not have, and numbers `what` that are not
/// `[rows, width]`.
///
/// # Errors
/// [`Error::Failed`] and [`Error::Length`].
pub fn check_rows(of: &[u32], count: usize, what: &'static str, found: usize, width: usize) -> Result<(), Error> {
    match of.iter().find(|b| **b as usize >= count) {
        Some(b) => Err(Error::Failed { detail: format!("image {b} of a batch of {count} was asked about") }),
        None => check_len(what, found, of.len() * width),
    }
}

/// Central differences of the slopes along directions.
///
/// The largest entry of a code moves by 1/64. In f32 a slope's rounding is then divided by 1/32, and what the third
/// derivative adds is of the order 1/64 squared. (Where units of the decoder are switched on or off on the way, the
/// difference has this in it, a derivative has not.)
fn differences<O: Oracle + ?Sized>(
    oracle: &mut O,
    of: &[u32],
    codes: &[f32],
    directions: &[f32],
    tangents: &mut [f32],
) -> Result<(), Error> {
    const STEP: f32 = 1.0 / 64.0;
    thread_local! {
        /// Memory from question to question: steps allocate nothing.
        static ROOM: Cell<Vec<f32>> = const { Cell::new(vec![]) };
    }
    check_len("directions", directions.len(), codes.len())?;
    check_len("tangents", tangents.len(), codes.len())?;
    if of.is_empty() {
        return check_len("codes", codes.len(), 0);
    }
    if !codes.len().is_multiple_of(of.len()) || codes.is_empty() {
        let expected = codes.len().max(1).next_multiple_of(of.len());
        return Err(Error::Length { what: "codes", expected, found: codes.len() });
    }
    let u = codes.len() / of.len();
    let mut room = ROOM.take();
    room.resize(2 * codes.len() + 2 * of.len(), 0.0);
    let (moved, rest) = room.split_at_mut(codes.len());
    let (back, rest) = rest.split_at_mut(codes.len());
    let (losses, steps) = rest.split_at_mut(of.len());
    for (step, direction) in steps.iter_mut().zip(directions.chunks_exact(u)) {
        let largest = direction.iter().fold(0.0f32, |largest, d| largest.max(d.abs()));
        // No direction, no derivative; what is as short would make the step infinite.
        *step = if largest > 1e-30 { STEP / largest } else { 0.0 };
    }
    let mut ask = |sign: f32, slopes: &mut [f32]| {
        let rows = moved.chunks_exact_mut(u).zip(codes.chunks_exact(u)).zip(directions.chunks_exact(u));
        for (((moved, code), direction), step) in rows.zip(&*steps) {
            moved.iter_mut().zip(code).zip(direction).for_each(|((m, c), d)| *m = c + sign * step * d);
        }
        oracle.slopes(of, moved, losses, slopes)
    };
    let asked = ask(1.0, tangents).and_then(|()| ask(-1.0, back));
    if asked.is_ok() {
        let rows = tangents.chunks_exact_mut(u).zip(back.chunks_exact(u)).zip(&*steps);
        for ((tangent, back), step) in rows {
            let scale = if *step > 0.0 { 0.5 / step } else { 0.0 };
            tangent.iter_mut().zip(back).for_each(|(t, b)| *t = scale * (*t - b));
        }
    }
    ROOM.set(room);
    asked
}

/// Terms of the decoder's objective; weights contain the mean over batch and samples.
#[derive(Debug, Clone, Copy)]
pub enum Followed<'a> {
    /// One assignment of every example of the piece.
    Assignments {
        /// Which of the [rows](crate::estimator::Estimator::rows) that the estimator follows for every example, from 0.
        row: usize,
        /// `[examples, n]`.
        assignments: &'a [u32],
        /// `[examples]`.
        weights: &'a [f32],
    },
    /// One relaxed code of every example.
    Codes {
        /// As above.
        row: usize,
        /// `[examples, U]`.
        codes: &'a [f32],
        /// `[examples]`.
        weights: &'a [f32],
    },
    /// All states of every example: `[examples, |Z|]`.
    States(&'a [f32]),
}

/// Which questions an estimator may ask: what an engine prepares for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Questions {
    /// [`Oracle::losses`].
    pub losses: bool,
    /// The same of several assignments of one example, side by side.
    pub several: bool,
    /// [`Oracle::around`].
    pub around: bool,
    /// [`Oracle::states`].
    pub states: bool,
    /// [`Oracle::slopes`].
    pub slopes: bool,
}

impl Questions {
    /// None: the estimator only follows.
    pub const NONE: Questions =
        Questions { losses: false, several: false, around: false, states: false, slopes: false };
    /// Losses at assignments.
    pub const LOSSES: Questions = Questions { losses: true, ..Questions::NONE };
    /// Losses at several assignments of each example.
    pub const SEVERAL: Questions = Questions { several: true, ..Questions::NONE };
    /// Losses of one-coordinate changes.
    pub const AROUND: Questions = Questions { around: true, ..Questions::NONE };
    /// Losses of all states.
    pub const STATES: Questions = Questions { states: true, ..Questions::NONE };
    /// Losses and their slopes.
    pub const SLOPES: Questions = Questions { slopes: true, ..Questions::NONE };

    /// Either's questions.
    pub const fn and(self, other: Questions) -> Questions {
        Questions {
            losses: self.losses || other.losses,
            several: self.several || other.several,
            around: self.around || other.around,
            states: self.states || other.states,
            slopes: self.slopes || other.slopes,
        }
    }
}

/// An oracle made of a function: `loss(example, code)` in nats, of codes `[U]` of zeros and ones, and also of those
/// that single changes lead to, and of relaxed ones where slopes are asked for. Slopes are central differences with a
/// step of 1/64, exact but for rounding where the loss is quadratic. What is to be followed is kept for whoever wants
/// to look.
///
/// ```
/// use gumbel::oracle::{Closure, Oracle};
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(3)?;
/// let mut oracle = Closure::new(&latent, |_, code| 9.0 * code[0] + code[1] + 5.0 * code[2]);
/// let mut losses = [0.0; 3];
/// oracle.states(&[0], &mut losses)?;
/// assert_eq!(losses, [9.0, 1.0, 5.0]);
/// # Ok::<(), gumbel::Error>(())
/// ```
pub struct Closure<'a, S, F> {
    structure: &'a S,
    loss: F,
    code: Vec<f32>,
    next: Vec<f32>,
    changed: Vec<f32>,
    assignment: Vec<u32>,
    /// Every instruction so far, with owned values.
    pub followed: Vec<Kept>,
}

/// An instruction that a [`Closure`] has kept; the fields are those of [`Followed`].
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields are documented at `Followed`")]
pub enum Kept {
    /// Of [`Followed::Assignments`].
    Assignments { row: usize, assignments: Vec<u32>, weights: Vec<f32> },
    /// Of [`Followed::Codes`].
    Codes { row: usize, codes: Vec<f32>, weights: Vec<f32> },
    /// Of [`Followed::States`].
    States(Vec<f32>),
}

impl<'a, S: Structure, F: FnMut(usize, &[f32]) -> f32> Closure<'a, S, F> {
    /// An oracle that asks `loss`.
    pub fn new(structure: &'a S, loss: F) -> Self {
        let (code, assignment) = (vec![0.0; structure.unary()], vec![0; structure.variables()]);
        Closure { structure, loss, next: code.clone(), code, changed: vec![], assignment, followed: vec![] }
    }
}

impl<S: Structure, F: FnMut(usize, &[f32]) -> f32> Oracle for Closure<'_, S, F> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let n = self.structure.variables();
        check_len("assignments", assignments.len(), of.len() * n)?;
        check_len("losses", losses.len(), of.len())?;
        for ((b, z), loss) in of.iter().zip(assignments.chunks_exact(n)).zip(losses) {
            self.structure.encode(z, &mut self.code);
            *loss = (self.loss)(*b as usize, &self.code);
        }
        Ok(())
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        let (n, u) = (self.structure.variables(), self.structure.unary());
        check_len("assignments", assignments.len(), of.len() * n)?;
        check_len("own losses", own.len(), of.len())?;
        check_len("losses", losses.len(), of.len() * u)?;
        let rows = of.iter().zip(assignments.chunks_exact(n)).zip(own).zip(losses.chunks_exact_mut(u));
        for (((b, z), own), losses) in rows {
            self.structure.encode(z, &mut self.code);
            *own = (self.loss)(*b as usize, &self.code);
            let kind = self.structure.code();
            let Closure { code, next, changed, loss, .. } = &mut *self;
            next.copy_from_slice(code);
            changed.clear();
            kind.for_each_change(code, |change| {
                change.off.into_iter().for_each(|u| next[u] = 0.0);
                change.on.into_iter().for_each(|u| next[u] = 1.0);
                changed.push(loss(*b as usize, next));
                next.copy_from_slice(code);
            });
            kind.neighbour_losses(code, *own, changed, losses);
        }
        Ok(())
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let states = crate::estimator::enumerable(self.structure)?;
        check_len("losses", losses.len(), of.len() * states)?;
        for (b, losses) in of.iter().zip(losses.chunks_exact_mut(states)) {
            for (s, loss) in losses.iter_mut().enumerate() {
                self.structure.state(s, &mut self.assignment);
                self.structure.encode(&self.assignment, &mut self.code);
                *loss = (self.loss)(*b as usize, &self.code);
            }
        }
        Ok(())
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        const STEP: f32 = 1.0 / 64.0;
        let u = self.structure.unary();
        check_len("codes", codes.len(), of.len() * u)?;
        check_len("losses", losses.len(), of.len())?;
        check_len("slopes", slopes.len(), of.len() * u)?;
        let rows = of.iter().zip(codes.chunks_exact(u)).zip(losses).zip(slopes.chunks_exact_mut(u));
        for (((b, code), loss), slopes) in rows {
            *loss = (self.loss)(*b as usize, code);
            self.code.copy_from_slice(code);
            for (i, slope) in slopes.iter_mut().enumerate() {
                let mut at = |x: f32| {
                    self.code[i] = x;
                    (self.loss)(*b as usize, &self.code)
                };
                *slope = (at(code[i] + STEP) - at(code[i] - STEP)) / (2.0 * STEP);
                self.code[i] = code[i];
            }
        }
        Ok(())
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        self.followed.push(match followed {
            Followed::Assignments { row, assignments, weights } => {
                Kept::Assignments { row, assignments: assignments.to_vec(), weights: weights.to_vec() }
            }
            Followed::Codes { row, codes, weights } => {
                Kept::Codes { row, codes: codes.to_vec(), weights: weights.to_vec() }
            }
            Followed::States(weights) => Kept::States(weights.to_vec()),
        });
        Ok(())
    }
}

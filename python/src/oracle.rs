//! Oracles: losses of a user's function, and losses that are linear in the code.
//!
//! An estimator works on threads of a pool; a user's function is called on the thread that the user called from, whose
//! settings (modes of an automatic differentiation, a device) are thread-local. So questions go from the one to the
//! other as messages.

use crate::failed;
use crate::structure::apply;
use gumbel::Error;
use gumbel::estimator::enumerable;
use gumbel::oracle::{Followed, Oracle};
use gumbel::structure::{AnyStructure, Structure};
use std::sync::mpsc::{Receiver, Sender};

/// Codes `[rows, U]` of examples `[rows]`: what are their losses, and if asked, the slopes?
pub struct Question {
    pub codes: Vec<f32>,
    pub of: Vec<u32>,
    pub slopes: bool,
}

/// Losses `[rows]` and slopes `[rows, U]`, as many as were asked for; nothing if the function has raised.
pub type Answer = Option<(Vec<f32>, Vec<f32>)>;

/// Asks a function about codes, in chunks.
pub struct Asker<'a> {
    pub structure: &'a AnyStructure,
    pub questions: Sender<Question>,
    pub answers: Receiver<Answer>,
    /// Rows of a question.
    pub chunk: usize,
}

impl Asker<'_> {
    fn ask(&self, question: Question) -> Result<(Vec<f32>, Vec<f32>), Error> {
        // What was raised is told by whoever answers.
        let raised = || failed("the loss function has raised an exception");
        self.questions.send(question).map_err(|_| raised())?;
        self.answers.recv().ok().flatten().ok_or_else(raised)
    }

    /// Asks about all rows that `fill` appends, one by one, to a list of codes; `next` says whose row it is.
    fn all(&self, rows: usize, mut row: impl FnMut(&mut Vec<f32>) -> u32) -> Result<Vec<f32>, Error> {
        let mut losses = Vec::with_capacity(rows);
        while losses.len() < rows {
            let count = (rows - losses.len()).min(self.chunk);
            let mut codes = Vec::with_capacity(count * self.structure.unary());
            let of = (0..count).map(|_| row(&mut codes)).collect();
            losses.extend(self.ask(Question { codes, of, slopes: false })?.0);
        }
        Ok(losses)
    }
}

impl Oracle for Asker<'_> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let (n, u) = (self.structure.variables(), self.structure.unary());
        let mut rows = of.iter().zip(assignments.chunks_exact(n));
        let found = self.all(of.len(), |codes| {
            let Some((b, z)) = rows.next() else { return 0 };
            let at = codes.len();
            codes.resize(at + u, 0.0);
            self.structure.encode(z, &mut codes[at..]);
            *b
        })?;
        losses.copy_from_slice(&found);
        Ok(())
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        let (n, u, form) = (self.structure.variables(), self.structure.unary(), self.structure.code());
        let each = form.changes(u) + 1;
        let mut codes = vec![0.0; of.len() * u];
        let rows = assignments.chunks_exact(n).zip(codes.chunks_exact_mut(u));
        rows.for_each(|(z, code)| self.structure.encode(z, code));
        // Every code, and behind it its changes.
        let (mut row, mut changes) = (0, Vec::with_capacity(each));
        let found = self.all(of.len() * each, |asked| {
            let (b, which) = (row / each, row % each);
            let code = &codes[b * u..][..u];
            row += 1;
            let at = asked.len();
            asked.extend_from_slice(code);
            if which == 0 {
                changes.clear();
                form.for_each_change(code, |change| changes.push(change));
            } else {
                apply(changes[which - 1], &mut asked[at..]);
            }
            of[b]
        })?;
        let rows = found.chunks_exact(each).zip(codes.chunks_exact(u)).zip(own).zip(losses.chunks_exact_mut(u));
        for (((found, code), own), losses) in rows {
            *own = found[0];
            form.neighbour_losses(code, *own, &found[1..], losses);
        }
        Ok(())
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let (states, u) = (enumerable(self.structure)?, self.structure.unary());
        let mut z = vec![0; self.structure.variables()];
        let mut row = 0;
        let found = self.all(of.len() * states, |codes| {
            let (b, state) = (row / states, row % states);
            row += 1;
            self.structure.state(state, &mut z);
            let at = codes.len();
            codes.resize(at + u, 0.0);
            self.structure.encode(&z, &mut codes[at..]);
            of[b]
        })?;
        losses.copy_from_slice(&found);
        Ok(())
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        let (u, rows) = (self.structure.unary(), self.chunk);
        for (c, of) in of.chunks(rows).enumerate() {
            let (at, wide) = (c * rows, c * rows * u..(c * rows + of.len()) * u);
            let question = Question { codes: codes[wide.clone()].to_vec(), of: of.to_vec(), slopes: true };
            let (l, s) = self.ask(question)?;
            losses[at..at + of.len()].copy_from_slice(&l);
            slopes[wide].copy_from_slice(&s);
        }
        Ok(())
    }

    fn follow(&mut self, _: Followed<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// The loss `<slopes of the example, code>`: all that is known where only a slope is.
pub struct Linear<'a> {
    pub structure: &'a AnyStructure,
    /// `[examples, U]`.
    pub slopes: &'a [f32],
}

impl Linear<'_> {
    fn of(&self, example: u32) -> &[f32] {
        let u = self.structure.unary();
        &self.slopes[example as usize * u..][..u]
    }

    fn at(&self, example: u32, code: &[f32]) -> f32 {
        // What is not on takes no part, whatever its slope.
        let terms = code.iter().zip(self.of(example)).filter(|(c, _)| **c != 0.0);
        terms.map(|(c, s)| *c as f64 * *s as f64).sum::<f64>() as f32
    }
}

impl Oracle for Linear<'_> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let mut code = vec![0.0; self.structure.unary()];
        for ((b, z), loss) in of.iter().zip(assignments.chunks_exact(self.structure.variables())).zip(losses) {
            self.structure.encode(z, &mut code);
            *loss = self.at(*b, &code);
        }
        Ok(())
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        let (n, u, form) = (self.structure.variables(), self.structure.unary(), self.structure.code());
        let (mut code, mut changed) = (vec![0.0; u], vec![]);
        let rows = of.iter().zip(assignments.chunks_exact(n)).zip(own).zip(losses.chunks_exact_mut(u));
        for (((b, z), own), losses) in rows {
            self.structure.encode(z, &mut code);
            *own = self.at(*b, &code);
            let slopes = self.of(*b);
            changed.clear();
            form.for_each_change(&code, |change| {
                let (on, off) = (change.on.map_or(0.0, |u| slopes[u]), change.off.map_or(0.0, |u| slopes[u]));
                changed.push(*own + on - off);
            });
            form.neighbour_losses(&code, *own, &changed, losses);
        }
        Ok(())
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let states = enumerable(self.structure)?;
        let (mut z, mut code) = (vec![0; self.structure.variables()], vec![0.0; self.structure.unary()]);
        for state in 0..states {
            self.structure.state(state, &mut z);
            self.structure.encode(&z, &mut code);
            of.iter().enumerate().for_each(|(row, b)| losses[row * states + state] = self.at(*b, &code));
        }
        Ok(())
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        let u = self.structure.unary();
        let rows = of.iter().zip(codes.chunks_exact(u)).zip(losses).zip(slopes.chunks_exact_mut(u));
        for (((b, code), loss), slopes) in rows {
            *loss = self.at(*b, code);
            slopes.copy_from_slice(self.of(*b));
        }
        Ok(())
    }

    fn follow(&mut self, _: Followed<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Passes questions on, and keeps what is to be followed.
pub struct Keeper<'a> {
    pub inner: &'a mut dyn Oracle,
    pub structure: &'a AnyStructure,
    pub examples: usize,
    /// `[rows, examples, U]`; empty where all states are followed.
    pub codes: Vec<f32>,
    /// `[rows, examples]`, or `[examples, |Z|]`.
    pub weights: Vec<f32>,
}

impl Oracle for Keeper<'_> {
    fn losses(&mut self, of: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.inner.losses(of, assignments, losses)
    }

    fn around(&mut self, of: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        self.inner.around(of, assignments, own, losses)
    }

    fn states(&mut self, of: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        self.inner.states(of, losses)
    }

    fn slopes(&mut self, of: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        self.inner.slopes(of, codes, losses, slopes)
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        let (n, u, count) = (self.structure.variables(), self.structure.unary(), self.examples);
        match followed {
            Followed::Assignments { row, assignments, weights } => {
                let codes = self.codes[row * count * u..][..count * u].chunks_exact_mut(u);
                codes.zip(assignments.chunks_exact(n)).for_each(|(code, z)| self.structure.encode(z, code));
                self.weights[row * count..][..count].copy_from_slice(weights);
            }
            Followed::Codes { row, codes, weights } => {
                self.codes[row * count * u..][..count * u].copy_from_slice(codes);
                self.weights[row * count..][..count].copy_from_slice(weights);
            }
            Followed::States(weights) => self.weights = weights.to_vec(),
        }
        Ok(())
    }
}

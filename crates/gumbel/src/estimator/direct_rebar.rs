//! Direct optimisation as a control variate: what remains of its bias, epsilon, becomes variance.
//!
//! Direct optimisation of a *separable* loss, `<phi, z>` with fixed phi, is the gradient of a function of zeta = h +
//! gamma. Of each variable
//!
//! ```text
//! c(zeta) = (max_i zeta_i - max_i (zeta_i - eps phi_i)) / eps
//! grad c  = (onehot(argmax zeta) - onehot(argmax(zeta - eps phi))) / eps
//! ```
//!
//! is continuous and piecewise linear; its gradient is the paper's estimate, and the maxima of Gumbel variables have
//! known means:
//!
//! ```text
//! E[c(h + gamma)]      = (lse(h) - lse(h - eps phi)) / eps
//! grad E[c(h + gamma)] = (softmax(h) - softmax(h - eps phi)) / eps
//! ```
//!
//! So c can be the control variate of [REBAR](super::Rebar) with one part of the gradient in closed form. Given the
//! sample z, zeta~ is a second draw of zeta with that arg max, J its derivative in h, and c, gradients and arg maxima
//! are those of all variables:
//!
//! ```text
//! g = (loss(z) - loss(q) - eta c(zeta~)) grad ln q(z)
//!     - eta J^T (onehot(z) - onehot(argmax(zeta~ - eps phi))) / eps + eta (softmax(h) - softmax(h - eps phi)) / eps
//! ```
//!
//! has the expectation of the gradient for every eta, eps, and phi that depends on h alone. phi is the slope of the
//! loss at the mean code q = softmax(h), less its mean under q, which leaves the three parts as they are but for a
//! constant; loss(q), the loss at the mean code, is a constant too. As eps falls, c(zeta~) becomes `<phi, onehot(z)>`,
//! and g MuProp (Gu, Levine, Sutskever, Mnih, "MuProp: Unbiased backpropagation for stochastic neural networks", ICLR
//! 2016): the control is the expansion of the loss around q. At larger eps it knows by how much z is the arg max.
//!
//! - Cost: one loss without gradient for each sample; one row with slopes, at q, for all of them. One backward pass,
//!   for the decoder. Twice the noise of a sample.
//! - No bias, for any eps and eta. eta follows, by Adam (`control-lr`), the gradient of the mean of `|g|²`.
//! - Variance: of what the expansion around q does not say about the loss, and, at large eps, of zeta~.
//! - For independent variables. The decoder follows z.
//!
//! References: the paper, which leaves combinations with unbiased estimators to the future; Tucker et al., "REBAR",
//! NeurIPS 2017.

use super::control::{Learner, MEASURED, RATE, SCALE, conditional, cut, dot, finite_scale, pull};
use super::piece::{Memory, room};
use super::registry::{EPSILON, EstimatorEntry, PAPER};
use super::{Direct, Estimator, Measure, Moment, Piece, difference, independent};
use crate::Error;
use crate::math::softmax;
use crate::oracle::{Oracle, Questions};
use crate::schedule::Annealing;
use crate::structure::{Structure, add, check_numbers};

/// The estimator's name, in messages too.
const NAME: &str = "direct-rebar";

/// Direct optimisation as a control variate in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(
        NAME,
        "the score function, with direct optimisation of the loss's slopes at the mean code as a control variate",
        |settings, z| {
            independent(z, NAME)?;
            let schedule = EPSILON.annealing(settings)?;
            let [scale, rate] = [SCALE, RATE].map(|s| settings.real(s.name) as f32);
            Ok(Box::new(DirectRebar { schedule: Some(schedule), ..DirectRebar::new(schedule.at(0), scale, rate)? }))
        },
    )
    .with_settings(EPSILON.settings.into_iter().chain([SCALE, RATE]))
    .with_schedules(&[EPSILON])
    .with_costs("1", "1, and 1 at the mean code for all samples")
    .with_quality("none; for independent variables", "of what slopes at the mean code do not say; learned")
    .with_paper_samples(PAPER)
}

/// The score function with direct optimisation as a control variate.
///
/// ```
/// use gumbel::estimator::{DirectRebar, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(2)?;
/// // For a linear loss and a small epsilon nothing random is left.
/// let mut oracle = Closure::new(&latent, |_, code| 8.0 + 4.0 * code[1]);
/// let found = estimate(&DirectRebar::new(0.01, 1.0, 0.0)?, &latent, &[0.2; 2], &[0.0, 1.0, 0.3, -0.2], &mut oracle)?;
/// assert!((found.gradient[1] - 4.0 * 0.25).abs() < 0.02); // 4 q (1 - q)
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct DirectRebar {
    epsilon: f32,
    schedule: Option<Annealing>,
    learner: Learner,
}

impl DirectRebar {
    /// With an epsilon > 0 in units of 1 / nat, a scale eta of the control at the start, and the rate, at least 0, at
    /// which the scale is learned.
    ///
    /// # Errors
    /// Other values.
    pub fn new(epsilon: f32, scale: f32, rate: f32) -> Result<Self, Error> {
        let learner = Learner::new(rate, vec![finite_scale(scale)?])?;
        Ok(DirectRebar { epsilon: Direct::new(epsilon)?.epsilon(), schedule: None, learner })
    }

    /// eta at the next step.
    pub fn scale(&self) -> f32 {
        self.learner.values[0]
    }

    /// phi into `control.slopes`, its place in the code into `control.codes`, the losses there into `control.losses`.
    fn expand<S: Structure>(piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let (structure, count, first) = (piece.structure, piece.count(), piece.first);
        let (p, u, k) = (structure.potentials(), structure.unary(), structure.unary() / structure.variables());
        let rooms = &mut piece.memory.control;
        let (q, phi) = (room(&mut rooms.codes, count * u), room(&mut rooms.slopes, count * u));
        for (b, q) in q.chunks_exact_mut(u).enumerate() {
            let h = &piece.potentials[b * p..][..u];
            check_numbers("potential", h).map_err(|e| e.in_example(first + b))?;
            for (h, q) in h.chunks_exact(k).zip(q.chunks_exact_mut(k)) {
                softmax(h, q);
            }
        }
        let losses = room(&mut rooms.losses, count);
        oracle.slopes(piece.of, q, losses, phi)?;
        for (b, (phi, q)) in phi.chunks_exact_mut(u).zip(q.chunks_exact(u)).enumerate() {
            let checked = check_numbers("loss", &losses[b..=b]).and_then(|()| check_numbers("slope", phi));
            checked.map_err(|e| e.in_example(first + b))?;
            for (phi, q) in phi.chunks_exact_mut(k).zip(q.chunks_exact(k)) {
                let mean = dot(phi, q);
                phi.iter_mut().for_each(|phi| *phi -= mean);
            }
        }
        Ok(())
    }

    /// The estimate of an example, and what is learned from it.
    fn example<S: Structure>(&self, piece: &mut Piece<'_, S>, sample: usize, b: usize) {
        let structure = piece.structure;
        let (p, u, n) = (structure.potentials(), structure.unary(), structure.variables());
        let (k, eta, epsilon) = (u / n, self.scale(), self.epsilon);
        let Memory { assignments, own: losses, control, .. } = &mut *piece.memory;
        let loss = losses[b] - control.losses[b];
        let (h, fresh) = (&piece.potentials[b * p..][..u], &piece.noise.of(sample, b)[u..]);
        let (all_q, all_phi) = (&control.codes[b * u..][..u], &control.slopes[b * u..][..u]);
        let [zeta, own, score, g, x, y] = cut(&mut control.work, u);
        let mut value = 0.0;
        for (i, z) in assignments[b * n..][..n].iter().enumerate() {
            let (at, z) = (i * k..(i + 1) * k, *z as usize);
            let [h, fresh, q, phi] = [h, fresh, all_q, all_phi].map(|all| &all[at.clone()]);
            let [zeta, own, score, g] = [&mut *zeta, own, score, g].map(|all| &mut all[at.clone()]);
            let [x, y] = [&mut *x, y].map(|all| &mut all[at.clone()]);
            conditional(h, z, fresh, zeta, own);
            // The best of zeta~ - eps phi: by differences, which keep their digits where eps is small.
            let most = zeta[z];
            let behind = |j: usize| (most - zeta[j]) / epsilon + phi[j];
            let moved = (0..k).fold(z, |best, j| if behind(j) < behind(best) { j } else { best });
            value += behind(moved);
            // From here on x is what J^T is applied to, then softmax(h - eps phi).
            x.fill(0.0);
            x[z] += 1.0 / epsilon;
            x[moved] -= 1.0 / epsilon;
            pull(q, own, x, y);
            zeta.iter_mut().zip(h.iter().zip(phi)).for_each(|(out, (h, phi))| *out = h - epsilon * phi);
            softmax(zeta, x);
            g.copy_from_slice(q);
            difference(g, x);
            // What eta multiplies but for the score.
            g.iter_mut().zip(&*y).for_each(|(g, y)| *g = *g / epsilon - y);
            score.iter_mut().zip(q).for_each(|(e, q)| *e = -q);
            score[z] += 1.0;
        }
        // The derivative in eta, then the estimate.
        x.iter_mut().zip(&*g).zip(&*score).for_each(|((x, g), e)| *x = g - value * e);
        g.iter_mut().zip(&*x).zip(&*score).for_each(|((g, x), e)| *g = loss * e + eta * x);
        add(&mut piece.gradient[b * p..][..u], g, piece.scale);
        if self.learner.learns() {
            piece.sums[0] += 2.0 * dot(g, x);
            piece.sums[1] += 1.0;
        }
    }
}

impl<S: Structure> Estimator<S> for DirectRebar {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES.and(Questions::SLOPES)
    }

    fn noise(&self, structure: &S) -> Result<usize, Error> {
        Ok(2 * structure.unary())
    }

    fn measures(&self) -> &'static [Measure] {
        &MEASURED[..1]
    }

    fn begin(&mut self, moment: &Moment) -> Result<(), Error> {
        if let Some(schedule) = &self.schedule {
            self.epsilon = schedule.at(moment.step);
        }
        Ok(())
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let structure = piece.structure;
        independent(structure, NAME)?;
        let (n, count) = (structure.variables(), piece.count());
        Self::expand(piece, oracle)?;
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            let Memory { assignments, own, .. } = &mut *piece.memory;
            let own = room(own, count);
            oracle.losses(piece.of, &assignments[..count * n], own)?;
            for (b, loss) in own.iter().enumerate() {
                check_numbers("loss", &[*loss]).map_err(|e| e.in_example(piece.first + b))?;
            }
            piece.follow_sample(sample, oracle)?;
            for b in 0..count {
                self.example(piece, sample, b);
            }
            piece.tallies[0].add(self.scale() as f64 * count as f64, count as f64);
        }
        Ok(())
    }

    fn sums(&self) -> usize {
        self.learner.sums()
    }

    fn learn(&mut self, sums: &[f32]) {
        self.learner.learn(sums);
    }

    fn state(&self) -> Vec<f32> {
        self.learner.state()
    }

    fn restore(&mut self, state: &[f32]) -> Result<(), Error> {
        self.learner.restore(state)
    }
}

//! Losses, oracles and statistics of the tests.

use gumbel::Error;
use gumbel::estimator::{
    Estimator, Exact, MEASURES, Memory, Noises, Piece, Recorder, Slopes, Tally, estimate, estimate_with,
};
use gumbel::noise::{Noise, Purpose};
use gumbel::oracle::{Closure, Followed, Oracle};
use gumbel::structure::{
    AnyStructure, Arborescence, Categorical, Chain, Pairwise, Permutation, SpanningTree, Structure, Subset,
    Supermodular, Tree,
};
use std::collections::HashMap;

/// Draws per chunk.
pub const CHUNK: usize = 2000;

pub fn random(len: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Noise::new(seed, Purpose::User(0), 0).zero_mean_gumbel(&mut x);
    x.iter_mut().for_each(|v| *v *= scale);
    x
}

pub fn gumbel(len: usize, seed: u64, index: u64) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Noise::new(seed, Purpose::Noise, index).gumbel(&mut x);
    x
}

/// The place of a hard code in the order of enumeration of independent variables.
pub fn index(structure: &Categorical, code: &[f32]) -> usize {
    let k = structure.values();
    code.chunks(k).fold(0, |index, row| index * k + row.iter().position(|c| *c == 1.0).unwrap())
}

/// An oracle with answers for all states at hand, the same for all examples: for hundreds of thousands of draws.
pub struct Table {
    indices: HashMap<Vec<u32>, usize>,
    variables: usize,
    unary: usize,
    own: Vec<f32>,
    around: Vec<f32>,
    /// Slopes of the states by their codes, if there are any.
    slopes: HashMap<Vec<u8>, (f32, Vec<f32>)>,
    /// How many assignments were to be followed.
    pub followed: usize,
}

impl Table {
    /// Asks a function about all states once.
    pub fn of<S: Structure>(structure: &S, loss: impl Fn(&[f32]) -> f32) -> Self {
        let (n, u, states) = (structure.variables(), structure.unary(), structure.states().unwrap());
        let mut oracle = Closure::new(structure, |_, code| loss(code));
        let (mut indices, mut z) = (HashMap::new(), vec![0; n]);
        let (mut own, mut around) = (vec![0.0; states], vec![0.0; states * u]);
        for s in 0..states {
            structure.state(s, &mut z);
            oracle.around(&[0], &z, &mut own[s..=s], &mut around[s * u..][..u]).unwrap();
            indices.insert(z.clone(), s);
        }
        Table { indices, variables: n, unary: u, own, around, slopes: HashMap::new(), followed: 0 }
    }

    /// The same with slopes at all states, of a function of relaxed codes.
    pub fn with_slopes<S: Structure>(structure: &S, loss: impl Fn(&[f32]) -> f32) -> Self {
        let mut table = Table::of(structure, &loss);
        let mut oracle = Closure::new(structure, |_, code| loss(code));
        for z in table.indices.keys() {
            let (code, mut own, mut slopes) = (code(structure, z), [0.0], vec![0.0; table.unary]);
            oracle.slopes(&[0], &code, &mut own, &mut slopes).unwrap();
            table.slopes.insert(bits(&code), (own[0], slopes));
        }
        table
    }

    /// Independent variables with the losses of their states.
    pub fn categorical(structure: &Categorical, losses: &[f32]) -> Self {
        Table::of(structure, |code| losses[index(structure, code)])
    }

    /// The losses of all states.
    pub fn all(&self) -> &[f32] {
        &self.own
    }
}

impl Oracle for Table {
    fn losses(&mut self, _: &[u32], assignments: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        let rows = assignments.chunks_exact(self.variables);
        rows.zip(losses).for_each(|(z, loss)| *loss = self.own[self.indices[z]]);
        Ok(())
    }

    fn around(&mut self, _: &[u32], assignments: &[u32], own: &mut [f32], losses: &mut [f32]) -> Result<(), Error> {
        let rows = assignments.chunks_exact(self.variables).zip(own).zip(losses.chunks_exact_mut(self.unary));
        for ((z, own), losses) in rows {
            let s = self.indices[z];
            *own = self.own[s];
            losses.copy_from_slice(&self.around[s * self.unary..][..self.unary]);
        }
        Ok(())
    }

    fn states(&mut self, _: &[u32], losses: &mut [f32]) -> Result<(), Error> {
        losses.chunks_exact_mut(self.own.len()).for_each(|row| row.copy_from_slice(&self.own));
        Ok(())
    }

    fn slopes(&mut self, _: &[u32], codes: &[f32], losses: &mut [f32], slopes: &mut [f32]) -> Result<(), Error> {
        let rows = codes.chunks_exact(self.unary).zip(losses).zip(slopes.chunks_exact_mut(self.unary));
        for ((code, loss), slopes) in rows {
            let (own, at) = self.slopes.get(&bits(code)).expect("slopes of a hard code, of a table that has them");
            *loss = *own;
            slopes.copy_from_slice(at);
        }
        Ok(())
    }

    fn follow(&mut self, followed: Followed<'_>) -> Result<(), Error> {
        if let Followed::Assignments { assignments, weights, .. } = followed {
            assert_eq!(assignments.len(), weights.len() * self.variables);
            self.followed += weights.len();
        }
        Ok(())
    }
}

/// A hard code; of a relaxed one this is no code that a table knows.
fn bits(code: &[f32]) -> Vec<u8> {
    code.iter()
        .map(|c| {
            if *c == 0.0 {
                0
            } else if *c == 1.0 {
                1
            } else {
                2
            }
        })
        .collect()
}

/// Statistics of independent estimates.
pub struct Statistics {
    pub mean: Vec<f64>,
    /// Standard errors of the mean.
    pub error: Vec<f64>,
    pub tallies: [Tally; MEASURES],
    pub sums: Vec<f32>,
}

/// Mean and standard error in every coordinate over `draws` independent estimates of `samples` each.
pub fn mean_of<S: Structure, E: Estimator<S> + ?Sized>(
    estimator: &E,
    structure: &S,
    potentials: &[f32],
    oracle: &mut dyn Oracle,
    samples: usize,
    draws: usize,
    seed: u64,
) -> Statistics {
    let (p, width) = (structure.potentials(), estimator.noise(structure).unwrap());
    let (mut sum, mut squares) = (vec![0.0f64; p], vec![0.0f64; p]);
    let mut tallies = [Tally::default(); MEASURES];
    let mut sums = vec![0.0; estimator.sums()];
    let batch = potentials.repeat(CHUNK);
    let mut noise = vec![0.0; samples * CHUNK * width];
    let mut memory = Memory::default();
    for chunk in 0..draws / CHUNK {
        Noise::new(seed, Purpose::Noise, chunk as u64).gumbel(&mut noise);
        let found = estimate_with(estimator, structure, &batch, &noise, oracle, &mut memory).unwrap();
        tallies.iter_mut().zip(&found.tallies).for_each(|(all, one)| all.merge(one));
        sums.iter_mut().zip(&found.sums).for_each(|(all, one)| *all += one);
        for row in found.gradient.chunks(p) {
            for (i, g) in row.iter().enumerate() {
                sum[i] += *g as f64;
                squares[i] += (*g as f64).powi(2);
            }
        }
    }
    let n = draws as f64;
    let mean: Vec<f64> = sum.iter().map(|s| s / n).collect();
    let error = squares.iter().zip(&mean).map(|(q, m)| ((q / n - m * m).max(0.0) / n).sqrt()).collect();
    Statistics { mean, error, tallies, sums }
}

/// The exact gradient for one example.
pub fn exact<S: Structure>(structure: &S, potentials: &[f32], oracle: &mut dyn Oracle) -> Vec<f32> {
    estimate(&Exact, structure, potentials, &[], oracle).unwrap().gradient
}

/// How a piece is estimated by hand, as an engine does it.
pub struct ByHand {
    pub samples: usize,
    pub scale: f32,
    pub parallel: bool,
    pub first: usize,
}

/// Adds the estimate of a whole piece to `gradient`; what was measured and summed.
pub fn piece<S: Structure, E: Estimator<S> + ?Sized>(
    estimator: &E,
    structure: &S,
    (potentials, noise): (&[f32], &[f32]),
    by_hand: &ByHand,
    oracle: &mut dyn Oracle,
    memory: &mut Memory<S>,
    gradient: &mut [f32],
) -> Result<([Tally; MEASURES], Vec<f32>), Error> {
    let (count, u) = (potentials.len() / structure.potentials(), structure.unary());
    let of: Vec<u32> = (0..count as u32).collect();
    let width = if estimator.is_random() { estimator.noise(structure)? } else { 0 };
    let mut tallies = [Tally::default(); MEASURES];
    let mut sums = vec![0.0; estimator.sums()];
    let mut piece = Piece {
        structure,
        potentials,
        noise: Noises { values: noise, width, stride: count },
        samples: by_hand.samples,
        scale: by_hand.scale,
        first: by_hand.first,
        of: &of,
        gradient,
        tallies: &mut tallies,
        sums: &mut sums,
        memory,
        parallel: by_hand.parallel,
    };
    if estimator.wants_slopes() {
        let rows = estimator.rows(by_hand.samples);
        let mut recorder = Recorder::new(structure, oracle, rows, count);
        estimator.estimate(&mut piece, &mut recorder)?;
        let Recorder { codes, weights, .. } = recorder;
        let (of, mut losses): (Vec<u32>, _) = (of.repeat(rows), vec![0.0; rows * count]);
        let mut slopes = vec![0.0; codes.len()];
        oracle.slopes(&of, &codes, &mut losses, &mut slopes)?;
        slopes.chunks_exact_mut(u).zip(weights).for_each(|(row, w)| row.iter_mut().for_each(|s| *s *= w));
        estimator.resume(&mut piece, Slopes { values: &slopes, stride: count })?;
    } else {
        estimator.estimate(&mut piece, oracle)?;
    }
    Ok((tallies, sums))
}

pub fn softmax64(x: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
    let max = x.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = x.clone().map(|v| (v - max).exp()).sum();
    x.map(|v| (v - max).exp() / sum).collect()
}

/// (softmax(h + a loss) - softmax(h + b loss)) / c in f64.
pub fn closed_form(h: &[f32], loss: &[f32], a: f64, b: f64, c: f64) -> Vec<f64> {
    let at = |s: f64| softmax64(h.iter().zip(loss).map(move |(h, l)| *h as f64 + s * *l as f64));
    at(a).iter().zip(at(b)).map(|(x, y)| (x - y) / c).collect()
}

pub fn distance(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - *b as f64).powi(2)).sum::<f64>().sqrt()
}

pub fn doubles(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| *v as f64).collect()
}

#[track_caller]
pub fn assert_within_four_standard_errors(what: &str, found: &Statistics, expected: &[f64]) {
    assert_eq!(found.mean.len(), expected.len());
    for (i, ((m, se), e)) in found.mean.iter().zip(&found.error).zip(expected).enumerate() {
        assert!(
            (m - e).abs() <= 4.0 * se + 1e-6,
            "{what}, coordinate {i}: mean {m}, expected {e}, standard error {se}"
        );
    }
}

/// Structures with couplings, small enough to enumerate.
pub fn structured() -> Vec<AnyStructure> {
    vec![
        Pairwise::new(4).unwrap().into(),
        Supermodular::new(4).unwrap().into(),
        Chain::new(3, 3).unwrap().into(),
        Tree::new(4, 2, &[(0, 1), (0, 2), (2, 3)]).unwrap().into(),
        Tree::new(3, 2, &[(1, 2)]).unwrap().into(), // a forest, whose first variable is alone
        Subset::new(5, 2).unwrap().into(),
        Permutation::new(3).unwrap().into(),
        SpanningTree::complete(4).unwrap().into(),
        Arborescence::new(3, 0).unwrap().into(),
        Categorical::product(2, 3).unwrap().into(),
    ]
}

pub fn potentials(structure: &AnyStructure, seed: u64) -> Vec<f32> {
    let mut h = random(structure.potentials(), 0.8, seed);
    structure.to_potentials(&mut h);
    h
}

pub fn code<S: Structure>(structure: &S, z: &[u32]) -> Vec<f32> {
    let mut code = vec![0.0; structure.unary()];
    structure.encode(z, &mut code);
    code
}

/// A loss of codes that is not a sum over their entries, as a decoder's: `<a, c> + curvature (sum_u b_u c_u)^2`.
pub struct Loss {
    linear: Vec<f32>,
    square: Vec<f32>,
    curvature: f32,
}

impl Loss {
    pub fn new<S: Structure>(structure: &S, curvature: f32, seed: u64) -> Self {
        let u = structure.unary();
        Loss { linear: random(u, 1.0, seed), square: random(u, 1.0, seed + 1), curvature }
    }

    pub fn of(&self, code: &[f32]) -> f32 {
        let dot = |w: &[f32]| code.iter().zip(w).map(|(c, w)| c * w).sum::<f32>();
        dot(&self.linear) + self.curvature * dot(&self.square).powi(2)
    }

    /// In f64, for finite differences.
    pub fn of64(&self, code: &[f64]) -> f64 {
        let dot = |w: &[f32]| code.iter().zip(w).map(|(c, w)| c * *w as f64).sum::<f64>();
        dot(&self.linear) + self.curvature as f64 * dot(&self.square).powi(2)
    }

    pub fn at<S: Structure>(&self, structure: &S, z: &[u32]) -> f32 {
        self.of(&code(structure, z))
    }
}

/// Marginals of the distribution proportional to `exp(h(z) + shift loss(z))`, by enumeration in f64.
pub fn marginals<S: Structure>(structure: &S, h: &[f32], table: &[f32], shift: f64) -> Vec<f64> {
    marginals_of(structure, (h, 1.0), table, shift)
}

/// The same of `exp(keep h(z) + shift loss(z))`.
pub fn marginals_of<S: Structure>(structure: &S, (h, keep): (&[f32], f64), table: &[f32], shift: f64) -> Vec<f64> {
    let mut z = vec![0; structure.variables()];
    let scores: Vec<f64> = (0..table.len())
        .map(|s| {
            structure.state(s, &mut z);
            let score = structure.score(h, &z);
            // What is forbidden stays so, whatever is kept.
            let kept = if score == f64::NEG_INFINITY { score } else { keep * score };
            kept + shift * table[s] as f64
        })
        .collect();
    let mut out = vec![0.0; h.len()];
    for (s, q) in softmax64(scores.into_iter()).into_iter().enumerate() {
        let mut statistics = vec![0.0; h.len()];
        structure.state(s, &mut z);
        structure.add_statistics(&z, 1.0, &mut statistics);
        out.iter_mut().zip(&statistics).for_each(|(o, s)| *o += q * *s as f64);
    }
    out
}

/// The largest of `score(z)` over all states.
pub fn enumerated_argmax<S: Structure>(structure: &S, score: impl Fn(&[u32]) -> f64) -> (Vec<u32>, f64) {
    let mut z = vec![0; structure.variables()];
    let mut best = (z.clone(), f64::NEG_INFINITY);
    for s in 0..structure.states().unwrap() {
        structure.state(s, &mut z);
        let value = score(&z);
        if value > best.1 {
            best = (z.clone(), value);
        }
    }
    best
}

/// Whether every coordinate is within four standard errors.
pub fn is_within_four_standard_errors(found: &Statistics, expected: &[f64]) -> bool {
    let mut coordinates = found.mean.iter().zip(&found.error).zip(expected);
    coordinates.all(|((m, se), e)| (m - e).abs() <= 4.0 * se + 1e-6)
}

/// Asserts that what the decoder follows has the weights q in the mean: for every example and state, the sum of its
/// weights is an independent estimate.
#[track_caller]
pub fn assert_follows_q<S: Structure, E: Estimator<S> + ?Sized>(
    what: &str,
    (estimator, structure): (&E, &S),
    h: &[f32],
    samples: usize,
    seed: u64,
) {
    const EXAMPLES: usize = 40_000;
    let (n, states) = (structure.variables(), structure.states().unwrap());
    let mut indices = HashMap::new();
    let mut scores = vec![];
    for s in 0..states {
        let mut z = vec![0; n];
        structure.state(s, &mut z);
        scores.push(structure.score(h, &z));
        indices.insert(z, s);
    }
    let noise = gumbel(samples * EXAMPLES * estimator.noise(structure).unwrap(), seed, 0);
    let mut oracle = Closure::new(structure, |_, code| code.iter().sum());
    estimate(estimator, structure, &h.repeat(EXAMPLES), &noise, &mut oracle).unwrap();
    assert_eq!(oracle.followed.len(), estimator.rows(samples));
    let mut weights = vec![0.0f64; EXAMPLES * states];
    for followed in &oracle.followed {
        let gumbel::oracle::Kept::Assignments { assignments, weights: of, .. } = followed else { panic!("{what}") };
        for (b, (z, w)) in assignments.chunks_exact(n).zip(of).enumerate() {
            weights[b * states + indices[z]] += *w as f64;
        }
    }
    for (s, q) in softmax64(scores.into_iter()).into_iter().enumerate() {
        let of_state = || weights.iter().skip(s).step_by(states);
        let mean = of_state().sum::<f64>() / EXAMPLES as f64;
        let variance = of_state().map(|w| (w - mean).powi(2)).sum::<f64>() / EXAMPLES as f64;
        let error = (variance / EXAMPLES as f64).sqrt();
        // The errors of states that are hardly ever met are not known from the draws.
        let error = error.max((q / samples as f64 / EXAMPLES as f64).sqrt());
        assert!((mean - q).abs() <= 4.0 * error + 1e-6, "{what}, state {s}: {mean}, expected {q} ({error})");
    }
}

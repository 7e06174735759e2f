//! Structures: solving, sums, samples and codes of batches.

use crate::custom::{Kind, Raised, Sizes};
use crate::{expect, failed, refused};
use gumbel::Error;
use gumbel::batch::Batch;
use gumbel::estimator::enumerable;
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::{
    AnyScratch, AnyStructure, Arborescence, Categorical, Chain, Change, Code, Pairwise, Permutation, SpanningTree,
    Structure as _, Subset, Sums as _, Supermodular, Tree,
};
use numpy::PyUntypedArrayMethods;
use numpy::{PyArray1, PyReadonlyArray2, PyReadwriteArray1, PyReadwriteArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::time::Duration;

/// What an assignment must be, so that arrays from outside can be trusted.
enum Form {
    /// Every variable has so many values.
    Values(u32),
    /// So many ones, else zeros.
    Ones(usize),
    /// Every number below n once.
    Permutation,
    /// Indicators of edges that make a tree.
    Tree(usize, Vec<(usize, usize)>),
    /// Parents, from this root on.
    Parents(usize),
    /// Only Python knows.
    Custom,
}

/// A structure chosen at run time, and its working memory.
#[pyclass(frozen, module = "gumbel_argmax._native")]
pub struct Structure {
    pub any: AnyStructure,
    batch: Batch,
    form: Form,
    /// Where it is written in Python: whoever asks for its arg max takes an instance of its own.
    custom: Option<Kind>,
}

type Table<'py> = PyReadonlyArray2<'py, f32>;
type Assignments<'py> = PyReadonlyArray2<'py, u32>;

impl Structure {
    /// The structure for one who asks, and what Python raises meanwhile.
    pub fn instance(&self, py: Python<'_>) -> (AnyStructure, Option<Raised>) {
        match &self.custom {
            None => (self.any.clone(), None),
            Some(kind) => {
                let (any, raised) = kind.instance(py);
                (any, Some(raised))
            }
        }
    }

    fn make(any: AnyStructure, form: Form) -> PyResult<Self> {
        Structure::of(Batch::new(any), form)
    }

    fn of(batch: Result<Batch, Error>, form: Form) -> PyResult<Self> {
        let batch = batch.map_err(refused)?;
        Ok(Structure { any: batch.structure().clone(), batch, form, custom: None })
    }

    /// Number of examples of `[batch, P]`.
    fn batch(&self, theta: &Table<'_>) -> PyResult<usize> {
        expect("the last axis of theta", theta.shape()[1], self.any.potentials())?;
        Ok(theta.shape()[0])
    }

    /// Number of examples of `[batch, n]`, all of which are assignments of this structure.
    fn checked(&self, z: &Assignments<'_>) -> PyResult<usize> {
        expect("the last axis of z", z.shape()[1], self.any.variables())?;
        for (b, z) in z.as_slice()?.chunks_exact(self.any.variables()).enumerate() {
            let wrong = |why: String| PyValueError::new_err(format!("example {b} of z is no assignment: {why}"));
            self.check(z).map_err(wrong)?;
        }
        Ok(z.shape()[0])
    }

    fn check(&self, z: &[u32]) -> Result<(), String> {
        let below = |most: u32| match z.iter().position(|z| *z >= most) {
            Some(i) => Err(format!("variable {i} is {}, expected 0 to {}", z[i], most - 1)),
            None => Ok(()),
        };
        let ones = |expected: usize| match z.iter().filter(|z| **z == 1).count() {
            found if found == expected => Ok(()),
            found => Err(format!("it has {found} ones, expected {expected}")),
        };
        match &self.form {
            Form::Values(values) => below(*values),
            Form::Ones(k) => below(2).and_then(|()| ones(*k)),
            Form::Permutation => {
                below(z.len() as u32)?;
                let mut seen = vec![false; z.len()];
                match z.iter().find(|z| std::mem::replace(&mut seen[**z as usize], true)) {
                    Some(twice) => Err(format!("{twice} is there twice")),
                    None => Ok(()),
                }
            }
            Form::Tree(nodes, edges) => {
                below(2)?;
                ones(nodes - 1)?;
                let mut group: Vec<usize> = (0..*nodes).collect();
                let root = |group: &[usize], mut v: usize| {
                    while group[v] != v {
                        v = group[v];
                    }
                    v
                };
                for (e, (i, j)) in edges.iter().enumerate().filter(|(e, _)| z[*e] == 1) {
                    let (a, b) = (root(&group, *i), root(&group, *j));
                    if a == b {
                        return Err(format!("edge {e} closes a cycle"));
                    }
                    group[a] = b;
                }
                Ok(())
            }
            Form::Parents(r) => {
                below(z.len() as u32)?;
                if z[*r] as usize != *r {
                    return Err(format!("the root {r} has the parent {}, expected itself", z[*r]));
                }
                // Nodes from which the root is known to be reached.
                let mut good = vec![false; z.len()];
                good[*r] = true;
                for start in 0..z.len() {
                    let mut path = vec![];
                    let mut v = start;
                    while !good[v] {
                        if path.len() == z.len() {
                            return Err(format!("node {start} does not come from the root {r}"));
                        }
                        path.push(v);
                        v = z[v] as usize;
                    }
                    path.into_iter().for_each(|v| good[v] = true);
                }
                Ok(())
            }
            Form::Custom => Ok(()),
        }
    }

    /// Calls `each` for every example, on so many threads; of several bad examples the first is named.
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        threads: usize,
        rows: Vec<T>,
        each: impl Fn(usize, &mut T, &mut AnyScratch) -> Result<(), Error> + Sync,
    ) -> PyResult<()> {
        let each = &each;
        py.detach(|| self.batch.run(threads, rows, each)).map_err(refused)
    }
}

#[pymethods]
impl Structure {
    #[staticmethod]
    fn pairwise(variables: usize) -> PyResult<Self> {
        let pairwise = Pairwise::new(variables).map_err(refused)?;
        Structure::of(Batch::pairwise(pairwise), Form::Values(2))
    }

    #[staticmethod]
    fn supermodular(variables: usize) -> PyResult<Self> {
        Structure::make(Supermodular::new(variables).map_err(refused)?.into(), Form::Values(2))
    }

    #[staticmethod]
    fn chain(variables: usize, values: usize) -> PyResult<Self> {
        Structure::make(Chain::new(variables, values).map_err(refused)?.into(), Form::Values(values as u32))
    }

    #[staticmethod]
    fn tree(variables: usize, values: usize, edges: Vec<(usize, usize)>) -> PyResult<Self> {
        Structure::make(Tree::new(variables, values, &edges).map_err(refused)?.into(), Form::Values(values as u32))
    }

    #[staticmethod]
    fn product(variables: usize, values: usize) -> PyResult<Self> {
        let made = Categorical::product(variables, values).map_err(refused)?;
        Structure::make(made.into(), Form::Values(values as u32))
    }

    #[staticmethod]
    fn subset(elements: usize, chosen: usize) -> PyResult<Self> {
        Structure::make(Subset::new(elements, chosen).map_err(refused)?.into(), Form::Ones(chosen))
    }

    #[staticmethod]
    fn permutation(size: usize) -> PyResult<Self> {
        Structure::make(Permutation::new(size).map_err(refused)?.into(), Form::Permutation)
    }

    #[staticmethod]
    #[pyo3(signature = (nodes, edges))]
    fn spanning_tree(nodes: usize, edges: Option<Vec<(usize, usize)>>) -> PyResult<Self> {
        let made = match edges {
            Some(edges) => SpanningTree::new(nodes, &edges),
            None => SpanningTree::complete(nodes),
        };
        let made = made.map_err(refused)?;
        let form = Form::Tree(nodes, made.edges().to_vec());
        Structure::make(made.into(), form)
    }

    #[staticmethod]
    fn arborescence(nodes: usize, root: usize) -> PyResult<Self> {
        Structure::make(Arborescence::new(nodes, root).map_err(refused)?.into(), Form::Parents(root))
    }

    /// A structure written in Python: a weak reference to it, its sizes, and all assignments if it lists them. Its arg
    /// max and statistics are Python's own affair; estimators ask it.
    #[staticmethod]
    #[pyo3(signature = (object, potentials, unary, variables, values, states))]
    fn custom(
        py: Python<'_>,
        object: Py<PyAny>,
        potentials: usize,
        unary: usize,
        variables: usize,
        values: Option<usize>,
        states: Option<PyReadonlyArray2<'_, u32>>,
    ) -> PyResult<Self> {
        let states = states.map(|states| states.as_slice().map(<[u32]>::to_vec)).transpose()?;
        let kind = Kind::new(object, Sizes { potentials, unary, variables, values, states })?;
        let (any, _) = kind.instance(py);
        Ok(Structure { custom: Some(kind), ..Structure::make(any, Form::Custom)? })
    }

    #[getter]
    fn potentials(&self) -> usize {
        self.any.potentials()
    }

    #[getter]
    fn unary(&self) -> usize {
        self.any.unary()
    }

    #[getter]
    fn variables(&self) -> usize {
        self.any.variables()
    }

    #[getter]
    fn states(&self) -> Option<usize> {
        self.any.states()
    }

    #[getter]
    fn ln_states(&self) -> f64 {
        self.any.ln_states()
    }

    #[getter]
    fn has_sums(&self) -> bool {
        self.any.has_sums()
    }

    #[getter]
    fn one_hot(&self) -> bool {
        self.any.code() != Code::Indicators
    }

    /// Changes of one coordinate of a code.
    #[getter]
    fn changes(&self) -> usize {
        self.any.code().changes(self.any.unary())
    }

    #[expect(clippy::too_many_arguments, reason = "arrays of one call")]
    fn solve(
        &self,
        py: Python<'_>,
        theta: Table<'_>,
        mut assignments: PyReadwriteArray2<'_, u32>,
        mut values: PyReadwriteArray1<'_, f64>,
        mut proved: PyReadwriteArray1<'_, bool>,
        threads: usize,
        limit: Option<f64>,
    ) -> PyResult<()> {
        self.batch(&theta)?;
        let (theta, z) = (theta.as_slice()?, assignments.as_slice_mut()?);
        let (values, proved) = (values.as_slice_mut()?, proved.as_slice_mut()?);
        let seconds = |s: f64| {
            Duration::try_from_secs_f64(s)
                .map_err(|_| PyValueError::new_err(format!("limit = {s}: expected a number of seconds, 0 or greater")))
        };
        let limit = limit.map(seconds).transpose()?;
        py.detach(|| self.batch.solve(theta, z, values, proved, limit, threads)).map_err(refused)
    }

    /// Log-partition, or entropy.
    fn sums(
        &self,
        py: Python<'_>,
        theta: Table<'_>,
        mut out: PyReadwriteArray1<'_, f64>,
        entropy: bool,
        threads: usize,
    ) -> PyResult<()> {
        self.batch(&theta)?;
        let (theta, out) = (theta.as_slice()?, out.as_slice_mut()?);
        let made = py.detach(|| match entropy {
            true => self.batch.entropy(theta, out, threads),
            false => self.batch.log_partition(theta, out, threads),
        });
        made.map_err(refused)
    }

    /// Marginals and log-partition; or the gradient of the KL and the KL.
    fn marginals(
        &self,
        py: Python<'_>,
        theta: Table<'_>,
        mut out: PyReadwriteArray2<'_, f32>,
        mut sums: PyReadwriteArray1<'_, f64>,
        kl: bool,
        threads: usize,
    ) -> PyResult<()> {
        let (batch, p) = (self.batch(&theta)?, self.any.potentials());
        self.any.tractable().map_err(refused)?;
        let (theta, out, sums) = (theta.as_slice()?, out.as_slice_mut()?, sums.as_slice_mut()?);
        if !kl {
            return py.detach(|| self.batch.marginals(theta, out, sums, threads)).map_err(refused);
        }
        expect("marginals", out.len(), batch * p)?;
        expect("sums", sums.len(), batch)?;
        let rows = theta.chunks_exact(p).zip(out.chunks_exact_mut(p)).zip(sums);
        self.run(py, threads, rows.collect(), |_, ((theta, out), sum), _| {
            out.fill(0.0);
            **sum = self.any.kl_to_uniform(theta, 1.0, out)?;
            Ok(())
        })
    }

    fn covariance(
        &self,
        py: Python<'_>,
        theta: Table<'_>,
        direction: Table<'_>,
        mut out: PyReadwriteArray2<'_, f32>,
        threads: usize,
    ) -> PyResult<()> {
        let (batch, p) = (self.batch(&theta)?, self.any.potentials());
        self.any.tractable().map_err(refused)?;
        let (theta, direction, out) = (theta.as_slice()?, direction.as_slice()?, out.as_slice_mut()?);
        expect("direction", direction.len(), batch * p)?;
        expect("out", out.len(), batch * p)?;
        let rows = theta.chunks_exact(p).zip(direction.chunks_exact(p)).zip(out.chunks_exact_mut(p));
        self.run(py, threads, rows.collect(), |_, ((theta, direction), out), _| {
            out.fill(0.0);
            self.any.covariance(theta, direction, 1.0, out)
        })
    }

    /// Exact samples `[batch, samples * n]`; every example has a stretch of the stream (seed, index) of its own.
    fn sample(
        &self,
        py: Python<'_>,
        theta: Table<'_>,
        mut out: PyReadwriteArray2<'_, u32>,
        seed: u64,
        index: u64,
        threads: usize,
    ) -> PyResult<()> {
        let batch = self.batch(&theta)?;
        self.any.tractable().map_err(refused)?;
        let width = out.shape()[1];
        if !width.is_multiple_of(self.any.variables()) || width == 0 {
            return Err(PyValueError::new_err("out: expected [batch, samples * n]"));
        }
        let (theta, out) = (theta.as_slice()?, out.as_slice_mut()?);
        expect("out", out.len(), batch * width)?;
        let noise = Noise::new(seed, Purpose::User(0), index);
        let rows = theta.chunks_exact(self.any.potentials()).zip(out.chunks_exact_mut(width));
        self.run(py, threads, rows.collect(), |b, (theta, out), _| {
            self.any.samples(theta, &mut noise.at_row(b).generator_at(0), out)
        })
    }

    /// The codes `[batch, U]` of assignments, or their statistics `[batch, P]`.
    fn encode(&self, z: Assignments<'_>, mut out: PyReadwriteArray2<'_, f32>, all: bool) -> PyResult<()> {
        let (batch, n) = (self.checked(&z)?, self.any.variables());
        let width = if all { self.any.potentials() } else { self.any.unary() };
        let (z, out) = (z.as_slice()?, out.as_slice_mut()?);
        expect("out", out.len(), batch * width)?;
        for (z, out) in z.chunks_exact(n).zip(out.chunks_exact_mut(width)) {
            if all {
                out.fill(0.0);
                self.any.add_statistics(z, 1.0, out);
            } else {
                self.any.encode(z, out);
            }
        }
        Ok(())
    }

    /// The scores of assignments.
    fn score(&self, theta: Table<'_>, z: Assignments<'_>, mut out: PyReadwriteArray1<'_, f64>) -> PyResult<()> {
        let (batch, p, n) = (self.batch(&theta)?, self.any.potentials(), self.any.variables());
        expect("the first axis of z", self.checked(&z)?, batch)?;
        let (theta, z, out) = (theta.as_slice()?, z.as_slice()?, out.as_slice_mut()?);
        expect("out", out.len(), batch)?;
        let rows = theta.chunks_exact(p).zip(z.chunks_exact(n)).zip(out);
        rows.for_each(|((theta, z), out)| *out = self.any.score(theta, z));
        Ok(())
    }

    /// The codes of all one-coordinate changes, `[batch, changes * U]`.
    fn neighbours(&self, z: Assignments<'_>, mut out: PyReadwriteArray2<'_, f32>) -> PyResult<()> {
        let (batch, n, u) = (self.checked(&z)?, self.any.variables(), self.any.unary());
        let width = self.changes() * u;
        let (z, out) = (z.as_slice()?, out.as_slice_mut()?);
        expect("out", out.len(), batch * width)?;
        if width == 0 {
            return Ok(());
        }
        let mut code = vec![0.0; u];
        for (z, out) in z.chunks_exact(n).zip(out.chunks_exact_mut(width)) {
            self.any.encode(z, &mut code);
            let mut rows = out.chunks_exact_mut(u);
            self.any.code().for_each_change(&code, |change| {
                if let Some(row) = rows.next() {
                    row.copy_from_slice(&code);
                    apply(change, row);
                }
            });
        }
        Ok(())
    }

    /// All assignments in the order of enumeration, `[|Z| * n]`.
    fn enumerate<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let n = self.any.variables();
        let states = match self.any.states() {
            Some(_) => enumerable(&self.any).map_err(refused)?,
            None => return Err(refused(failed("the states of this structure are too many to count"))),
        };
        let mut all = vec![0; states * n];
        py.detach(|| all.chunks_exact_mut(n).enumerate().for_each(|(s, z)| self.any.state(s, z)));
        Ok(PyArray1::from_vec(py, all))
    }

    /// Maps raw numbers to potentials, in place.
    fn to_potentials(&self, mut raw: PyReadwriteArray2<'_, f32>) -> PyResult<()> {
        expect("the last axis", raw.shape()[1], self.any.potentials())?;
        let rows = raw.as_slice_mut()?.chunks_exact_mut(self.any.potentials());
        rows.for_each(|raw| self.any.to_potentials(raw));
        Ok(())
    }

    /// The chain rule of that, in place.
    fn to_raw_gradient(&self, potentials: Table<'_>, mut gradient: PyReadwriteArray2<'_, f32>) -> PyResult<()> {
        let (batch, p) = (self.batch(&potentials)?, self.any.potentials());
        let gradient = gradient.as_slice_mut()?;
        expect("gradient", gradient.len(), batch * p)?;
        let rows = potentials.as_slice()?.chunks_exact(p).zip(gradient.chunks_exact_mut(p));
        rows.for_each(|(h, gradient)| self.any.to_raw_gradient(h, gradient));
        Ok(())
    }
}

/// Makes a change of a code.
pub fn apply(change: Change, code: &mut [f32]) {
    change.off.iter().for_each(|u| code[*u] = 0.0);
    change.on.iter().for_each(|u| code[*u] = 1.0);
}

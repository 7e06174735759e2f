//! Pictures and numbers of models with Gaussian codes, by an engine whose encoder and decoder are formulas.

use gumbel::Error;
use gumbel::continuous::{Continuous, Draw, Gaussians, Inputs};
use gumbel::engine::{Asked, Engine, GaussianCodes, Images, Shape, StepOptions, StepReport};
use gumbel::estimator::Estimator;
use gumbel::network::Snapshot;
use gumbel::oracle::Closure;
use gumbel::structure::{AnyStructure, Categorical, Structure};
use gumbel_run::show::{self, Attributes, Look, Meaning, Samples, Traverse};
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};

/// Dimensions of a code.
const DIM: usize = 10;
const SHAPE: Shape = Shape { height: 2, width: 3, channels: 3 };
const PIXELS: usize = 2 * 3 * 3;

/// A model without parameters: see [`Formulas::pixel`] and its `ask`.
struct Formulas {
    structure: AnyStructure,
    inputs: Inputs,
}

impl Formulas {
    fn new(structure: impl Into<AnyStructure>, kind: Continuous) -> Self {
        let structure = structure.into();
        Formulas { inputs: Inputs::new(kind, &structure).unwrap(), structure }
    }

    /// A pixel of the decoder's means, of what it reads.
    fn pixel(read: &[f32], p: usize) -> f32 {
        let sum: f32 = read.iter().enumerate().map(|(i, r)| r * ((7 * i + 3 * p) % 11) as f32).sum();
        1.0 / (1.0 + (-0.1 * sum).exp())
    }

    /// The decoder's means at an assignment and codes `[blocks, D]`, the plain way.
    fn at(&self, z: &[u32], codes: &[f32]) -> Vec<f32> {
        let (mut code, mut weights) = (vec![0.0; self.structure.unary()], vec![0.0; self.inputs.blocks()]);
        let mut read = vec![0.0; self.inputs.width()];
        self.structure.encode(z, &mut code);
        self.inputs.weights(&code, &mut weights);
        self.inputs.input(&code, &weights, codes, &mut read);
        (0..PIXELS).map(|p| Formulas::pixel(&read, p)).collect()
    }

    /// The mean of coordinate d of the code of a block for an image: even coordinates matter more the larger they are.
    fn mean(image: f32, block: usize, d: usize) -> f32 {
        if d.is_multiple_of(2) { 0.1 * d as f32 * (1.0 + image) + 0.01 * block as f32 } else { 0.0 }
    }

    /// The codes `[blocks, D]` of an image.
    fn codes(&self, image: f32) -> Vec<f32> {
        (0..self.inputs.blocks()).flat_map(|k| (0..DIM).map(move |d| Formulas::mean(image, k, d))).collect()
    }
}

impl Engine for Formulas {
    fn name(&self) -> &'static str {
        "formulas"
    }
    fn arithmetic(&self) -> String {
        "plain".into()
    }
    fn structure(&self) -> &AnyStructure {
        &self.structure
    }
    fn inputs(&self) -> &Inputs {
        &self.inputs
    }
    fn step(
        &mut self,
        _: &dyn Images,
        _: &[u32],
        _: &mut dyn Estimator,
        _: &StepOptions<'_>,
    ) -> Result<StepReport, Error> {
        unreachable!("nobody trains it")
    }

    /// The mode of image i is i modulo 3, in binary digits where there are several variables.
    fn ask<'a>(&'a mut self, _: &'a dyn Images, batch: &'a [u32], draw: Draw<'_>) -> Result<Asked<'a>, Error> {
        let (mut potentials, mut parameters) = (vec![], vec![]);
        for image in batch {
            let (mut z, mut h) = (vec![0; self.structure.variables()], vec![0.0; self.structure.potentials()]);
            self.structure.state(*image as usize % 3, &mut z);
            self.structure.add_statistics(&z, 5.0, &mut h);
            potentials.extend(h);
            for code in self.codes(*image as f32 / 10.0).chunks_exact(DIM) {
                parameters.extend_from_slice(code);
                parameters.extend_from_slice(&[0.0; DIM]);
            }
        }
        let codes = (self.inputs.samples() > 0).then(|| Gaussians::new(&self.inputs, parameters, draw));
        let oracle = Box::new(Closure::new(&self.structure, |_: usize, _: &[f32]| 0.0));
        Ok(Asked { potentials, oracle, codes: codes.map(|codes| GaussianCodes::new(&codes)) })
    }

    fn means(&mut self, inputs: &[f32], means: &mut [f32]) -> Result<(), Error> {
        let rows = inputs.chunks_exact(self.inputs.width()).zip(means.chunks_exact_mut(PIXELS));
        rows.for_each(|(read, means)| means.iter_mut().enumerate().for_each(|(p, m)| *m = Formulas::pixel(read, p)));
        Ok(())
    }
    fn snapshot(&mut self) -> Snapshot {
        Snapshot::default()
    }
    fn restore(&mut self, _: &Snapshot) -> Result<(), Error> {
        Ok(())
    }
}

/// Images that are their number.
struct Numbers(usize);

impl Images for Numbers {
    fn count(&self) -> usize {
        self.0
    }
    fn shape(&self) -> Shape {
        SHAPE
    }
    fn key(&self) -> u64 {
        0
    }
    fn is_binary(&self) -> bool {
        false
    }
    fn fill(&self, indices: &[u32], out: &mut [f32]) -> Result<(), Error> {
        let rows = indices.iter().zip(out.chunks_exact_mut(PIXELS));
        rows.for_each(|(i, row)| row.fill(*i as f32 / self.0 as f32));
        Ok(())
    }
    fn bytes(&self) -> Result<Vec<u8>, Error> {
        unreachable!("they are not binary")
    }
}

/// A file's tensors.
struct Read(Vec<u8>);

impl Read {
    fn new(path: &Path) -> Self {
        Read(std::fs::read(path).unwrap())
    }
    fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).is_ok()
    }
    /// Shape and four bytes of every number.
    fn raw(&self, name: &str, dtype: Dtype) -> (Vec<usize>, Vec<[u8; 4]>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), dtype, "{name}");
        (view.shape().to_vec(), view.data().as_chunks::<4>().0.to_vec())
    }
    fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, bytes) = self.raw(name, Dtype::F32);
        (shape, bytes.into_iter().map(f32::from_le_bytes).collect())
    }
    fn u32(&self, name: &str) -> (Vec<usize>, Vec<u32>) {
        let (shape, bytes) = self.raw(name, Dtype::U32);
        (shape, bytes.into_iter().map(u32::from_le_bytes).collect())
    }
    fn i32(&self, name: &str) -> (Vec<usize>, Vec<i32>) {
        let (shape, bytes) = self.raw(name, Dtype::I32);
        (shape, bytes.into_iter().map(i32::from_le_bytes).collect())
    }
    fn text(&self) -> serde_json::Value {
        let (_, metadata) = SafeTensors::read_metadata(&self.0).unwrap();
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["gumbel"]).unwrap()
    }
}

/// Where files of a test lie.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }
    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Width and height of a PNG file.
fn size(path: &Path) -> (u32, u32) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(|name| name.to_string()).collect()
}

fn which<'a>() -> Traverse<'a> {
    Traverse { range: 3.0, steps: 5, ..Traverse::default() }
}

#[test]
fn coordinates_slide_and_those_come_first_that_are_used() {
    let folder = Folder::new();
    let path = folder.at("t.safetensors");
    for kind in [Continuous::Rows(DIM), Continuous::Joint(DIM)] {
        let mut engine = Formulas::new(Categorical::new(4).unwrap(), kind);
        let blocks = engine.inputs.blocks();
        // Image 0 of 9 has no company but 3 and 6: of 8 images, 0 and 1 are three times a mode, 2 twice.
        let found = show::traverse(&mut engine, &Numbers(8), &which(), &path).unwrap();
        assert_eq!((&found.z, &found.name, found.image), (&vec![0], &None, None));
        let order: Vec<usize> = found.coordinates.iter().map(|c| c.coordinate).collect();
        assert_eq!(order, [8, 6, 4, 2, 0, 1, 3, 5], "by their KL; of equals the first");
        // Log-variances are 0: the KL is half the mean square, over the images whose mode is 0 or over all.
        let of: &[f32] = if blocks == 4 { &[0.0, 0.3, 0.6] } else { &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7] };
        let square = |image: &f32| f64::from(Formulas::mean(*image, 0, 8).powi(2));
        let expected = 0.5 * of.iter().map(square).sum::<f64>() / of.len() as f64;
        assert!((found.coordinates[0].kl - expected).abs() < 1e-6, "{kind}: {} {expected}", found.coordinates[0].kl);
        assert_eq!(found.values, [-3.0, -1.5, 0.0, 1.5, 3.0]);

        let file = Read::new(&path);
        let (shape, images) = file.f32("images");
        assert_eq!(shape, [8, 5, 2, 3, 3]);
        assert_eq!(file.u32("coordinates"), (vec![8], vec![8, 6, 4, 2, 0, 1, 3, 5]));
        assert_eq!((file.f32("values").1, file.u32("assignment")), (found.values.clone(), (vec![1], vec![0])));
        for (cell, image) in images.chunks_exact(PIXELS).enumerate() {
            let mut codes = vec![0.0; blocks * DIM];
            codes[order[cell / 5]] = found.values[cell % 5];
            assert_eq!(image, engine.at(&[0], &codes), "{kind}, cell {cell}");
        }

        // From an image, at a state that is not its own, which is called by its name.
        let classes = Meaning::Classes(names(&["ring", "cross", "star", "house"]));
        let from = Traverse {
            image: Some(7),
            class: Some("House"),
            coordinates: vec![1, 8],
            meaning: Some(classes),
            ..which()
        };
        let found = show::traverse(&mut engine, &Numbers(8), &from, &path).unwrap();
        assert_eq!((&found.z, found.name.as_deref(), found.image), (&vec![3], Some("house"), Some(7)));
        let images = Read::new(&path).f32("images").1;
        for (cell, image) in images.chunks_exact(PIXELS).enumerate() {
            let mut codes = engine.codes(0.7);
            codes[(blocks - 1) * DIM + [1, 8][cell / 5]] = found.values[cell % 5];
            assert_eq!(image, engine.at(&[3], &codes), "{kind}, cell {cell}");
        }
        // By default at the image's own.
        let own = Traverse { class: None, meaning: None, ..from };
        assert_eq!(show::traverse(&mut engine, &Numbers(8), &own, &path).unwrap().z, [1]);
    }
}

#[test]
fn a_traverse_is_a_picture() {
    let folder = Folder::new();
    let path = folder.at("t.png");
    let mut engine = Formulas::new(Categorical::binary(2).unwrap(), Continuous::Joint(DIM));
    let look = Look { scale: Some(1), title: Some("x") };
    show::traverse(&mut engine, &Numbers(8), &Traverse { look, ..which() }, &path).unwrap();
    let plain = size(&path);
    show::traverse(&mut engine, &Numbers(8), &Traverse { image: Some(1), look, ..which() }, &path).unwrap();
    let more = size(&path);
    assert!(more.0 > plain.0 && plain.1 > 8 * 9, "{plain:?} {more:?}");
    let found = show::traverse(&mut engine, &Numbers(8), &Traverse { class: Some("2"), ..which() }, &path).unwrap();
    assert_eq!(found.z, [1, 0]);
}

#[test]
fn what_cannot_slide_is_said_in_one_line() {
    let folder = Folder::new();
    let path = folder.at("t.png");
    let mut engine = Formulas::new(Categorical::new(4).unwrap(), Continuous::Rows(DIM));
    let classes = Some(Meaning::Classes(names(&["ring", "cross"])));
    for (wrong, expected) in [
        (Traverse { coordinates: vec![3, 10], ..which() }, "coordinate = 10: expected 0 to 9"),
        (Traverse { image: Some(8), ..which() }, "image = 8: expected less than 8"),
        (Traverse { class: Some("4"), ..which() }, "class = 4: expected a number from 0 to 3"),
        (
            Traverse { class: Some("crss"), meaning: classes, ..which() },
            "class = crss: expected a number from 0 to 3, or one of ring, cross (did you mean cross?)",
        ),
        (Traverse { range: f32::NAN, ..which() }, "range = NaN"),
        (Traverse { steps: 1, ..which() }, "steps = 1"),
    ] {
        let error = show::traverse(&mut engine, &Numbers(8), &wrong, &path).unwrap_err();
        assert!(error.is_usage() && error.to_string().starts_with(expected), "{error}");
    }
    let mut plain = Formulas::new(Categorical::new(4).unwrap(), Continuous::None);
    let error = show::traverse(&mut plain, &Numbers(8), &which(), &path).unwrap_err();
    assert!(
        error.is_usage() && error.to_string().starts_with("continuous = none: expected rows:D or joint:D"),
        "{error}"
    );
    let mut many = Formulas::new(Categorical::binary(70).unwrap(), Continuous::Joint(DIM));
    let error = show::traverse(&mut many, &Numbers(8), &Traverse { class: Some("0"), ..which() }, &path).unwrap_err();
    assert!(error.to_string().contains("too many to be counted"), "{error}");
    let huge = Traverse { steps: 100_000_000, ..which() };
    let error = show::traverse(&mut engine, &Numbers(8), &Traverse { coordinates: vec![0], ..huge }, &path);
    assert!(error.unwrap_err().to_string().contains("at most 100000000 pixels"));
    assert_eq!(std::fs::read_dir(folder.0.path()).unwrap().count(), 0);
}

fn three() -> Attributes<'static> {
    let meaning = Meaning::Attributes(names(&["Eyeglasses", "Smiling", "Male"]));
    Attributes { meaning, rows: 2, encoded: 3, seed: 4, look: Look::default() }
}

#[test]
fn attributes_are_turned_on_and_off_at_the_same_code() {
    let folder = Folder::new();
    let path = folder.at("a.safetensors");
    let mut first = vec![];
    for (structure, kind) in [
        (AnyStructure::from(Categorical::new(8).unwrap()), Continuous::Rows(DIM)),
        (Categorical::new(8).unwrap().into(), Continuous::Joint(DIM)),
        (Categorical::binary(3).unwrap().into(), Continuous::Rows(DIM)),
        (Categorical::binary(3).unwrap().into(), Continuous::Joint(DIM)),
    ] {
        let single = structure.variables() == 1;
        let mut engine = Formulas::new(structure, kind);
        let shown = show::attributes(&mut engine, &Numbers(9), &three(), &path).unwrap();
        assert_eq!((shown.columns.len(), shown.rows, shown.encoded), (8, 2, 3));
        assert_eq!((shown.columns[6].class, &shown.columns[6].name[..]), (6, "+Eyeglasses+Smiling-Male"));
        let digits = |k: u32| [k >> 2 & 1, k >> 1 & 1, k & 1];
        let z = |k: u32| if single { vec![k] } else { digits(k).to_vec() };
        assert!((0..8).all(|k| shown.columns[k as usize].z == z(k)));

        let file = Read::new(&path);
        assert_eq!(file.u32("classes"), (vec![8], (0..8).collect()));
        let on = (0..8).flat_map(digits).map(|d| d as i32).collect();
        assert_eq!(file.i32("attributes"), (vec![8, 3], on));
        assert_eq!(file.text()["attributes"][1], "Smiling");
        assert_eq!(file.text()["columns"][0], "-Eyeglasses-Smiling-Male");
        let (shape, images) = file.f32("images");
        assert_eq!(shape, [2, 8, 2, 3, 3]);
        // The code of a row is one for all states, whichever way it is read.
        let mut codes = vec![0.0; 2 * DIM];
        gumbel::noise::Noise::new(4, gumbel::noise::Purpose::Picture, 1).normal(&mut codes);
        for (cell, image) in images.chunks_exact(PIXELS).enumerate() {
            let code = codes[cell / 8 * DIM..][..DIM].repeat(engine.inputs.blocks());
            assert_eq!(image, engine.at(&z(cell as u32 % 8), &code), "{kind}, cell {cell}");
        }
        // That of an image is its own, of the state of the column where every state has one.
        let (shape, encoded) = file.f32("encoded");
        assert_eq!(shape, [3, 8, 2, 3, 3]);
        for (cell, image) in encoded.chunks_exact(PIXELS).enumerate() {
            let codes = engine.codes((cell / 8) as f32 / 10.0);
            assert_eq!(image, engine.at(&z(cell as u32 % 8), &codes), "{kind}, cell {cell}");
        }
        let (shape, originals) = file.f32("originals");
        assert_eq!((shape, originals[PIXELS]), (vec![3, 2, 3, 3], 1.0 / 9.0));
        first.push(images);

        let picture = folder.at("a.png");
        show::attributes(&mut engine, &Numbers(9), &three(), &picture).unwrap();
        let whole = size(&picture);
        show::attributes(&mut engine, &Numbers(9), &Attributes { encoded: 0, ..three() }, &picture).unwrap();
        let prior = size(&picture);
        assert!(whole.1 > prior.1 && prior.0 > 8 * 8, "{whole:?} {prior:?}");
    }
    assert!(first[0] == first[2] && first[0] != first[1], "one K-way variable and its binary digits are one latent");
}

#[test]
fn many_attributes_stand_alone_and_classes_have_columns_too() {
    let folder = Folder::new();
    let path = folder.at("a.safetensors");
    let five = Attributes { meaning: Meaning::Attributes(names(&["a", "b", "c", "d", "e"])), ..three() };
    for structure in [Categorical::new(32).unwrap(), Categorical::binary(5).unwrap()] {
        let mut engine = Formulas::new(structure, Continuous::Joint(DIM));
        let shown = show::attributes(&mut engine, &Numbers(9), &five, &path).unwrap();
        let classes: Vec<u32> = shown.columns.iter().map(|c| c.class).collect();
        assert_eq!(classes, [0, 16, 8, 4, 2, 1]);
        assert_eq!(shown.columns[1].name, "+a-b-c-d-e");
    }
    let classes = Attributes { meaning: Meaning::Classes(names(&["ring", "cross", "star"])), ..three() };
    let mut engine = Formulas::new(Categorical::new(4).unwrap(), Continuous::Rows(DIM));
    let shown = show::attributes(&mut engine, &Numbers(9), &classes, &path).unwrap();
    assert_eq!(shown.columns.iter().map(|c| &c.name[..]).collect::<Vec<_>>(), ["ring", "cross", "star"]);
    let file = Read::new(&path);
    assert!(!file.has("attributes") && file.u32("classes").1 == [0, 1, 2]);

    for (wrong, structure, expected) in [
        (&three(), Categorical::binary(2).unwrap(), "latent = 2 variables: expected categorical:8, or 3 binary"),
        (&three(), Categorical::new(4).unwrap(), "latent = 1 variable of 4 values: expected categorical:8"),
        (&classes, Categorical::binary(3).unwrap(), "latent = 3 variables: expected one K-way variable"),
        (&Attributes { encoded: 10, ..three() }, Categorical::new(8).unwrap(), "encoded = 10: expected at most 9"),
        (&Attributes { rows: 0, encoded: 0, ..three() }, Categorical::new(8).unwrap(), "rows = 0: expected at least 1"),
    ] {
        let mut engine = Formulas::new(structure, Continuous::Joint(DIM));
        let error = show::attributes(&mut engine, &Numbers(9), wrong, &path).unwrap_err();
        assert!(error.is_usage() && error.to_string().starts_with(expected), "{error}");
    }
}

/// Many rows are decoded in pieces: the first ones are those of few, and the last ones are there.
#[test]
fn samples_are_numbers_for_other_programs() {
    let folder = Folder::new();
    let (few, many) = (folder.at("few.safetensors"), folder.at("many.safetensors"));
    let classes = Meaning::Classes(names(&["ring", "cross", "star"]));
    let samples = |rows| Samples { seed: 3, rows: Some(rows), meaning: Some(classes.clone()), ..Samples::default() };
    let mut engine = Formulas::new(Categorical::new(3).unwrap(), Continuous::Rows(DIM));
    show::samples(&mut engine, SHAPE, &samples(10), &few).unwrap();
    show::samples(&mut engine, SHAPE, &samples(4000), &many).unwrap();
    let [(few, short), (many, long)] = [few, many].map(|path| Read::new(&path)).map(|file| {
        assert_eq!((file.u32("classes"), &file.text()["columns"][2]), ((vec![3], vec![0, 1, 2]), &"star".into()));
        file.f32("images")
    });
    assert_eq!((few, many), (vec![10, 3, 2, 3, 3], vec![4000, 3, 2, 3, 3]));
    assert!(long[..short.len()] == short && long.iter().all(|v| *v > 0.0 && *v < 1.0));
    let mut codes = vec![0.0; 4000 * DIM];
    gumbel::noise::Noise::new(3, gumbel::noise::Purpose::Picture, 1).normal(&mut codes);
    let last = codes[3999 * DIM..].repeat(3);
    assert_eq!(long[long.len() - PIXELS..], engine.at(&[2], &last));

    // Without Gaussian codes; of several variables; both.
    let at = |name: &str| folder.at(name);
    let which = Samples { seed: 3, rows: Some(2), ..Samples::default() };
    let mut engine = Formulas::new(Categorical::new(30).unwrap(), Continuous::None);
    let order = Some((0..30).rev().collect());
    show::samples(&mut engine, SHAPE, &Samples { order, ..which.clone() }, &at("a.safetensors")).unwrap();
    let file = Read::new(&at("a.safetensors"));
    assert_eq!((file.f32("images").0, file.u32("classes").1[0]), (vec![1, 30, 2, 3, 3], 29));
    let mut engine = Formulas::new(Categorical::binary(4).unwrap(), Continuous::Joint(DIM));
    show::samples(&mut engine, SHAPE, &which, &at("b.safetensors")).unwrap();
    let file = Read::new(&at("b.safetensors"));
    assert_eq!((file.f32("images").0, file.u32("assignments").0), (vec![2, 10, 2, 3, 3], vec![10, 4]));
    assert!(!file.has("classes"));
    let mut engine = Formulas::new(Categorical::binary(4).unwrap(), Continuous::None);
    show::samples(&mut engine, SHAPE, &which, &at("c.safetensors")).unwrap();
    let file = Read::new(&at("c.safetensors"));
    let (shape, z) = file.u32("assignments");
    assert_eq!((file.f32("images").0, shape), (vec![2, 10, 2, 3, 3], vec![2, 10, 4]));
    let images = file.f32("images").1;
    assert!(images.chunks_exact(PIXELS).zip(z.chunks_exact(4)).all(|(image, z)| image == engine.at(z, &[])));

    // A picture that would be too large is refused before anything is made.
    let error = show::samples(&mut engine, SHAPE, &Samples { rows: Some(1 << 23), ..which }, &at("d.png")).unwrap_err();
    assert!(error.to_string().contains("at most 100000000 pixels"), "{error}");
    assert!(!at("d.png").exists());
}

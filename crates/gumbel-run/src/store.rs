//! Models and checkpoints as safetensors: whole, of this run, and not a bit changed.
//!
//! The file is plain safetensors that other programs read too. Its one metadata key, `gumbel`, begins with what the
//! file is and its format, a checksum, and the [`Digest`] of the run that it belongs to:
//!
//! ```text
//! gumbel checkpoint 2
//! sha256 (64 digits: over the kind, the run, the text below, and all names, shapes and values)
//! run (64 digits: over the settings that matter)
//! ...text
//! ```
//!
//! Reading checks the first, then the second, then the third: a file of something else, a damaged file and a file of
//! another run are three errors that say so. The same content is always the same bytes.

pub use crate::atomic::{check_writable, write_atomic};

use crate::digest::Digest;
use crate::{Error, Result};
use gumbel::network::{Moments, Named, Parameters, Snapshot};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

/// What is needed to go on with a run as if it had never been interrupted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checkpoint {
    /// Parameters and optimiser of the engine.
    pub snapshot: Snapshot,
    /// Numbers that the estimator has learned, in its own order; empty if it learns nothing.
    pub learned: Vec<f32>,
    /// The state of the run, as a text of its own format.
    pub state: String,
}

/// The one metadata key. One, because safetensors keeps several in a random order, and our files are reproducible.
const KEY: &str = "gumbel";
/// The format that is written and read. Format 1 had neither checksum nor run.
const FORMAT: &str = "2";
const MODEL: &str = "gumbel model";
const CHECKPOINT: &str = "gumbel checkpoint";
const LEARNED: &str = "estimator.learned";

/// Writes the parameters of a model of the run `run`, and a describing text.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be written; a length error if a parameter's values are not as many as its shape
/// says.
pub fn write_model(path: &Path, parameters: &Parameters, text: &str, run: &Digest) -> Result<()> {
    write(path, MODEL, run, text, named(parameters))
}

/// Reads a model and its text; its parameters are finite. With `run`, the model must be of that run.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read; [`Error::Foreign`] if it is no model, damaged, or holds NaN or infinity;
/// [`Error::OtherRun`] if it belongs to another run.
pub fn read_model(path: &Path, run: Option<&Digest>) -> Result<(Parameters, String)> {
    model(path, &bytes(path)?, run)
}

fn model(path: &Path, bytes: &[u8], run: Option<&Digest>) -> Result<(Parameters, String)> {
    let (text, mut tensors) = parse(path, bytes, MODEL, run)?;
    let parameters = take_parameters(&mut tensors);
    nothing_left(path, MODEL, &tensors)?;
    if let Some(p) = parameters.all().find(|p| p.values.iter().any(|v| !v.is_finite())) {
        return Err(Error::foreign(path, "finite parameters", format!("NaN or infinity in {}", p.name)));
    }
    Ok((parameters, text))
}

/// Writes a checkpoint of the run `run`.
///
/// # Errors
///
/// As [`write_model`].
pub fn write_checkpoint(path: &Path, checkpoint: &Checkpoint, run: &Digest) -> Result<()> {
    let Checkpoint { snapshot: Snapshot { parameters, moments, steps }, learned, state } = checkpoint;
    let mut tensors = named(parameters);
    for (i, m) in moments.iter().enumerate() {
        tensors.push((format!("adam.{i:04}.first"), vec![m.first.len()], &m.first));
        tensors.push((format!("adam.{i:04}.second"), vec![m.second.len()], &m.second));
    }
    if !learned.is_empty() {
        tensors.push((LEARNED.into(), vec![learned.len()], learned));
    }
    write(path, CHECKPOINT, run, &format!("{steps}\n{state}"), tensors)
}

/// Reads a checkpoint of the run `run`.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read; [`Error::Foreign`] if it is no checkpoint, or damaged;
/// [`Error::OtherRun`] if it belongs to another run.
pub fn read_checkpoint(path: &Path, run: &Digest) -> Result<Checkpoint> {
    checkpoint(path, &bytes(path)?, run)
}

fn checkpoint(path: &Path, bytes: &[u8], run: &Digest) -> Result<Checkpoint> {
    let (text, mut tensors) = parse(path, bytes, CHECKPOINT, Some(run))?;
    let foreign = |found: &str| Error::foreign(path, format!("a {CHECKPOINT}"), found);
    let (steps, state) = text.split_once('\n').ok_or_else(|| foreign("one without a state"))?;
    let steps = steps.parse().map_err(|_| foreign("one without a step count"))?;
    let parameters = take_parameters(&mut tensors);
    let mut moments = vec![];
    for i in 0.. {
        let mut part = |kind| tensors.remove(&format!("adam.{i:04}.{kind}")).map(|t| t.1);
        match (part("first"), part("second")) {
            (Some(first), Some(second)) => moments.push(Moments { first, second }),
            (None, None) => break,
            _ => return Err(foreign("one with half of the moments of a parameter")),
        }
    }
    let learned = tensors.remove(LEARNED).map(|t| t.1).unwrap_or_default();
    nothing_left(path, CHECKPOINT, &tensors)?;
    Ok(Checkpoint { snapshot: Snapshot { parameters, moments, steps }, learned, state: state.to_string() })
}

/// Names, shapes and values to be written.
type Tensors<'a> = Vec<(String, Vec<usize>, &'a [f32])>;

/// What was read, by name.
type Found = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Parameters under names of their order: safetensors sorts by name.
fn named(parameters: &Parameters) -> Tensors<'_> {
    let parts = [("encoder", &parameters.encoder), ("decoder", &parameters.decoder)];
    let tensors = parts.into_iter().flat_map(|(prefix, named)| {
        let part = named.iter().enumerate();
        part.map(move |(i, p)| (format!("{prefix}.{i:04}.{}", p.name), p.shape.clone(), p.values.as_slice()))
    });
    tensors.collect()
}

/// Takes `encoder.NNNN.name` and `decoder.NNNN.name` out of the tensors, in the order of their numbers.
fn take_parameters(tensors: &mut Found) -> Parameters {
    let mut take = |prefix: &str| {
        let key = |name: &str| -> Option<(usize, String)> {
            let (number, rest) = name.strip_prefix(prefix)?.split_once('.')?;
            Some((number.parse().ok()?, rest.to_string()))
        };
        let mut keys: Vec<_> = tensors.keys().filter_map(|name| Some((key(name)?, name.clone()))).collect();
        keys.sort_unstable();
        let parameters = keys.into_iter().filter_map(|((_, name), key)| {
            let (shape, values) = tensors.remove(&key)?;
            Some(Named { name, shape, values })
        });
        parameters.collect()
    };
    Parameters { encoder: take("encoder."), decoder: take("decoder.") }
}

/// What nobody has taken is not ours.
fn nothing_left(path: &Path, kind: &str, tensors: &Found) -> Result<()> {
    match tensors.keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::foreign(path, format!("a {kind}"), format!("one with a tensor {name:?}"))),
    }
}

/// The checksum of a file's whole content, independent of how safetensors lays it out. Tensors come sorted by name.
fn checksum<'a>(
    kind: &str,
    run: &str,
    text: &str,
    tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [u8])>,
) -> Digest {
    let mut hash = Sha256::new();
    // With each length before it, no part can be moved into the next.
    let add = |hash: &mut Sha256, bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for part in [kind, run, text] {
        add(&mut hash, part.as_bytes());
    }
    for (name, shape, bytes) in tensors {
        add(&mut hash, name.as_bytes());
        add(&mut hash, &shape.iter().flat_map(|&d| (d as u64).to_le_bytes()).collect::<Vec<_>>());
        add(&mut hash, bytes);
    }
    Digest::from_hash(hash)
}

fn write(path: &Path, kind: &str, run: &Digest, text: &str, tensors: Tensors<'_>) -> Result<()> {
    let mut bytes: Vec<(String, Vec<usize>, Vec<u8>)> = vec![];
    for (name, shape, values) in tensors {
        let expected = shape.iter().product();
        if values.len() != expected {
            return Err(gumbel::Error::Length { what: "a parameter", expected, found: values.len() }.into());
        }
        bytes.push((name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }
    bytes.sort();
    let run = run.to_string();
    let sum = checksum(kind, &run, text, bytes.iter().map(|(name, shape, bytes)| (&name[..], &shape[..], &bytes[..])));
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("shape and bytes are of one tensor");
        (name.as_str(), view)
    });
    let metadata = HashMap::from([(KEY.to_string(), format!("{kind} {FORMAT}\nsha256 {sum}\nrun {run}\n{text}"))]);
    let file = safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::io("write", path, std::io::Error::other(e.to_string())))?;
    write_atomic(path, &file)
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::io("read", path, e))
}

/// The text and the tensors of a file of this kind, and of this run if one is given; none of it changed.
fn parse(path: &Path, bytes: &[u8], kind: &str, run: Option<&Digest>) -> Result<(String, Found)> {
    let foreign = |found: String| Error::foreign(path, format!("a {kind}"), found);
    let size = bytes.len();
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|e| foreign(format!("{size} bytes that are not safetensors, or a part of it ({e})")))?;
    let whole = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    let whole = whole.ok_or_else(|| foreign("safetensors of something else".into()))?;
    let (head, rest) = whole.split_once('\n').unwrap_or((whole, ""));
    match head.strip_prefix(kind).and_then(|h| h.strip_prefix(' ')) {
        Some(FORMAT) => {}
        Some(other) => return Err(foreign(format!("one of format {other:.20}: this version reads format {FORMAT}"))),
        None => return Err(foreign(format!("safetensors of something else ({head:.40})"))),
    }
    let field = |text, name: &str| -> Option<(Digest, &str)> {
        let (line, rest) = str::split_once(text, '\n')?;
        Some((line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()?, rest))
    };
    let ((sum, (owner, text)), tensors) = field(rest, "sha256")
        .and_then(|(sum, rest)| Some((sum, field(rest, "run")?)))
        .ok_or_else(|| foreign("a damaged one, without checksum or run".into()))
        .and_then(|head| {
            let tensors = SafeTensors::deserialize(bytes)
                .map_err(|e| foreign(format!("a damaged or truncated file of {size} bytes ({e})")))?;
            Ok((head, tensors))
        })?;
    let mut tensors = tensors.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some((name, view)) = tensors.iter().find(|(_, view)| view.dtype() != Dtype::F32) {
        return Err(foreign(format!("tensor {name} of type {:?}", view.dtype())));
    }
    let parts = tensors.iter().map(|(name, view)| (name.as_str(), view.shape(), view.data()));
    let actual = checksum(kind, &owner.to_string(), text, parts);
    if actual != sum {
        let found = format!("a damaged one: its checksum is {sum:.12}, that of its content {actual:.12}");
        return Err(foreign(found));
    }
    if let Some(run) = run.filter(|run| **run != owner) {
        return Err(Error::OtherRun { path: path.to_path_buf(), expected: *run, found: owner });
    }
    let found = tensors.into_iter().map(|(name, view)| {
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        (name, (view.shape().to_vec(), values.collect()))
    });
    Ok((text.to_string(), found.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Checkpoint {
        let named = |name: &str, shape: &[usize]| Named {
            name: name.into(),
            shape: shape.to_vec(),
            values: (0..shape.iter().product::<usize>()).map(|i| i as f32 * 0.1).collect(),
        };
        Checkpoint {
            snapshot: Snapshot {
                parameters: Parameters {
                    encoder: vec![named("layers.0.weight", &[2, 3]), named("layers.0.bias", &[3])],
                    decoder: (0..12).map(|i| named(&format!("layers.{i}.weight"), &[1, 2])).collect(),
                },
                steps: 7,
                moments: vec![Moments { first: vec![1.0, 2.0], second: vec![3.0, 4.0] }; 14],
            },
            learned: vec![0.5, -0.0, f32::MIN_POSITIVE],
            state: "{\"epoch\":3}\nsecond line".into(),
        }
    }

    fn run() -> Digest {
        Digest::of("seed = 0")
    }

    #[test]
    fn what_is_written_is_read_back_and_always_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        write_checkpoint(&path, &example(), &run()).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(read_checkpoint(&path, &run()).unwrap(), example());
        write_checkpoint(&path, &example(), &run()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let parameters = example().snapshot.parameters;
        write_model(&path, &parameters, "text", &run()).unwrap();
        assert_eq!(read_model(&path, Some(&run())).unwrap(), (parameters.clone(), "text".into()));
        assert_eq!(read_model(&path, None).unwrap(), (parameters, "text".into()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file is left");
    }

    #[test]
    fn nothing_learned_empty_parameters_and_many_of_them_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        let many = (0..10_050).map(|i| Named { name: "w".into(), shape: vec![], values: vec![i as f32] });
        let checkpoint = Checkpoint {
            snapshot: Snapshot {
                parameters: Parameters {
                    encoder: many.collect(),
                    decoder: vec![Named { name: "a.b".into(), shape: vec![0, 3], values: vec![] }],
                },
                moments: vec![Moments::default()],
                steps: u64::MAX,
            },
            ..Default::default()
        };
        for checkpoint in [Checkpoint::default(), checkpoint] {
            write_checkpoint(&path, &checkpoint, &run()).unwrap();
            assert_eq!(read_checkpoint(&path, &run()).unwrap(), checkpoint);
        }
        let mut wrong = example();
        wrong.snapshot.parameters.encoder[0].values.pop();
        let message = write_checkpoint(&path, &wrong, &run()).unwrap_err().to_string();
        assert!(message.contains("a parameter has 5 values: expected 6"), "{message}");
    }

    #[test]
    fn foreign_and_damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        write_checkpoint(&path, &example(), &run()).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(37) {
            fs::write(&path, &whole[..length]).unwrap();
            let message = read_checkpoint(&path, &run()).unwrap_err().to_string();
            assert!(message.contains("expected a gumbel checkpoint") && !message.contains('\n'), "{message}");
        }
        for bytes in [&b"PNG"[..], &[0xff; 100], &[0; 64]] {
            fs::write(&path, bytes).unwrap();
            assert!(read_checkpoint(&path, &run()).is_err());
        }
        let parameters = example().snapshot.parameters;
        write_model(&path, &parameters, "", &run()).unwrap();
        let message = read_checkpoint(&path, &run()).unwrap_err().to_string();
        assert!(message.ends_with("found safetensors of something else (gumbel model 2)"), "{message}");
        let mut broken = parameters;
        broken.decoder[3].values[1] = f32::NAN;
        write_model(&path, &broken, "", &run()).unwrap();
        let message = read_model(&path, None).unwrap_err().to_string();
        assert!(message.contains("found NaN or infinity in layers.3.weight"), "{message}");
        assert!(matches!(read_model(&folder.path().join("none"), None), Err(Error::Io { .. })));
    }

    /// As format 1 wrote it.
    #[test]
    fn files_of_an_old_format_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        let metadata = HashMap::from([(KEY.to_string(), "gumbel checkpoint 1\n7\n{}".to_string())]);
        let none: Vec<(&str, TensorView<'_>)> = vec![];
        fs::write(&path, safetensors::serialize(none, Some(metadata)).unwrap()).unwrap();
        let message = read_checkpoint(&path, &run()).unwrap_err().to_string();
        assert!(message.ends_with("found one of format 1: this version reads format 2"), "{message}");
    }

    /// Found by a hostile tester: evaluate printed 552.86 for 553.37 and succeeded.
    #[test]
    fn no_flipped_bit_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        let mut refused = 0;
        let mut flip_all = |whole: &[u8], read: &dyn Fn(&[u8]) -> Result<()>| {
            read(whole).unwrap();
            for bit in 0..8 * whole.len() {
                let mut damaged = whole.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let message = read(&damaged).expect_err(&format!("bit {bit} passes")).to_string();
                assert!(message.contains("c.safetensors: expected a gumbel "), "bit {bit}: {message}");
                assert!(!message.chars().any(char::is_control), "bit {bit}: {message:?}");
                refused += 1;
            }
        };
        write_checkpoint(&path, &example(), &run()).unwrap();
        flip_all(&fs::read(&path).unwrap(), &|bytes| checkpoint(&path, bytes, &run()).map(|_| ()));
        write_model(&path, &example().snapshot.parameters, "{}", &run()).unwrap();
        let mut damaged = fs::read(&path).unwrap();
        flip_all(&damaged, &|bytes| model(&path, bytes, None).map(|_| ()));
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&path, damaged).unwrap();
        let message = read_model(&path, None).unwrap_err().to_string();
        assert!(message.contains("found a damaged one: its checksum is "), "{message}");
        assert!(refused > 9_000, "{refused}");
    }

    /// Found by a hostile tester: another run's files were accepted.
    #[test]
    fn a_file_of_another_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        let other = Digest::of("seed = 1");
        write_checkpoint(&path, &example(), &other).unwrap();
        let error = read_checkpoint(&path, &run()).unwrap_err();
        let expected = format!(
            "{}: expected a file of the run {:.12}, found one of the run {:.12}, with other settings",
            path.display(),
            run(),
            other
        );
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, Error::OtherRun { expected, found, .. } if expected == run() && found == other));
        write_model(&path, &example().snapshot.parameters, "", &other).unwrap();
        assert!(matches!(read_model(&path, Some(&run())), Err(Error::OtherRun { .. })));
        assert!(read_model(&path, Some(&other)).is_ok() && read_model(&path, None).is_ok());
    }
}

//! Files that are whole or absent: atomic writing, models and checkpoints as safetensors.
//!
//! A file is written under a temporary name in its folder, synchronised, and renamed. Whoever reads sees the old file
//! or the new one, never a part, also after kill -9 or a full disk.

use crate::adam::Moments;
use crate::model::Named;
use crate::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes a whole file atomically. A symbolic link is followed; a device or a pipe, which has no old content to lose, is
/// written to.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let written = File::options().write(true).open(path).and_then(|mut file| file.write_all(bytes));
            return written.map_err(|e| Error::io("write", path, e));
        }
        _ => {}
    }
    let target = fs::canonicalize(path);
    replace(target.as_deref().unwrap_or(path), bytes).map_err(|e| Error::io("write", path, e))
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = temporary(path);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The new name itself reaches the disk with its folder; not every file system can do that.
        if let Some(folder) = path.parent() {
            File::open(folder).and_then(|f| f.sync_all()).ok();
        }
        Ok(())
    })();
    if written.is_err() {
        fs::remove_file(&temporary).ok();
    }
    written
}

/// The temporary name of a file: hidden, in the same folder, always the same, so that a rest of a killed process is
/// overwritten by the next.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

/// Parameters of an encoder and a decoder, with a text that describes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Encoder parameters in traversal order.
    pub encoder: Vec<Named>,
    /// Decoder parameters in traversal order.
    pub decoder: Vec<Named>,
}

impl Model {
    /// All parameters, in the order of the optimiser.
    pub fn all(&self) -> Vec<Named> {
        self.encoder.iter().chain(&self.decoder).cloned().collect()
    }
}

/// A model together with the optimiser and the state of its run.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The parameters.
    pub model: Model,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Moments in the order of [`Model::all`]; empty before the first step.
    pub moments: Vec<Moments>,
    /// The state of the run, as JSON.
    pub state: String,
}

/// The one metadata key. One, because safetensors keeps several in a random order, and our files are reproducible.
const KEY: &str = "gumbel";
const MODEL: &str = "gumbel model 1\n";
const CHECKPOINT: &str = "gumbel checkpoint 1\n";

/// Writes a model and a describing text.
pub fn write_model(path: &Path, model: &Model, text: &str) -> Result<()> {
    write(path, format!("{MODEL}{text}"), named(model))
}

/// Reads a model and its text; its parameters are finite.
pub fn read_model(path: &Path) -> Result<(Model, String)> {
    let (text, mut tensors) = read(path, MODEL, "a gumbel model")?;
    let model = take_model(&mut tensors);
    match model.all().iter().find(|p| p.values.iter().any(|v| !v.is_finite())) {
        None => Ok((model, text)),
        Some(p) => Err(Error::Foreign {
            path: path.to_path_buf(),
            expected: "finite parameters".into(),
            found: format!("NaN or infinity in {}", p.name),
        }),
    }
}

/// Writes a checkpoint.
pub fn write_checkpoint(path: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let mut tensors = named(&checkpoint.model);
    for (i, m) in checkpoint.moments.iter().enumerate() {
        tensors.push((format!("adam.{i:04}.first"), vec![m.first.len()], &m.first));
        tensors.push((format!("adam.{i:04}.second"), vec![m.second.len()], &m.second));
    }
    write(path, format!("{CHECKPOINT}{}\n{}", checkpoint.steps, checkpoint.state), tensors)
}

/// Reads a checkpoint.
pub fn read_checkpoint(path: &Path) -> Result<Checkpoint> {
    let (text, mut tensors) = read(path, CHECKPOINT, "a gumbel checkpoint")?;
    let foreign = |found: &str| Error::Foreign {
        path: path.to_path_buf(),
        expected: "a gumbel checkpoint".into(),
        found: found.into(),
    };
    let (steps, state) = text.split_once('\n').ok_or_else(|| foreign("one without a state"))?;
    let steps = steps.parse().map_err(|_| foreign("one without a step count"))?;
    let model = take_model(&mut tensors);
    let mut moments = vec![];
    for i in 0.. {
        let mut part = |kind| tensors.remove(&format!("adam.{i:04}.{kind}")).map(|t| t.1);
        match (part("first"), part("second")) {
            (Some(first), Some(second)) => moments.push(Moments { first, second }),
            _ => break,
        }
    }
    Ok(Checkpoint { model, steps, moments, state: state.to_string() })
}

type Tensors<'a> = Vec<(String, Vec<usize>, &'a [f32])>;

fn named(model: &Model) -> Tensors<'_> {
    let part = |prefix: &'static str, parameters: &'_ [Named]| -> Vec<(String, usize)> {
        parameters.iter().enumerate().map(|(i, p)| (format!("{prefix}.{i:04}.{}", p.name), i)).collect()
    };
    let mut out: Tensors<'_> = vec![];
    for (prefix, parameters) in [("encoder", &model.encoder), ("decoder", &model.decoder)] {
        for (name, i) in part(prefix, parameters) {
            out.push((name, parameters[i].shape.clone(), &parameters[i].values));
        }
    }
    out
}

/// Takes `encoder.NNNN.name` and `decoder.NNNN.name` out of the tensors, in order.
fn take_model(tensors: &mut HashMap<String, (Vec<usize>, Vec<f32>)>) -> Model {
    let mut take = |prefix: &str| {
        let mut keys: Vec<String> = tensors.keys().filter(|k| k.starts_with(prefix)).cloned().collect();
        keys.sort_unstable();
        let parameters = keys.into_iter().filter_map(|key| {
            let (shape, values) = tensors.remove(&key)?;
            Some(Named { name: key.splitn(3, '.').nth(2)?.to_string(), shape, values })
        });
        parameters.collect()
    };
    Model { encoder: take("encoder."), decoder: take("decoder.") }
}

fn write(path: &Path, text: String, tensors: Tensors<'_>) -> Result<()> {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape, values)| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("shape and bytes are of one tensor");
        (name.as_str(), view)
    });
    let metadata = HashMap::from([(KEY.to_string(), text)]);
    let file = safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::io("write", path, std::io::Error::other(e.to_string())))?;
    write_atomic(path, &file)
}

type Read = (String, HashMap<String, (Vec<usize>, Vec<f32>)>);

fn read(path: &Path, head: &str, expected: &str) -> Result<Read> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let foreign = |found: String| Error::Foreign { path: path.to_path_buf(), expected: expected.into(), found };
    let size = bytes.len();
    let (_, metadata) = SafeTensors::read_metadata(&bytes)
        .map_err(|e| foreign(format!("{size} bytes that are not safetensors, or a part of it ({e})")))?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    let text =
        text.and_then(|t| t.strip_prefix(head)).ok_or_else(|| foreign("safetensors of something else".into()))?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|e| foreign(format!("a damaged or truncated file of {size} bytes ({e})")))?;
    let mut out = HashMap::new();
    for (name, view) in tensors.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(foreign(format!("tensor {name} of type {:?}", view.dtype())));
        }
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        out.insert(name, (view.shape().to_vec(), values.collect()));
    }
    Ok((text.to_string(), out))
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
            model: Model {
                encoder: vec![named("layers.0.weight", &[2, 3]), named("layers.0.bias", &[3])],
                decoder: (0..12).map(|i| named(&format!("layers.{i}.weight"), &[1, 2])).collect(),
            },
            steps: 7,
            moments: vec![Moments { first: vec![1.0, 2.0], second: vec![3.0, 4.0] }; 14],
            state: "{\"epoch\":3}\nsecond line".into(),
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_pipes_are_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "old").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        write_atomic(&at("link"), b"new").unwrap();
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert_eq!(fs::read(at("file")).unwrap(), b"new");

        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = at("pipe");
            move || fs::read(pipe).unwrap()
        });
        write_atomic(&at("pipe"), b"through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(write_atomic(folder.path(), b"").unwrap_err().to_string().contains("cannot write"));
    }

    #[test]
    fn what_is_written_is_read_back_and_always_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        write_checkpoint(&path, &example()).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(read_checkpoint(&path).unwrap(), example());
        write_checkpoint(&path, &example()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        write_model(&path, &example().model, "text").unwrap();
        assert_eq!(read_model(&path).unwrap(), (example().model, "text".into()));
        assert!(!temporary(&path).exists());
    }

    #[test]
    fn foreign_and_damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        write_checkpoint(&path, &example()).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(37) {
            fs::write(&path, &whole[..length]).unwrap();
            let message = read_checkpoint(&path).unwrap_err().to_string();
            assert!(message.contains("expected a gumbel checkpoint") && !message.contains('\n'), "{message}");
        }
        for bytes in [&b"PNG"[..], &[0xff; 100], &[0; 64]] {
            fs::write(&path, bytes).unwrap();
            assert!(read_checkpoint(&path).is_err());
        }
        write_model(&path, &example().model, "").unwrap();
        assert!(read_checkpoint(&path).unwrap_err().to_string().contains("something else"));
        let mut model = example().model;
        model.decoder[3].values[1] = f32::NAN;
        write_model(&path, &model, "").unwrap();
        assert!(read_model(&path).unwrap_err().to_string().contains("found NaN or infinity in layers.3.weight"));
        assert!(matches!(read_model(&folder.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomic(&path, b"old").unwrap();
        fs::create_dir(temporary(&path)).unwrap(); // the temporary name is taken by a folder: creating it fails
        assert!(write_atomic(&path, b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}

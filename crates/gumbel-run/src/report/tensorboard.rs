//! Event files for TensorBoard.
//!
//! An event file is a sequence of records, each framed by its length and checksums; a record is an `Event` of protocol
//! buffers, of which a few fields are needed, written here by hand.

use super::Run;
use crate::folder::fitting_name;
use crate::metrics::Metrics;
use crate::store::write_atomic;
use crate::{Error, Result};
use gumbel_data::Split;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The name of an event file: its readers look for `tfevents`, and sort by what follows.
const FILE: &str = "events.out.tfevents.0.gumbel";

/// Writes event files that TensorBoard reads: scalars under the names of `metrics.jsonl` in `NAME/train`, `NAME/valid`
/// and `NAME/test`, and the PNG pictures in `NAME`, for each run. A step is a training step; times are seconds from
/// the start of the run, as nothing else is known, so that the same runs give the same bytes. Files of an earlier
/// call are replaced.
///
/// # Errors
/// [`Error::Io`].
pub fn tensorboard(folder: &Path, runs: &[Run]) -> Result<()> {
    for run in runs {
        let place = folder.join(fitting_name(&run.name));
        for split in Split::ALL.map(|split| split.to_string()) {
            let lines = run.metrics.iter().filter(|line| line.split == split);
            let events = lines.map(|line| event(line.seconds, line.step, &summary(&scalars(line))));
            write_file(&place.join(&split), events)?;
        }
        let last = run.metrics.last();
        let (step, seconds) = last.map_or((0, 0.0), |line| (line.step, line.seconds));
        let pictures = run.pictures.iter().filter_map(|picture| {
            let (width, height) = picture.size?;
            let tag = picture.file.trim_end_matches(".png");
            Some(event(seconds, step, &summary(&image(tag, width, height, &picture.bytes))))
        });
        write_file(&place, pictures)?;
    }
    Ok(())
}

/// Writes a file of events, if there are any; one of an earlier call goes in any case.
fn write_file(folder: &Path, events: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    let mut bytes = vec![];
    for event in events {
        if bytes.is_empty() {
            let mut version = Message::default();
            version.double(1, 0.0);
            version.bytes(3, b"brain.Event:2");
            bytes.extend(record(&version.0));
        }
        bytes.extend(record(&event));
    }
    if bytes.is_empty() {
        let old = folder.join(FILE);
        return match fs::remove_file(&old) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", old, e)),
            _ => Ok(()),
        };
    }
    fs::create_dir_all(folder).map_err(|e| Error::io("create folder", folder, e))?;
    write_atomic(&folder.join(FILE), &bytes)
}

/// A record: length, its checksum, data, their checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let parts = [&length[..], &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()];
    parts.concat()
}

/// CRC-32C, turned and shifted, so that a checksum of data that hold checksums is no accident.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A message of protocol buffers in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
    /// The number of a field and the kind of its encoding.
    fn key(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }
    fn whole(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }
    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }
    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }
}

/// `Event { wall_time = 1, step = 2, summary = 5 }`.
fn event(seconds: f64, step: u64, summary: &Message) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, seconds);
    event.whole(2, step);
    event.bytes(5, &summary.0);
    event.0
}

/// `Summary { repeated value = 1 }`.
fn summary(values: &[Message]) -> Message {
    let mut summary = Message::default();
    values.iter().for_each(|value| summary.bytes(1, &value.0));
    summary
}

/// `Value { tag = 1, simple_value = 2 }` of each figure that there is.
fn scalars(line: &Metrics) -> Vec<Message> {
    let own = [
        ("bound", Some(line.bound)),
        ("reconstruction", Some(line.reconstruction)),
        ("kl", Some(line.kl)),
        ("codes_kl", line.codes_kl),
        ("nll", line.nll),
        ("paper_loss", line.paper_loss),
        ("accuracy", line.accuracy),
        ("bits_per_dimension", line.bits_per_dimension),
        ("epoch", Some(line.epoch as f64)),
        ("train_seconds", Some(line.train_seconds)),
        ("step_ms", Some(line.step_ms)),
    ];
    let named = line.named.iter().map(|(name, value)| (name.as_str(), *value));
    let all = own.into_iter().chain(named).filter_map(|(name, value)| Some((name, value?)));
    all.map(|(name, value)| {
        let mut scalar = Message::default();
        scalar.bytes(1, name.as_bytes());
        scalar.float(2, value as f32);
        scalar
    })
    .collect()
}

/// `Value { tag = 1, image = 4 }` with `Image { height = 1, width = 2, colorspace = 3, encoded_image_string = 4 }`.
fn image(tag: &str, width: u32, height: u32, png: &[u8]) -> [Message; 1] {
    let mut image = Message::default();
    image.whole(1, height.into());
    image.whole(2, width.into());
    image.whole(3, 3); // red, green, blue; readers look into the picture itself
    image.bytes(4, png);
    let mut value = Message::default();
    value.bytes(1, tag.as_bytes());
    value.bytes(4, &image.0);
    [value]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_format() {
        // CRC-32C of 32 zeros, RFC 3720.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        // The first twelve bytes of every event file whose first record has 24 bytes.
        assert_eq!(record(&[0; 24])[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn whole_numbers_have_seven_bits_a_byte() {
        let mut message = Message::default();
        message.whole(1, 300);
        message.whole(2, u64::MAX);
        assert_eq!(message.0[..3], [0x08, 0xac, 0x02]);
        assert_eq!(message.0[3..], [0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    }
}

//! Digests: what a run is known by.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// The SHA-256 of the settings that matter to a run, written as 64 hexadecimal digits: every file of the run that is
/// read again carries it, so that no file of another run is taken for one of this.
///
/// ```
/// use gumbel_run::folder::Digest;
///
/// let run = Digest::of("latent = categorical:10\nseed = 0\n");
/// assert_ne!(run, Digest::of("latent = categorical:10\nseed = 1\n"));
/// assert_eq!(run.to_string().parse::<Digest>().unwrap(), run);
/// assert_eq!(format!("{run:.12}").len(), 12);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of a canonical text: the same settings must always give the same text, other settings another one.
    pub fn of(settings: &str) -> Self {
        Digest(Sha256::digest(settings.as_bytes()).into())
    }

    pub(crate) fn from_hash(hash: Sha256) -> Self {
        Digest(hash.finalize().into())
    }
}

/// All 64 digits; a precision takes the first ones.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected 64 hexadecimal digits, found {text:?}");
        // Lower case only: what is read is written back to the same bytes.
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Digest(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha256_and_read_back() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of("abc").to_string(), hex);
        assert_eq!(serde_json::to_string(&Digest::of("abc")).unwrap(), format!("\"{hex}\""));
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{hex}\"")).unwrap(), Digest::of("abc"));
        for wrong in ["", "ba78", &hex.to_uppercase(), &hex.replace("ba", "bä"), &hex.replace("ba", "+a")] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}

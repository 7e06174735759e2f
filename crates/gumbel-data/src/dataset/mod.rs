//! The data sets: each stands in a file of its own, with its entry, and in the list of [`datasets`].
//!
//! A new one is a new file here, whose `entry` says its name, a line of help, and either its [`FileSpec`]s (names,
//! digests, mirrors) with a reader ([`DatasetEntry::of_files`]) or how it is made ([`DatasetEntry::custom`]); and
//! `new::entry()` in the list. Four IDX files like those of MNIST are a [`four_idx::FourIdx`], a table of digests.

mod celeba;
mod fashion_mnist;
mod four_idx;
mod glyphs;
mod mnist;
mod omniglot;

use gumbel::registry::Entries;

pub use celeba::read_celeba;
pub use fashion_mnist::read_fashion_mnist;
pub use glyphs::{GLYPH_CLASSES, glyphs};
pub use mnist::read_mnist;
pub use omniglot::{read_omniglot_chardata, read_omniglot_zips};

#[cfg(doc)]
use crate::FileSpec;
use crate::{DataError, DatasetEntry};

/// The data sets of this crate. [`Entries::add`] puts more beside them.
///
/// ```
/// assert_eq!(gumbel_data::datasets().names(), ["glyphs", "mnist", "fashion-mnist", "omniglot", "celeba"]);
/// ```
#[must_use]
pub fn datasets() -> Entries<DatasetEntry> {
    let grey = [glyphs::entry(), mnist::entry(), fashion_mnist::entry(), omniglot::entry()];
    Entries::new("dataset", grey.into_iter().chain([celeba::entry()]))
}

/// The data set of this crate that is called `name`; case and `_` for `-` do not matter.
///
/// # Errors
/// [`DataError::Name`] with all names, and the nearest one for a near miss.
///
/// ```
/// use gumbel_data::{Source, info};
///
/// let nowhere = info(&gumbel_data::dataset("mnist")?, &Source::local("/nowhere")).unwrap_err();
/// assert!(nowhere.is_missing());
/// # Ok::<(), gumbel_data::DataError>(())
/// ```
pub fn dataset(name: &str) -> Result<DatasetEntry, DataError> {
    let datasets = datasets();
    let usual = name.trim().to_ascii_lowercase().replace('_', "-");
    // What is not found is reported as it was given.
    let found = datasets.get(&usual).or_else(|_| datasets.get(name));
    Ok(found.cloned()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use gumbel::registry::Entry;

    #[test]
    fn names_and_help_are_complete() {
        for entry in datasets().iter() {
            assert_eq!(dataset(entry.name()).unwrap().name(), entry.name());
            assert!(!entry.help().is_empty() && !entry.help().contains('\n'), "{entry:?}");
            assert!(entry.name().chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        }
        assert_eq!(dataset(" Fashion_MNIST").unwrap().name(), "fashion-mnist");
    }

    #[test]
    fn unknown_names_get_a_suggestion() {
        assert_eq!(
            dataset("fashon-mnist").unwrap_err().to_string(),
            "dataset = \"fashon-mnist\": expected one of glyphs, mnist, fashion-mnist, omniglot, celeba \
             (did you mean fashion-mnist?)"
        );
        let error = dataset("\n\u{1}xyz").unwrap_err().to_string();
        assert!(!error.contains('\n') && !error.contains("did you mean"), "{error}");
        assert!(dataset("cifar").is_err());
    }

    #[test]
    fn digests_are_well_formed() {
        for entry in datasets().iter() {
            assert!(["glyphs", "celeba"].contains(&entry.name()) || entry.forms().iter().any(|form| form.is_public()));
            for file in entry.forms().iter().flat_map(|form| form.files()) {
                // The others can only be provided.
                assert!(file.is_public() || file.name == "chardata.mat" || entry.name() == "celeba");
                for digest in file.digests.iter().chain(file.raw.iter().map(|(_, digest)| digest)) {
                    let (hex, digits) = match digest {
                        Digest::Sha256(hex) => (hex, 64),
                        Digest::Md5(hex) => (hex, 32),
                    };
                    assert!(hex.len() == digits && hex.chars().all(|c| c.is_ascii_hexdigit()), "{digest}");
                }
            }
        }
    }

    #[test]
    fn forms_are_chosen_by_name() {
        let zips = dataset("omniglot").unwrap().with_form("zips").unwrap();
        assert_eq!(zips.forms().iter().map(|form| form.name()).collect::<Vec<_>>(), ["zips"]);
        let error = dataset("omniglot").unwrap().with_form("zip").unwrap_err().to_string();
        assert_eq!(error, "form of omniglot = \"zip\": expected one of chardata, zips (did you mean zips?)");
        assert!(dataset("glyphs").unwrap().with_form("zips").unwrap_err().to_string().contains("expected none"));
    }
}

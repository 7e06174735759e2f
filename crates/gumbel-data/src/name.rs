//! Names of the data sets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::error::lookup;

/// A data set that this crate can provide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum DatasetName {
    /// Generated figures; needs no files. See [`glyphs`](crate::glyphs()).
    Glyphs,
    /// Handwritten digits (LeCun, Cortes and Burges).
    Mnist,
    /// Articles of clothing (Xiao, Rasul and Vollgraf, 2017).
    FashionMnist,
    /// Handwritten characters of 50 alphabets (Lake, Salakhutdinov and Tenenbaum, 2015).
    Omniglot,
}

impl DatasetName {
    /// All names, in the order in which they are listed.
    pub const ALL: [DatasetName; 4] =
        [DatasetName::Glyphs, DatasetName::Mnist, DatasetName::FashionMnist, DatasetName::Omniglot];

    /// The name as it is written, which is also its folder's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DatasetName::Glyphs => "glyphs",
            DatasetName::Mnist => "mnist",
            DatasetName::FashionMnist => "fashion-mnist",
            DatasetName::Omniglot => "omniglot",
        }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DatasetName {
    type Err = DataError;

    fn from_str(name: &str) -> Result<DatasetName, DataError> {
        lookup("data set", name, &DatasetName::ALL.map(|n| (n.as_str(), n)))
    }
}

impl TryFrom<String> for DatasetName {
    type Error = DataError;

    fn try_from(name: String) -> Result<DatasetName, DataError> {
        name.parse()
    }
}

impl From<DatasetName> for &'static str {
    fn from(name: DatasetName) -> &'static str {
        name.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in DatasetName::ALL {
            assert_eq!(name.to_string().parse::<DatasetName>().unwrap(), name);
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<DatasetName>(&json).unwrap(), name);
        }
    }

    #[test]
    fn unknown_names_get_a_suggestion() {
        let error = "fashon-mnist".parse::<DatasetName>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown data set \"fashon-mnist\" (did you mean \"fashion-mnist\"?); \
             expected one of: glyphs, mnist, fashion-mnist, omniglot"
        );
        let error = "\n\u{1}xyz".parse::<DatasetName>().unwrap_err().to_string();
        assert!(!error.contains('\n') && !error.contains("did you mean"), "{error}");
        assert!(serde_json::from_str::<DatasetName>("\"cifar\"").is_err());
    }
}

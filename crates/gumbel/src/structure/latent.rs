//! Latent variables by their names: the registry of structures.
//!
//! A latent is written `name:sizes`. Each structure's file has its [`LatentEntry`]: the name, the form of its sizes,
//! a line of help, and how sizes become a structure.

use super::{
    AnyStructure, Structure, arborescence, categorical, chain, pairwise, permutation, spanning_tree, subset,
    supermodular, tree,
};
use crate::Error;
use crate::registry::{Entries, Entry};
use std::fmt;
use std::sync::Arc;

/// Largest number of potentials of a latent: the encoder's last layer has as many columns.
pub const MAX_POTENTIALS: usize = 1 << 16;

/// All structures of this crate: a new one is a file and a line here.
pub fn latents() -> Entries<LatentEntry> {
    Entries::new(
        "latent",
        [
            categorical::entry(),
            categorical::binary_entry(),
            pairwise::entry(),
            supermodular::entry(),
            chain::entry(),
            tree::entry(),
            subset::entry(),
            permutation::entry(),
            spanning_tree::entry(),
            arborescence::entry(),
        ],
    )
}

/// A latent variable: its structure, and the text that it is written as.
#[derive(Debug, Clone)]
pub struct Latent {
    /// The canonical text: equal latents have equal texts.
    pub text: String,
    /// The structure.
    pub structure: AnyStructure,
}

/// A structure, and the canonical text of its sizes.
pub type Built = (AnyStructure, String);

type Build = dyn Fn(&Sizes<'_>) -> Result<Built, Error> + Send + Sync;

/// A structure in the registry.
#[derive(Clone)]
pub struct LatentEntry {
    name: &'static str,
    form: &'static str,
    help: &'static str,
    build: Arc<Build>,
}

impl LatentEntry {
    /// A name, the form of its sizes such as `N` or `NxK`, a line of help, and how sizes become a structure.
    pub fn new(
        name: &'static str,
        form: &'static str,
        help: &'static str,
        build: impl Fn(&Sizes<'_>) -> Result<Built, Error> + Send + Sync + 'static,
    ) -> Self {
        LatentEntry { name, form, help, build: Arc::new(build) }
    }

    /// How it is written, such as `chain:TxK`.
    pub fn form(&self) -> String {
        self.form.split(" or ").map(|f| format!("{}:{f}", self.name)).collect::<Vec<_>>().join(" or ")
    }
}

impl fmt::Debug for LatentEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LatentEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Entry for LatentEntry {
    fn name(&self) -> &str {
        self.name
    }

    fn help(&self) -> &str {
        self.help
    }
}

impl Entries<LatentEntry> {
    /// The latent variable that a text stands for.
    ///
    /// # Errors
    /// [`Error::Setting`] for unknown names and impossible sizes.
    pub fn parse(&self, text: &str) -> Result<Latent, Error> {
        let (name, sizes) = text.split_once(':').map_or((text, None), |(name, sizes)| (name, Some(sizes)));
        let entry = self.get(name)?;
        let form = entry.form();
        let Some(sizes) = sizes else { return Err(Error::setting("latent", format!("{text:?}"), form)) };
        let sizes = Sizes { text, form: &form, sizes };
        let (structure, canonical) = (entry.build)(&sizes)?;
        sizes.at_most(Some(structure.potentials()))?;
        Ok(Latent { text: format!("{name}:{canonical}"), structure })
    }
}

/// The sizes of a latent, as text.
pub struct Sizes<'a> {
    text: &'a str,
    form: &'a str,
    sizes: &'a str,
}

impl Sizes<'_> {
    /// All that stands behind the colon.
    pub fn as_str(&self) -> &str {
        self.sizes
    }

    /// An error that says what would have been right.
    pub fn refused(&self, expected: impl Into<String>) -> Error {
        Error::setting("latent", format!("{:?}", self.text), expected)
    }

    /// One whole number.
    ///
    /// # Errors
    /// Anything else.
    pub fn whole(&self, text: &str) -> Result<usize, Error> {
        text.parse().map_err(|_| self.refused(format!("{} with whole numbers", self.form)))
    }

    /// Two whole numbers with something between them.
    ///
    /// # Errors
    /// Anything else.
    pub fn pair(&self, by: char) -> Result<(usize, usize), Error> {
        match self.sizes.split_once(by) {
            Some((a, b)) => Ok((self.whole(a)?, self.whole(b)?)),
            None => Err(self.refused(self.form)),
        }
    }

    /// Refuses more potentials than [`MAX_POTENTIALS`], or than an integer holds, before memory is asked for.
    ///
    /// # Errors
    /// Such a number.
    pub fn at_most(&self, potentials: Option<usize>) -> Result<(), Error> {
        match potentials.is_some_and(|p| p <= MAX_POTENTIALS) {
            true => Ok(()),
            false => Err(self.refused(format!("at most {MAX_POTENTIALS} potentials"))),
        }
    }

    /// Refuses variables that carry no information.
    ///
    /// # Errors
    /// Less than one variable, or less than two values.
    pub fn informative(&self, variables: usize, values: usize) -> Result<(), Error> {
        if variables == 0 {
            return Err(self.refused("at least 1 variable"));
        }
        match values < 2 {
            true => Err(self.refused(format!("at least 2 values: a variable with {values} carries no information"))),
            false => Ok(()),
        }
    }

    /// Refuses sizes below `least`, which have one state only.
    ///
    /// # Errors
    /// Such a size.
    pub fn at_least(&self, least: usize, size: usize) -> Result<(), Error> {
        match size < least {
            true => Err(self.refused(format!("at least {least}: fewer have one state only"))),
            false => Ok(()),
        }
    }

    /// Turns an error of a constructor into one of this latent.
    pub fn explain(&self, error: Error) -> Error {
        self.refused(error.to_string())
    }
}

/// Potentials of all pairs of n variables, if their number fits into an integer.
pub fn pairs(n: usize) -> Option<usize> {
    n.checked_mul(n.checked_sub(1)?).map(|p| p / 2)
}

/// Potentials of n variables with k values and a table for each of n - 1 edges.
pub fn tables(n: usize, k: usize) -> Option<usize> {
    n.checked_mul(k)?.checked_add(n.checked_sub(1)?.checked_mul(k.checked_mul(k)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latents_parse_and_print() {
        for text in [
            "categorical:10",
            "categorical:3x4",
            "binary:15",
            "pairwise:15",
            "supermodular:15",
            "chain:4x3",
            "tree:7x2",
            "tree:3:0,0,1,1,1",
            "tree:2:0",
            "subset:10,3",
            "permutation:5",
            "spanning-tree:6",
            "arborescence:5",
        ] {
            let parsed = latents().parse(text).unwrap();
            assert!(parsed.structure.potentials() > 0);
            if text == "tree:2:0" {
                assert_eq!(parsed.text, "tree:2x2");
                continue;
            }
            assert_eq!(parsed.text, text);
        }
        for (text, expected) in [
            ("categorical:0", "at least 2 values"),
            ("categorical:1", "at least 2 values"),
            ("categorical:0x4", "at least 1 variable"),
            ("categorical:ten", "whole numbers"),
            ("categorical", "categorical:K"),
            ("categorial:10", "did you mean categorical?"),
            ("pairwize:3", "did you mean pairwise?"),
            ("spaning-tree:3", "did you mean spanning-tree?"),
            ("pairwise", "pairwise:N"),
            ("pairwise:0", "at least 1 variable"),
            ("pairwise:2000", "at most"),
            ("pairwise:18446744073709551615", "at most"),
            ("supermodular:3x4", "supermodular:N with whole numbers"),
            ("chain:5", "chain:TxK"),
            ("chain:4x1", "at least 2 values"),
            ("chain:99999999999x99999999999", "at most"),
            ("tree:0x2", "1 to 65536 variables"),
            ("tree:2:0,2", "a parent of variable 2 from 0 to 1, not 2"),
            ("tree:2:", "whole numbers"),
            ("subset:5", "subset:N,K"),
            ("subset:5,5", "1 to N - 1"),
            ("permutation:1", "at least 2"),
            ("permutation:999999999999", "at most"),
            ("spanning-tree:2", "at least 3"),
            ("arborescence:-1", "whole numbers"),
            ("binary:-1", "whole numbers"),
            ("categorical:99999999999", "at most"),
        ] {
            let message = latents().parse(text).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains('\n'), "{text}: {message}");
        }
    }
}

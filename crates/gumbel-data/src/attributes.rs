//! What is known of each image beside its class: yes, no or unknown, attribute by attribute.

use std::collections::HashSet;

use gumbel::registry::one_of;

use crate::DataError;
use crate::error::printable;

/// Named properties of images, such as "Smiling": each image has each of them, has it not, or it is unknown.
///
/// They belong to [`Images`](crate::Images), whose every part and selection keeps its rows.
///
/// ```
/// use gumbel_data::Attributes;
///
/// let names = vec!["Smiling".to_string(), "Wearing_Hat".to_string()];
/// let faces = Attributes::new(names, vec![1, -1, 0, 1])?; // two images
/// assert_eq!(faces.get(0, faces.position("wearing-hat")?), Some(false));
/// assert_eq!((faces.get(1, 0), faces.of(1)), (None, Some(&[0, 1][..])));
/// let unknown = faces.position("Smilling").unwrap_err().to_string();
/// assert!(unknown.ends_with("expected one of Smiling, Wearing_Hat (did you mean Smiling?)"));
/// # Ok::<(), gumbel_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    names: Vec<String>,
    values: Vec<i8>,
}

impl Attributes {
    /// Attributes called `names`, with `values` `[count, names]`: -1 for no, 0 for unknown, 1 for yes.
    ///
    /// # Errors
    /// [`DataError::Argument`] without names, if a name is empty, cannot be printed or stands there twice, if the
    /// values are not a whole number of rows, or if one is not -1, 0 or 1.
    pub fn new(names: Vec<String>, values: Vec<i8>) -> Result<Attributes, DataError> {
        let mut seen = HashSet::new();
        for name in &names {
            if name.is_empty() || printable(name) != name.as_str() {
                return Err(DataError::argument("name of an attribute", "a printable text", name));
            }
            if !seen.insert(name) {
                return Err(DataError::argument("names of attributes", "each of them once", format!("{name} twice")));
            }
        }
        if names.is_empty() {
            return Err(DataError::argument("names of attributes", "at least 1", "none"));
        }
        if !values.len().is_multiple_of(names.len()) {
            let expected = format!("a multiple of {}", names.len());
            return Err(DataError::argument("values of attributes", expected, values.len()));
        }
        if let Some(value) = values.iter().find(|value| !(-1..=1).contains(*value)) {
            return Err(DataError::argument("value of an attribute", "-1, 0 or 1", value));
        }
        Ok(Attributes { names, values })
    }

    /// The names, in the order of the columns.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Number of images.
    #[must_use]
    pub fn count(&self) -> usize {
        self.values.len() / self.names.len()
    }

    /// All values `[count, names]`: -1 for no, 0 for unknown, 1 for yes.
    #[must_use]
    pub fn values(&self) -> &[i8] {
        &self.values
    }

    /// The values `[names]` of one image; `None` beyond the last.
    #[must_use]
    pub fn of(&self, image: usize) -> Option<&[i8]> {
        let start = image.checked_mul(self.names.len())?;
        self.values.get(start..start.checked_add(self.names.len())?)
    }

    /// Has the image the attribute in this column? `None` if it is unknown, and beyond the last image or column.
    #[must_use]
    pub fn get(&self, image: usize, column: usize) -> Option<bool> {
        match self.of(image)?.get(column)? {
            0 => None,
            value => Some(*value > 0),
        }
    }

    /// The column of the attribute `name`. Case, and `-` for `_`, do not matter where no name is exactly this.
    ///
    /// # Errors
    /// [`DataError::Name`] with all names, and the nearest one for a near miss.
    pub fn position(&self, name: &str) -> Result<usize, DataError> {
        let usual = |name: &str| name.trim().to_ascii_lowercase().replace('-', "_");
        let exact = self.names.iter().position(|n| n == name);
        let found = exact.or_else(|| self.names.iter().position(|n| usual(n) == usual(name)));
        found.ok_or_else(|| {
            let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
            gumbel::Error::setting("attribute", format!("{name:?}"), one_of(name, &names)).into()
        })
    }

    /// The share of images that have the attribute in this column, in `[0, 1]`, among those of which it is known;
    /// `None` if it is known of none.
    #[must_use]
    pub fn share(&self, column: usize) -> Option<f64> {
        let rows = self.values.chunks_exact(self.names.len());
        let [yes, known] = rows
            .filter_map(|row| row.get(column))
            .fold([0usize; 2], |[yes, known], value| [yes + usize::from(*value > 0), known + usize::from(*value != 0)]);
        (known > 0).then(|| yes as f64 / known as f64)
    }

    /// Only the attributes called `names`, in this order.
    ///
    /// # Errors
    /// Those of [`position`](Attributes::position); [`DataError::Argument`] for no names or one that is given twice.
    pub fn choose(&self, names: &[impl AsRef<str>]) -> Result<Attributes, DataError> {
        let columns = self.positions(names)?;
        let names = columns.iter().map(|column| self.names[*column].clone()).collect();
        let rows = self.values.chunks_exact(self.names.len());
        Attributes::new(names, rows.flat_map(|row| columns.iter().map(|column| row[*column])).collect())
    }

    /// The column of each of `names`, which are different.
    pub(crate) fn positions(&self, names: &[impl AsRef<str>]) -> Result<Vec<usize>, DataError> {
        if names.is_empty() {
            return Err(DataError::argument("chosen attributes", "at least 1", "none"));
        }
        let mut columns = Vec::new();
        for name in names {
            let column = self.position(name.as_ref())?;
            if columns.contains(&column) {
                let found = format!("{} twice", self.names[column]);
                return Err(DataError::argument("chosen attributes", "each of them once", found));
            }
            columns.push(column);
        }
        Ok(columns)
    }

    /// Keeps the first `count` images.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.values.truncate(count.saturating_mul(self.names.len()));
    }

    /// Keeps the first `count` images and gives the others; `count` is not more than there are.
    pub(crate) fn split_off(&mut self, count: usize) -> Attributes {
        Attributes { names: self.names.clone(), values: self.values.split_off(count * self.names.len()) }
    }

    /// The images at `order`, in that order. Indices out of range are skipped.
    pub(crate) fn select(&self, order: &[usize]) -> Attributes {
        let values = order.iter().filter_map(|i| self.of(*i)).flatten().copied().collect();
        Attributes { names: self.names.clone(), values }
    }

    /// These images and then `others`.
    ///
    /// # Errors
    /// [`DataError::Argument`] if the names differ.
    pub(crate) fn followed_by(&self, others: &Attributes) -> Result<Attributes, DataError> {
        if self.names != others.names {
            return Err(DataError::argument("attributes", self.names.join(", "), others.names.join(", ")));
        }
        Ok(Attributes { names: self.names.clone(), values: [&self.values[..], &others.values].concat() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn three() -> Attributes {
        Attributes::new(names(&["Bald", "Male", "5_o_Clock_Shadow"]), vec![1, -1, 0, -1, -1, 1, 0, 1, 1, 1, 1, -1])
            .unwrap()
    }

    #[test]
    fn rows_and_columns() {
        let a = three();
        assert_eq!((a.count(), a.names().len(), a.values().len()), (4, 3, 12));
        assert_eq!((a.of(3), a.of(4), a.of(usize::MAX)), (Some(&[1, 1, -1][..]), None, None));
        assert_eq!([a.get(0, 0), a.get(0, 1), a.get(0, 2), a.get(0, 3)], [Some(true), Some(false), None, None]);
        // Of three known images two.
        assert_eq!([a.share(0), a.share(1), a.share(7)], [Some(2.0 / 3.0), Some(0.5), None]);
        assert_eq!(Attributes::new(names(&["a"]), vec![0, 0]).unwrap().share(0), None);
    }

    #[test]
    fn names_are_found_and_suggested() {
        let a = three();
        assert_eq!((a.position("Male").unwrap(), a.position(" 5-O-clock-shadow").unwrap()), (1, 2));
        let both = Attributes::new(names(&["male", "Male"]), vec![]).unwrap();
        assert_eq!((both.position("Male").unwrap(), both.position("MALE").unwrap()), (1, 0));
        let error = a.position("Mael\n").unwrap_err();
        assert!(matches!(error, DataError::Name(_)));
        let error = error.to_string();
        assert!(error.contains("expected one of Bald, Male, 5_o_Clock_Shadow") && !error.contains('\n'), "{error}");
        assert!(a.position("Bold").unwrap_err().to_string().contains("did you mean Bald?"));
    }

    #[test]
    fn columns_are_chosen_in_order() {
        let chosen = three().choose(&["5_o_Clock_Shadow", "bald"]).unwrap();
        assert_eq!(chosen.names(), ["5_o_Clock_Shadow", "Bald"]);
        assert_eq!(chosen.values(), [0, 1, 1, -1, 1, 0, -1, 1]);
        let message = |names: &[&str]| three().choose(names).unwrap_err().to_string();
        assert_eq!(message(&["Male", "male"]), "chosen attributes: expected each of them once, found Male twice");
        assert!(message(&[]).contains("at least 1") && message(&["Hat"]).contains("\"Hat\""));
    }

    #[test]
    fn bad_values_are_refused() {
        let message =
            |list: &[&str], values: &[i8]| Attributes::new(names(list), values.to_vec()).unwrap_err().to_string();
        assert!(message(&[], &[]).contains("at least 1, found none"));
        assert!(message(&["a", "b"], &[1, 1, 1]).contains("a multiple of 2, found 3"));
        assert!(message(&["a"], &[2]).contains("expected -1, 0 or 1, found 2"));
        assert!(message(&["a"], &[i8::MIN]).contains("found -128"));
        assert!(message(&["a", "a"], &[]).contains("a twice"));
        assert!(message(&[""], &[]).contains("printable"));
        assert!(message(&["a\u{1b}"], &[]).contains("found a\\u{1b}"));
    }

    #[test]
    fn parts_keep_their_rows() {
        let whole = three();
        let mut head = whole.clone();
        let tail = head.split_off(1);
        assert_eq!((head.count(), tail.of(0)), (1, whole.of(1)));
        assert_eq!(head.followed_by(&tail).unwrap(), whole);
        assert_eq!(whole.select(&[3, 9, 0]).values(), [1, 1, -1, 1, -1, 0]);
        assert!(whole.followed_by(&whole.choose(&["Male"]).unwrap()).is_err());
        head.truncate(usize::MAX);
        assert_eq!(head.count(), 1);
        head.truncate(0);
        assert_eq!(head.count(), 0);
    }
}

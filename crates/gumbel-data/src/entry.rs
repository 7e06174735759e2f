//! What a data set is to a program: a name, a line of help, and either files with a reader or a function that makes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gumbel::registry::{Entry, one_of};
use serde::Serialize;

use crate::error::NotFetched;
use crate::fetch::{Progress, fetch_file};
use crate::files::{Digest, FileSpec};
use crate::source::{Limits, Source};
use crate::{DataError, Dataset, PixelKind};

type Maker = Arc<dyn Fn(&Source, Limits) -> Result<Dataset, DataError> + Send + Sync>;
type Reader = Arc<dyn Fn(&[PathBuf], Option<&Path>) -> Result<Dataset, DataError> + Send + Sync>;
type Bytes = Arc<dyn Fn() -> Result<Vec<u8>, DataError> + Send + Sync>;

/// A data set that can be listed, verified, fetched and loaded by its name.
///
/// One of this crate's own comes from [`datasets`](crate::datasets); one of yours from [`DatasetEntry::custom`] or
/// [`DatasetEntry::of_files`], and stands beside the others once it is added to the registry:
///
/// ```
/// use gumbel_data::{Dataset, DatasetEntry, Images, Limits, Source};
///
/// let stripes = DatasetEntry::custom("stripes", "horizontal and vertical stripes", |_, limits| {
///     let images = |count: usize| {
///         let pixels = (0..count).flat_map(|i| if i % 2 == 0 { [255, 255, 0, 0] } else { [255, 0, 255, 0] });
///         Images::new(2, 2, pixels.collect(), Some((0..count).map(|i| (i % 2) as u16).collect()))
///     };
///     let classes = vec!["horizontal".to_string(), "vertical".to_string()];
///     let train = limits.train.unwrap_or(1000).min(1000);
///     Dataset::new("stripes", "made", classes, [images(train)?, images(100)?, images(100)?])
/// });
/// let mut registry = gumbel_data::datasets();
/// registry.add(stripes);
/// let entry = registry.get("stripes")?;
/// let limits = Limits { train: Some(10), eval: Some(4) };
/// let data = gumbel_data::load_first(entry, &Source::default(), limits, &mut |_| {})?;
/// assert_eq!((data.train.count(), data.test.count()), (10, 4));
/// # Ok::<(), gumbel_data::DataError>(())
/// ```
#[derive(Clone)]
pub struct DatasetEntry {
    name: String,
    help: String,
    pixels: PixelKind,
    suited: &'static [(&'static str, &'static str)],
    content: Content,
}

#[derive(Clone)]
pub(crate) enum Content {
    /// Comes out of a function; nothing here knows of files.
    Made { make: Maker, check: Option<MadeCheck> },
    /// Read from files, in the first form that is there.
    Files(Vec<Form>),
}

/// Bytes that a function makes, and their digest.
#[derive(Clone)]
pub(crate) struct MadeCheck {
    pub what: String,
    pub expected: Digest,
    pub bytes: Bytes,
}

/// One set of files that holds a whole data set, with its reader; a data set may come in several.
#[derive(Clone)]
pub struct Form {
    name: String,
    files: Vec<FileSpec>,
    read: Reader,
}

impl Form {
    /// A form called `name`, whose `files` are read by `read`: their paths come in the order of `files`.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        files: Vec<FileSpec>,
        read: impl Fn(&[PathBuf]) -> Result<Dataset, DataError> + Send + Sync + 'static,
    ) -> Form {
        Form { name: name.into(), files, read: Arc::new(move |paths, _| read(paths)) }
    }

    /// Like [`new`](Form::new), for files that are slow to read: `read` is also given the folder in which it may keep
    /// what it made of them, if one is known. It may not exist yet.
    #[must_use]
    pub fn cached(
        name: impl Into<String>,
        files: Vec<FileSpec>,
        read: impl Fn(&[PathBuf], Option<&Path>) -> Result<Dataset, DataError> + Send + Sync + 'static,
    ) -> Form {
        Form { name: name.into(), files, read: Arc::new(read) }
    }

    /// What the form is called, among those of its data set.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[FileSpec] {
        &self.files
    }

    /// Can all files be fetched and recognised?
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.files.iter().all(FileSpec::is_public)
    }

    /// The files that are not in `folder`.
    fn absent<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a FileSpec> {
        self.files.iter().filter(move |file| file.locate(folder).is_none())
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Form").field("name", &self.name).field("files", &self.files).finish_non_exhaustive()
    }
}

impl fmt::Debug for DatasetEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entry = f.debug_struct("DatasetEntry");
        entry.field("name", &self.name).field("help", &self.help).field("forms", &self.forms()).finish_non_exhaustive()
    }
}

impl Entry for DatasetEntry {
    fn name(&self) -> &str {
        &self.name
    }

    fn help(&self) -> &str {
        &self.help
    }
}

impl DatasetEntry {
    /// A data set that `make` makes, or reads from wherever it likes: [`Source::folder`] gives it a folder of its own.
    ///
    /// `make` may heed the limits, to save work; what is over them is cut off in any case.
    #[must_use]
    pub fn custom(
        name: impl Into<String>,
        help: impl Into<String>,
        make: impl Fn(&Source, Limits) -> Result<Dataset, DataError> + Send + Sync + 'static,
    ) -> DatasetEntry {
        let content = Content::Made { make: Arc::new(make), check: None };
        DatasetEntry { name: name.into(), help: help.into(), pixels: PixelKind::default(), suited: &[], content }
    }

    /// A data set that is read from files, which are found, fetched and verified here.
    ///
    /// Of several `forms`, the first is read whose files are all there. Where none is, the first that is
    /// [public](Form::is_public) is fetched, if that is allowed.
    #[must_use]
    pub fn of_files(name: impl Into<String>, help: impl Into<String>, forms: Vec<Form>) -> DatasetEntry {
        let content = Content::Files(forms);
        DatasetEntry { name: name.into(), help: help.into(), pixels: PixelKind::default(), suited: &[], content }
    }

    /// Lets [`verify`](crate::verify) compare `bytes`, which are `what` of a data set that is made, with their digest:
    /// that this machine makes the same. No change to a data set that is read from files, which have their own digests.
    #[must_use]
    pub fn with_check(
        mut self,
        what: impl Into<String>,
        expected: Digest,
        bytes: impl Fn() -> Result<Vec<u8>, DataError> + Send + Sync + 'static,
    ) -> DatasetEntry {
        if let Content::Made { check, .. } = &mut self.content {
            *check = Some(MadeCheck { what: what.into(), expected, bytes: Arc::new(bytes) });
        }
        self
    }

    /// Says what its pixels are; [`PixelKind::Ink`] where nobody does.
    #[must_use]
    pub fn with_pixels(mut self, pixels: PixelKind) -> DatasetEntry {
        self.pixels = pixels;
        self
    }

    /// What its pixels are.
    #[must_use]
    pub fn pixels(&self) -> PixelKind {
        self.pixels
    }

    /// Says which settings of a run suit it, as keys and values: a program may take them where nobody has said any of
    /// them. None where nobody says so.
    #[must_use]
    pub fn with_suited(mut self, settings: &'static [(&'static str, &'static str)]) -> DatasetEntry {
        self.suited = settings;
        self
    }

    /// Which settings of a run suit it.
    #[must_use]
    pub fn suited(&self) -> &'static [(&'static str, &'static str)] {
        self.suited
    }

    /// The same data set in one of its forms only.
    ///
    /// # Errors
    /// [`DataError::Name`] if it has no form of this name.
    ///
    /// ```
    /// let omniglot = gumbel_data::dataset("omniglot")?;
    /// assert_eq!(omniglot.forms().len(), 2);
    /// assert_eq!(omniglot.with_form("chardata")?.forms()[0].files()[0].name, "chardata.mat");
    /// # Ok::<(), gumbel_data::DataError>(())
    /// ```
    pub fn with_form(mut self, name: &str) -> Result<DatasetEntry, DataError> {
        let form = self.forms().iter().find(|form| form.name == name).cloned();
        let names: Vec<&str> = self.forms().iter().map(Form::name).collect();
        let form = form.ok_or_else(|| {
            let expected =
                if names.is_empty() { "none: it is not read from files".into() } else { one_of(name, &names) };
            gumbel::Error::setting(format!("form of {}", self.name), format!("{name:?}"), expected)
        })?;
        self.content = Content::Files(vec![form]);
        Ok(self)
    }

    /// The forms in which it may be read; none if it is made.
    #[must_use]
    pub fn forms(&self) -> &[Form] {
        match &self.content {
            Content::Made { .. } => &[],
            Content::Files(forms) => forms,
        }
    }

    /// How it comes to be.
    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// The form that is, or would be, read from `folder`; `None` if it is made.
    pub(crate) fn form_in(&self, folder: &Path) -> Option<&Form> {
        // Of what is there in part, that of which the least is missing.
        let begun = |form: &&Form| form.absent(folder).count() < form.files.len();
        let found = self.forms().iter().filter(begun).min_by_key(|form| form.absent(folder).count());
        found.or_else(|| self.to_fetch())
    }

    /// The form that is fetched: the first public one, or simply the first.
    fn to_fetch(&self) -> Option<&Form> {
        self.forms().iter().find(|form| form.is_public()).or(self.forms().first())
    }

    /// The error for files of `form` that are not in `folder`.
    pub(crate) fn missing(&self, form: &Form, folder: &Path, why: NotFetched) -> DataError {
        let absent: Vec<&FileSpec> = form.absent(folder).collect();
        let mut instead = Vec::new();
        let unpacked = |file: &FileSpec| file.raw.as_ref().is_some_and(|(raw, _)| file.name == format!("{raw}.gz"));
        if !absent.is_empty() && absent.iter().all(|file| unpacked(file)) {
            instead.push("each with or without .gz".to_string());
        }
        for other in self.forms().iter().filter(|other| other.name != form.name) {
            let names: Vec<&str> = other.files.iter().map(|file| file.name.as_str()).collect();
            instead.push(format!("or {}", names.join(" + ")));
        }
        DataError::Missing {
            dataset: self.name.clone(),
            folder: folder.to_path_buf(),
            missing: absent.into_iter().map(|file| file.name.clone()).collect(),
            instead: instead.join("; "),
            why,
        }
    }

    /// Reads the data set from the files in `folder`, as they are. Fetches nothing, and uses no cache.
    ///
    /// # Errors
    /// [`DataError::Missing`] if files are missing, and what the reader of the data set says of their content.
    /// [`DataError::Argument`] for a data set that is made.
    pub fn read(&self, folder: &Path) -> Result<Dataset, DataError> {
        self.read_cached(folder, None)
    }

    /// The same, where what was slow to read may be kept in the folder `cache`.
    pub(crate) fn read_cached(&self, folder: &Path, cache: Option<&Path>) -> Result<Dataset, DataError> {
        let form = self.form_in(folder);
        let form = form.ok_or_else(|| DataError::argument("data set to read", "one that has files", &self.name))?;
        let paths: Vec<PathBuf> = form.files.iter().filter_map(|file| file.locate(folder)).collect();
        if paths.len() < form.files.len() {
            let public = self.forms().iter().any(Form::is_public);
            return Err(self.missing(
                form,
                folder,
                if public { NotFetched::NotAsked } else { NotFetched::NoPublicCopy },
            ));
        }
        self.own((form.read)(&paths, cache)?)
    }

    /// What a reader or maker gave, under this entry's name, if it is sound.
    fn own(&self, data: Dataset) -> Result<Dataset, DataError> {
        Dataset { name: self.name.clone(), ..data }.checked()
    }
}

/// Why files of `form` may not be fetched, if so.
fn forbidden(form: &Form, source: &Source) -> Option<NotFetched> {
    if !form.is_public() {
        Some(NotFetched::NoPublicCopy)
    } else if source.data_dir.is_some() {
        Some(NotFetched::DataFolder)
    } else {
        source.offline.then_some(NotFetched::Offline)
    }
}

/// One file, as [`fetch`] found or made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FetchedFile {
    /// Name of the file.
    pub file: String,
    /// Where it is.
    #[serde(serialize_with = "crate::files::path_text")]
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// Makes sure that good copies of all files of a data set are in the cache; damaged ones are replaced.
///
/// Where fetching is not allowed (a data folder is given, or offline), the files that are there are checked. A data set
/// that is made needs none.
///
/// # Errors
/// [`DataError::Missing`] and [`DataError::Checksum`] if files that may not be fetched are missing or damaged, and
/// those of [`fetch_file`].
pub fn fetch(
    entry: &DatasetEntry,
    source: &Source,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<FetchedFile>, DataError> {
    let Some(form) = entry.to_fetch() else { return Ok(Vec::new()) };
    let folder = source.folder(&entry.name)?;
    let forbidden = forbidden(form, source);
    let form = if forbidden.is_some() { entry.form_in(&folder).unwrap_or(form) } else { form };
    form.files
        .iter()
        .map(|file| {
            let good = |path: &PathBuf| file.check(path).and_then(|found| found.into_result(path)).is_ok();
            let path = match forbidden {
                None => match file.locate(&folder).filter(good) {
                    Some(path) => path, // it may be an unpacked one
                    None => {
                        fetch_file(&source.fetch.redirect(&entry.name, file.clone()), &folder, &source.fetch, progress)?
                    }
                },
                Some(why) => {
                    let path = file.locate(&folder).ok_or_else(|| entry.missing(form, &folder, why))?;
                    file.check(&path)?.into_result(&path)?;
                    path
                }
            };
            let bytes = path.metadata().map_err(DataError::io("read", &path))?.len();
            Ok(FetchedFile { file: file.name.clone(), path, bytes })
        })
        .collect()
}

/// Loads a data set: makes it, or reads it from where `source` says, fetching what is missing if it may.
///
/// `glyphs` is made whole, with seed 0. Files that are present are read as they are (see [`verify`](crate::verify) for
/// their digests); fetched files are verified.
///
/// # Errors
/// [`DataError::Missing`], naming the folder and the files, if files are missing and may not be fetched; the errors of
/// [`fetch_file`], and what the reader or the maker of the data set says.
pub fn load(
    entry: &DatasetEntry,
    source: &Source,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Dataset, DataError> {
    load_first(entry, source, Limits::default(), progress)
}

/// Like [`load`], but only the first images of each split; for `glyphs`, the others are not even made.
///
/// # Errors
/// Those of [`load`].
pub fn load_first(
    entry: &DatasetEntry,
    source: &Source,
    limits: Limits,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Dataset, DataError> {
    let data = match &entry.content {
        Content::Made { make, .. } => entry.own(make(source, limits)?)?,
        Content::Files(_) => {
            let folder = source.folder(&entry.name)?;
            complete(entry, &folder, source, progress)?;
            entry.read_cached(&folder, source.cache_folder(&entry.name).ok().as_deref())?
        }
    };
    Ok(data.limit(limits.train, limits.eval))
}

/// Fetches what is missing in `folder`.
fn complete(
    entry: &DatasetEntry,
    folder: &Path,
    source: &Source,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), DataError> {
    let Some(form) = entry.form_in(folder) else { return Ok(()) };
    for file in form.absent(folder) {
        if let Some(why) = forbidden(form, source) {
            return Err(entry.missing(form, folder, why));
        }
        fetch_file(&source.fetch.redirect(&entry.name, file.clone()), folder, &source.fetch, progress)?;
    }
    Ok(())
}

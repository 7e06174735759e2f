//! The solvers of gumbel behind a C interface: `include/gumbel.h` says what each function does.
//!
//! A thin layer on [`gumbel::batch`]: it checks pointers and sizes, makes slices of them, turns errors into codes and a
//! message for each thread, and lets no panic pass. A test compares the header with the signatures here.

#![deny(missing_docs)]
// Pointers come from C. Each block says what makes it sound: what the header asks of the caller, and what is checked.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "the contract of every function is the one below, and the header")]

use gumbel::batch::Batch;
use gumbel::structure::{
    AnyStructure, Arborescence, Categorical, Chain, Pairwise, Permutation, SpanningTree, Structure as _, Subset,
    Supermodular, Tree,
};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::slice::{from_raw_parts, from_raw_parts_mut};
use std::time::Duration;

/// All is well.
pub const GUMBEL_OK: i32 = 0;
/// A null pointer, or a size that is not that of the structure.
pub const GUMBEL_USAGE: i32 = 1;
/// Refused by the library.
pub const GUMBEL_REFUSED: i32 = 2;
/// An error of the library.
pub const GUMBEL_INTERNAL: i32 = 3;

/// What C holds a pointer to.
#[expect(non_camel_case_types, reason = "its name in C")]
pub struct gumbel_structure(Batch);

/// A code, and the message that goes with it.
struct Failure(i32, String);

impl From<gumbel::Error> for Failure {
    fn from(error: gumbel::Error) -> Self {
        Failure(GUMBEL_REFUSED, error.to_string())
    }
}

fn usage(text: impl Into<String>) -> Failure {
    Failure(GUMBEL_USAGE, text.into())
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Turns errors and panics into codes; the message is kept for the thread.
fn guarded(call: impl FnOnce() -> Result<(), Failure>) -> i32 {
    // What a panic leaves of a structure is its working memory, which is then lost, not used again.
    let Failure(code, text) = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return GUMBEL_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref().map(String::as_str));
            let text = format!("an error of gumbel: {}", text.unwrap_or("no message").replace('\n', " "));
            // A payload whose own end panics must not take the program with it.
            std::mem::forget(panic);
            Failure(GUMBEL_INTERNAL, text)
        }
    };
    let text = CString::new(text.replace('\0', "?")).unwrap_or_default();
    // A thread that is ending has no message any more.
    let _ = LAST.try_with(|last| last.replace(text));
    code
}

/// Null, or a length that no memory has, is an error of the caller.
fn check<T>(name: &str, array: *const T, length: usize) -> Result<(), Failure> {
    if array.is_null() {
        return Err(usage(format!("{name} is NULL: expected an array of {length}")));
    }
    if !array.is_aligned() {
        return Err(usage(format!("{name} is not aligned to {} bytes", align_of::<T>())));
    }
    match length.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= isize::MAX as usize) {
        true => Ok(()),
        false => Err(usage(format!("{name} would have {length} numbers: more than there is memory"))),
    }
}

/// An array that is read; of no numbers the pointer does not matter.
///
/// # Safety
/// If it is not null, `length` numbers are there, and nobody changes them meanwhile.
unsafe fn input<'a, T>(name: &str, array: *const T, length: usize) -> Result<&'a [T], Failure> {
    if length == 0 {
        return Ok(&[]);
    }
    check(name, array, length)?;
    // SAFETY: it is aligned, not null and of a length that fits, and its numbers are there as the caller promises.
    Ok(unsafe { from_raw_parts(array, length) })
}

/// An array that is written.
///
/// # Safety
/// If it is not null, there is room for `length` numbers, and nobody else uses them meanwhile. Any bits are a `T`.
unsafe fn output<'a, T>(name: &str, array: *mut T, length: usize) -> Result<&'a mut [T], Failure> {
    if length == 0 {
        return Ok(&mut []);
    }
    check(name, array, length)?;
    // SAFETY: it is aligned, not null and of a length that fits; the caller promises the room, and that it is ours.
    Ok(unsafe { from_raw_parts_mut(array, length) })
}

/// # Safety
/// If it is not null, a constructor has made it, and nobody closes it meanwhile.
unsafe fn opened<'a>(structure: *const gumbel_structure) -> Result<&'a Batch, Failure> {
    // SAFETY: a constructor has made it of a box that is still there, as the caller promises.
    match unsafe { structure.as_ref() } {
        Some(structure) => Ok(&structure.0),
        None => Err(usage("structure is NULL")),
    }
}

/// Number of potentials of a whole batch, after a look at those of one example.
fn potentials(structure: &Batch, batch: usize, found: usize) -> Result<usize, Failure> {
    let expected = structure.structure().potentials();
    if found != expected {
        return Err(usage(format!("potentials = {found}: expected {expected}")));
    }
    batch.checked_mul(found).ok_or_else(|| usage(format!("batch = {batch}: more than there is memory")))
}

/// Writes what is made, or NULL.
///
/// # Safety
/// If it is not null, there is room for a pointer.
unsafe fn make(out: *mut *mut gumbel_structure, made: impl FnOnce() -> Result<Batch, Failure>) -> i32 {
    guarded(|| {
        check("out", out, 1)?;
        // SAFETY: it is aligned and not null, and the caller promises the room.
        unsafe { out.write(null_mut()) };
        let made = Box::into_raw(Box::new(gumbel_structure(made()?)));
        // SAFETY: as above.
        unsafe { out.write(made) };
        Ok(())
    })
}

fn batch(structure: impl Into<AnyStructure>) -> Result<Batch, Failure> {
    Ok(Batch::new(structure)?)
}

/// # Safety
/// As [`input`], of `[edges, 2]`.
unsafe fn edges(ends: *const u32, edges: usize) -> Result<Vec<(usize, usize)>, Failure> {
    let length = edges.checked_mul(2).ok_or_else(|| usage(format!("edges = {edges}: more than there is memory")))?;
    // SAFETY: the caller promises that the numbers are there.
    let ends = unsafe { input("ends", ends, length) }?;
    Ok(ends.chunks_exact(2).map(|e| (e[0] as usize, e[1] as usize)).collect())
}

/// The version.
#[unsafe(no_mangle)]
pub extern "C" fn gumbel_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
    VERSION.as_ptr()
}

/// The message of the last call of this thread that failed.
#[unsafe(no_mangle)]
pub extern "C" fn gumbel_last_error() -> *const c_char {
    // The text stays where it is until it is replaced by the next failure of this thread.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// A product of categorical variables.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_categorical(variables: usize, values: usize, out: *mut *mut gumbel_structure) -> i32 {
    // SAFETY: the caller's promise about `out`.
    unsafe { make(out, || batch(Categorical::product(variables, values)?)) }
}

/// A pairwise binary model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_pairwise(variables: usize, out: *mut *mut gumbel_structure) -> i32 {
    // SAFETY: the caller's promise about `out`.
    unsafe { make(out, || Ok(Batch::pairwise(Pairwise::new(variables)?)?)) }
}

/// A pairwise binary model with weights of at least 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_supermodular(variables: usize, out: *mut *mut gumbel_structure) -> i32 {
    // SAFETY: the caller's promise about `out`.
    unsafe { make(out, || batch(Supermodular::new(variables)?)) }
}

/// A chain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_chain(variables: usize, values: usize, out: *mut *mut gumbel_structure) -> i32 {
    // SAFETY: the caller's promise about `out`.
    unsafe { make(out, || batch(Chain::new(variables, values)?)) }
}

/// A tree or forest.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_tree(
    variables: usize,
    values: usize,
    ends: *const u32,
    edges: usize,
    out: *mut *mut gumbel_structure,
) -> i32 {
    // SAFETY: the caller's promises about `ends` and `out`.
    unsafe { make(out, || batch(Tree::new(variables, values, &self::edges(ends, edges)?)?)) }
}

/// Subsets of a size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_subset(elements: usize, chosen: usize, out: *mut *mut gumbel_structure) -> i32 {
    // SAFETY: the caller's promise about `out`.
    unsafe { make(out, || batch(Subset::new(elements, chosen)?)) }
}

/// Permutations.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_permutation(size: usize, out: *mut *mut gumbel_structure) -> i32 {
    // SAFETY: the caller's promise about `out`.
    unsafe { make(out, || batch(Permutation::new(size)?)) }
}

/// Spanning trees of a graph, or of the complete one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_spanning_tree(
    nodes: usize,
    ends: *const u32,
    edges: usize,
    out: *mut *mut gumbel_structure,
) -> i32 {
    let made = || match ends.is_null() && edges == 0 {
        true => batch(SpanningTree::complete(nodes)?),
        // SAFETY: the caller's promise about `ends`.
        false => batch(SpanningTree::new(nodes, &unsafe { self::edges(ends, edges) }?)?),
    };
    // SAFETY: the caller's promise about `out`.
    unsafe { make(out, made) }
}

/// Arborescences from a root.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_arborescence(nodes: usize, root: usize, out: *mut *mut gumbel_structure) -> i32 {
    // SAFETY: the caller's promise about `out`.
    unsafe { make(out, || batch(Arborescence::new(nodes, root)?)) }
}

/// Frees a structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_close(structure: *mut gumbel_structure) {
    guarded(|| {
        if !structure.is_null() {
            // SAFETY: a constructor has made it of a box, and the caller closes it once, when nobody uses it.
            drop(unsafe { Box::from_raw(structure) });
        }
        Ok(())
    });
}

/// Number of potentials.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_potentials(structure: *const gumbel_structure) -> usize {
    // SAFETY: the caller's promise about the structure.
    unsafe { opened(structure) }.map_or(0, |s| s.structure().potentials())
}

/// Number of variables.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_variables(structure: *const gumbel_structure) -> usize {
    // SAFETY: the caller's promise about the structure.
    unsafe { opened(structure) }.map_or(0, |s| s.structure().variables())
}

/// Solves a batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_solve(
    structure: *const gumbel_structure,
    theta: *const f32,
    batch: usize,
    potentials: usize,
    limit: f64,
    threads: usize,
    z: *mut u32,
    values: *mut f64,
    proved: *mut u8,
) -> i32 {
    guarded(|| {
        // SAFETY: the caller's promise about the structure.
        let structure = unsafe { opened(structure) }?;
        let all = self::potentials(structure, batch, potentials)?;
        // No more variables than potentials: their number fits too.
        let assignments = batch * structure.structure().variables();
        let limit = match Duration::try_from_secs_f64(limit) {
            Ok(limit) => (!limit.is_zero()).then_some(limit),
            Err(_) => return Err(usage(format!("limit = {limit}: expected a number of seconds, 0 or greater"))),
        };
        // SAFETY: the caller's promises about the arrays.
        let (theta, z) = unsafe { (input("theta", theta, all)?, output("z", z, assignments)?) };
        let (mut own, mut done) = (vec![], vec![false; batch]);
        let values = match values.is_null() {
            true => {
                own.resize(batch, 0.0);
                &mut own[..]
            }
            // SAFETY: the caller's promise about the array.
            false => unsafe { output("values", values, batch) }?,
        };
        let solved = structure.solve(theta, z, values, &mut done, limit, threads);
        if !proved.is_null() {
            // SAFETY: the caller's promise about the array.
            let proved = unsafe { output("proved", proved, batch) }?;
            proved.iter_mut().zip(done).for_each(|(p, done)| *p = done.into());
        }
        Ok(solved?)
    })
}

/// Log-partitions of a batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_log_partition(
    structure: *const gumbel_structure,
    theta: *const f32,
    batch: usize,
    potentials: usize,
    threads: usize,
    out: *mut f64,
) -> i32 {
    guarded(|| {
        // SAFETY: the caller's promise about the structure.
        let structure = unsafe { opened(structure) }?;
        let all = self::potentials(structure, batch, potentials)?;
        // SAFETY: the caller's promises about the arrays.
        let (theta, out) = unsafe { (input("theta", theta, all)?, output("out", out, batch)?) };
        Ok(structure.log_partition(theta, out, threads)?)
    })
}

/// Marginals and log-partitions of a batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gumbel_marginals(
    structure: *const gumbel_structure,
    theta: *const f32,
    batch: usize,
    potentials: usize,
    threads: usize,
    marginals: *mut f32,
    log_partition: *mut f64,
) -> i32 {
    guarded(|| {
        // SAFETY: the caller's promise about the structure.
        let structure = unsafe { opened(structure) }?;
        let all = self::potentials(structure, batch, potentials)?;
        // SAFETY: the caller's promises about the arrays.
        let (theta, marginals) = unsafe { (input("theta", theta, all)?, output("marginals", marginals, all)?) };
        let mut own = vec![];
        let sums = match log_partition.is_null() {
            true => {
                own.resize(batch, 0.0);
                &mut own[..]
            }
            // SAFETY: the caller's promise about the array.
            false => unsafe { output("log_partition", log_partition, batch) }?,
        };
        Ok(structure.marginals(theta, marginals, sums, threads)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_code_and_a_message() {
        assert_eq!(guarded(|| panic!("two\nlines")), GUMBEL_INTERNAL);
        // SAFETY: a text of this thread, which no call replaces meanwhile.
        let text = unsafe { CStr::from_ptr(gumbel_last_error()) };
        assert_eq!(text.to_str().unwrap(), "an error of gumbel: two lines");
    }
}

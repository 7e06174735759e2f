//! The C interface from outside: the header, a program in C, and calls that are wrong.
#![allow(unsafe_code, reason = "it calls what C calls")]

use gumbel::batch::Batch;
use gumbel::structure::{
    AnyStructure, Arborescence, Categorical, Chain, Pairwise, Permutation, SpanningTree, Structure as _, Subset,
    Supermodular, Tree,
};
use gumbel_c::*;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::{null, null_mut};

/// The message of this thread.
fn message() -> String {
    // SAFETY: a text of this thread, copied before its next call.
    unsafe { CStr::from_ptr(gumbel_last_error()) }.to_str().unwrap().to_owned()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// `name(type name, ...) -> type` of every function, spelt as in C.
fn of_rust(source: &str) -> Vec<String> {
    let c_type = |rust: &str| {
        let rust = rust.trim();
        match rust {
            "usize" => "size_t".into(),
            "i32" => "int32_t".into(),
            "f64" => "double".into(),
            "*const c_char" => "const char *".into(),
            "*const f32" => "const float *".into(),
            "*const u32" => "const uint32_t *".into(),
            "*mut f32" => "float *".into(),
            "*mut f64" => "double *".into(),
            "*mut u32" => "uint32_t *".into(),
            "*mut u8" => "uint8_t *".into(),
            "*const gumbel_structure" => "const gumbel_structure *".into(),
            "*mut gumbel_structure" => "gumbel_structure *".into(),
            "*mut *mut gumbel_structure" => "gumbel_structure **".to_string(),
            other => panic!("no type of C is known for {other}"),
        }
    };
    let functions = source.split("extern \"C\" fn ").skip(1).map(|rest| {
        let head = rest.split('{').next().unwrap();
        let (name, rest) = head.split_once('(').unwrap();
        let (arguments, result) = rest.rsplit_once(')').unwrap();
        let arguments = arguments.split(',').filter(|a| !a.trim().is_empty()).map(|a| {
            let (name, kind) = a.split_once(':').unwrap();
            format!("{} {}", c_type(kind), name.trim())
        });
        let arguments: Vec<String> = arguments.collect();
        let result = result.trim().strip_prefix("->").map_or("void".into(), c_type);
        format!("{result} {name}({})", if arguments.is_empty() { "void".into() } else { arguments.join(", ") })
    });
    functions.map(|f| f.replace("* ", "*")).collect()
}

fn of_header(header: &str) -> Vec<String> {
    let mut code = String::new();
    for part in header.split("/*").enumerate() {
        code += match part {
            (0, text) => text,
            (_, text) => text.split_once("*/").expect("a comment that ends").1,
        };
    }
    let code: String = code.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l} ")).collect();
    let prototypes = code.split(';').filter(|p| p.contains('('));
    prototypes.map(|p| words(p.rsplit('{').next().unwrap()).join(" ")).collect()
}

#[test]
fn the_header_says_what_the_library_has() {
    let header = include_str!("../include/gumbel.h");
    let (library, header_has) = (of_rust(include_str!("../src/lib.rs")), of_header(header));
    assert!(library.len() > 15, "{library:?}");
    assert_eq!(header_has, library);
    for (name, value) in [("OK", GUMBEL_OK), ("USAGE", GUMBEL_USAGE), ("REFUSED", GUMBEL_REFUSED)] {
        assert!(header.contains(&format!("#define GUMBEL_{name} {value}\n")), "{name}");
    }
    assert!(header.contains(&format!("#define GUMBEL_INTERNAL {GUMBEL_INTERNAL}\n")));
}

/// Where the libraries are: beside this test.
fn folder() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_path_buf()
}

#[test]
fn a_program_in_c_runs() {
    let compiler = std::env::var("CC").unwrap_or("cc".into());
    if let Err(e) = Command::new(&compiler).arg("--version").output() {
        eprintln!("SKIPPED: no C compiler {compiler}: {e}");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let shared = format!("-Wl,-rpath,{}", folder().display());
    for (name, link) in [
        ("static", vec![folder().join("libgumbel_c.a").display().to_string()]),
        ("shared", vec![format!("-L{}", folder().display()), "-lgumbel_c".into(), shared]),
    ] {
        let program = out.path().join(name);
        let mut command = Command::new(&compiler);
        command.args(["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-I", "include", "examples/solve.c"]);
        let made = command.args(link).args(["-lm", "-lpthread", "-ldl", "-o"]).arg(&program).output().unwrap();
        assert!(made.status.success(), "{name}: {}", String::from_utf8_lossy(&made.stderr));
        let run = Command::new(&program).output().unwrap();
        assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stderr));
        let expected = "z = 1 1 0, value 2.0, proved, ln Z = 3.0882\nz = 0 1 1, value 2.5, proved, ln Z = 3.0986\n\
                        refused: example 1 of the batch: potential 4 is NaN: expected a finite number\n";
        assert_eq!(String::from_utf8_lossy(&run.stdout), expected, "{name}");
    }
    let header = Path::new("include/gumbel.h");
    let cpp = Command::new("c++").args(["-x", "c++", "-fsyntax-only", "-Wall", "-Werror"]).arg(header).output();
    match cpp {
        Err(e) => eprintln!("SKIPPED: no C++ compiler: {e}"),
        Ok(cpp) => assert!(cpp.status.success(), "{}", String::from_utf8_lossy(&cpp.stderr)),
    }
}

type Open = Box<dyn Fn(*mut *mut gumbel_structure) -> i32>;

/// Every constructor, and what it should have made.
fn all() -> Vec<(Open, AnyStructure)> {
    let line: &[u32] = &[0, 1, 2, 1, 2, 3];
    let pairs = [(0, 1), (2, 1), (2, 3)];
    // SAFETY, for all: the pointer is good, and so are the edges.
    vec![
        (Box::new(|o| unsafe { gumbel_categorical(3, 4, o) }) as Open, Categorical::product(3, 4).unwrap().into()),
        (Box::new(|o| unsafe { gumbel_pairwise(5, o) }), Pairwise::new(5).unwrap().into()),
        (Box::new(|o| unsafe { gumbel_supermodular(5, o) }), Supermodular::new(5).unwrap().into()),
        (Box::new(|o| unsafe { gumbel_chain(4, 3, o) }), Chain::new(4, 3).unwrap().into()),
        (Box::new(|o| unsafe { gumbel_tree(4, 3, line.as_ptr(), 3, o) }), Tree::new(4, 3, &pairs).unwrap().into()),
        (Box::new(|o| unsafe { gumbel_subset(6, 2, o) }), Subset::new(6, 2).unwrap().into()),
        (Box::new(|o| unsafe { gumbel_permutation(4, o) }), Permutation::new(4).unwrap().into()),
        (Box::new(|o| unsafe { gumbel_spanning_tree(5, null(), 0, o) }), SpanningTree::complete(5).unwrap().into()),
        (
            Box::new(|o| unsafe { gumbel_spanning_tree(4, [0, 1, 2, 1, 2, 3, 0, 3].as_ptr(), 4, o) }),
            SpanningTree::new(4, &[(0, 1), (2, 1), (2, 3), (0, 3)]).unwrap().into(),
        ),
        (Box::new(|o| unsafe { gumbel_arborescence(4, 2, o) }), Arborescence::new(4, 2).unwrap().into()),
    ]
}

#[test]
fn every_structure_answers_as_in_rust() {
    const BATCH: usize = 300;
    for (open, expected) in all() {
        let mut structure = null_mut();
        assert_eq!(open(&mut structure), GUMBEL_OK, "{expected:?}: {}", message());
        let (p, n) = (expected.potentials(), expected.variables());
        // SAFETY: it is open until the end, and all arrays have the size that is said.
        unsafe {
            assert_eq!((gumbel_potentials(structure), gumbel_variables(structure)), (p, n));
            let mut theta: Vec<f32> = (0..BATCH * p).map(|i| (i * 7919 % 1013) as f32 / 250.0 - 2.0).collect();
            theta.chunks_exact_mut(p).for_each(|theta| expected.to_potentials(theta));
            let (mut z, mut values, mut proved) = (vec![9; BATCH * n], vec![f64::NAN; BATCH], vec![7u8; BATCH]);
            let theta = theta.as_ptr();
            for threads in [1, 2] {
                let (z, values, proved) = (z.as_mut_ptr(), values.as_mut_ptr(), proved.as_mut_ptr());
                assert_eq!(gumbel_solve(structure, theta, BATCH, p, 0.0, threads, z, values, proved), GUMBEL_OK);
            }
            let (mut marginals, mut sums, mut again) = (vec![9.0; BATCH * p], vec![9.0; BATCH], vec![9.0; BATCH]);
            let code = gumbel_marginals(structure, theta, BATCH, p, 1, marginals.as_mut_ptr(), sums.as_mut_ptr());
            let also = gumbel_log_partition(structure, theta, BATCH, p, 0, again.as_mut_ptr());
            assert_eq!((code, also), if expected.has_sums() { (GUMBEL_OK, GUMBEL_OK) } else { (2, 2) });

            let theta = std::slice::from_raw_parts(theta, BATCH * p);
            let batch = Batch::new(expected.clone()).unwrap();
            let (mut z2, mut values2, mut proved2) = (vec![0; BATCH * n], vec![0.0; BATCH], vec![false; BATCH]);
            batch.solve(theta, &mut z2, &mut values2, &mut proved2, None, 1).unwrap();
            assert_eq!((z, values), (z2, values2), "{expected:?}");
            assert!(proved.iter().all(|p| *p == 1));
            if expected.has_sums() {
                let (mut marginals2, mut sums2, mut again2) =
                    (vec![0.0; BATCH * p], vec![0.0; BATCH], vec![0.0; BATCH]);
                batch.marginals(theta, &mut marginals2, &mut sums2, 1).unwrap();
                batch.log_partition(theta, &mut again2, 1).unwrap();
                assert_eq!((marginals, sums, again), (marginals2, sums2, again2), "{expected:?}");
            }
            gumbel_close(structure);
        }
    }
}

#[test]
fn wrong_calls_are_codes_and_messages_of_one_line() {
    let mut s: *mut gumbel_structure = null_mut();
    let (theta, mut z, mut v, mut m) = ([0.0f32; 18], [0u32; 6], [0.0f64; 2], [0.0f32; 18]);
    let (theta, z, v, m) = (theta.as_ptr(), z.as_mut_ptr(), v.as_mut_ptr(), m.as_mut_ptr());
    let (none, nothing) = (null_mut::<f64>(), null_mut::<u8>());
    // SAFETY: pointers are null, or good for the sizes that are said; of wrong sizes nothing is read.
    unsafe {
        assert_eq!(gumbel_pairwise(3, &mut s), GUMBEL_OK);
        let mut other: *mut gumbel_structure = s;
        type Call<'a> = Box<dyn FnMut() -> i32 + 'a>;
        let calls: Vec<(Call<'_>, i32, &str)> = vec![
            (Box::new(|| gumbel_pairwise(3, null_mut())), 1, "out is NULL"),
            (Box::new(|| gumbel_solve(null(), theta, 1, 9, 0.0, 1, z, v, nothing)), 1, "structure is NULL"),
            (Box::new(|| gumbel_solve(s, null(), 1, 9, 0.0, 1, z, v, nothing)), 1, "theta is NULL"),
            (Box::new(|| gumbel_solve(s, theta, 1, 9, 0.0, 1, null_mut(), v, nothing)), 1, "z is NULL"),
            (Box::new(|| gumbel_solve(s, theta, 2, 8, 0.0, 1, z, v, nothing)), 1, "potentials = 8: expected 9"),
            (Box::new(|| gumbel_solve(s, theta.byte_add(1), 1, 9, 0.0, 1, z, v, nothing)), 1, "aligned"),
            (Box::new(|| gumbel_solve(s, theta, usize::MAX, 9, 0.0, 1, z, v, nothing)), 1, "batch = "),
            (Box::new(|| gumbel_solve(s, theta, usize::MAX / 16, 9, 0.0, 1, z, v, nothing)), 1, "than there is"),
            (Box::new(|| gumbel_solve(s, theta, 1, 9, -1.0, 1, z, v, nothing)), 1, "limit = -1"),
            (Box::new(|| gumbel_solve(s, theta, 1, 9, f64::NAN, 1, z, v, nothing)), 1, "limit = NaN"),
            (Box::new(|| gumbel_solve(s, theta, 1, 9, 0.0, 4096, z, v, nothing)), 2, "threads = 4096"),
            (Box::new(|| gumbel_log_partition(s, theta, 1, 9, 1, none)), 1, "out is NULL"),
            (Box::new(|| gumbel_marginals(s, theta, 1, 9, 1, null_mut(), v)), 1, "marginals is NULL"),
            (Box::new(|| gumbel_marginals(null(), theta, 1, 9, 1, m, v)), 1, "structure is NULL"),
            (Box::new(|| gumbel_pairwise(1 << 40, &mut s.clone())), 2, "expected"),
            (Box::new(|| gumbel_pairwise(usize::MAX, &mut s.clone())), 2, "expected"),
            (Box::new(|| gumbel_categorical(0, 3, &mut s.clone())), 2, "expected"),
            (Box::new(|| gumbel_chain(0, 3, &mut s.clone())), 2, "without potentials"),
            (Box::new(|| gumbel_chain(usize::MAX, usize::MAX, &mut s.clone())), 2, "expected"),
            (Box::new(|| gumbel_subset(3, 4, &mut s.clone())), 2, "expected"),
            (Box::new(|| gumbel_tree(3, 2, null(), 2, &mut s.clone())), 1, "ends is NULL"),
            (Box::new(|| gumbel_tree(3, 2, null(), usize::MAX, &mut s.clone())), 1, "edges = "),
            (Box::new(|| gumbel_tree(3, 2, [0, 1, 1, 0].as_ptr(), 2, &mut s.clone())), 2, "cycle"),
            (Box::new(|| gumbel_spanning_tree(3, [0, 7].as_ptr(), 1, &mut s.clone())), 2, "7"),
            (Box::new(|| gumbel_arborescence(3, 3, &mut s.clone())), 2, "root"),
        ];
        for (mut call, code, part) in calls {
            assert_eq!(call(), code, "{part}");
            let message = message();
            assert!(message.contains(part) && !message.contains('\n'), "{part:?} is not in {message:?}");
        }
        assert_eq!(gumbel_subset(3, 4, &mut other), GUMBEL_REFUSED);
        assert!(other.is_null(), "nothing is left of what could not be made");

        // No examples, no arrays; what may be NULL; of a null structure.
        assert_eq!(gumbel_solve(s, null(), 0, 9, 0.0, 1, null_mut(), none, nothing), GUMBEL_OK);
        assert_eq!(gumbel_solve(s, theta, 2, 9, 0.0, 1, z, none, nothing), GUMBEL_OK);
        assert_eq!(gumbel_marginals(s, theta, 2, 9, 1, m, none), GUMBEL_OK);
        assert_eq!((gumbel_potentials(null()), gumbel_variables(null())), (0, 0));
        gumbel_close(null_mut());

        // Of this thread alone.
        let kept = message();
        let elsewhere = std::thread::spawn(|| (message(), gumbel_subset(3, 4, &mut null_mut()), message()));
        let (before, code, after) = elsewhere.join().unwrap();
        assert_eq!((before.as_str(), code), ("", GUMBEL_REFUSED));
        assert!(after.contains("chosen") && message() == kept, "{after}");
        gumbel_close(s);
        assert_eq!(CStr::from_ptr(gumbel_version()).to_str().unwrap(), env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn a_time_limit_ends_a_search_without_a_proof() {
    let (mut s, n) = (null_mut(), 120);
    // SAFETY: all arrays have the size that is said.
    unsafe {
        assert_eq!(gumbel_pairwise(n, &mut s), GUMBEL_OK);
        let p = gumbel_potentials(s);
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) as i64 % 201 - 100) as f32
        };
        let theta: Vec<f32> = (0..p).map(|_| next()).collect();
        let (mut z, mut value, mut proved) = (vec![0; n], 0.0, 1u8);
        let code = gumbel_solve(s, theta.as_ptr(), 1, p, 0.05, 1, z.as_mut_ptr(), &mut value, &mut proved);
        assert_eq!((code, proved), (GUMBEL_OK, 0));
        assert!((Pairwise::new(n).unwrap().score(&theta, &z) - value).abs() < 1e-3);
        gumbel_close(s);
    }
}

//! `gumbel solve` from outside: every structure, streams, bad lines, the sparse format.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};

fn solve(input: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gumbel"));
    command.arg("solve").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_string();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

fn answers(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

fn error_of(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "not one line: {text}");
    assert!(text.starts_with("gumbel: ") && !text.contains("panicked"), "{text}");
    text
}

#[track_caller]
fn answer(problem: Value) -> Value {
    let output = solve(&problem.to_string(), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let answer = answers(&output).remove(0);
    assert!(answer["seconds"].as_f64().unwrap() >= 0.0);
    assert_eq!((&answer["proved"], answer["gap"].as_f64()), (&json!(true), Some(0.0)), "{answer}");
    answer
}

#[track_caller]
fn close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{found}, should be {expected}");
}

#[test]
fn every_structure_has_its_answer() {
    let a = answer(json!({"structure": "pairwise", "unary": [1, -2, 0.5], "pairs": [[0, 1, 3], [2, 1, -1]]}));
    assert_eq!(a["z"], json!([1, 1, 0]));
    close(&a["value"], 2.0);
    let a = answer(json!({"structure": "supermodular", "unary": [1, -2, -0.5], "pairs": [[0, 1, 2.5], [1, 2, 0.25]]}));
    assert_eq!(a["z"], json!([1, 1, 0]));
    close(&a["value"], 1.5);
    let a = answer(json!({"structure": "categorical", "scores": [0, 3, null, -1]}));
    assert_eq!((&a["z"], a["value"].as_f64()), (&json!([1]), Some(3.0)));
    // At the first step, state 1 pays more; the transition makes up for state 0.
    let chain = json!({"structure": "chain", "unary": [[0, 1], [0, 0]], "transition": [[[0, 5], [0, 0]]]});
    let a = answer(chain);
    assert_eq!((&a["z"], a["value"].as_f64()), (&json!([0, 1]), Some(5.0)));
    let tree = json!({"structure": "tree", "unary": [[0, 1], [0, 0], [2, 0]],
        "edges": [[0, 1, [[0, 5], [0, 0]]], [2, 1, [[0, 0], [0, 4]]]]});
    let a = answer(tree);
    assert_eq!((&a["z"], a["value"].as_f64()), (&json!([0, 1, 1]), Some(9.0)));
    let a = answer(json!({"structure": "subset", "k": 2, "scores": [-1, -3, -2, -4]}));
    assert_eq!((&a["z"], a["value"].as_f64()), (&json!([1, 0, 1, 0]), Some(-3.0)));
    let a = answer(json!({"structure": "permutation", "scores": [[3, 2, 0], [3, 0, 0], [0, 0, 1]]}));
    assert_eq!((&a["z"], a["value"].as_f64()), (&json!([1, 0, 2]), Some(6.0)));
    let edges = json!([[0, 1, 1], [1, 2, -2], [0, 2, -1]]);
    let a = answer(json!({"structure": "spanning-tree", "nodes": 3, "edges": edges}));
    assert_eq!((&a["z"], a["value"].as_f64()), (&json!([1, 0, 1]), Some(0.0)));
    let scores = json!([[0, 1, 1], [0, 0, 5], [0, 9, 0]]); // 1 and 2 would like each other as parents
    let a = answer(json!({"structure": "arborescence", "root": 0, "scores": scores}));
    assert_eq!((&a["z"], a["value"].as_f64()), (&json!([0, 2, 0]), Some(10.0)));
}

#[test]
fn sums_come_in_the_shape_of_the_problem() {
    let a = answer(json!({"structure": "categorical", "scores": [0, 0], "sum": true}));
    close(&a["log_partition"], 2f64.ln());
    close(&a["marginals"][1], 0.5);

    for structure in ["pairwise", "supermodular"] {
        let a = answer(json!({"structure": structure, "unary": [0, 1], "pairs": [[1, 0, 2]], "sum": true}));
        let weights = [1.0, 1f64.exp(), 1.0, 3f64.exp()]; // 00, 01, 10, 11
        let z: f64 = weights.iter().sum();
        close(&a["log_partition"], z.ln());
        close(&a["marginals"][0], (weights[2] + weights[3]) / z);
        close(&a["pair_marginals"][0], weights[3] / z);
    }

    let chain = json!({"structure": "chain", "unary": [[0, 1], [0, 0]], "transition": [[[0, 1], [0, 0]]], "sum": true});
    let a = answer(chain);
    let z = 1.0 + 1f64.exp() + 2.0 * 1f64.exp();
    close(&a["log_partition"], z.ln());
    close(&a["marginals"][0][1], 2.0 * 1f64.exp() / z);
    close(&a["pair_marginals"][0][0][1], 1f64.exp() / z);
    let tree =
        json!({"structure": "tree", "unary": [[0, 1], [0, 0]], "edges": [[1, 0, [[0, 0], [1, 0]]]], "sum": true});
    let b = answer(tree);
    close(&b["log_partition"], z.ln());
    close(&b["pair_marginals"][0][1][0], 1f64.exp() / z);

    let a = answer(json!({"structure": "subset", "k": 1, "scores": [0, 1], "sum": true}));
    close(&a["marginals"][1], 1f64.exp() / (1.0 + 1f64.exp()));
    let edges = json!([[0, 1, 0], [1, 2, 0], [0, 2, 0]]);
    let a = answer(json!({"structure": "spanning-tree", "nodes": 3, "edges": edges, "sum": true}));
    close(&a["log_partition"], 3f64.ln());
    close(&a["marginals"][2], 2.0 / 3.0);
    let scores = json!([[0, 0, 0], [0, 0, 0], [0, 0, 0]]);
    let a = answer(json!({"structure": "arborescence", "root": 1, "scores": scores, "sum": true}));
    close(&a["log_partition"], 3f64.ln());
    close(&a["marginals"][1][2], 2.0 / 3.0);

    // Not tractable: null, not an invention.
    let a = answer(json!({"structure": "permutation", "scores": [[0, 1], [1, 0]], "sum": true}));
    assert!(a.as_object().unwrap().contains_key("log_partition") && a["log_partition"].is_null());
    let a = answer(json!({"structure": "pairwise", "unary": vec![0.5; 21], "pairs": [], "sum": true}));
    assert!(a["log_partition"].is_null());
}

#[test]
fn the_smallest_problems_are_defined() {
    assert_eq!(answer(json!({"structure": "pairwise", "unary": [], "pairs": []}))["z"], json!([]));
    assert_eq!(answer(json!({"structure": "supermodular", "unary": [], "pairs": []}))["z"], json!([]));
    assert_eq!(answer(json!({"structure": "chain", "unary": [[1, 2]], "transition": []}))["z"], json!([1]));
    assert_eq!(answer(json!({"structure": "tree", "unary": [[1, 2]], "edges": []}))["z"], json!([1]));
    assert_eq!(answer(json!({"structure": "subset", "k": 0, "scores": [1]}))["z"], json!([0]));
    for empty in [
        json!({"structure": "subset", "k": 0, "scores": [], "sum": true}),
        json!({"structure": "chain", "unary": [], "transition": [], "sum": true}),
        json!({"structure": "tree", "unary": [], "edges": [], "sum": true}),
        json!({"structure": "spanning-tree", "nodes": 1, "edges": [], "sum": true}),
    ] {
        let a = answer(empty);
        let (value, sum) = (a["value"].as_f64().unwrap(), a["log_partition"].as_f64().unwrap());
        assert_eq!((&a["z"], &a["marginals"]), (&json!([]), &json!([])));
        assert!(value == 0.0 && sum == 0.0 && !value.is_sign_negative() && !sum.is_sign_negative(), "{a}");
    }
    assert_eq!(answer(json!({"structure": "permutation", "scores": [[-1]]}))["z"], json!([0]));
    assert_eq!(answer(json!({"structure": "spanning-tree", "nodes": 1, "edges": []}))["z"], json!([]));
    assert_eq!(answer(json!({"structure": "arborescence", "root": 0, "scores": [[0]]}))["z"], json!([0]));
}

#[test]
fn bad_lines_are_answered_and_the_rest_goes_on() {
    let good = r#"{"structure":"pairwise","unary":[1],"pairs":[]}"#;
    let bad = [
        ("", "EOF"),
        ("nonsense", "expected"),
        ("[]", "expected an object"),
        (r#"["pairwise",[1],[],null,null,null,null,null,null,null,false]"#, "expected an object"),
        ("7", "expected a problem"),
        (r#"{"structure":"knapsack","scores":[1]}"#, r#""knapsack" is unknown: expected one of pairwise"#),
        (r#"{"structure":"pairwse","scores":[1]}"#, "did you mean pairwise?"),
        (r#"{"unary":[1],"pairs":[]}"#, "structure"),
        (r#"{"structure":"pairwise","unary":[1]}"#, "pairs or weights is missing"),
        (r#"{"structure":"pairwise","unary":[1],"pairs":[],"weights":[]}"#, "expected one of them"),
        (r#"{"structure":"pairwise","unary":[1,2,3],"weights":[1,2]}"#, "expected 3 numbers for the pairs of 3"),
        (r#"{"structure":"pairwise","unary":[1,2],"weights":[[1]]}"#, "found shape [1, 1]"),
        (r#"{"structure":"supermodular","unary":[1,2],"weights":[-1]}"#, "-1"),
        (r#"{"structure":"chain","unary":[],"transition":[],"weights":[]}"#, "weights is no field"),
        (r#"{"structure":"pairwise","unary":[1],"pair":[]}"#, "unknown field"),
        (r#"{"structure":"pairwise","unary":[1],"pairs":[],"k":1}"#, "k is no field of this structure"),
        (r#"{"structure":"pairwise","unary":[1,2],"pairs":[[0,0,1]]}"#, "two different variables"),
        (r#"{"structure":"pairwise","unary":[1,2],"pairs":[[0,2,1]]}"#, "below 2"),
        (r#"{"structure":"pairwise","unary":[1,2],"pairs":[[0,1]]}"#, "[i, j, weight]"),
        (r#"{"structure":"pairwise","unary":[1,2],"pairs":[[0,1,1,1]]}"#, "[i, j, weight]"),
        (r#"{"structure":"pairwise","unary":[1,2],"pairs":[[-1,1,1]]}"#, "-1"),
        (r#"{"structure":"pairwise","unary":[[1],[2]],"pairs":[]}"#, "unary: expected a list of numbers"),
        (r#"{"structure":"pairwise","unary":[1e39],"pairs":[]}"#, "too large"),
        (r#"{"structure":"pairwise","unary":[1e999],"pairs":[]}"#, "out of range"),
        (r#"{"structure":"pairwise","unary":[NaN],"pairs":[]}"#, "expected value at column 34"),
        (r#"{"structure":"pairwise","unary":[1],"unary":[1],"pairs":[]}"#, "duplicate field"),
        (r#"{"structure":"pairwise","unary":["1"],"pairs":[]}"#, "expected a number"),
        (r#"{"structure":"supermodular","unary":[1,2],"pairs":[[0,1,-1]]}"#, "-1"),
        (r#"{"structure":"categorical","scores":[]}"#, "expected at least 1"),
        (r#"{"structure":"categorical","scores":[null]}"#, "-inf"),
        (r#"{"structure":"chain","unary":[[1,2],[1]],"transition":[]}"#, "different lengths"),
        (r#"{"structure":"chain","unary":[[1,2],3],"transition":[]}"#, "rectangular"),
        (r#"{"structure":"chain","unary":[[1,2],[1,2]],"transition":[[[1,2]]]}"#, "expected shape [1, 2, 2]"),
        (r#"{"structure":"tree","unary":[[1,2],[1,2]],"edges":[[0,1,3]]}"#, "2 x 2"),
        (r#"{"structure":"tree","unary":[[1],[1],[1]],"edges":[[0,1,[[1]]],[1,2,[[1]]],[2,0,[[1]]]]}"#, "cycle"),
        (r#"{"structure":"subset","k":3,"scores":[1,2]}"#, "3"),
        (r#"{"structure":"permutation","scores":[[1,2]]}"#, "as many columns as rows"),
        (r#"{"structure":"permutation","scores":[[1,null],[1,null]]}"#, "no assignment is allowed"),
        (r#"{"structure":"spanning-tree","nodes":3,"edges":[[0,1,1]]}"#, "connect"),
        (r#"{"structure":"arborescence","root":2,"scores":[[1,2],[1,2]]}"#, "root"),
        ("{\"structure\":\"categorical\",\"scores\":[1]}\u{0}", "trailing"),
    ];
    // A blank line has no answer, so the first text is a lone brace.
    let lines: Vec<String> = bad.iter().map(|(l, _)| if l.is_empty() { "{".into() } else { l.to_string() }).collect();
    let input: String = lines.iter().map(|l| format!("{l}\n{good}\n\n")).collect();
    let output = solve(&input, &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = error_of(&output);
    assert!(message.contains(&format!("{} of {} problems", bad.len(), 2 * bad.len())), "{message}");
    let answers = answers(&output);
    assert_eq!(answers.len(), 2 * bad.len());
    for (pair, (line, part)) in answers.chunks_exact(2).zip(bad) {
        let error = pair[0]["error"].as_str().unwrap_or_else(|| panic!("{line} was solved: {}", pair[0]));
        assert!(error.contains(part) && !error.contains('\n'), "{line}: {part:?} is not in {error:?}");
        assert_eq!(pair[1]["z"], json!([1]));
    }
}

/// All weights in one list, or each with its pair: the same answers, to the last bit.
#[test]
fn dense_weights_are_pairs_in_order() {
    let mut state = 5u64;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1u64 << 24) as f64 * 4.0 - 2.0
    };
    let (mut listed, mut dense) = (String::new(), String::new());
    for case in 0..400 {
        let (n, structure) = (case % 9, ["pairwise", "supermodular"][case / 9 % 2]);
        let unary: Vec<f64> = (0..n).map(|_| next()).collect();
        let ends = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        let weight = |w: f64| if structure == "pairwise" { w } else { w.abs() };
        let pairs: Vec<_> = ends.map(|(i, j)| (i, j, weight(next()))).collect();
        let weights: Vec<f64> = pairs.iter().map(|p| p.2).collect();
        listed += &format!("{}\n", json!({"structure": structure, "unary": unary, "pairs": pairs, "sum": true}));
        dense += &format!("{}\n", json!({"structure": structure, "unary": unary, "weights": weights, "sum": true}));
    }
    let plain = |input: &str| {
        let output = solve(input, &[]);
        assert!(output.status.success(), "{}", error_of(&output));
        let mut all = answers(&output);
        all.iter_mut().for_each(|a| drop(a.as_object_mut().unwrap().remove("seconds")));
        all
    };
    let found = plain(&dense);
    assert_eq!(found.len(), 400);
    assert_eq!(found[8]["pair_marginals"].as_array().unwrap().len(), 28);
    assert_eq!(found, plain(&listed));
    // An integer that f64 does not hold leaves a gap here too, and null forbids.
    let a = answers(&solve(r#"{"structure":"pairwise","unary":[0,0],"weights":[9007199254740993]}"#, &[])).remove(0);
    assert_eq!((&a["z"], &a["proved"]), (&json!([1, 1]), &json!(false)));
    assert_eq!(answer(json!({"structure": "pairwise", "unary": [3, 2], "weights": [null]}))["z"], json!([1, 0]));
}

/// A problem that takes its whole limit.
fn hard() -> String {
    let n = 140;
    let mut state = 7u64;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as i64 % 201 - 100
    };
    let unary: Vec<i64> = (0..n).map(|_| next()).collect();
    let weights: Vec<i64> = (0..n * (n - 1) / 2).map(|_| next()).collect();
    format!("{}\n", json!({"structure": "pairwise", "unary": unary, "weights": weights}))
}

#[test]
fn lines_are_flushed_one_by_one_where_asked() {
    let easy = r#"{"structure":"pairwise","unary":[1],"weights":[]}"#;
    let mut command = Command::new(env!("CARGO_BIN_EXE_gumbel"));
    command.args(["solve", "--flush", "line", "--threads", "1", "--limit", "60"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // One write: they arrive together.
    child.stdin.take().unwrap().write_all(format!("{easy}\n{}", hard()).as_bytes()).unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["z"], json!([1]));
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "the first answer waited for the second");

    let input = stream(1000);
    let plain = |output: &Output| -> Vec<Value> {
        let mut all = answers(output);
        all.iter_mut().for_each(|a| drop(a.as_object_mut().unwrap().remove("seconds")));
        all
    };
    let block = plain(&solve(&input, &[]));
    for threads in ["1", "3"] {
        assert_eq!(plain(&solve(&input, &["--flush", "line", "--threads", threads])), block);
    }
}

/// A program that sends one problem and waits for its answer gets it, however answers are flushed.
#[test]
fn one_question_at_a_time_is_answered() {
    for flush in ["block", "line"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gumbel"));
        command.args(["solve", "--flush", flush]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut stdin, mut out) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        for i in 0..50 {
            writeln!(stdin, r#"{{"structure":"categorical","scores":[0,{}]}}"#, if i % 2 == 0 { 1 } else { -1 })
                .unwrap();
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["z"], json!([(i + 1) % 2]));
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }
}

/// The example of docs/other-languages.md, as it stands there.
#[test]
fn the_python_example_talks_through_a_pipe() {
    let page = std::fs::read_to_string("../../docs/other-languages.md").unwrap();
    let example = page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_gumbel")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    match Command::new("python3").args(["-c", example]).env("PATH", path).output() {
        Err(e) => eprintln!("SKIPPED: no python3: {e}"),
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let shown = page.split("It prints\n\n    ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), shown);
        }
    }
}

/// Problems of many sizes and kinds, some of them bad.
fn stream(count: usize) -> String {
    let mut text = String::new();
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1u64 << 24) as f64 * 4.0 - 2.0
    };
    for line in 0..count {
        let n = line % 12;
        let unary: Vec<f64> = (0..n).map(|_| next()).collect();
        let pairs: Vec<_> =
            (0..n).flat_map(|j| (0..j).map(move |i| (i, j))).map(|(i, j)| json!([i, j, next()])).collect();
        let problem = match line % 7 {
            6 => json!({"structure": "subset", "k": 2, "scores": unary}),
            _ => json!({"structure": "pairwise", "unary": unary, "pairs": pairs}),
        };
        text += &format!("{problem}\n");
    }
    text
}

#[test]
fn answers_keep_their_order_and_do_not_depend_on_threads() {
    let input = stream(5000);
    let plain = |output: &Output| -> Vec<Value> {
        let mut all = answers(output);
        all.iter_mut().for_each(|a| drop(a.as_object_mut().unwrap().remove("seconds")));
        all
    };
    let one = solve(&input, &["--threads", "1"]);
    let two = solve(&input, &["--threads", "2", "-"]);
    assert_eq!(one.status.code(), Some(1), "subsets of fewer than two elements are refused");
    assert_eq!(plain(&one).len(), 5000);
    assert_eq!(plain(&one), plain(&two));
    for (i, a) in plain(&one).iter().enumerate() {
        match a["z"].as_array() {
            Some(z) => assert_eq!(z.len(), i % 12),
            None => assert!(i % 7 == 6 && i % 12 < 2, "{i}: {a}"),
        }
    }
}

#[test]
fn the_sparse_format_counts_pairs_twice() {
    // z'Qz with Q = [[1, -2], [-2, 3]]: 0, 1, 3, 0.
    let file = "2 3\n1 1 1\n1 2 -2\n2 2 3\n";
    let output = solve(file, &["--format", "sparse"]);
    assert!(output.status.success());
    assert_eq!((&answers(&output)[0]["z"], answers(&output)[0]["value"].as_f64()), (&json!([0, 1]), Some(3.0)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two.txt");
    std::fs::write(&path, format!("2\n{file}2 1\n2 1 -4\n")).unwrap(); // OR-Library: the number of problems first
    let output = solve("", &["--format", "sparse", "--minimise", path.to_str().unwrap()]);
    let found = answers(&output);
    assert_eq!((found.len(), found[0]["value"].as_f64(), found[1]["value"].as_f64()), (2, Some(0.0), Some(-8.0)));
    assert_eq!(found[1]["z"], json!([1, 1]));

    for (text, part) in [
        ("", ""),
        ("2\n", "found 0"),
        ("x 3\n", "line 1: expected the header n m"),
        ("2 2\n1 1 1\n", "found the end after 1"),
        ("2 1\n0 1 1\n", "line 2: expected i j q with indices from 1 to 2"),
        ("2 1\n1 3 1\n", "1 to 2"),
        ("2 1\n1 2 nan\n", "i j q"),
        ("2 1\n1 2\n", "i j q"),
        ("99999999 0\n", "at most"),
    ] {
        let output = solve(text, &["--format", "sparse"]);
        match part {
            "" => assert!(output.status.success() && output.stdout.is_empty()),
            _ => {
                assert_eq!(output.status.code(), Some(1), "{text:?}");
                assert!(error_of(&output).contains(part), "{text:?}: {}", error_of(&output));
            }
        }
    }
}

#[test]
fn a_limit_gives_a_gap_and_says_so() {
    let mut text = "120 7140\n".to_string();
    let mut state = 7u64;
    for j in 1..=120 {
        for i in 1..j {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            text += &format!("{i} {j} {}\n", (state >> 33) as i64 % 201 - 100);
        }
    }
    let output = solve(&text, &["--format", "sparse", "--limit", "0.3"]);
    assert!(output.status.success());
    let a = &answers(&output)[0];
    assert_eq!(a["proved"], json!(false));
    assert!(a["gap"].as_f64().unwrap() > 0.0 && a["value"].as_f64().unwrap() > 0.0, "{a}");
}

#[test]
fn wrong_usage_and_files_are_one_line() {
    let usage = [
        &["--limit", "0"][..],
        &["--limit", "soon"],
        &["--format", "xml"],
        &["--flush", "never"],
        &["--minimise"],
        &["a", "b"],
    ];
    for args in usage {
        let output = solve("", args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        error_of(&output);
    }
    let output = solve("", &["no-such-file.jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error_of(&output).contains("no-such-file.jsonl"));
    assert!(solve("", &[]).status.success());
}

/// What `gumbel` has to say of one problem in the sparse format.
#[track_caller]
fn sparse(file: &str) -> Value {
    let output = solve(file, &["--format", "sparse"]);
    assert!(output.status.success(), "{}", error_of(&output));
    answers(&output).remove(0)
}

#[test]
fn numbers_are_not_rounded_to_f32() {
    let a = answer(json!({"structure": "permutation", "scores": [[100000001, 100000000], [100000000, 100000003]]}));
    assert_eq!((&a["z"], a["value"].as_f64()), (&json!([0, 1]), Some(200000004.0)));
    let a = answer(json!({"structure": "categorical", "scores": [0, 1e-50]}));
    assert_eq!((&a["z"], a["value"].as_f64()), (&json!([1]), Some(1e-50)));
    let a = answer(json!({"structure": "subset", "k": 1, "scores": [100000000, 100000001, 0]}));
    assert_eq!((&a["z"], a["value"].as_f64()), (&json!([0, 1, 0]), Some(100000001.0)));
    let chain = json!({"structure": "chain", "unary": [[100000000, 100000001], [0, 0]],
        "transition": [[[100000002, 100000000], [100000000, 100000000]]]});
    assert_eq!(answer(chain)["z"], json!([0, 0]));
    let tree = json!({"structure": "tree", "unary": [[100000000, 100000001], [0, 0]],
        "edges": [[1, 0, [[100000002, 100000000], [100000000, 100000000]]]]});
    assert_eq!(answer(tree)["z"], json!([0, 0]));
    let edges = json!([[0, 1, 100000000], [1, 2, 100000002], [0, 2, 100000001]]);
    assert_eq!(answer(json!({"structure": "spanning-tree", "nodes": 3, "edges": edges}))["z"], json!([0, 1, 1]));
    let edges = json!([[0, 1, 100000000], [0, 2, 100000001], [1, 2, 100000002]]); // the complete graph
    assert_eq!(answer(json!({"structure": "spanning-tree", "nodes": 3, "edges": edges}))["z"], json!([0, 1, 1]));
    let scores = [[0, 100000000, 100000000], [0, 0, 100000002], [0, 100000003, 0]];
    assert_eq!(answer(json!({"structure": "arborescence", "root": 0, "scores": scores}))["z"], json!([0, 2, 0]));
    for structure in ["pairwise", "supermodular"] {
        let pairs = json!([[0, 1, 200000001]]);
        let a = answer(json!({"structure": structure, "unary": [-100000000, -100000000], "pairs": pairs}));
        assert_eq!((&a["z"], a["value"].as_f64()), (&json!([1, 1]), Some(1.0)), "{structure}");
    }
}

#[test]
fn terms_of_one_pair_may_cancel() {
    for large in [16777216.0, 1e15, 1e17, 1e30] {
        let pairs = json!([[0, 1, large], [0, 1, 1], [1, 0, -large]]);
        let a = answer(json!({"structure": "pairwise", "unary": [0, 0], "pairs": pairs}));
        assert_eq!((&a["z"], a["value"].as_f64()), (&json!([1, 1]), Some(1.0)), "{large}");
        let a = sparse(&format!("2 5\n1 2 {large}\n1 2 1\n2 1 -{large}\n1 1 {large}\n1 1 -{large}\n"));
        assert_eq!((&a["z"], a["value"].as_f64(), &a["proved"]), (&json!([1, 1]), Some(2.0), &json!(true)), "{large}");
        let a = sparse(&format!("1 3\n1 1 {large}\n1 1 1\n1 1 -{large}\n"));
        assert_eq!((&a["z"], a["value"].as_f64()), (&json!([1]), Some(1.0)), "{large}");
    }
    let pairs = json!([[0, 1, 1e17], [0, 1, 3], [1, 0, 1e17], [0, 1, 1]]);
    let output = solve(&json!({"structure": "supermodular", "unary": [-1, -1], "pairs": pairs}).to_string(), &[]);
    assert_eq!(answers(&output)[0]["value"].as_f64(), Some(200000000000000002.0));
    // 106 bits do not hold this: there is a gap.
    let pairs = json!([[0, 1, 1e38], [0, 1, 1e19], [0, 1, 1], [0, 1, -1e38], [0, 1, -1e19]]);
    let output = solve(&json!({"structure": "pairwise", "unary": [0, 0], "pairs": pairs}).to_string(), &[]);
    let a = answers(&output).remove(0);
    assert!(a["z"] == json!([1, 1]) || a["gap"].as_f64().unwrap() >= 1.0, "{a}");
}

/// Never a wrong answer that claims to be proved: integers that f64 does not hold, numbers that are 0 to it, numbers
/// that drown in sums.
#[test]
fn what_f64_loses_leaves_a_gap() {
    for (problem, gap) in [
        (r#"{"structure":"categorical","scores":[9007199254740992,9007199254740993]}"#, 1.0),
        (r#"{"structure":"categorical","scores":[-9007199254740993,-9007199254740992]}"#, 1.0),
        (r#"{"structure":"categorical","scores":[100000000000000000000001,100000000000000000000002]}"#, 1.0),
        (r#"{"structure":"categorical","scores":[0,1e-400]}"#, 4e-324),
        (r#"{"structure":"chain","unary":[[1e17,0],[0,1]],"transition":[[[0,0],[0,0]]]}"#, 1.0),
        (r#"{"structure":"permutation","scores":[[1e20,0],[1,0]]}"#, 1.0),
        (r#"{"structure":"pairwise","unary":[1e20,1,-1],"pairs":[[0,1,-2],[1,2,2],[0,2,1]]}"#, 1.0),
        (r#"{"structure":"supermodular","unary":[-1e20,1,-1],"pairs":[[0,1,2],[1,2,2],[0,2,1]]}"#, 1.0),
        (r#"{"structure":"arborescence","root":0,"scores":[[0,1e20,1],[0,0,1],[0,1,0]]}"#, 1.0),
    ] {
        let output = solve(problem, &[]);
        assert!(output.status.success(), "{problem}");
        let a = answers(&output).remove(0);
        assert_eq!(a["proved"], json!(false), "{problem}: {a}");
        assert!(a["gap"].as_f64().unwrap() >= gap, "{problem}: {a}");
    }
    // Decimals count as the f64 next to them, and their sums are as exact as they are.
    for problem in [
        r#"{"structure":"permutation","scores":[[0.1,0.2],[0.3,0.7]]}"#,
        r#"{"structure":"pairwise","unary":[0.1,-0.2],"pairs":[[0,1,0.3],[1,0,0.1]]}"#,
        r#"{"structure":"categorical","scores":[1e30,1e-30]}"#,
        r#"{"structure":"subset","k":1,"scores":[1e30,1e-30]}"#,
    ] {
        answer(serde_json::from_str(problem).unwrap());
    }
}

#[test]
fn sums_are_of_the_numbers_given() {
    let (one, e) = (100000001f64, 1f64.exp());
    let close = |found: &Value, expected: f64| assert!((found.as_f64().unwrap() - expected).abs() < 1e-6, "{found}");
    let sum = |mut problem: Value| {
        problem["sum"] = json!(true);
        answer(problem)
    };
    let a = sum(json!({"structure": "categorical", "scores": [100000001, 100000000]}));
    close(&a["log_partition"], 100000000.0 + (1.0 + e).ln());
    close(&a["marginals"][0], e / (1.0 + e));
    let a = sum(json!({"structure": "subset", "k": 1, "scores": [100000001, 100000000]}));
    close(&a["log_partition"], 100000000.0 + (1.0 + e).ln());
    close(&a["marginals"][0], e / (1.0 + e));
    let a = sum(json!({"structure": "chain", "unary": [[100000001, 100000000], [0, 0]],
        "transition": [[[-100000000, -100000000], [-100000000, -100000000]]]}));
    close(&a["log_partition"], (2.0 + 2.0 * e).ln());
    close(&a["marginals"][0][0], e / (1.0 + e));
    let a = sum(json!({"structure": "tree", "unary": [[0, 0], [0, 0]],
        "edges": [[1, 0, [[100000001, 100000000], [100000000, 100000000]]]]}));
    close(&a["log_partition"], 100000000.0 + (3.0 + e).ln());
    close(&a["pair_marginals"][0][0][0], e / (3.0 + e));
    let edges = json!([[0, 1, one], [1, 2, one], [0, 2, one - 1.0]]);
    let a = sum(json!({"structure": "spanning-tree", "nodes": 3, "edges": edges}));
    close(&a["log_partition"], 200000001.0 + (2.0 + e).ln());
    let scores = [[0, 100000001, 0], [0, 0, 0], [0, 100000000, 0]];
    let a = sum(json!({"structure": "arborescence", "root": 0, "scores": scores}));
    close(&a["marginals"][0][1], 2.0 * e / (2.0 * e + 1.0));
    for structure in ["pairwise", "supermodular"] {
        let pairs = json!([[0, 1, 200000001]]);
        let a = sum(json!({"structure": structure, "unary": [-100000000, -100000000], "pairs": pairs}));
        close(&a["log_partition"], (1.0 + e).ln());
        close(&a["pair_marginals"][0], e / (1.0 + e));
    }
}

/// The assignments of `n` variables with `k` values.
fn product(n: usize, k: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..k.pow(n as u32)).map(move |s| (0..n).map(|i| s / k.pow(i as u32) % k).collect())
}

#[test]
fn integers_near_1e8_agree_with_integers() {
    let mut state = 5u64;
    let mut next = |spread: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        100_000_000 + ((state >> 33) % spread) as i64
    };
    let (mut lines, mut best) = (String::new(), vec![]);
    for case in 0..3000 {
        let spread = [4, 50, 1 << 24][case / 6 % 3];
        let mut table = |rows: usize, columns: usize| -> Vec<Vec<i64>> {
            (0..rows).map(|_| (0..columns).map(|_| next(spread)).collect()).collect()
        };
        let (problem, value) = match case % 6 {
            0 => {
                let (n, h) = (4, table(4, 4));
                let permutations = product(n, n).filter(|z| (0..n).all(|j| z.contains(&j)));
                let scores = permutations.map(|z| (0..n).map(|i| h[i][z[i]]).sum());
                (json!({"structure": "permutation", "scores": h}), scores.max())
            }
            1 => {
                let h = table(1, 6).remove(0);
                (json!({"structure": "categorical", "scores": h}), h.iter().copied().max())
            }
            2 => {
                let h = table(1, 6).remove(0);
                let sets = product(6, 2).filter(|z| z.iter().sum::<usize>() == 3);
                let scores = sets.map(|z| (0..6).map(|i| z[i] as i64 * h[i]).sum());
                (json!({"structure": "subset", "k": 3, "scores": h}), scores.max())
            }
            3 => {
                let (h, w) = (table(3, 3), [table(3, 3), table(3, 3)]);
                let score = |z: Vec<usize>| {
                    (0..3).map(|t| h[t][z[t]]).sum::<i64>() + (0..2).map(|t| w[t][z[t]][z[t + 1]]).sum::<i64>()
                };
                (json!({"structure": "chain", "unary": h, "transition": w}), product(3, 3).map(score).max())
            }
            kind => {
                // Gains that nearly cancel the weights.
                let w = table(5, 5);
                let edges: Vec<(usize, usize)> = (0..5).flat_map(|j| (0..j).map(move |i| (i, j))).collect();
                let mut unary: Vec<i64> = table(1, 5)[0].iter().map(|u| u - 100_000_002).collect();
                let sign = |i: usize, j: usize| if kind == 4 && (i + j).is_multiple_of(3) { -1 } else { 1 };
                for &(i, j) in &edges {
                    let half = sign(i, j) * w[i][j];
                    (unary[i], unary[j]) = (unary[i] - half, unary[j] - half);
                }
                let pairs: Vec<_> = edges.iter().map(|&(i, j)| json!([i, j, 2 * sign(i, j) * w[i][j]])).collect();
                let score = |z: Vec<usize>| {
                    let one = |i: usize| z[i] as i64;
                    let coupled = edges.iter().map(|&(i, j)| 2 * sign(i, j) * w[i][j] * one(i) * one(j));
                    coupled.sum::<i64>() + (0..5).map(|i| unary[i] * one(i)).sum::<i64>()
                };
                let structure = ["pairwise", "supermodular"][kind - 4];
                let problem = json!({"structure": structure, "unary": unary, "pairs": pairs});
                (problem, product(5, 2).map(score).max())
            }
        };
        lines += &format!("{problem}\n");
        best.push((problem, value.unwrap()));
    }
    let output = solve(&lines, &[]);
    assert!(output.status.success());
    for (found, (problem, value)) in answers(&output).iter().zip(best) {
        assert_eq!((found["value"].as_f64(), &found["proved"]), (Some(value as f64), &json!(true)), "{problem}");
    }
}

/// A program that is still running: what it says line by line, and its peak memory.
#[cfg(target_os = "linux")]
struct Running(std::process::Child, std::io::BufReader<std::process::ChildStdout>);

#[cfg(target_os = "linux")]
impl Running {
    fn start(args: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gumbel"));
        command.arg("solve").args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        Running(child, out)
    }

    fn write(&mut self, text: &str) {
        self.0.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.1, &mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    /// The most memory used so far, in MiB.
    fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    }

    fn end(mut self) -> i32 {
        drop(self.0.stdin.take());
        self.0.wait().unwrap().code().unwrap()
    }
}

#[cfg(target_os = "linux")]
#[test]
fn problems_in_the_sparse_format_come_one_after_the_other() {
    let mut running = Running::start(&["--format", "sparse", "-"]);
    running.write("2\n2 1\n1 2 3\n");
    assert_eq!(running.answer()["value"].as_f64(), Some(6.0)); // while the second is still to come
    running.write("1 1\n1 1 5\n");
    assert_eq!(running.answer()["value"].as_f64(), Some(5.0));
    assert_eq!(running.end(), 0);
    // Thousands of headers take no more than one of them.
    let mut running = Running::start(&["--format", "sparse"]);
    running.write(&"1024 0\n".repeat(500));
    (0..500).for_each(|_| assert_eq!(running.answer()["value"].as_f64(), Some(0.0)));
    assert!(running.peak() < 100, "{} MiB", running.peak());
    running.write(&format!("1 1\n{}\n", "1".repeat(100_000)));
    assert_eq!(running.end(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn sums_over_large_subsets_take_little_memory() {
    let mut running = Running::start(&[]);
    let scores: Vec<f64> = (0..11_800).map(|i| (i * 7919 % 1000) as f64 / 500.0 - 1.0).collect();
    running.write(&format!("{}\n", json!({"structure": "subset", "k": 11000, "scores": scores, "sum": true})));
    let a = running.answer();
    let marginals: f64 = a["marginals"].as_array().unwrap().iter().map(|m| m.as_f64().unwrap()).sum();
    assert!((marginals - 11000.0).abs() < 1e-2, "{marginals}");
    assert!(running.peak() < 200, "{} MiB", running.peak());
    assert_eq!(running.end(), 0);
}

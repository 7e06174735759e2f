//! What the tests of the program share.
#![allow(dead_code, reason = "every test takes its part")]

use std::process::Output;

/// What a program has written.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The standard output of a program that has succeeded.
#[track_caller]
pub fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// Fails with a code and one line in which all parts are.
#[track_caller]
pub fn fails(output: &Output, code: i32, parts: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "not one line: {message}");
    assert!(message.starts_with("gumbel: ") && !message.contains("panicked"), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

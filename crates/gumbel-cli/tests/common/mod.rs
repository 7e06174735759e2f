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

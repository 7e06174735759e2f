//! Ticks of axes, and numbers as text.
//!
//! Nothing here walks from one value to another in steps that might be too small for the number: the count of ticks is
//! bounded beforehand, and spans are halved, so that one from -1.7e308 to 1.7e308 is finite.

/// A span of an axis with room between its ends: `low < high`, both finite, however equal or large the values are.
pub(crate) fn span(low: f64, high: f64) -> (f64, f64) {
    let magnitude = low.abs().max(high.abs());
    // Closer than that, ticks would be told apart by the last digits of a float only.
    if half(low, high) > magnitude * 1e-9 && magnitude > 1e-290 {
        return (low, high);
    }
    widened((low, high), (magnitude * 0.05).max(0.5))
}

/// A span with a margin at both ends.
pub(crate) fn widened((low, high): (f64, f64), margin: f64) -> (f64, f64) {
    ((low - margin).max(f64::MIN), (high + margin).min(f64::MAX))
}

/// Half of a span, which is finite where the whole may be infinite.
pub(super) fn half(low: f64, high: f64) -> f64 {
    high / 2.0 - low / 2.0
}

/// Where a value stands in a span: 0 at its low end, 1 at its high end.
pub(crate) fn place(value: f64, (low, high): (f64, f64)) -> f64 {
    half(low, value) / half(low, high)
}

/// Ticks of a [span] with their text: multiples of 1, 2 or 5 times a power of ten, about `most` (at least 4); whole
/// numbers if `whole`.
pub(crate) fn ticks((low, high): (f64, f64), most: usize, whole: bool) -> Vec<(f64, String)> {
    let most = most.max(4);
    let step = step(half(low, high) / (most as f64 / 2.0));
    let step = if whole { step.max(1.0) } else { step };
    // A hair wider: 3 * 0.1 is a tick of a span that ends at 0.3.
    let first = (low / step - 1e-9).ceil();
    let counts = (0..=most).map(|i| first + i as f64).filter(|k| *k <= high / step + 1e-9 && (k * step).is_finite());
    let largest = low.abs().max(high.abs());
    counts.map(|k| ((k * step).clamp(low, high), label(k * step, step, largest))).collect()
}

/// Ticks of a span of common logarithms with the text of the numbers: powers of ten, or where these are few, 1, 2 and 5
/// times them, or all multiples.
pub(super) fn powers((low, high): (f64, f64), most: usize) -> Vec<(f64, String)> {
    let most = most.max(4);
    let (first, last) = (low.floor().max(-400.0) as i64, high.ceil().min(400.0) as i64);
    let every = ((last - first) as usize / most + 1) as i64;
    let between = |multiples: &[f64]| -> Vec<(f64, String)> {
        let all = (first..=last).filter(|k| k.rem_euclid(every) == 0);
        let all = all.flat_map(|k| multiples.iter().map(move |m| (m.log10() + k as f64, *m, k)));
        let shown = all.filter(|(at, ..)| (low - 1e-9..=high + 1e-9).contains(at));
        let text = |m: f64, k: i64| format!("{m}e{k}").parse().map_or_else(|_| format!("{m}e{k}"), number);
        shown.map(|(at, m, k)| (at.clamp(low, high), text(m, k))).collect()
    };
    let plain = between(&[1.0]);
    let finer = between(&[1.0, 2.0, 5.0]);
    match (plain.len(), finer.len()) {
        (_, 2..) if finer.len() <= most => finer,
        (2.., _) => plain,
        (_, 2..) => finer,
        _ => between(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]),
    }
}

/// The least of 1, 2, 5, 10 times a power of ten that is not below a positive number.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let nice = [1.0, 2.0, 5.0].into_iter().map(|m| m * power).find(|step| *step >= least);
    nice.unwrap_or(10.0 * power)
}

/// The text of a multiple of a step, with the digits that tell it from the next one.
fn label(value: f64, step: f64, largest: f64) -> String {
    let place = step.log10().floor() as i32;
    if value.abs() < step / 2.0 {
        "0".into()
    } else if largest < 1e6 && place >= -6 {
        format!("{value:.*}", (-place).max(0) as usize)
    } else {
        let digits = (value.abs().log10().floor() as i32 - place).clamp(0, 15);
        format!("{value:.*e}", digits as usize)
    }
}

/// A number in three digits.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{}", value + 0.0); // no -0
    }
    let trim = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    };
    let place = value.abs().log10().floor() as i32;
    if (-3..5).contains(&place) {
        return trim(format!("{value:.*}", (2 - place).max(0) as usize));
    }
    let text = format!("{value:.2e}");
    let (digits, power) = text.split_once('e').expect("a number in this format has an exponent");
    format!("{}e{power}", trim(digits.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(low: f64, high: f64, most: usize, whole: bool) -> Vec<String> {
        ticks(span(low, high), most, whole).into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_round_and_epochs_whole() {
        assert_eq!(texts(1.0, 3.0, 8, true), ["1", "2", "3"]);
        assert_eq!(texts(1.0, 3.0, 8, false), ["1.0", "1.5", "2.0", "2.5", "3.0"]);
        assert_eq!(texts(1.0, 100.0, 8, true), ["20", "40", "60", "80", "100"]);
        assert_eq!(texts(5.0, 5.0, 8, true), ["5"]);
        assert_eq!(texts(0.1, 0.3, 4, false), ["0.10", "0.15", "0.20", "0.25", "0.30"]);
        assert_eq!(texts(-0.2, 0.2, 4, false), ["-0.2", "-0.1", "0", "0.1", "0.2"]);
        assert_eq!(texts(0.0, 4e7, 4, false), ["0", "1e7", "2e7", "3e7", "4e7"]);
        assert_eq!(texts(10_000_000.0, 10_000_004.0, 4, false)[1], "1.0000001e7");
    }

    #[test]
    fn powers_are_round_and_few() {
        let texts = |low: f64, high: f64, most| -> Vec<String> {
            powers((low.log10(), high.log10()), most).into_iter().map(|t| t.1).collect()
        };
        assert_eq!(texts(0.01, 100.0, 6), ["0.01", "0.1", "1", "10", "100"]);
        assert_eq!(texts(0.1, 1.0, 6), ["0.1", "0.2", "0.5", "1"]);
        assert_eq!(texts(2.1, 3.9, 6), ["3"]);
        assert_eq!(texts(1e-7, 1e3, 4), ["1e-6", "0.001", "1", "1000"]);
        for (low, high) in [(-400.0, 400.0), (1e17, 1e17 + 16.0), (-1e300, 1e300), (0.1, 0.1000001)] {
            assert!(powers((low, high), 5).len() <= 10);
        }
    }

    /// Found by a hostile tester: the ticks of a picture with 1.7e308 were never done.
    #[test]
    fn all_spans_have_few_ticks() {
        let mut values = vec![0.0, 1.0, 1.0 + f64::EPSILON, 3.7, 1e17, 1e300, 1.7e308, f64::MAX, 1e-300, 5e-324, 1e-7];
        values.extend(values.clone().iter().map(|v| -v));
        for &a in &values {
            for &b in values.iter().filter(|b| **b >= a) {
                let (low, high) = span(a, b);
                assert!(low < high && low.is_finite() && high.is_finite(), "{a} {b}");
                for (most, whole) in [(0, false), (8, false), (8, true), (100, false)] {
                    let found = ticks((low, high), most, whole);
                    assert!(found.len() <= most.max(4) + 1, "{a} {b}: {found:?}");
                    assert!(found.iter().all(|(v, _)| (low..=high).contains(v)), "{a} {b}: {found:?}");
                    assert!(whole || found.len() >= most.clamp(1, 2), "{a} {b} {most}: {found:?}");
                    for pair in found.windows(2) {
                        assert!(pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1, "{a} {b}: {found:?}");
                    }
                    let places = found.iter().map(|(v, _)| place(*v, (low, high)));
                    assert!(places.into_iter().all(|p| (0.0..=1.0).contains(&p)), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        let numbers = [0.0, -0.0, 1.0, -0.5, 12.345, 0.001234, 12345.6, 1.7e308, -1e-9, 2e5, f64::INFINITY];
        let expected = ["0", "0", "1", "-0.5", "12.3", "0.00123", "12346", "1.7e308", "-1e-9", "2e5", "inf"];
        assert_eq!(numbers.map(number), expected);
    }
}
